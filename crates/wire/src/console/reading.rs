//! A result on record, judged again and read aloud.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::device::Finding;

/// A result, whether it comes out the same, and what its evidence says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Read {
    /// Whose: a SPIFFE ID.
    pub device: String,
    /// Its place in the trail.
    pub result: u64,
    /// When it was judged.
    pub at: Option<UnixTime>,
    /// What it came to.
    pub tier: String,
    /// By which policy, name and version; empty: there was none.
    pub policy: String,
    /// What it found, the gravest first.
    pub findings: Vec<Finding>,
    /// How it is judged now.
    pub again: Again,
    /// What the evidence says; nothing: it does not verify.
    pub reading: Option<Reading>,
}

/// A result judged again, with the evidence, the policy and the trust anchors of then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Again {
    /// Whether it is what is on record, to the last word.
    pub is_same: bool,
    /// What it comes to now; empty: it could not be judged.
    pub tier: String,
    /// Why it could not be judged.
    pub error: Option<String>,
}

/// What evidence says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// The TPM itself.
    pub tpm: Vec<Fact>,
    /// What came up, in the order in which a machine does.
    pub stages: Vec<Stage>,
    /// Every quoted PCR of the best bank, ascending.
    pub pcrs: Vec<QuotedPcr>,
    /// What was measured of files; nothing: there is no list.
    pub files: Option<Files>,
}

/// A title and a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fact {
    /// What it is about.
    pub title: String,
    /// What it says.
    pub value: String,
}

/// Something that came up and was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stage {
    /// What it is, in a word or two.
    pub what: String,
    /// What the evidence calls it.
    pub name: String,
    /// What is to be said of it.
    pub details: Vec<String>,
    /// Its own digest, where it is one thing.
    pub digest: Option<String>,
    /// Where it was measured.
    pub pcrs: Vec<u32>,
    /// What the policy covers of it.
    pub covered: Vec<Covered>,
}

/// How far a policy covers something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Covered {
    /// What.
    pub row: String,
    /// `open`, `ruled` or `pinned`.
    pub cover: String,
    /// What that means.
    pub meaning: String,
}

/// A PCR as it was quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotedPcr {
    /// Which.
    pub index: u32,
    /// What it stands for.
    pub about: String,
    /// Its value, with the bank before it.
    pub value: String,
    /// What tells how it came to be: `nothing`, `boot-log`, `ima-list` or `no-log`.
    pub told_by: String,
    /// Events of the boot log that extended it.
    pub events: u64,
    /// The lines of the policy that are about it.
    pub lines: Vec<PolicyLine>,
}

/// What a policy says of a PCR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyLine {
    /// Where in the policy.
    pub line: String,
    /// Whether the value is one of those listed; nothing: the line is about what the log tells of it.
    pub holds: Option<bool>,
}

/// What was measured of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Entries since boot that the quote attests.
    pub attested: u64,
    /// Entries that came too late for the quote.
    pub undecided: u64,
    /// How many may stay for which reason, or may not.
    pub by_standing: Vec<Standing>,
    /// The last that were measured, the newest first.
    pub latest: Vec<File>,
}

/// So many files of one standing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Which, in words.
    pub standing: String,
    /// How many.
    pub count: u64,
}

/// A measured file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// Its path.
    pub path: String,
    /// What was measured.
    pub digest: String,
    /// What the policy says; nothing: it judges no files.
    pub standing: Option<String>,
}
