//! An IAK's certificate, its key and its word for an AK, one of them hostile.
#![no_main]

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor};
use assay_evidence::tpm::idevid::{ShownIdentity, verify_device_identity, verify_iak_binding};
use assay_evidence::tpm::public_area::PublicArea;
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 4);
    let certificate = if number == 0 { bytes } else { vector!("tpm/sb-good-1/ek-cert.der") };
    let public = if number == 1 { bytes } else { vector!("tpm/sb-good-1/ak.tpm2b_public") };
    let message = if number == 2 { bytes } else { vector!("tpm/sb-good-1/quote.msg") };
    let signature = if number == 3 { bytes } else { vector!("tpm/sb-good-1/quote.sig") };
    let anchors =
        TrustAnchor::from_pem_or_der(vector!("tpm/sb-good-1/ek-issuing-ca.pem")).unwrap_or_default();
    let shown = ShownIdentity {
        iak_public: public,
        iak_certificate: certificate,
        idevid_public: public,
        idevid_certificate: certificate,
        intermediates: &[],
    };
    let _ = verify_device_identity(&shown, &Endorsers::new(anchors, Vec::new()), UnixTime(1_800_000_000));
    if let Ok(ak) = PublicArea::parse_tpm2b(vector!("tpm/sb-good-1/ak.tpm2b_public")) {
        let _ = verify_iak_binding(public, &ak, message, signature, &[7; 32]);
    }
});
