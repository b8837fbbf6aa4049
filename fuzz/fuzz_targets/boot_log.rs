//! A boot log: parse, replay, data digests, facts in every bank; and as a confidential machine's log.
#![no_main]

use assay_evidence::boot_log::{data_digest_failures, facts, parse, parse_cc, replay};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(log) = parse(data) {
        let _ = replay(&log);
        let _ = data_digest_failures(&log);
        for bank in log.banks() {
            let _ = facts(&log, *bank);
        }
    }
    if let Ok(log) = parse_cc(data) {
        let _ = log.replay();
    }
});
