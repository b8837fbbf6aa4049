//! A revocation list of the authorities above TPMs, by itself and beside a chain that it may be about.
#![no_main]

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor, verify_ek_certificate};
use assay_evidence::tpm::revocation::RevocationList;
use assay_fuzz::vector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(lists) = RevocationList::from_pem_or_der(data) else { return };
    let anchors =
        TrustAnchor::from_pem_or_der(vector!("tpm/sb-good-1/ek-issuing-ca.pem")).unwrap_or_default();
    let endorsers = Endorsers::new(anchors, lists);
    let leaf = vector!("tpm/sb-good-1/ek-cert.der");
    let _ = verify_ek_certificate(leaf, &[], &endorsers, UnixTime(1_800_000_000));
});
