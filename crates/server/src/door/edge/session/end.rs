//! Why a stream ends, what its device is told, and whether it left something undone.

use std::time::Duration;

use assay_wire::binding::STREAM_BYTES;
use thiserror::Error;

use super::super::convert::NotEvidence;
use super::super::messages::MessageError;
use crate::attest::table::NoRoom;
use crate::attest::{AttestError, NOT_ITS_EVIDENCE};
use crate::door::admission::NoPlace;
use crate::fate::FateError;
use crate::grant::svid::SvidError;
use crate::keys::KeysError;
use crate::outcome::{Kind, Outcome};
use crate::store::StoreError;

/// Why a stream ends.
#[derive(Debug, Error)]
pub(crate) enum SessionEnd {
    /// No message, no evidence or no reading in time.
    #[error("nothing was heard in time")]
    Silent,
    /// The other end is gone.
    #[error("the stream was closed")]
    Gone,
    /// A message that does not belong here.
    #[error("the message does not belong here")]
    OutOfTurn,
    /// What came is no message, or too much of one.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Others need its place more.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// Not a SPIFFE ID.
    #[error("the device id is not a SPIFFE ID")]
    NotAnId,
    /// No name for the stream.
    #[error("the device's name of the stream has not {STREAM_BYTES} bytes")]
    NoStream,
    /// Nothing could be signed.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The same device attached again.
    #[error("the device attached again elsewhere")]
    Replaced,
    /// The server stops.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// No place left.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// Evidence that is none.
    #[error(transparent)]
    NotEvidence(#[from] NotEvidence),
    /// Attestation could not go on.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The device's SVID could not be made.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// It could not be put on record what secrets the device has.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The device's fate could not be recorded.
    #[error(transparent)]
    Fate(#[from] FateError),
}

impl SessionEnd {
    /// Whether it ended by something that came in the device's name and was not its evidence.
    pub(super) fn is_not_the_devices(&self) -> bool {
        match self {
            SessionEnd::NotEvidence(_) => true,
            SessionEnd::Attest(error) => error.unanswered() == Some(NOT_ITS_EVIDENCE),
            _ => false,
        }
    }

    /// What a device left undone whose stream ends so; `None`: it is merely offline, or it was not its doing.
    pub(super) fn unanswered(&self) -> Option<&'static str> {
        match self {
            SessionEnd::Silent => Some(MISSED),
            SessionEnd::Message(MessageError::Late) => Some(MISSED),
            SessionEnd::OutOfTurn
            | SessionEnd::Message(MessageError::TooLarge | MessageError::Malformed)
            | SessionEnd::NotAnId
            | SessionEnd::NoStream
            | SessionEnd::NotEvidence(_) => Some(NOT_ITS_EVIDENCE),
            SessionEnd::Attest(error) => error.unanswered(),
            SessionEnd::Gone
            | SessionEnd::Message(MessageError::Gone | MessageError::Spent(_) | MessageError::NoBody)
            | SessionEnd::NoPlace(_)
            | SessionEnd::Keys(_)
            | SessionEnd::Replaced
            | SessionEnd::ShuttingDown
            | SessionEnd::NoRoom(_)
            | SessionEnd::Svid(_)
            | SessionEnd::Store(_)
            | SessionEnd::Fate(_) => None,
        }
    }
}

impl Outcome for SessionEnd {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            SessionEnd::NotEvidence(error) => error.told(),
            SessionEnd::Attest(error) => error.told(),
            SessionEnd::Svid(error) => error.told(),
            SessionEnd::Store(error) => error.told(),
            SessionEnd::Fate(error) => error.told(),
            SessionEnd::NoRoom(error) => error.told(),
            SessionEnd::Silent => (Kind::Late, "silent"),
            SessionEnd::Gone => (Kind::Late, "gone"),
            SessionEnd::OutOfTurn => (Kind::OutOfTurn, "out-of-turn"),
            SessionEnd::Message(error) => error.told(),
            SessionEnd::NoPlace(error) => error.told(),
            SessionEnd::NotAnId => (Kind::Malformed, "device-id"),
            SessionEnd::NoStream => (Kind::Malformed, "stream"),
            SessionEnd::Keys(error) => error.told(),
            SessionEnd::Replaced => (Kind::Overtaken, "replaced"),
            SessionEnd::ShuttingDown => (Kind::Unavailable, "shutting-down"),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            SessionEnd::NoPlace(error) => error.retry_after(),
            error => error.told().0.retry_after(),
        }
    }
}

/// Of one that was asked and said nothing.
pub(super) const MISSED: &str = "a challenge was not answered in time";
/// Of one whose connection ended before it answered.
pub(super) const HUNG_UP: &str = "the connection ended with a challenge open";
