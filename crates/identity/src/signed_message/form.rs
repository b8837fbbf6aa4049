//! The members of a message, as they are written and as they are read.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value};

use super::{
    FormError, MESSAGE_BYTES_MAX, MessageError, NONCE_BYTES_MIN, NodeId, Request, hex_sha256, sha256, strict,
};
use crate::UnixTime;

/// A message before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Who says it.
    pub from: NodeId,
    /// When.
    pub at: UnixTime,
    /// JSON, kept as it is written. Receivers of the earlier form want the body here.
    pub data: &'a str,
    /// The request that it is of.
    pub about: About<'a>,
    /// What makes it one of its kind.
    pub once: OnceBy<'a>,
}

/// The request that a message is to be of. The sender of a long body need not show it to whoever signs.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Whom it is for, as they call themselves.
    pub audience: &'a str,
    /// In capitals, as it stands in the request.
    pub method: &'a str,
    /// With the query.
    pub path: &'a str,
    /// Of the body, which may be empty.
    pub body_sha256: [u8; 32],
}

/// What a sender makes a message one of its kind by.
#[derive(Clone, Copy, Debug)]
pub enum OnceBy<'a> {
    /// Random bytes, [`NONCE_BYTES_MIN`] or more.
    Nonce(&'a [u8]),
    /// A number above that of every message of the node before, in this boot or an earlier one.
    Sequence(u64),
}

impl<'a> Request<'a> {
    /// What a message of it has to say.
    pub fn about(&self) -> About<'a> {
        let Request { audience, method, path, body } = *self;
        About { audience, method, path, body_sha256: sha256(body) }
    }
}

impl Outgoing<'_> {
    /// What has to be signed. Fails where `data` is not JSON, or not of one reading, and where it is longer than any receiver takes.
    pub fn bytes(&self) -> Result<Vec<u8>, MessageError> {
        let Outgoing { from, at, data, about, once } = self;
        strict::value(data.as_bytes())?;
        let once = match once {
            OnceBy::Nonce(nonce) if nonce.len() < NONCE_BYTES_MIN => return Err(MessageError::NoNonce),
            OnceBy::Nonce(nonce) => format!("\"nonce\": \"{}\"", BASE64URL_NOPAD.encode(nonce)),
            OnceBy::Sequence(sequence) => format!("\"sequence\": {sequence}"),
        };
        let About { audience, method, path, body_sha256 } = about;
        let [audience, method, path] = [audience, method, path].map(|text| Value::from(*text));
        let (at, body) = (at.as_secs(), HEXLOWER.encode(body_sha256));
        // Receivers of the earlier form know the first three, and let pass what follows.
        let message = format!(
            "{{\"from_node\": {from}, \"timestamp\": {at}, \"data\": {data}, {once}, \"audience\": {audience}, \
             \"method\": {method}, \"path\": {path}, \"body_sha256\": \"{body}\"}}"
        );
        match message.len() {
            ..=MESSAGE_BYTES_MAX => Ok(message.into_bytes()),
            bytes => Err(MessageError::TooLong { bytes }),
        }
    }
}

/// A message that was read.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) from_node: NodeId,
    pub(super) timestamp: u64,
    pub(super) data: Value,
    /// What binds it to a request; nothing of a message of three members.
    pub(super) bound: Option<Bound>,
}

/// What binds a message to one request.
#[derive(Debug)]
pub(super) struct Bound {
    audience: String,
    method: String,
    path: String,
    body_sha256: String,
    /// Without one it has a nonce.
    pub(super) sequence: Option<u64>,
}

impl Members {
    pub(super) fn read(bytes: &[u8]) -> Result<Members, MessageError> {
        let Value::Object(mut members) = strict::value(bytes)? else {
            return Err(FormError::NoObject.into());
        };
        let from_node = number(&mut members, "from_node")?;
        let from_node = u32::try_from(from_node).ok().and_then(NodeId::new).ok_or(MessageError::NodeId)?;
        let timestamp = number(&mut members, "timestamp")?;
        let data = members.remove("data").ok_or(FormError::Missing("data"))?;
        let bound = if members.is_empty() { None } else { Some(Bound::read(&mut members)?) };
        if members.is_empty() {
            Ok(Members { from_node, timestamp, data, bound })
        } else {
            Err(FormError::Unknown.into())
        }
    }
}

impl Bound {
    fn read(members: &mut Map<String, Value>) -> Result<Bound, MessageError> {
        let nonce = members.contains_key("nonce").then(|| text(members, "nonce")).transpose()?;
        let sequence = members.contains_key("sequence").then(|| number(members, "sequence")).transpose()?;
        match (nonce, sequence) {
            (Some(nonce), None) => check_nonce(&nonce)?,
            (None, Some(_)) => {}
            (Some(_), Some(_)) => return Err(FormError::TwoMarks.into()),
            (None, None) => return Err(MessageError::NoNonce),
        }
        Ok(Bound {
            audience: text(members, "audience")?,
            method: text(members, "method")?,
            path: text(members, "path")?,
            body_sha256: text(members, "body_sha256")?,
            sequence,
        })
    }

    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), MessageError> {
        let Bound { audience, method, path, body_sha256, sequence: _ } = self;
        for (is_the_same, refusal) in [
            (audience == request.audience, MessageError::Audience),
            (method == request.method, MessageError::Method),
            (path == request.path, MessageError::Path),
            (*body_sha256 == hex_sha256(request.body), MessageError::Body),
        ] {
            if !is_the_same {
                return Err(refusal);
            }
        }
        Ok(())
    }
}

fn check_nonce(nonce: &str) -> Result<(), MessageError> {
    let bytes = BASE64URL_NOPAD.decode(nonce.as_bytes());
    if bytes.is_ok_and(|bytes| bytes.len() >= NONCE_BYTES_MIN) { Ok(()) } else { Err(MessageError::NoNonce) }
}

/// A whole number, written as one: `1.0` and `"1"` are none.
fn number(members: &mut Map<String, Value>, name: &'static str) -> Result<u64, FormError> {
    let value = members.remove(name).ok_or(FormError::Missing(name))?;
    value.as_u64().ok_or(FormError::Number(name))
}

fn text(members: &mut Map<String, Value>, name: &'static str) -> Result<String, FormError> {
    match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(FormError::Text(name)),
        None => Err(FormError::Missing(name)),
    }
}
