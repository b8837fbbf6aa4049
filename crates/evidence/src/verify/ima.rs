//! The IMA list against the quoted PCR 10, and its first entry against the boot PCRs.

use super::claims::ImaClaims;
use super::{Baseline, Evidence, ImaLog, QuoteOutcome, Report};
use crate::check::Check;
use crate::digest::{Digest, HashAlgorithm};
use crate::ima::{self, List, Prefix, Replay, attested_prefix, expected_boot_aggregate};
use crate::tpm::pcr::PcrValues;

/// Replays the list, from where the baseline stopped if it starts there, to every quoted PCR 10.
pub(super) fn verify(
    evidence: &Evidence<'_>,
    baseline: Option<&Baseline>,
    quotes: &[QuoteOutcome<'_>],
    report: &mut Report,
) -> Option<ImaClaims> {
    let parsed = match evidence.ima_log? {
        ImaLog::Binary(bytes) => ima::parse_binary(bytes),
        ImaLog::Ascii(bytes) => ima::parse_ascii(bytes),
    };
    let list = match parsed {
        Ok(list) => list,
        Err(error) => {
            report.fail(Check::ImaParse, "IMA list", "entries of known templates", error.to_string());
            return None;
        }
    };
    let start = start(evidence.ima_from_entry, baseline, quotes, report)?;
    // A list from its first entry has its keys in it.
    let keys = baseline.filter(|_| start.entries() > 0).map(Baseline::keys).unwrap_or_default();
    let (first, others) = quotes.split_first()?;
    let quoted = quoted_values(first);
    if quoted.is_empty() {
        // An empty list of a machine without IMA needs no PCR; of any other, the selection check speaks.
        return (!list.is_empty() || start.entries() > 0)
            .then(|| ImaClaims::new(list, start.clone(), start, 0, keys));
    }
    let prefix = replay(&list, &start, first, &quoted, report);
    for quote in others {
        let values = quoted_values(quote);
        if values.iter().any(|value| !quoted.contains(value)) {
            let start = if start.entries() == 0 { fresh(&values) } else { start.clone() };
            replay(&list, &start, quote, &values, report);
        }
    }
    let Prefix { entries, replay } = prefix?;
    if start.entries() == 0 && entries > 0 {
        boot_aggregate(&list, quotes, report);
    }
    Some(ImaClaims::new(list, start, replay, entries, keys))
}

/// The running values before the list's first entry.
fn start(
    from: u64,
    baseline: Option<&Baseline>,
    quotes: &[QuoteOutcome<'_>],
    report: &mut Report,
) -> Option<Replay> {
    if from == 0 {
        return Some(fresh(&quoted_values(quotes.first()?)));
    }
    let known = baseline.and_then(Baseline::ima_replay).filter(|replay| replay.entries() == from);
    if known.is_none() {
        // A new boot, or a list that skips what was not judged.
        let expected = match baseline.map_or(0, Baseline::ima_entries) {
            0 => "the list from its first entry".to_owned(),
            entries => format!("the list from its first entry or from entry {entries}"),
        };
        report.fail(Check::ImaReplay, "IMA list", expected, format!("from entry {from}"));
    }
    known.cloned()
}

fn replay(
    list: &List,
    start: &Replay,
    quote: &QuoteOutcome<'_>,
    quoted: &[Digest],
    report: &mut Report,
) -> Option<Prefix> {
    let (prefix, bad) = attested_prefix(list, start, quoted);
    for index in bad {
        let number = start.entries().saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
        let path = list.entry(index).map(|entry| entry.path_text().into_owned()).unwrap_or_default();
        let claim = format!("IMA entry {number} {path}");
        let found = list.entry(index).map(|entry| data_encoding::HEXLOWER.encode(entry.template_digest()));
        let expected = "the hash of its template data";
        // Several quotes replay the same list.
        let known =
            |failure: &crate::Failure| failure.check == Check::ImaTemplateDigest && failure.claim == claim;
        if !report.failures.iter().any(known) {
            report.fail(Check::ImaTemplateDigest, claim, expected, found.unwrap_or_default());
        }
    }
    if prefix.is_none() {
        let expected: Vec<String> = quoted.iter().map(Digest::to_string).collect();
        let found =
            format!("no prefix of {} entries from entry {} replays to it", list.len(), start.entries());
        let claim = format!("{} PCR {}", quote.label, ima::PCR);
        report.fail(Check::ImaReplay, claim, expected.join(", "), found);
    }
    prefix
}

/// The list's first entry says in which boot it was made.
fn boot_aggregate(list: &List, quotes: &[QuoteOutcome<'_>], report: &mut Report) {
    let Some(entry) = list.entry(0).filter(|entry| entry.is_boot_aggregate()) else {
        let found = list.entry(0).map(|entry| entry.path_text().into_owned()).unwrap_or_default();
        report.note(Check::BootAggregate, "IMA entry 0", "boot_aggregate", found);
        return;
    };
    let Some(stated) = entry.file_digest() else {
        let (algorithm, _) = entry.stated_digest();
        report.note(Check::BootAggregate, "boot_aggregate", "a known algorithm", algorithm.to_owned());
        return;
    };
    let bank = stated.algorithm();
    let mut quoted = PcrValues::new();
    for quote in quotes.iter().filter(|quote| quote.by_main_ak) {
        quoted.fill_from(quote.pcrs());
    }
    match expected_boot_aggregate(bank, &quoted) {
        Some(expected) if expected == stated => {}
        Some(expected) => {
            report.fail(Check::BootAggregate, "boot_aggregate", expected.to_string(), stated.to_string());
        }
        None => {
            let found = format!("undecided: its PCRs of the {bank} bank were not quoted");
            report.note(Check::BootAggregate, "boot_aggregate", "the hash of quoted PCRs", found);
        }
    }
}

/// A machine that has measured nothing, in the banks of these values.
fn fresh(quoted: &[Digest]) -> Replay {
    let banks: Vec<HashAlgorithm> = quoted.iter().map(Digest::algorithm).collect();
    Replay::new(&banks)
}

/// PCR 10 in every bank that the quote has it in.
fn quoted_values(quote: &QuoteOutcome<'_>) -> Vec<Digest> {
    let values = quote.pcrs().iter().filter(|(_, index, _)| index.get() == ima::PCR);
    values.map(|(_, _, value)| *value).collect()
}
