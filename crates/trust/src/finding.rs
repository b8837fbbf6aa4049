//! What appraisal says: tiers and findings.

use std::borrow::Cow;
use std::collections::HashMap;

use assay_evidence::text::escaped;
use assay_evidence::{Check, Failure};
use serde::{Serialize, Serializer};

use crate::policy::Acceptable;
use crate::sentence;

/// AR4SI's four tiers, from the least to the most alarming.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Nothing was judged.
    #[default]
    None,
    /// What was seen is what the policy wants.
    Affirming,
    /// Something is odd; nothing is granted on it.
    Warning,
    /// What was seen is what the policy refuses, or does not verify.
    Contraindicated,
}

impl Tier {
    /// The lowercase word.
    pub fn name(self) -> &'static str {
        match self {
            Tier::None => "none",
            Tier::Affirming => "affirming",
            Tier::Warning => "warning",
            Tier::Contraindicated => "contraindicated",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that appraisal has to say about one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check it comes from.
    #[serde(serialize_with = "check_name")]
    pub check: Check,
    /// What it means for the result.
    pub tier: Tier,
    /// What it is about: a file, a PCR, an event.
    pub claim: String,
    /// What the policy or the specification wants.
    pub expected: String,
    /// What was there.
    pub found: String,
    /// A sentence that an operator can act on.
    pub message: String,
    /// What an operator can accept so that it is not made again, where that can be said of a boot. As it was measured: it
    /// may hold what does not print.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<Acceptable>,
}

impl Finding {
    /// A failure of verification, at the given tier, in words.
    pub fn from_failure(failure: &Failure, tier: Tier) -> Self {
        Finding {
            accept: None,
            check: failure.check,
            tier,
            claim: failure.claim.clone(),
            expected: failure.expected.clone(),
            found: failure.found.clone(),
            message: sentence::of_failure(failure),
        }
    }

    /// All of a result: the gravest first, within a tier in their order, fit to show, and of each kind no more than a few.
    /// Every list of findings that leaves this crate goes through here: how many there are of a kind the sender of the
    /// evidence chooses, and how many kinds there are the checks and the policy do.
    pub(crate) fn of_a_result(mut findings: Vec<Finding>) -> Vec<Finding> {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.tier));
        let mut kinds: HashMap<(Check, Tier, String), usize> = HashMap::new();
        let mut said = Vec::new();
        let mut unsaid: Vec<(Check, Tier, String)> = Vec::new();
        for finding in findings {
            let kind = (finding.check, finding.tier, finding.kind());
            let count = kinds.entry(kind.clone()).or_default();
            *count += 1;
            match *count {
                count if count <= said_max(finding.check) => said.push(finding.fit_to_show()),
                count if count == said_max(finding.check) + 1 => unsaid.push(kind),
                _ => {}
            }
        }
        said.truncate(FINDINGS_MAX);
        for kind in unsaid.into_iter().take(FINDINGS_MAX) {
            let more = kinds.get(&kind).map_or(0, |count| count - said_max(kind.0));
            said.push(Finding::and_more(&kind, more).fit_to_show());
        }
        said.sort_by_key(|finding| std::cmp::Reverse(finding.tier));
        said
    }

    /// What findings of one kind have in common besides check and tier: what is wanted, and what it is about as far as no
    /// name is in it.
    fn kind(&self) -> String {
        let about = self.claim.split(['/', ' ', '"', '`']).next().unwrap_or_default();
        let kind: String = about.chars().chain(self.expected.chars()).take(KIND_CHARACTERS).collect();
        kind
    }

    fn and_more((check, tier, _): &(Check, Tier, String), more: usize) -> Finding {
        Finding {
            accept: None,
            check: *check,
            tier: *tier,
            claim: format!("{more} more"),
            expected: "as above".to_owned(),
            found: format!("{more} more of the kind"),
            message: format!(
                "{more} more findings of this kind are not shown one by one: what made one made them all."
            ),
        }
    }

    /// The finding with nothing in it that does not print: what it is about, and what was found, are an attacker's words.
    pub(crate) fn fit_to_show(mut self) -> Self {
        let Finding { check: _, tier: _, claim, expected, found, message, accept: _ } = &mut self;
        for text in [claim, expected, found, message] {
            if let Cow::Owned(escaped) = escaped(text) {
                *text = escaped;
            }
        }
        self
    }

    /// What verification noted and left to whoever reads it, in words.
    pub(crate) fn from_note(note: &Failure, tier: Tier) -> Self {
        Finding { message: sentence::of_note(note), ..Finding::from_failure(note, tier) }
    }
}

/// Files and rules of an operator's own bound themselves, and name what is to be approved.
fn said_max(check: Check) -> usize {
    let name = check.name();
    if name.starts_with("ima-") || name.starts_with("rego") { NAMED_MAX } else { SAID_MAX }
}

/// Of files, each named, and the one that says how many more there are.
const NAMED_MAX: usize = 101;
/// Of everything else: what comes after says nothing new.
const SAID_MAX: usize = 8;
/// Of all kinds together.
const FINDINGS_MAX: usize = 500;
/// Enough to tell kinds apart.
const KIND_CHARACTERS: usize = 64;

fn check_name<S: Serializer>(check: &Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: Check, tier: Tier, claim: &str, found: String) -> Finding {
        let (claim, expected, message) =
            (claim.to_owned(), "what the policy wants".to_owned(), found.clone());
        Finding { check, tier, claim, expected, found, message, accept: None }
    }

    #[test]
    fn of_each_kind_a_few_are_said_and_how_many_more_there_are() {
        let flood = |claim: &'static str, tier| {
            (0..10_000).map(move |i| finding(Check::BootPolicy, tier, claim, format!("line {i}")))
        };
        let files = (0..101).map(|i| finding(Check::ImaPolicy, Tier::Contraindicated, "/a", i.to_string()));
        let last = finding(Check::PcrPolicy, Tier::Contraindicated, "PCR 7", "other".to_owned());
        let all = flood("kernel command line", Tier::Contraindicated)
            .chain(flood("signer", Tier::Contraindicated))
            .chain(flood("signer", Tier::Warning))
            .chain(files)
            .chain([last.clone()]);
        let said = Finding::of_a_result(all.collect());
        let of = |claim: &str, tier| said.iter().filter(|one| one.claim == claim && one.tier == tier).count();
        assert_eq!(of("kernel command line", Tier::Contraindicated), SAID_MAX);
        assert_eq!((of("signer", Tier::Contraindicated), of("signer", Tier::Warning)), (SAID_MAX, SAID_MAX));
        assert_eq!(of("9992 more", Tier::Contraindicated) + of("9992 more", Tier::Warning), 3);
        // Nothing of another kind is pushed out, and files that are to be approved are all named.
        assert!(said.contains(&last));
        assert_eq!(of("/a", Tier::Contraindicated), 101);
        assert!(said.is_sorted_by_key(|finding| std::cmp::Reverse(finding.tier)));
        assert_eq!(Finding::of_a_result(said.clone()), said, "bounding again changes nothing");
    }

    #[test]
    fn kinds_without_number_are_bounded_together() {
        let each = |i: u32| {
            let kind = format!("wanted {i}");
            Finding { expected: kind, ..finding(Check::BootPolicy, Tier::Warning, "x", i.to_string()) }
        };
        let said = Finding::of_a_result((0..10_000).map(each).collect());
        assert_eq!(said.len(), FINDINGS_MAX);
    }
}
