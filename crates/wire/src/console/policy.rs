//! Which policy judges whom, and how a policy is taken to its next version.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::trial::Covered;

/// A policy's name and version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citation {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
}

/// Who is judged by what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The assignments; the one for every device first.
    pub assignments: Vec<Assignment>,
    /// How many devices none of them is for.
    pub devices_without_policy: u64,
}

/// A policy that is assigned to devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The labels that a device must have, as they are written; empty: every device is meant.
    pub selector: String,
    /// The policy's name.
    pub name: String,
    /// The version in force; nothing: none is.
    pub version: Option<u64>,
    /// Whether it is in force: one that nobody signed who may is not.
    pub in_force: bool,
    /// How many devices it judges.
    pub devices: u64,
    /// How many of them are trusted.
    pub trusted: u64,
    /// How far the next version is.
    pub rollout: Option<Rollout>,
    /// Which devices would fall if the roll-out were finished now, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_fall: Option<Vec<Fall>>,
}

/// A policy on its way to the next version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// How many of the devices are judged by what both versions accept, in percent.
    pub percent: u64,
    /// How many that are.
    pub devices: u64,
    /// What both versions accept, as a version.
    pub union_version: Option<u64>,
    /// The next version.
    pub new_version: Option<u64>,
}

/// A device that would fall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fall {
    /// Its SPIFFE ID.
    pub device: String,
    /// What people call it.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One policy: one in force, or a version that once was. Without a name there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shown {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<u64>,
    /// Its text, as it was signed or set.
    pub text: Option<String>,
    /// What the server counts it by.
    pub revision: Option<u64>,
    /// When it was set.
    pub set_at: Option<UnixTime>,
    /// By whom.
    pub set_by: Option<String>,
    /// SHA-256 of the text, in hex.
    pub digest: Option<String>,
    /// Whether it came signed.
    pub signed: bool,
    /// What it covers of a device; nothing: this build cannot read it.
    pub coverage: Option<Vec<Covered>>,
}

/// A policy that came in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 of its text, in hex.
    pub digest: String,
    /// Whom it judges, as labels are written; empty: every device.
    pub selector: String,
}

/// Whose policy is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unassign {
    /// As labels are written; empty: the one for every device.
    pub selector: String,
    /// Whether devices may fall of it.
    #[serde(default)]
    pub force: bool,
}

/// Whose policy was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unassigned {
    /// As labels are written.
    pub unassigned: String,
}

/// How many devices a roll-out is to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Widen {
    /// In percent, 1 to 100.
    pub percent: u64,
}

/// How a roll-out is ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Whether devices may fall of it.
    #[serde(default)]
    pub force: bool,
}

/// A roll-out that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The policy's name.
    pub name: String,
    /// The version in force alone; nothing: the server does not put it in force.
    pub version: Option<u64>,
    /// Which devices fall of it, as was accepted, where that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_fall: Option<Vec<Fall>>,
}
