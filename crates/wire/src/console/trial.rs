//! A policy tried on the evidence that is kept: a line for the progress now and then, and at the end the report.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::policy::Citation;

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It goes on.
    Progress(Progress),
    /// It is done.
    Report(Box<Report>),
    /// It could not go on, and why.
    Error(String),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Pieces of evidence that were judged.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// What a trial says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The policy, as the version that it would be.
    pub policy: Citation,
    /// What it covers of a device, and what not.
    pub coverage: Vec<Covered>,
    /// From when on recorded results were judged, beside each device's last evidence.
    pub since: Option<UnixTime>,
    /// Whom the policy would be for, as labels are written; empty: every device.
    pub selector: String,
    /// What would become of the devices.
    pub devices: Devices,
    /// How much evidence there was.
    pub results: Results,
    /// Changes of tier, falls first.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub changes_left_off: u64,
    /// Why devices would fall, the most frequent first.
    pub causes: Vec<Cause>,
    /// How many more there are.
    pub causes_left_off: u64,
}

/// How far a policy covers something about a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// What, as a stable word.
    pub row: String,
    /// How far, as a stable word.
    pub cover: String,
    /// What that means; where it is open, what an attacker can do.
    pub meaning: String,
}

/// Each device counts once, for the first of these that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// It is trusted and would not be.
    pub would_fall: u64,
    /// It would not have been trusted some time back.
    pub would_have_fallen: u64,
    /// It would be trusted, and is not.
    pub would_rise: u64,
    /// Its tier would be another.
    pub otherwise_changed: u64,
    /// It would stand as it does.
    pub unchanged: u64,
    /// Nothing of it is kept that could be judged.
    pub without_evidence: u64,
}

/// How much evidence a trial had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Pieces that were judged.
    pub judged: u64,
    /// Pieces that cannot be judged again.
    pub unreadable: u64,
}

/// One change of tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What people call the device.
    pub device: String,
    /// Its SPIFFE ID.
    pub id: String,
    /// Its tier.
    pub from: String,
    /// What that would be.
    pub to: String,
    /// When the evidence was judged.
    pub at: UnixTime,
    /// The recorded result, where it is one.
    pub result: Option<u64>,
    /// Whether it is how the device would stand now, and not only how it would have stood.
    pub now: bool,
    /// Why.
    pub reason: String,
}

/// Why devices would fall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The check that finds it.
    pub check: String,
    /// What it makes of the result.
    pub tier: String,
    /// What it is about.
    pub claim: String,
    /// A sentence, of the first device that it was found of.
    pub message: String,
    /// How many devices.
    pub devices: u64,
    /// How many pieces of evidence.
    pub results: u64,
    /// Some of the devices.
    pub examples: Vec<String>,
}
