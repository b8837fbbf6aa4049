//! What was measured at run time: PCR 10 and the list that explains it.
//!
//! A file that did not run again is no change. The list of one boot only grows, so that within a boot everything past
//! what was known is new; after a new boot a file is new if no entry of the earlier boot had it.

use std::collections::{BTreeMap, BTreeSet};

use assay_evidence::PcrIndex;
use assay_evidence::ima::{Entry, List};
use assay_evidence::verify::Claims;

use super::{Cause, Change};
use crate::path;
use crate::words;

/// Compares the attested parts of the lists and takes PCR 10 out of `changed` where they explain it.
pub(super) fn compare(
    before: &Claims,
    after: &Claims,
    changed: &mut Vec<PcrIndex>,
    changes: &mut Vec<Change>,
) {
    let Some(pcr) = PcrIndex::new(assay_evidence::ima::PCR.into()) else { return };
    let (old, new) = match (before.ima(), after.ima()) {
        (Some(old), Some(new)) => (old, new),
        (old, new) => return changes.extend(list_came_or_went(old.is_some(), new.is_some())),
    };
    let pcrs = if changed.contains(&pcr) { vec![pcr] } else { Vec::new() };
    changed.retain(|index| *index != pcr);
    let same_boot =
        before.ak_name() == after.ak_name() && before.clock().reset_count == after.clock().reset_count;
    if !same_boot && old.first_index() > 0 {
        let message = format!(
            "The earlier evidence has the IMA list only from entry {}, so which files are new since cannot be said.",
            old.first_index()
        );
        return changes.push(Change::new(Cause::ImaList, pcrs, message));
    }
    let judged = if same_boot { old.attested_total() } else { 0 };
    let found = Found::new(old.entries(), new.entries().zip(new.first_index()..), judged);
    if found.is_empty() && !pcrs.is_empty() {
        let message = "PCR 10 changed because the same files were measured in another order or number, as they are from boot \
                       to boot."
            .to_owned();
        changes.push(Change::new(Cause::ImaOrder, pcrs, message));
    } else {
        changes.extend(found.changes(&pcrs));
    }
}

/// What is new in one list against another, verified or not.
pub(super) fn compare_lists(before: &List, after: &List) -> Vec<Change> {
    Found::new(before.iter(), after.iter().zip(0..), 0).changes(&[]).collect()
}

fn list_came_or_went(had: bool, has: bool) -> Option<Change> {
    let message = match (had, has) {
        (true, false) => {
            "There is no IMA list any more: see whether the kernel still has an IMA policy (ima_policy=), and whether the \
             agent may read the list."
        }
        (false, true) => "There is an IMA list now, and there was none before.",
        _ => return None,
    };
    Some(Change::new(Cause::ImaList, Vec::new(), message.to_owned()))
}

/// What is new in a list, each once and in the order of the list.
#[derive(Default)]
struct Found {
    new_files: Vec<String>,
    changed_files: Vec<String>,
    kernel_data: Vec<String>,
    violations: Vec<String>,
}

/// What an entry says: a path and what was found there.
type Known<'a> = BTreeMap<&'a [u8], BTreeSet<What<'a>>>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What<'a> {
    Digest(&'a str, &'a [u8]),
    Violation,
}

impl Found {
    /// Holds the entries of `new` from the one at `judged` on, counted from boot, against all that came before.
    fn new<'a>(
        old: impl Iterator<Item = Entry<'a>>,
        new: impl Iterator<Item = (Entry<'a>, u64)>,
        judged: u64,
    ) -> Self {
        let mut known: Known<'_> = BTreeMap::new();
        for entry in old {
            known.entry(path_of(&entry)).or_default().insert(what_of(&entry));
        }
        let mut found = Found::default();
        for (entry, index) in new {
            if index < judged || entry.is_boot_aggregate() {
                continue;
            }
            let (name, what) = (path_of(&entry), what_of(&entry));
            let was_known =
                known.get(name).is_some_and(|all| all.iter().any(|known| *known != What::Violation));
            if known.entry(name).or_default().insert(what) {
                found.add(&entry, was_known);
            }
        }
        found
    }

    fn add(&mut self, entry: &Entry<'_>, was_known: bool) {
        let name = path::to_text(entry.path()).into_owned();
        if entry.is_violation() {
            self.violations.push(name);
        } else if !entry.buffer().is_empty() {
            self.kernel_data.push(name);
        } else if was_known {
            self.changed_files.push(name);
        } else {
            self.new_files.push(name);
        }
    }

    fn is_empty(&self) -> bool {
        [&self.new_files, &self.changed_files, &self.kernel_data, &self.violations]
            .iter()
            .all(|list| list.is_empty())
    }

    fn changes(self, pcrs: &[PcrIndex]) -> impl Iterator<Item = Change> {
        let lists = [
            (Cause::NewFiles, self.new_files),
            (Cause::ChangedFiles, self.changed_files),
            (Cause::KernelData, self.kernel_data),
            (Cause::Violations, self.violations),
        ];
        lists.into_iter().filter(|(_, names)| !names.is_empty()).map(|(cause, names)| {
            let message = sentence(cause, &names);
            Change::new(cause, pcrs.to_vec(), message).about(names)
        })
    }
}

fn sentence(cause: Cause, names: &[String]) -> String {
    let (count, shown) = (words::counted(names.len(), "file"), words::names(names));
    match cause {
        Cause::NewFiles => format!(
            "{count} measured for the first time: {shown}. What belongs on the device can be added to its policy (`assay policy \
             learn`, `from-deb`)."
        ),
        Cause::ChangedFiles => format!(
            "{count} measured with other content than before: {shown}. If no update changed that, look at the device."
        ),
        Cause::KernelData => format!(
            "The kernel measured keys, policies or other data that it had not before, {} in all: {shown}.",
            names.len()
        ),
        _ => format!(
            "{count} written to while being measured, so what was read is unknown: {shown}. Find the writer, or exclude such files \
             from the kernel's IMA policy."
        ),
    }
}

fn path_of<'a>(entry: &Entry<'a>) -> &'a [u8] {
    entry.path()
}

/// A violation vouches for no digest, whatever the entry states.
fn what_of<'a>(entry: &Entry<'a>) -> What<'a> {
    if entry.is_violation() {
        return What::Violation;
    }
    let (algorithm, bytes) = entry.stated_digest();
    What::Digest(algorithm, bytes)
}
