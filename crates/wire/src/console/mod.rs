//! What the console is asked and answers, in JSON: the same types on both ends.
//!
//! Times are seconds since 1970. What a request says that its type does not know is refused, so that nobody believes to have said it;
//! of an answer it is passed over, so that a command line understands the server that comes after its own.

pub mod access;
pub mod certificate;
pub mod device;
pub mod federation;
pub mod gateway;
pub mod operator;
pub mod pending;
pub mod policy;
pub mod reading;
pub mod record;
pub mod secret;
pub mod task;
pub mod trial;
pub mod webhook;

use serde::{Deserialize, Serialize};

/// Why something was refused: the body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// It.
    pub error: Refusal,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word for programs.
    pub code: String,
    /// A sentence for people: what, where, and what to do.
    pub message: String,
}

/// Why something is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// In words: 1 to 1,024 bytes.
    pub reason: String,
}
