//! A certificate revocation list.
#![no_main]

use assay_fuzz::vector;
use assay_identity::{Crl, Serial};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(crl) = Crl::parse(data) {
        let _ = crl.verify(vector!("identity/issuing.der"));
        let _ = (crl.number(), crl.next_update(), crl.revokes(&Serial::from_random([7; 16])));
    }
});
