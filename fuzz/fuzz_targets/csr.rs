//! A certificate signing request.
#![no_main]

use assay_identity::Csr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Csr::parse(data);
});
