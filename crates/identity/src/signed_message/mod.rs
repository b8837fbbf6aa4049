//! Signed messages between programs: what one node says to another over a connection that neither of them ends.
//!
//! A message is a JSON object whose bytes are signed: who says it, when, to whom, and of which request. It is good once and
//! for a few minutes, for one audience, method, path and body. [`open`] takes a [`VerifiedPeer`], so that no signature counts
//! before its certificate does; [`Peers`] remembers chains;
//! that a message was not there before is [`Replays`]' to say. Form: `docs/signed-messages.md`.

mod form;
mod peers;
mod replay;
mod strict;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature as lc;
use data_encoding::HEXLOWER;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use serde_json::Value;
use thiserror::Error;
use webpki::aws_lc_rs as algorithms;

use self::form::Members;
pub use self::form::{About, OnceBy, Outgoing};
pub use self::peers::Peers;
pub use self::replay::{ReplayError, Replays};
use crate::UnixTime;
use crate::verify::VerifiedPeer;

/// The number of a node: 0 to 2³¹ − 1, one per device and never another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The highest there is.
    pub const MAX: NodeId = NodeId(0x7fff_ffff);

    /// A number that may be one.
    pub fn new(number: u32) -> Option<NodeId> {
        (number <= NodeId::MAX.0).then_some(NodeId(number))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Decimal digits without a sign or a leading zero: one way to write each.
impl FromStr for NodeId {
    type Err = MessageError;

    fn from_str(text: &str) -> Result<Self, MessageError> {
        let number = text.parse::<u32>().ok().and_then(NodeId::new).ok_or(MessageError::NodeId)?;
        if number.to_string() == text { Ok(number) } else { Err(MessageError::NodeId) }
    }
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Whom it says it is from, outside of what is signed.
    pub from: NodeId,
    /// What was signed.
    pub bytes: &'a [u8],
    /// RSASSA-PSS with SHA-256 for RSA keys, ECDSA with SHA-256 in DER for P-256.
    pub signature: &'a [u8],
}

impl Signed<'_> {
    /// What tells it from others. A signature would not do: the same bytes have many.
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.bytes)
    }
}

/// The request that a message has to be of.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whom it is for, as they call themselves.
    pub audience: &'a str,
    /// In capitals, as it stands in the request.
    pub method: &'a str,
    /// With the query.
    pub path: &'a str,
    /// As it was received.
    pub body: &'a [u8],
}

/// Which messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Those that name audience, method, path and body, and are good once.
    Strict,
    /// Also those of three members, which are bound to neither recipient nor path. Of a request with a body, the body has to be the
    /// JSON that was signed.
    SeedToo,
}

/// A message that holds, but for whether it was there before.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// Who said it.
    pub from: NodeId,
    /// When, by the sender's clock.
    pub said_at: UnixTime,
    /// What was said.
    pub data: Value,
    /// What makes it one of its kind.
    pub once: Once,
}

/// What makes a message one of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Its bytes, be it by a nonce in them.
    Bytes([u8; 32]),
    /// A number that rises with each message of the node.
    Sequence(u64),
}

/// Verifies a message of this peer about this request at a time.
pub fn open(
    signed: Signed<'_>,
    signer: &VerifiedPeer,
    request: &Request<'_>,
    accept: Accept,
    now: UnixTime,
) -> Result<Opened, MessageError> {
    if signed.bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong { bytes: signed.bytes.len() });
    }
    // Before a byte is read: what follows is the signer's word, not a stranger's.
    check_signature(signer.spki(), signed.bytes, signed.signature)?;
    let members = Members::read(signed.bytes)?;
    if members.from_node != signed.from {
        return Err(MessageError::From { header: signed.from, signed: members.from_node });
    }
    check_window(members.timestamp, now)?;
    let once = match members.bound {
        Some(bound) => {
            bound.check(request)?;
            bound.sequence.map_or(Once::Bytes(signed.digest()), Once::Sequence)
        }
        None if accept == Accept::SeedToo => {
            check_seed_body(&members.data, request)?;
            Once::Bytes(signed.digest())
        }
        None => return Err(MessageError::Unbound),
    };
    let said_at = UnixTime::since_unix_epoch(Duration::from_secs(members.timestamp));
    Ok(Opened { from: members.from_node, said_at, data: members.data, once })
}

/// By the key's kind; no message names its algorithm.
fn check_signature(spki: &[u8], bytes: &[u8], signature: &[u8]) -> Result<(), MessageError> {
    let info = SubjectPublicKeyInfoDer::from(spki);
    let by = |algorithm| {
        let key = webpki::RawPublicKeyEntity::try_from(&info);
        key.is_ok_and(|key| key.verify_signature(algorithm, bytes, signature).is_ok())
    };
    let is_good = by(algorithms::ECDSA_P256_SHA256)
        || by(algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY)
        || is_by_rsa_with_max_salt(spki, bytes, signature);
    if is_good { Ok(()) } else { Err(MessageError::Signature) }
}

/// Python's `PSS.MAX_LENGTH` fills the block with salt; TPMs take as much as the hash is long.
fn is_by_rsa_with_max_salt(spki: &[u8], bytes: &[u8], signature: &[u8]) -> bool {
    let algorithm = const { &lc::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(lc::RsaPssSaltLength::Max) };
    lc::UnparsedPublicKey::new(algorithm, spki).verify(bytes, signature).is_ok()
}

fn check_window(timestamp: u64, now: UnixTime) -> Result<(), MessageError> {
    let now = now.as_secs();
    if timestamp.abs_diff(now) <= WINDOW_SECONDS {
        return Ok(());
    }
    let seconds = timestamp.abs_diff(now);
    Err(if timestamp < now { MessageError::Stale { seconds } } else { MessageError::Early { seconds } })
}

/// What a message of three members has to do with its request.
fn check_seed_body(data: &Value, request: &Request<'_>) -> Result<(), MessageError> {
    let carries = ["POST", "PUT", "PATCH"].contains(&request.method);
    let is_said = || strict::value(request.body).is_ok_and(|body| body == *data);
    if !carries && request.body.is_empty() || carries && is_said() {
        return Ok(());
    }
    Err(MessageError::Body)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

fn hex_sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&sha256(bytes))
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Not a number as nodes have.
    #[error("not a node id: a decimal number up to 2147483647, without sign or leading zero")]
    NodeId,
    /// Longer than any message.
    #[error("the message has {bytes} bytes, at most {MESSAGE_BYTES_MAX} are read")]
    TooLong {
        /// Bytes signed.
        bytes: usize,
    },
    /// The signature is not that of the certificate's key.
    #[error("the signature does not verify: the message was altered, or another key signed it")]
    Signature,
    /// Not the JSON of a message.
    #[error("what was signed is not a message: {0}")]
    Form(FormError),
    /// The sender outside is not the one inside.
    #[error("the header says node {header}, what was signed says node {signed}")]
    From {
        /// Outside.
        header: NodeId,
        /// Inside.
        signed: NodeId,
    },
    /// It is too old.
    #[error(
        "the message is {seconds} s old, at most {WINDOW_SECONDS} are accepted: it was kept back, or a clock is wrong"
    )]
    Stale {
        /// Its age.
        seconds: u64,
    },
    /// It is from the future.
    #[error(
        "the message is dated {seconds} s ahead, at most {WINDOW_SECONDS} are accepted: the sender's clock or this one is wrong"
    )]
    Early {
        /// How far ahead.
        seconds: u64,
    },
    /// It is bound to no request and may be said again.
    #[error(
        "the message names no audience, method, path and body, so that it could be used for another request"
    )]
    Unbound,
    /// It has neither a nonce nor a number.
    #[error(
        "the message has neither a nonce of {NONCE_BYTES_MIN} bytes or more nor a sequence, so that it could be said again"
    )]
    NoNonce,
    /// It is for somebody else.
    #[error("the message is for another audience")]
    Audience,
    /// It is of another method.
    #[error("the message is of another method")]
    Method,
    /// It is of another path or query.
    #[error("the message is of another path")]
    Path,
    /// It is of another body.
    #[error("the message is of another body")]
    Body,
}

impl From<FormError> for MessageError {
    fn from(error: FormError) -> Self {
        MessageError::Form(error)
    }
}

/// Why JSON is no message. What was sent is not repeated: who sends it chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// Not JSON, or more than one value.
    #[error("not one JSON value, at line {line}, column {column}")]
    Json {
        /// From 1 on.
        line: usize,
        /// From 1 on.
        column: usize,
    },
    /// A member that is there twice.
    #[error("a member is there twice, before line {line}, column {column}")]
    Twice {
        /// From 1 on.
        line: usize,
        /// From 1 on.
        column: usize,
    },
    /// Another kind of value.
    #[error("not an object")]
    NoObject,
    /// A member that is missing.
    #[error("no member `{0}`")]
    Missing(&'static str),
    /// A member that is no whole number.
    #[error("`{0}` is no whole number")]
    Number(&'static str),
    /// A member that is no text.
    #[error("`{0}` is no text")]
    Text(&'static str),
    /// Both ways to be one of its kind.
    #[error("both a nonce and a sequence")]
    TwoMarks,
    /// A member that nobody reads, which may mean something to somebody else.
    #[error("a member that messages do not have")]
    Unknown,
}

/// How far the sender's clock may be off, in seconds, and how long a message is good.
pub const WINDOW_SECONDS: u64 = 300;
/// What is signed of a message; it travels in a header, in hex.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Of a nonce.
pub const NONCE_BYTES_MIN: usize = 16;
