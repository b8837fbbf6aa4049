//! `assay device evidence`: what a device's evidence says, judged again and read aloud.

use assay_wire::console::reading::{Covered, QuotedPcr, Read, Reading, Stage};

use super::path;
use crate::output;

/// Where the reading is.
pub(super) fn asked(device: &str, result: Option<u64>) -> String {
    let result = result.map(|result| format!("?result={result}")).unwrap_or_default();
    path(device, "/evidence") + &result
}

pub(super) fn print(read: &Read) {
    let Read { device, result, at, tier, policy, findings, again, reading } = read;
    let again = match (&again.error, again.is_same) {
        (Some(error), _) => format!("it cannot be judged: {}", output::shown(error)),
        (None, true) => "the same, to the last word".to_owned(),
        (None, false) => format!("{}, which is not what is on record", output::shown(&again.tier)),
    };
    for (title, value) in [
        ("device", output::shown(device)),
        ("result", result.to_string()),
        ("judged", output::when(*at)),
        ("tier", output::shown(tier)),
        ("policy", output::shown(policy)),
        ("judged again", again),
    ] {
        output::out!("{title:12} {value}");
    }
    for fact in reading.iter().flat_map(|reading| &reading.tpm) {
        output::out!("{:12} {}", output::shown(&fact.title), output::shown(&fact.value));
    }
    super::print_findings(findings);
    match reading {
        Some(reading) => print_reading(reading),
        None => output::out!("\nIt does not verify, so nothing of what it says is known."),
    }
}

fn print_reading(reading: &Reading) {
    output::out!("\nWhat came up, one after the other:");
    reading.stages.iter().for_each(print_stage);
    output::out!("\nPCRs, and which lines of the policy are about them:");
    let rows = reading.pcrs.iter().map(|pcr| {
        vec![
            pcr.index.to_string(),
            output::shown(&pcr.about),
            told(pcr),
            lines(pcr),
            output::shown(&pcr.value),
        ]
    });
    output::out!("{}", output::table(&["PCR", "what it holds", "told by", "policy", "quoted"], rows));
    let Some(files) = &reading.files else { return };
    output::out!("\nMeasured last, of {} measurements since boot:", files.attested);
    let rows = files.latest.iter().map(|file| {
        vec![output::shown(&file.path), output::maybe(&file.standing), output::shown(&file.digest)]
    });
    output::out!("{}", output::table(&["file", "policy", "measured"], rows));
}

fn print_stage(stage: &Stage) {
    output::out!("  {:20} {}", output::shown(&stage.what), output::shown(&stage.name));
    let digest = stage.digest.iter().map(|digest| output::shown(digest));
    for detail in stage.details.iter().map(|detail| output::shown(detail)).chain(digest) {
        output::out!("  {:20} {detail}", "");
    }
    for Covered { row, cover, meaning } in &stage.covered {
        let [row, cover, meaning] = [row, cover, meaning].map(|text| output::shown(text));
        output::out!("  {:20} {row}, {cover}: {meaning}", "");
    }
}

fn told(pcr: &QuotedPcr) -> String {
    match pcr.told_by.as_str() {
        "boot-log" => format!("boot log, {} events", pcr.events),
        told_by => output::shown(told_by),
    }
}

fn lines(pcr: &QuotedPcr) -> String {
    let lines = pcr.lines.iter().map(|line| {
        let holds = match line.holds {
            Some(true) => " (as listed)",
            Some(false) => " (not as listed)",
            None => "",
        };
        format!("{}{holds}", line.line)
    });
    output::shown(&lines.collect::<Vec<_>>().join(", "))
}
