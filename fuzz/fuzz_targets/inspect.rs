//! Whatever `assay inspect` is given: a recogniser chooses, a reader reads, and what is said can be shown.
#![no_main]

use assay_evidence::time::UnixTime;
use libfuzzer_sys::fuzz_target;

// The program has no library to link; this module of it is pure.
#[path = "../../crates/cli/src/inspect/content/mod.rs"]
#[allow(dead_code, reason = "the program uses more of it than this target")]
mod content;

fuzz_target!(|data: &[u8]| {
    let context = content::Context { now: UnixTime(1_800_000_000) };
    let mut entries = 0;
    let report = content::inspect(&mut &*data, &context, &mut |number, _| {
        assert_eq!(number, entries, "each entry is told once and in order");
        entries += 1;
    });
    let Ok(report) = report else { return };
    let _ = report.to_json();
    report
        .print(&mut |line| assert!(!line.contains(char::is_control), "a terminal is not steered: {line:?}"));
});
