//! Two boot logs against each other, and the PCRs that they have to explain.
//!
//! Each cause takes the events that it is about out of a [`Comparison`]; the PCRs of what it took are explained by it.
//! What no cause took is reported as it is, and so is a PCR that changed though no event did. Nothing is left out.

use std::collections::BTreeMap;

use assay_evidence::boot_log::{BootClaims, BootFacts, EventSummary};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, PcrIndex};

use super::{Cause, Change, boot_chain, firmware, secure_boot};
use crate::appraisal::meaning;
use crate::words;

/// Compares the boot logs, where both have one, and explains these PCRs.
pub(super) fn compare(before: &Claims, after: &Claims, changed: &[PcrIndex]) -> Vec<Change> {
    match (before.boot(), after.boot()) {
        (Some(old), Some(new)) if old.facts().bank == new.facts().bank => {
            compare_logs(LoggedBoot::of(old), LoggedBoot::of(new), changed)
        }
        (old, new) => {
            let log = without_logs(old.is_some(), new.is_some());
            let why = match (old, new) {
                (Some(_), Some(_)) => {
                    "the two boot logs are vouched for in different banks and cannot be compared"
                }
                _ => "there are no two boot logs to tell why",
            };
            let rest = (!changed.is_empty()).then(|| unexplained(changed.to_vec(), why));
            log.into_iter().chain(rest).collect()
        }
    }
}

/// Compares two logs of the same bank, and explains these PCRs.
pub(super) fn compare_logs(
    before: LoggedBoot<'_>,
    after: LoggedBoot<'_>,
    changed: &[PcrIndex],
) -> Vec<Change> {
    let mut comparison = Comparison::new(before, after, changed);
    firmware::compare(&mut comparison);
    secure_boot::compare(&mut comparison);
    boot_chain::compare(&mut comparison);
    comparison.finish()
}

/// What one boot log says, verified or not.
#[derive(Clone, Copy)]
pub(super) struct LoggedBoot<'a> {
    facts: &'a BootFacts,
    events: &'a [EventSummary],
    replayed: &'a PcrValues,
}

impl<'a> LoggedBoot<'a> {
    pub(super) fn new(facts: &'a BootFacts, events: &'a [EventSummary], replayed: &'a PcrValues) -> Self {
        LoggedBoot { facts, events, replayed }
    }

    fn of(claims: &'a BootClaims) -> Self {
        LoggedBoot { facts: claims.facts(), events: claims.events(), replayed: claims.replayed() }
    }

    pub(super) fn facts(&self) -> &'a BootFacts {
        self.facts
    }
}

fn without_logs(had: bool, has: bool) -> Option<Change> {
    let message = match (had, has) {
        (true, false) => {
            "There is no boot log any more: see whether the boot loader still hands it to the kernel, and whether the agent \
             may read it."
        }
        (false, true) => "There is a boot log now, and there was none before.",
        _ => return None,
    };
    Some(Change::new(Cause::BootLog, Vec::new(), message.to_owned()))
}

fn unexplained(pcrs: Vec<PcrIndex>, why: &str) -> Change {
    let meant: Vec<String> = pcrs.iter().map(|index| format!("{index} ({})", meaning(*index))).collect();
    let message = format!(
        "PCR {} changed, and {why}. Until somebody knows, treat the device as one that runs something unknown.",
        words::joined(&meant)
    );
    Change::new(Cause::Unexplained, pcrs, message)
}

/// What two boot logs differ in, as far as no cause took it yet.
pub(super) struct Comparison<'a> {
    pub(super) before: LoggedBoot<'a>,
    pub(super) after: LoggedBoot<'a>,
    /// The PCRs that changed.
    changed: Vec<PcrIndex>,
    /// Events of these PCRs that only one log has.
    left: Differences<'a>,
    /// The texts that GRUB's events stand for, whole, by digest.
    texts: BTreeMap<Digest, &'a str>,
    changes: Vec<Change>,
}

/// Events that only one of two logs has.
#[derive(Default)]
pub(super) struct Differences<'a> {
    pub(super) gone: Vec<&'a EventSummary>,
    pub(super) new: Vec<&'a EventSummary>,
}

impl Differences<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    /// The PCRs that the events extended.
    pub(super) fn pcrs(&self) -> Vec<PcrIndex> {
        let mut pcrs: Vec<PcrIndex> = self.gone.iter().chain(&self.new).map(|event| event.pcr).collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        pcrs
    }
}

impl<'a> Comparison<'a> {
    fn new(before: LoggedBoot<'a>, after: LoggedBoot<'a>, changed: &[PcrIndex]) -> Self {
        let left =
            Differences { gone: only_in(before, after, changed), new: only_in(after, before, changed) };
        let texts = texts(before.facts()).chain(texts(after.facts())).collect();
        Comparison { before, after, changed: changed.to_vec(), left, texts, changes: Vec::new() }
    }

    /// Takes the events that a cause is about.
    pub(super) fn take(&mut self, is_about: impl Fn(&EventSummary) -> bool) -> Differences<'a> {
        let take =
            |events: &mut Vec<&'a EventSummary>| events.extract_if(.., |event| is_about(event)).collect();
        Differences { gone: take(&mut self.left.gone), new: take(&mut self.left.new) }
    }

    /// What an event says: the whole text that its digest covers, or else what the log calls it.
    pub(super) fn name(&self, event: &'a EventSummary) -> &'a str {
        self.texts.get(&event.digest).copied().unwrap_or(&event.remark)
    }

    pub(super) fn names(&self, events: &[&'a EventSummary]) -> Vec<&'a str> {
        let mut names: Vec<&str> = events.iter().map(|event| self.name(event)).collect();
        names.dedup();
        names
    }

    /// Adds a change, and counts its PCRs as explained.
    pub(super) fn explain(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Whether a PCR has another value and nothing explains it yet.
    pub(super) fn is_open(&self, index: PcrIndex) -> bool {
        self.changed.contains(&index) && self.changes.iter().all(|change| !change.pcrs.contains(&index))
    }

    /// What was taken by no cause, and the PCRs that none explains.
    fn finish(mut self) -> Vec<Change> {
        for index in self.changed.clone() {
            let rest = self.take(|event| event.pcr == index);
            if !rest.is_empty() {
                let change = self.other_events(index, &rest);
                self.explain(change);
            } else if self.is_open(index) {
                let is_hidden = [self.before, self.after]
                    .iter()
                    .any(|boot| boot.facts().unexplained_pcrs.contains(&index));
                let why = if is_hidden {
                    "something extended it that the boot log does not tell"
                } else if self.before.replayed.iter().any(|(_, logged, _)| logged == index) {
                    "the boot log has the same events of it in another order or number"
                } else {
                    "no event of the boot log is about it"
                };
                self.changes.push(unexplained(vec![index], why));
            }
        }
        self.changes
    }

    fn other_events(&self, index: PcrIndex, rest: &Differences<'a>) -> Change {
        let message = format!("PCR {index} ({}) changed: {}.", meaning(index), self.new_and_gone(rest));
        let items = rest.new.iter().chain(&rest.gone).map(|event| self.name(event).to_owned());
        Change::new(Cause::BootEvents, vec![index], message).about(items)
    }

    /// `` new are `a` and `b`, instead of `c` ``.
    pub(super) fn new_and_gone(&self, events: &Differences<'a>) -> String {
        let of = |events: &[&'a EventSummary]| words::names(&self.names(events));
        match (events.new.is_empty(), events.gone.is_empty()) {
            (false, true) => format!("new in the boot log: {}", of(&events.new)),
            (true, _) => format!("missing in the boot log: {}", of(&events.gone)),
            (false, false) if self.names(&events.new) == self.names(&events.gone) => {
                format!("{} measured to another digest", of(&events.new))
            }
            (false, false) => {
                format!("new in the boot log: {}, instead of {}", of(&events.new), of(&events.gone))
            }
        }
    }
}

/// The events of these PCRs that `one` has and `other` has not; what was measured twice has to be there twice.
fn only_in<'a>(one: LoggedBoot<'a>, other: LoggedBoot<'_>, changed: &[PcrIndex]) -> Vec<&'a EventSummary> {
    let mut known: BTreeMap<(PcrIndex, Digest), usize> = BTreeMap::new();
    for event in other.events {
        *known.entry((event.pcr, event.digest)).or_default() += 1;
    }
    let is_new = |event: &&EventSummary| match known.get_mut(&(event.pcr, event.digest)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    one.events.iter().filter(|event| changed.contains(&event.pcr)).filter(is_new).collect()
}

/// GRUB's commands and command lines by what was extended for them: the hash of the text.
fn texts(facts: &BootFacts) -> impl Iterator<Item = (Digest, &str)> {
    facts.loader_texts.iter().map(|text| (facts.bank.hash(&[text.text.as_bytes()]), text.text.as_str()))
}
