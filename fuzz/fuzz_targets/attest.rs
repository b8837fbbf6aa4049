//! TPMS_ATTEST.
#![no_main]

use assay_evidence::tpm::attest::Attest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Attest::parse(data);
});
