//! A CCEL log of a confidential guest: parse, every event, replay to the registers.
#![no_main]

use assay_evidence::boot_log::parse_cc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(log) = parse_cc(data) {
        let extended: std::collections::BTreeSet<_> = log.events().map(|(register, _)| register).collect();
        assert!(
            log.replay().keys().all(|register| extended.contains(register)),
            "only what was extended has a value"
        );
    }
});
