//! A file of PCR values as tpm2-tools writes it.
#![no_main]

use assay_evidence::tpm::pcr::PcrValues;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((_, values)) = PcrValues::from_tpm2_tools(data) {
        let _ = (values.len(), values.banks().count());
    }
});
