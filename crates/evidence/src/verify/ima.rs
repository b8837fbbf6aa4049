//! The IMA list against the quoted PCR 10, and its first entry against the boot PCRs.

use std::collections::BTreeMap;

use super::boot::History;
use super::claims::ImaClaims;
use super::{Baseline, Evidence, ImaLog, QuoteOutcome, Report};
use crate::check::Check;
use crate::digest::{Digest, HashAlgorithm};
use crate::ima::{self, Entry, List, Prefix, Replay, attested_prefix, expected_boot_aggregate};
use crate::tpm::pcr::PcrValues;

/// Replays the list, from where the baseline stopped if it starts there, to every quoted PCR 10.
pub(super) fn verify(
    evidence: &Evidence<'_>,
    baseline: Option<&Baseline>,
    quotes: &[QuoteOutcome<'_>],
    history: &History,
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
    let mut aggregates = Aggregates::new(quotes, history);
    if start.entries() == 0 && entries > 0 {
        first_boot_aggregate(&list, &mut aggregates, report);
    }
    later_boot_aggregates((start.entries()..).zip(list.range(0..entries)), &mut aggregates, report);
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
fn first_boot_aggregate(list: &List, aggregates: &mut Aggregates<'_>, report: &mut Report) {
    let Some(entry) = list.entry(0).filter(Entry::is_boot_aggregate) else {
        let found = list.entry(0).map(|entry| entry.path_text().into_owned()).unwrap_or_default();
        report.note(Check::BootAggregate, "IMA entry 0", "boot_aggregate", found);
        return;
    };
    aggregates.judge(&entry).report("boot_aggregate".to_owned(), report);
}

/// A kernel that another one started (kexec) begins the list's continuation with an entry of its own, over the PCRs as
/// they were then.
fn later_boot_aggregates<'a>(
    entries: impl Iterator<Item = (u64, Entry<'a>)>,
    aggregates: &mut Aggregates<'_>,
    report: &mut Report,
) {
    for (number, entry) in entries.filter(|(number, entry)| *number > 0 && entry.is_boot_aggregate()) {
        let verdict = aggregates.judge(&entry);
        // One is enough to refuse the list, or to know that it is undecided.
        if verdict.report(format!("boot_aggregate of IMA entry {number}"), report) {
            return;
        }
    }
}

/// What the boot PCRs say of a boot_aggregate.
enum Aggregate {
    /// It is the hash of values that they had since the boot log ended.
    Right,
    Wrong {
        expected: String,
        found: String,
    },
    Undecided {
        expected: String,
        found: String,
    },
}

impl Aggregate {
    /// Says what is wrong with it, and whether anything is.
    fn report(self, claim: String, report: &mut Report) -> bool {
        match self {
            Aggregate::Right => return false,
            Aggregate::Wrong { expected, found } => report.fail(Check::BootAggregate, claim, expected, found),
            Aggregate::Undecided { expected, found } => {
                report.note(Check::BootAggregate, claim, expected, found);
            }
        }
        true
    }
}

/// The hashes of the boot PCRs: as they are quoted, and as they were before user space extended them further, since
/// the kernel hashes them when it starts.
struct Aggregates<'a> {
    quoted: PcrValues,
    history: &'a History,
    /// Per bank, the quoted values' first; a list may hold any number of entries.
    known: BTreeMap<HashAlgorithm, Vec<Digest>>,
}

impl<'a> Aggregates<'a> {
    fn new(quotes: &[QuoteOutcome<'_>], history: &'a History) -> Self {
        let mut quoted = PcrValues::new();
        for quote in quotes.iter().filter(|quote| quote.by_main_ak) {
            quoted.fill_from(quote.pcrs());
        }
        Aggregates { quoted, history, known: BTreeMap::new() }
    }

    fn judge(&mut self, entry: &Entry<'_>) -> Aggregate {
        let Some(stated) = entry.file_digest() else {
            let (algorithm, _) = entry.stated_digest();
            let expected = "a known algorithm".to_owned();
            return Aggregate::Undecided { expected, found: algorithm.to_owned() };
        };
        let bank = stated.algorithm();
        let known = self.of_bank(bank);
        match known.first() {
            Some(_) if known.contains(&stated) => Aggregate::Right,
            Some(expected) => Aggregate::Wrong { expected: expected.to_string(), found: stated.to_string() },
            None => Aggregate::Undecided {
                expected: "the hash of quoted PCRs".to_owned(),
                found: format!("undecided: its PCRs of the {bank} bank were not quoted"),
            },
        }
    }

    fn of_bank(&mut self, bank: HashAlgorithm) -> &[Digest] {
        let (quoted, history) = (&self.quoted, self.history);
        self.known.entry(bank).or_insert_with(|| {
            let of_bank = || history.iter().filter(|((of, _), _)| *of == bank);
            let stages = of_bank().map(|(_, values)| values.len()).max().unwrap_or_default();
            let was = |stage: usize| {
                let mut values = quoted.clone();
                for ((_, index), stages) in of_bank() {
                    if let Some(value) = stages.get(stage).or(stages.last()) {
                        values.insert(*index, *value);
                    }
                }
                expected_boot_aggregate(bank, &values)
            };
            let now = expected_boot_aggregate(bank, quoted);
            now.into_iter().chain((0..stages).filter_map(was)).collect()
        })
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
