//! What credential activation takes from a device: the EK's public area and the AK's name.
#![no_main]

use assay_evidence::tpm::credential::make_credential;
use assay_evidence::tpm::name::Name;
use assay_evidence::tpm::public_area::PublicArea;
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 2);
    let ek = if number == 0 { bytes } else { vector!("tpm/sb-good-1/ek.tpm2b_public") };
    let name = if number == 1 { bytes } else { vector!("tpm/sb-good-1/ak.name") };
    if let (Ok(ek), Some(name)) = (PublicArea::parse_tpm2b(ek), Name::from_bytes(name)) {
        let _ = make_credential(&ek, &name, &[7; 32]);
    }
});
