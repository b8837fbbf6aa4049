//! The trail, and who tried what they may not.

use std::collections::BTreeMap;

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A stretch of the trail, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// It.
    pub leaves: Vec<Leaf>,
}

/// One leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its place.
    pub index: u64,
    /// When.
    pub at: UnixTime,
    /// What kind.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// Whom or what it is about.
    pub subject: String,
    /// Its hash, which the next one names, in hex.
    pub hash: String,
    /// What happened.
    pub detail: Value,
}

/// Who tried what they may not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// How often since the server started, by cause.
    pub counts: BTreeMap<String, u64>,
    /// The last on record, newest first.
    pub refusals: Vec<Attempt>,
}

/// An attempt that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its place in the trail.
    pub leaf: u64,
    /// When.
    pub at: UnixTime,
    /// Who it was, or said to be; empty: nobody.
    pub who: String,
    /// What kind of attempt.
    pub cause: String,
    /// From where.
    pub from: String,
    /// What was wrong.
    pub why: String,
    /// How many of the kind came before it and are not on record one by one.
    pub unsaid: u64,
}
