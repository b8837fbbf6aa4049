//! Receivers of notices: how far each is, and what it was not given.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Every receiver that is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhooks {
    /// They, in the order of the configuration.
    pub webhooks: Vec<Webhook>,
}

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The first leaf of the trail that it was not offered yet.
    pub next_leaf: u64,
    /// How many leaves there are from there on.
    pub behind: u64,
    /// How many notices were given up.
    pub dead_letters: u64,
}

/// The notices that a receiver was not given, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letters {
    /// They.
    pub letters: Vec<Letter>,
}

/// A notice that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The leaf that it is about.
    pub leaf: u64,
    /// What kind of leaf that is.
    pub kind: String,
    /// Whom or what it is about.
    pub subject: String,
    /// When it was given up.
    pub at: UnixTime,
    /// Why.
    pub reason: String,
    /// Whether it is about to be sent again.
    pub again: bool,
}

/// Which notices are to be sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendAgain {
    /// The leaves that they are about; none: all that were given up.
    #[serde(default)]
    pub leaves: Vec<u64>,
}

/// How many are about to be sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAgain {
    /// They.
    pub again: u64,
}
