//! The choices that several sections offer, and how strict a demand is.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Field;

/// Whether something must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Without it the device is refused.
    #[default]
    Required,
    /// Its absence is said, and accepted.
    #[serde(alias = "any")]
    Optional,
}

/// What an oddity weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The device is refused.
    #[default]
    Refuse,
    /// It is said, and accepted.
    Report,
    /// It is not even said.
    Ignore,
}

/// What a violation of IMA weighs. Its path is the word of whoever sends the list, as the kernel extends nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViolationWeight {
    /// The device is refused.
    Refuse,
    /// The device is refused where a file is listed under the path, it is said where none is, and not where an exclusion
    /// covers it.
    #[default]
    ByPath,
    /// It is said, and accepted.
    Report,
    /// It is not even said.
    Ignore,
}

/// A demand of a policy.
pub(super) struct Demanded {
    pub(super) field: Field,
    /// As the policy writes it.
    pub(super) word: String,
    pub(super) strictness: Strictness,
}

/// How strict a demand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// More is stricter.
    Rank(u64),
    /// A bit for each situation that is accepted, so that of two demands neither need be the stricter one.
    Accepted(u32),
}

/// Choices of which the later one accepts no more than the earlier.
pub(super) trait Ranked: Copy {
    /// More is stricter.
    fn rank(self) -> u64;

    /// Takes the stricter of two choices.
    fn tighten(&mut self, other: Self) {
        if other.rank() > self.rank() {
            *self = other;
        }
    }
}

impl Ranked for Demand {
    fn rank(self) -> u64 {
        match self {
            Demand::Optional => 0,
            Demand::Required => 1,
        }
    }
}

impl Ranked for Weight {
    fn rank(self) -> u64 {
        match self {
            Weight::Ignore => 0,
            Weight::Report => 1,
            Weight::Refuse => 2,
        }
    }
}

impl Ranked for ViolationWeight {
    fn rank(self) -> u64 {
        match self {
            ViolationWeight::Ignore => 0,
            ViolationWeight::Report => 1,
            ViolationWeight::ByPath => 2,
            ViolationWeight::Refuse => 3,
        }
    }
}

impl Demanded {
    /// A choice among ranked ones.
    pub(super) fn ranked(field: [&str; 2], choice: impl Ranked + Serialize) -> Self {
        Demanded { field: Field::of(field), word: word(choice), strictness: Strictness::Rank(choice.rank()) }
    }

    /// A number of which more is stricter.
    pub(super) fn least(field: Field, word: impl ToString, least: u64) -> Self {
        Demanded { field, word: word.to_string(), strictness: Strictness::Rank(least) }
    }
}

impl Strictness {
    /// Whether this demand refuses something that the other accepts.
    pub(super) fn refuses_more_than(self, other: Strictness) -> bool {
        match (self, other) {
            (Strictness::Rank(mine), Strictness::Rank(theirs)) => mine.cmp(&theirs) == Ordering::Greater,
            (Strictness::Accepted(mine), Strictness::Accepted(theirs)) => theirs & !mine != 0,
            // Two kinds of demand have nothing to compare them by.
            (Strictness::Rank(_), Strictness::Accepted(_))
            | (Strictness::Accepted(_), Strictness::Rank(_)) => true,
        }
    }
}

/// A choice as the policy writes it.
pub(super) fn word(choice: impl Serialize) -> String {
    let word = serde_json::to_value(&choice).ok();
    word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
