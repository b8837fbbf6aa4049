//! The JSON of a confidential machine of Azure's.
#![no_main]

use assay_evidence::tee::azure::{AzureEvidence, AzureExpectation, verify};
use assay_evidence::time::UnixTime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(evidence) = AzureEvidence::from_json(data) {
        let verified = verify(&evidence, &AzureExpectation::default(), UnixTime(1_800_000_000));
        assert!(verified.claims.is_none());
    }
});
