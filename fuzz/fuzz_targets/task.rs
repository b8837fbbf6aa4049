//! Tasks: definitions, logs and outcomes are what they encode to, or they are refused; a log without its last entry leads elsewhere.
#![no_main]

use assay_evidence::task::log::Log;
use assay_evidence::task::{Definition, Outcome};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(definition) = Definition::parse(data) {
        assert_eq!(definition.encode(), data);
    }
    if let Ok(outcome) = Outcome::parse(data) {
        assert_eq!(outcome.encode(), data);
    }
    let Ok(log) = Log::parse(data) else { return };
    assert_eq!(log.encode(), data);
    assert!(log.has(&log.from()) && log.has(&log.end()));
    if let Some(before) = log.without_last() {
        assert_ne!(before.end(), log.end());
        assert!(log.has(&before.end()) && !before.has(&log.end()));
    }
});
