//! TPMT_SIGNATURE, and its verification by an RSA and an ECC key.
#![no_main]

use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::signature::Signature;
use assay_fuzz::vector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(signature) = Signature::parse(data) else { return };
    for area in [vector!("tpm/sb-good-1/ak.tpm2b_public"), vector!("tpm/sb-good-1/ak-ecc.tpm2b_public")] {
        let area = PublicArea::parse_tpm2b(area).expect("the vector is good");
        assert!(signature.verify(area.key(), b"never signed").is_err(), "nobody signed this");
    }
});
