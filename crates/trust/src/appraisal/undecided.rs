//! What verification left undecided: it weighs as much as what the policy demands of it.

use assay_evidence::{Check, Failure};

use crate::finding::{Finding, Tier};
use crate::policy::Demand;
use crate::reference::CompiledPolicy;
use crate::undecided::Undecided;

/// What follows from what is undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The rest of the result stands.
    Little,
    /// Nothing ties the IMA list to this boot.
    List,
}

/// Adds a finding for each note of a check of which no finding speaks yet.
pub(super) fn add(policy: Option<&CompiledPolicy>, notes: &[Failure], findings: &mut Vec<Finding>) -> Weight {
    let mut weight = Weight::Little;
    for note in notes {
        if note.check == Check::BootAggregate {
            weight = Weight::List;
        }
        if !findings.iter().any(|finding| finding.check == note.check) {
            findings.push(Finding::from_note(note, tier(policy, note.check)).fit_to_show());
        }
    }
    weight
}

fn tier(policy: Option<&CompiledPolicy>, check: Check) -> Tier {
    let wants_list = || {
        let files = policy.and_then(|policy| policy.ima.as_ref());
        files.is_some_and(|files| files.list == Demand::Required)
    };
    match Undecided::of(check) {
        // The list could be of another boot, or of another machine.
        Undecided::BootAggregate if wants_list() => Tier::Contraindicated,
        // The evidence itself says who vouches for it.
        Undecided::Endorsement if policy.is_some_and(CompiledPolicy::demands_endorsement) => {
            Tier::Contraindicated
        }
        // Two accounts of one thing that differ are odd whatever the policy.
        Undecided::BootAggregate | Undecided::Forms => Tier::Warning,
        // What is open here the sections look at that demand it: each does not find it, or finds another value.
        Undecided::Endorsement
        | Undecided::Nonce
        | Undecided::Pcr
        | Undecided::BootLog
        | Undecided::MeasureLog
        | Undecided::Entries
        | Undecided::WeakBank
        | Undecided::Tee
        | Undecided::Nothing => Tier::None,
    }
}

#[cfg(test)]
mod tests;
