//! Keylime's protocols in JSON: what its agents and its tenant send and expect back.
//!
//! Registration and what operators ask is API 2.x, in an [`Envelope`]; sessions and attestations of agents that push are API 3.0,
//! documents of JSON:API 1.1. Bytes are standard base64 with padding, or hexadecimal where that is said. What is read is bounded
//! by whoever reads the body, and believed by nobody here. Start with [`registration`] and [`attestation`].

pub mod attestation;
pub mod evidence;
pub mod registration;
pub mod session;
pub mod tenant;

use std::fmt;

use assay_evidence::request::Quote;
use assay_evidence::tpm::pcr::PcrValues;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// What a Keylime agent is called: letters, digits, `_`, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(String);

impl AgentId {
    /// Reads one.
    pub fn parse(text: &str) -> Result<AgentId, KeylimeError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        match (1..=AGENT_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_word) {
            true => Ok(AgentId(text.to_owned())),
            false => Err(KeylimeError::AgentId),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An answer of API 2.x.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The status of HTTP again.
    pub code: u16,
    /// For people.
    pub status: String,
    /// What was asked for.
    pub results: Value,
}

impl Envelope {
    /// What was asked for.
    pub fn success(results: Value) -> Envelope {
        Envelope { code: 200, status: "Success".to_owned(), results }
    }

    /// Why it is not given.
    pub fn refusal(code: u16, status: impl Into<String>) -> Envelope {
        Envelope { code, status: status.into(), results: Value::Object(serde_json::Map::new()) }
    }
}

/// What of API 2.x is spoken.
pub fn versions() -> Value {
    serde_json::json!({ "current_version": VERSION, "supported_versions": VERSIONS })
}

/// Whether a path's first segment is a version of API 2.x that is spoken.
pub fn is_version(segment: &str) -> bool {
    segment == "v2" || segment.strip_prefix('v').is_some_and(|version| VERSIONS.contains(&version))
}

/// Why something that came is none of the protocol's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeylimeError {
    /// Not JSON, or a member that is missing or of another type.
    #[error("the body does not read: {0}")]
    Json(String),
    /// No agent can be called so.
    #[error("an agent's id has 1 to {AGENT_ID_BYTES_MAX} letters, digits, '_', '.' and '-'")]
    AgentId,
    /// Not base64, or not PEM.
    #[error("{member}: not {form}")]
    Encoding {
        /// Which member.
        member: &'static str,
        /// What it would be.
        form: &'static str,
    },
    /// Without it nothing can be done.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// What a member says is not what can be done.
    #[error("{member} is {found:?}, and {expected} is expected")]
    Unexpected {
        /// Which member.
        member: &'static str,
        /// What it says.
        found: String,
        /// What it would have to say.
        expected: &'static str,
    },
}

impl From<serde_json::Error> for KeylimeError {
    fn from(error: serde_json::Error) -> Self {
        KeylimeError::Json(error.to_string())
    }
}

/// Standard base64 with padding.
fn base64(member: &'static str, text: &str) -> Result<Bytes, KeylimeError> {
    let decoded = BASE64.decode(text.as_bytes());
    decoded.map(Bytes::from).map_err(|_| KeylimeError::Encoding { member, form: "base64" })
}

/// Reads a quote in one line: `r`, then TPMS_ATTEST, TPMT_SIGNATURE and PCR values as tpm2-tools write them, in base64 with colons
/// between them. What follows is passed over.
pub fn read_quote(text: &str) -> Result<Quote, KeylimeError> {
    let malformed = || KeylimeError::Encoding { member: "quote", form: "r, and three parts in base64" };
    let mut parts = text.strip_prefix('r').ok_or_else(malformed)?.split(':');
    let mut part = || base64("quote", parts.next().unwrap_or_default());
    let (message, signature, values) = (part()?, part()?, part()?);
    let (_, pcrs) = PcrValues::from_tpm2_tools(&values).map_err(|_| malformed())?;
    Ok(Quote { message, signature, pcrs })
}

/// The document of JSON:API that a request is.
#[derive(Deserialize)]
struct Document<A> {
    data: Resource<A>,
}

#[derive(Deserialize)]
struct Resource<A> {
    #[serde(rename = "type")]
    kind: String,
    attributes: A,
}

/// Reads a document of this type.
fn document<'b, A: Deserialize<'b>>(kind: &'static str, body: &'b [u8]) -> Result<A, KeylimeError> {
    let Document { data } = serde_json::from_slice::<Document<A>>(body)?;
    match data.kind == kind {
        true => Ok(data.attributes),
        false => Err(KeylimeError::Unexpected { member: "data.type", found: data.kind, expected: kind }),
    }
}

/// A document of JSON:API.
fn answer(kind: &str, id: Option<&str>, attributes: Value) -> Value {
    let mut data = serde_json::json!({ "type": kind, "attributes": attributes });
    if let (Some(id), Some(data)) = (id, data.as_object_mut()) {
        data.insert("id".to_owned(), id.into());
    }
    serde_json::json!({ "data": data, "jsonapi": { "version": "1.1" } })
}

/// An error of JSON:API.
pub fn error(status: u16, code: &str, detail: &str) -> Value {
    let error = serde_json::json!({ "status": status.to_string(), "code": code, "detail": detail });
    serde_json::json!({ "errors": [error], "jsonapi": { "version": "1.1" } })
}

/// The media type of API 3.0, of requests and of answers.
pub const MEDIA_TYPE: &str = "application/vnd.api+json";
/// The newest of API 2.x.
pub const VERSION: &str = "2.6";
/// All of API 2.x that are spoken. The first that has an agent's AK and certificate in an enrolment is 2.1.
pub const VERSIONS: [&str; 6] = ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"];
/// As Keylime's own databases have it.
const AGENT_ID_BYTES_MAX: usize = 80;

#[cfg(test)]
mod tests;
