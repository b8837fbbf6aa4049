//! Secrets: put in, given to devices, changed and taken back. No answer has one in it.

use std::fmt;

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// A secret that is put in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// What it is called: the name of its file on devices.
    pub name: String,
    /// It.
    pub content: Content,
    /// Whether devices run it, each version once.
    #[serde(default)]
    pub autorun: bool,
    /// The devices that it is for; nobody's yet, if there is nothing.
    #[serde(default)]
    pub to: Option<Meant>,
}

/// What is secret, in Base64. It is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(pub String);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secret")
    }
}

/// Which devices are meant. All of it has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meant {
    /// By their labels, `key=value,key=value`; empty: all.
    pub labels: String,
    /// By the name of the policy that judges them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// Another content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// It.
    pub content: Content,
}

/// Other devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    /// They; nobody, if there is nothing.
    pub to: Option<Meant>,
}

/// Every secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// In the order of their names.
    pub secrets: Vec<Secret>,
}

/// A secret, as it may be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// What it is called.
    pub name: String,
    /// Counts its contents, from 1.
    pub version: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// Whether devices run it.
    pub autorun: bool,
    /// The devices that it is for.
    pub to: Option<Meant>,
    /// When it was changed last.
    pub changed_at: UnixTime,
    /// How many devices have it.
    pub devices: u64,
}

/// A secret and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// It.
    pub secret: Secret,
    /// Newest first, a thousand at most.
    pub held_by: Vec<Holder>,
}

/// A device that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The device's SPIFFE ID.
    pub device: String,
    /// Which version.
    pub version: u64,
    /// Since when.
    pub since: UnixTime,
}

/// A secret that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Which.
    pub name: String,
    /// From how many devices it is taken.
    pub devices: u64,
}
