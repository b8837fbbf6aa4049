//! An EK certificate chain, one certificate of it hostile.
#![no_main]

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor, verify_ek_certificate};
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 3);
    let leaf = if number == 0 { bytes } else { vector!("tpm/sb-good-1/ek-cert.der") };
    let anchors = if number == 1 { bytes } else { vector!("tpm/sb-good-1/ek-root-ca.pem") };
    let intermediates: &[&[u8]] = if number == 2 { &[bytes] } else { &[] };
    let anchors = TrustAnchor::from_pem_or_der(anchors).unwrap_or_default();
    let endorsers = Endorsers::new(anchors, Vec::new());
    let _ = verify_ek_certificate(leaf, intermediates, &endorsers, UnixTime(1_800_000_000));
});
