//! An SNP report and the certificate of its key, one of them hostile.
#![no_main]

use assay_evidence::tee::snp::{SnpEvidence, SnpExpectation, verify};
use assay_evidence::time::UnixTime;
use assay_fuzz::part;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 3);
    let [mut report, mut vek]: [&[u8]; 2] = [&[2; 1184], &[]];
    let mut authorities: [&[u8]; 1] = [&[]];
    match number {
        0 => report = bytes,
        1 => vek = bytes,
        _ => authorities = [bytes],
    }
    let evidence = SnpEvidence { report, vek, authorities: &authorities };
    let verified = verify(&evidence, &SnpExpectation::default(), UnixTime(1_800_000_000));
    assert!(verified.claims.is_none());
});
