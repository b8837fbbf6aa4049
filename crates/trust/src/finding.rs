//! What appraisal says: tiers and findings.

use std::borrow::Cow;

use assay_evidence::text::escaped;
use assay_evidence::{Check, Failure};
use serde::{Serialize, Serializer};

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
}

impl Finding {
    /// A failure of verification, at the given tier, in words.
    pub fn from_failure(failure: &Failure, tier: Tier) -> Self {
        Finding {
            check: failure.check,
            tier,
            claim: failure.claim.clone(),
            expected: failure.expected.clone(),
            found: failure.found.clone(),
            message: sentence::of_failure(failure),
        }
    }

    /// The finding with nothing in it that does not print: what it is about, and what was found, are an attacker's words.
    pub(crate) fn fit_to_show(mut self) -> Self {
        let Finding { check: _, tier: _, claim, expected, found, message } = &mut self;
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

fn check_name<S: Serializer>(check: &Check, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(check.name())
}
