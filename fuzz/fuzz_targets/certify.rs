//! The certification of a device key by its AK, one piece hostile.
#![no_main]

use assay_evidence::tpm::certify::verify_certify;
use assay_evidence::tpm::public_area::PublicArea;
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 3);
    let ak =
        PublicArea::parse_tpm2b(vector!("tpm/sb-good-1/ak-ecc.tpm2b_public")).expect("the vector is good");
    let message = if number == 0 { bytes } else { vector!("tpm/sb-good-1/quote-ecc.msg") };
    let signature = if number == 1 { bytes } else { vector!("tpm/sb-good-1/quote-ecc.sig") };
    let device_key = if number == 2 { bytes } else { vector!("tpm/sb-good-1/ak-ecc.tpm2b_public") };
    let Ok(device_key) = PublicArea::parse_tpm2b(device_key) else { return };
    let verdict = verify_certify(&ak, message, signature, b"nonce", &device_key);
    assert!(verdict.is_err(), "nothing was certified");
});
