//! systemd's measurement log: it parses or says where it does not, and what it replays to is in its essential form too.
#![no_main]

use assay_evidence::HashAlgorithm;
use assay_evidence::measure_log::{essential, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(log) = parse(data) else { return };
    let short = essential(data)
        .and_then(|short| parse(&short).ok())
        .expect("a log has an essential form, which is a log");
    assert_eq!(short.records().len(), log.records().len());
    for record in log.records() {
        for bank in HashAlgorithm::ALL {
            assert_eq!(short.course(record.pcr, bank.zero()), log.course(record.pcr, bank.zero()));
        }
    }
});
