//! An Arm CCA token, or the keys of platforms.
#![no_main]

use assay_evidence::tee::cca::{CcaExpectation, PlatformKey, verify};
use assay_fuzz::part;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 2);
    if number == 0 {
        assert!(verify(bytes, &CcaExpectation::default()).claims.is_none());
    } else {
        let _ = PlatformKey::from_json(bytes);
    }
});
