//! An SPDM transcript, or the certificate of the key that signed it.
#![no_main]

use assay_evidence::tee::nvidia::{NvidiaEvidence, NvidiaExpectation, verify};
use assay_evidence::time::UnixTime;
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 2);
    let leaf = if number == 0 { vector!("identity/issuing.der") } else { bytes };
    let transcript = if number == 0 { bytes } else { &[] };
    let evidence = NvidiaEvidence { transcript, chain: &[leaf] };
    let verified = verify(&evidence, &NvidiaExpectation::default(), UnixTime(1_800_000_000));
    assert!(verified.claims.is_none());
});
