//! What changed between two logs alone, without the quotes that would vouch for them: for people who look at files.
//!
//! Nothing is decided by it. A log that does not replay to a quote may say anything.

use assay_evidence::boot_log::{BootLog, facts, replay, summaries};
use assay_evidence::ima::List;
use assay_evidence::{HashAlgorithm, PcrIndex};

use super::boot::{LoggedBoot, compare_logs};
use super::{Change, files};

/// Says what changed from one boot log to another, by the digests of a bank that both have.
pub fn describe_boot_logs(before: &BootLog<'_>, after: &BootLog<'_>, bank: HashAlgorithm) -> Vec<Change> {
    let (old, new) = (replay(before), replay(after));
    let indexes = (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new);
    let changed: Vec<PcrIndex> =
        indexes.filter(|index| old.get(bank, *index) != new.get(bank, *index)).collect();
    let [old_facts, new_facts] = [before, after].map(|log| facts(log, bank));
    let [old_events, new_events] = [before, after].map(|log| summaries(log, bank));
    let before = LoggedBoot::new(&old_facts, &old_events, &old);
    let after = LoggedBoot::new(&new_facts, &new_events, &new);
    let mut changes = compare_logs(before, after, &changed);
    changes.sort_by_key(|change| change.cause);
    changes
}

/// Says which files one IMA list has that another has not, or has with another content.
pub fn describe_ima_lists(before: &List, after: &List) -> Vec<Change> {
    files::compare_lists(before, after)
}
