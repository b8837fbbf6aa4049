//! The IMA list against the quoted PCRs that it was measured into, and its first entry against the boot PCRs.

use std::collections::BTreeMap;

use super::boot::{Boot, History};
use super::runtime::Runtime;
use super::{Baseline, ImaLog, QuoteOutcome, Report};
use crate::check::{Check, Failure, Mismatch};
use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::ima::{
    self, Entry, ImaErrorKind, List, Prefix, QuotedPcr, Replay, attested_prefix, expected_boot_aggregate,
};
use crate::tpm::pcr::{PcrSet, PcrValues};

/// What of a list is attested.
pub(super) struct Attested {
    /// The running values before the first entry, of the chains that arrive at the quoted values.
    pub(super) start: Replay,
    /// The running values after the last that the quote covers.
    pub(super) end: Replay,
    /// How many entries the quote covers.
    pub(super) entries: usize,
    /// The PCRs that attest their entries.
    pub(super) attesting: PcrSet,
    /// The PCRs that hold nothing but what is told.
    pub(super) explained: PcrSet,
}

/// Reads a list.
pub(super) fn parse(log: ImaLog<'_>, report: &mut Report) -> Option<List> {
    let parsed = match log {
        ImaLog::Binary(bytes) => ima::parse_binary(bytes),
        ImaLog::Shared(bytes) => ima::parse_shared(bytes.clone()),
        ImaLog::Ascii(bytes) => ima::parse_ascii(bytes),
    };
    parsed
        .map_err(|error| {
            let expected = "entries of known templates";
            let failure = Failure::new(Check::ImaParse, "IMA list", expected, error.to_string());
            let is_cut =
                error.entry > 0 && (ends_in_line(log) || matches!(error.kind, ImaErrorKind::Truncated(_)));
            report.failures.push(if is_cut { failure.explained(Mismatch::CopyCutShort) } else { failure });
        })
        .ok()
}

/// Whether a text ends inside a line, as nothing does that the kernel writes.
fn ends_in_line(log: ImaLog<'_>) -> bool {
    matches!(log, ImaLog::Ascii(text) if !text.ends_with(b"\n"))
}

/// The running values before the list's first entry, where an earlier part of it was judged; the outer `None`: nobody
/// knows them.
#[expect(
    clippy::option_option,
    reason = "no list start, a list from boot, and a list that goes on are three things"
)]
pub(super) fn known_start<'a>(
    list: Option<&List>,
    from: u64,
    baseline: Option<&'a Baseline>,
    report: &mut Report,
) -> Option<Option<&'a Replay>> {
    if list.is_none() || from == 0 {
        return Some(None);
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
    known.map(Some)
}

/// Replays the list, from where the baseline stopped if it starts there, to every quoted PCR that it was measured into.
/// `earlier` is what was judged of the same boot before, where the list starts from boot all the same.
pub(super) fn verify(
    list: &List,
    runtime: &Runtime<'_>,
    quotes: &[QuoteOutcome<'_>],
    boot: &Boot,
    earlier: Option<&Baseline>,
    report: &mut Report,
) -> Option<Attested> {
    let (first, others) = quotes.split_first()?;
    let start = runtime.start(first.pcrs(), boot.logged());
    let quoted = attesting_values(list, runtime, first, boot);
    if quoted.iter().all(|(index, _)| *index != PcrIndex::IMA) {
        // An empty list of a machine without IMA needs no PCR; of any other, the selection check speaks.
        return (!list.is_empty() || start.entries() > 0).then(|| Attested {
            end: start.clone(),
            start,
            entries: 0,
            attesting: PcrSet::default(),
            explained: PcrSet::default(),
        });
    }
    let mut aggregates = Aggregates::new(quotes, boot.history());
    let prefix = replay(list, &start, first, &quoted, report);
    if prefix.is_none() {
        let cause = cause(list, &start, earlier, &mut aggregates, report);
        explain(report, cause);
    }
    for quote in others {
        let values = attesting_values(list, runtime, quote, boot);
        if values.iter().any(|value| !quoted.contains(value)) {
            let start = runtime.start(quote.pcrs(), boot.logged());
            if replay(list, &start, quote, &values, report).is_none() {
                let cause = cause(list, &start, earlier, &mut aggregates, report);
                explain(report, cause);
            }
        }
    }
    let Prefix { entries, start, replay } = prefix?;
    if start.entries() == 0 && entries > 0 {
        first_boot_aggregate(list, &mut aggregates, boot, report);
    }
    later_boot_aggregates((start.entries()..).zip(list.range(0..entries)), &mut aggregates, boot, report);
    let attesting: PcrSet = quoted.iter().map(|(index, _)| *index).collect();
    note_unattested(list, attesting, first, report);
    let is_explained = |index: &PcrIndex| {
        let tells_all = || runtime.tells_all(*index, boot.logged(), first.pcrs());
        attesting.contains(*index) || (!list.pcrs().contains(*index) && tells_all())
    };
    let all = (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new);
    Some(Attested { start, end: replay, entries, attesting, explained: all.filter(is_explained).collect() })
}

/// The quoted values that the list has to lead to: those of PCR 10, and those of others to which it leads at the same time.
/// One to which it does not lead attests nothing, which may well be: other programs extend these too.
fn attesting_values(
    list: &List,
    runtime: &Runtime<'_>,
    quote: &QuoteOutcome<'_>,
    boot: &Boot,
) -> Vec<QuotedPcr> {
    let mut quoted = runtime.quoted(quote.pcrs());
    let reached = runtime.reached(quote.pcrs(), boot.logged());
    quoted.retain(|(index, _)| *index == PcrIndex::IMA || reached.contains(*index));
    let has_others = quoted.iter().any(|(index, _)| *index != PcrIndex::IMA);
    let start = || runtime.start(quote.pcrs(), boot.logged());
    if has_others && attested_prefix(list, &start(), &quoted).0.is_none() {
        quoted.retain(|(index, _)| *index == PcrIndex::IMA);
    }
    quoted
}

/// Entries that nothing attests are not lost without a word.
fn note_unattested(list: &List, attesting: PcrSet, quote: &QuoteOutcome<'_>, report: &mut Report) {
    let others: PcrSet = list.pcrs().iter().filter(|pcr| !attesting.contains(*pcr)).collect();
    for pcr in others.iter() {
        let entries = list.iter().filter(|entry| entry.pcr() == pcr).count();
        let is_quoted = quote.pcrs().iter().any(|(_, index, _)| index == pcr);
        let what = if is_quoted { "which holds something else as well" } else { "which is not in the quote" };
        let found = format!("{entries} for PCR {pcr}, {what}");
        report.note(
            Check::ImaPcr,
            format!("IMA entries in PCR {pcr}"),
            "entries that a quoted PCR attests",
            found,
        );
    }
}

fn replay(
    list: &List,
    start: &Replay,
    quote: &QuoteOutcome<'_>,
    quoted: &[QuotedPcr],
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
        let known = |failure: &Failure| failure.check == Check::ImaTemplateDigest && failure.claim == claim;
        if !report.failures.iter().any(known) {
            report.fail(Check::ImaTemplateDigest, claim, expected, found.unwrap_or_default());
        }
    }
    if prefix.is_none() {
        let expected: Vec<String> = quoted.iter().map(|(_, value)| value.to_string()).collect();
        let found =
            format!("no prefix of {} entries from entry {} replays to it", list.len(), start.entries());
        let mut pcrs: Vec<String> = quoted.iter().map(|(index, _)| index.to_string()).collect();
        pcrs.dedup();
        let claim = format!("{} PCR {}", quote.label, pcrs.join(", "));
        report.fail(Check::ImaReplay, claim, expected.join(", "), found);
    }
    prefix
}

/// Says of the replay that was reported last why it does not arrive.
fn explain(report: &mut Report, cause: Mismatch) {
    let of_replay = report.failures.iter_mut().rev().find(|failure| failure.check == Check::ImaReplay);
    if let Some(failure) = of_replay {
        failure.mismatch = Some(cause);
    }
}

/// Why no prefix of the list leads to the quoted values, as far as the list shows: a lie can look like any of it, so that
/// it is refused all the same.
fn cause(
    list: &List,
    start: &Replay,
    earlier: Option<&Baseline>,
    aggregates: &mut Aggregates<'_>,
    report: &Report,
) -> Mismatch {
    if report.failures.iter().any(|failure| failure.check == Check::ImaTemplateDigest) {
        return Mismatch::Contradiction;
    }
    if earlier.and_then(Baseline::ima_replay).is_some_and(|earlier| !begins_as(list, start, earlier)) {
        // This very TPM attested other entries in this boot.
        return Mismatch::Contradiction;
    }
    if start.entries() == 0 {
        let first = list.entry(0).filter(Entry::is_boot_aggregate);
        match first.map(|entry| aggregates.judge(&entry)) {
            None if !list.is_empty() => return Mismatch::StartMissing,
            Some(Aggregate::Wrong { .. }) => return Mismatch::OtherBoot,
            None | Some(Aggregate::Right | Aggregate::Undecided { .. }) => {}
        }
    }
    Mismatch::EndMissing
}

/// Whether the list arrives at the values that were attested earlier in the boot, as far as it goes.
fn begins_as(list: &List, start: &Replay, earlier: &Replay) -> bool {
    let count = usize::try_from(earlier.entries()).unwrap_or(usize::MAX);
    let mut replay = start.clone();
    for entry in list.range(0..count) {
        let _ = replay.extend(&entry);
    }
    let is_of_list = |chain: &&ima::Chain| chain.pcr == PcrIndex::IMA;
    list.len() < count
        || earlier.chains().iter().filter(is_of_list).all(|chain| replay.chains().contains(chain))
}

/// The list's first entry says in which boot it was made.
fn first_boot_aggregate(list: &List, aggregates: &mut Aggregates<'_>, boot: &Boot, report: &mut Report) {
    let Some(entry) = list.entry(0).filter(Entry::is_boot_aggregate) else {
        let found = list.entry(0).map(|entry| entry.path_text().into_owned()).unwrap_or_default();
        report.note(Check::BootAggregate, "IMA entry 0", "boot_aggregate", found);
        return;
    };
    aggregates.judge(&entry).report("boot_aggregate".to_owned(), boot, report);
}

/// A kernel that another one started (kexec) begins the list's continuation with an entry of its own, over the PCRs as
/// they were then.
fn later_boot_aggregates<'a>(
    entries: impl Iterator<Item = (u64, Entry<'a>)>,
    aggregates: &mut Aggregates<'_>,
    boot: &Boot,
    report: &mut Report,
) {
    for (number, entry) in entries.filter(|(number, entry)| *number > 0 && entry.is_boot_aggregate()) {
        let verdict = aggregates.judge(&entry);
        // One is enough to refuse the list, or to know that it is undecided.
        if verdict.report(format!("boot_aggregate of IMA entry {number}"), boot, report) {
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
    fn report(self, claim: String, boot: &Boot, report: &mut Report) -> bool {
        match self {
            Aggregate::Right => return false,
            Aggregate::Wrong { expected, found } => {
                let failure = Failure::new(Check::BootAggregate, claim, expected, found);
                // Without a log nobody can say what the kernel found, and user space may have gone on since.
                let is_open = boot.log_missing;
                report.failures.push(if is_open { failure.explained(Mismatch::EndMissing) } else { failure });
            }
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
            // The separators of user space come together; what else it extends in one PCR follows its own course.
            let was = |stage: usize, lagging: PcrIndex, value: &Digest| {
                let mut values = quoted.clone();
                for ((_, index), stages) in of_bank() {
                    if let Some(value) = stages.get(stage).or(stages.last()) {
                        values.insert(*index, *value);
                    }
                }
                values.insert(lagging, *value);
                expected_boot_aggregate(bank, &values)
            };
            let courses =
                of_bank().flat_map(|((_, index), values)| values.iter().map(|value| (*index, value)));
            let courses: Vec<(PcrIndex, &Digest)> = courses.collect();
            let each = (0..stages)
                .flat_map(|stage| courses.iter().map(move |(index, value)| (stage, *index, *value)));
            let now = expected_boot_aggregate(bank, quoted);
            let then = each.take(AGGREGATES_MAX).filter_map(|(stage, index, value)| was(stage, index, value));
            now.into_iter().chain(then).collect()
        })
    }
}

/// Moments after the boot log that a kernel may have looked at: user space has a few, and a liar's log must not cost more.
const AGGREGATES_MAX: usize = 512;
