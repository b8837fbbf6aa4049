//! TPM2B_PUBLIC: parse, name, key and the rules of each role.
#![no_main]

use assay_evidence::tpm::public_area::PublicArea;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = PublicArea::parse(data);
    if let Ok(area) = PublicArea::parse_tpm2b(data) {
        let _ = (area.name(), area.spki_der(), area.check_ak(), area.check_ek(), area.check_device_key());
    }
});
