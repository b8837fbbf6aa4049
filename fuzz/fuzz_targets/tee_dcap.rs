//! A DCAP quote, or the collateral that judges one.
#![no_main]

use assay_evidence::tee::dcap::{DcapCollateral, DcapEvidence, DcapExpectation, verify};
use assay_evidence::time::UnixTime;
use assay_fuzz::part;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 2);
    if number == 0 {
        let verified = verify(
            &DcapEvidence { quote: bytes, cc_log: None },
            None,
            &DcapExpectation::default(),
            UnixTime(1_800_000_000),
        );
        assert!(verified.claims.is_none());
    } else {
        let _ = DcapCollateral::from_json(bytes);
    }
});
