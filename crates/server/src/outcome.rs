//! What comes of a request that does not get what it asked for.
//!
//! Each error says beside itself what kind of outcome it is and by which code programs know it. A door turns the kind
//! into what its protocol says, in one file of its own. Devices learn the family and the code, operators the whole
//! sentence, the log the rest. A fault is ours: it is told to nobody as anything else, logged loudly and counted.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What kind of outcome it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The sender's bytes.
    Malformed,
    /// Whoever asks has not shown who they are.
    Unauthenticated,
    /// They have, and it is no.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// It is there already.
    Duplicate,
    /// Not in this order.
    OutOfTurn,
    /// Something else was faster.
    Overtaken,
    /// A bound is reached.
    Exhausted,
    /// Too late.
    Late,
    /// Not now: the server stops, or what it needs is away.
    Unavailable,
    /// The server is wrong: a panic, a record that does not read, a key that does not sign.
    Fault,
}

impl Kind {
    /// The word of three that a device is told.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed",
            Kind::Exhausted | Kind::Late | Kind::Unavailable => "unavailable",
            Kind::Fault => "fault",
            Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Duplicate
            | Kind::OutOfTurn
            | Kind::Overtaken => "refused",
        }
    }

    /// When it is worth trying again.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        match self {
            Kind::Exhausted | Kind::Fault => Some(Duration::from_secs(5)),
            Kind::Unavailable | Kind::Overtaken => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// An error that can come of a request.
pub trait Outcome: Error {
    /// Its kind, and its code: stable, kebab-case, what programs go by.
    fn told(&self) -> (Kind, &'static str);

    /// When it is worth trying again; where the error knows better than its kind, it says so.
    fn retry_after(&self) -> Option<Duration> {
        self.told().0.retry_after()
    }
}

/// An outcome that is not the one asked for, ready to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the door goes by.
    pub kind: Kind,
    /// What programs go by.
    pub code: &'static str,
    /// For people who may know.
    pub message: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A door's own refusal, with a message for people.
    pub(crate) fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { kind, code, message: message.into(), retry_after: kind.retry_after() }
    }

    /// The reason code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }
}

impl<E: Outcome + 'static> From<E> for Refusal {
    fn from(error: E) -> Self {
        let (kind, code) = error.told();
        if kind == Kind::Fault {
            fault(code, &error);
        }
        Refusal { retry_after: error.retry_after(), ..Refusal::new(kind, code, chain(&error)) }
    }
}

/// Logs and counts a fault, wherever nobody waits for an answer that would.
pub(crate) fn fault(code: &'static str, error: &dyn Error) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    tracing::error!(code, error = %chain(error), "fault: a request could not be served");
}

/// How many faults there were since the program started.
pub(crate) fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// Of the whole program, so that no path to a fault can forget to carry the counter along.
static FAULTS: AtomicU64 = AtomicU64::new(0);
