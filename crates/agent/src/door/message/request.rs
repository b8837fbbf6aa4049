//! What is asked to be signed, and in what words it is refused.

use assay_identity::signed_message::{About, MessageError};
use data_encoding::HEXLOWER;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use thiserror::Error;
use tonic::body::Body;

use super::{REQUEST_BYTES_MAX, WAITING_MAX, json_response};

/// The request that a program wants to make, and what it says in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    audience: String,
    method: String,
    path: String,
    body_sha256: String,
    /// `classic`: by the RSA key, for receivers that verify no other.
    #[serde(default)]
    profile: String,
    /// As it is written: its own order and spacing are kept.
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The same, checked.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    written: Written<'a>,
    body_sha256: [u8; 32],
}

impl<'a> Wanted<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Refused> {
        let written: Written<'a> = serde_json::from_slice(body)?;
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
        if written.audience.is_empty() {
            return Err(Refused::Member("audience", "say whom the message is for, as they call themselves"));
        }
        if !is_token(&written.method) {
            return Err(Refused::Member("method", "give it in capitals, such as POST"));
        }
        let is_path =
            written.path.starts_with('/') && written.path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path {
            return Err(Refused::Member(
                "path",
                "give it with its query, as it stands in the request: /secure/data?x=1",
            ));
        }
        if !matches!(written.profile.as_str(), "" | "classic") {
            return Err(Refused::Member("profile", "classic, or nothing"));
        }
        let digest = HEXLOWER.decode(written.body_sha256.as_bytes()).ok();
        let body_sha256 = digest.and_then(|digest| digest.try_into().ok());
        let body_sha256 =
            body_sha256.ok_or(Refused::Member("body_sha256", "give 64 digits of hex in small letters"))?;
        Ok(Wanted { written, body_sha256 })
    }

    pub(super) fn is_classic(&self) -> bool {
        self.written.profile == "classic"
    }

    pub(super) fn data(&self) -> &str {
        self.written.data.get()
    }

    pub(super) fn about(&self) -> About<'_> {
        let Written { audience, method, path, .. } = &self.written;
        About { audience, method, path, body_sha256: self.body_sha256 }
    }
}

/// Why nothing is signed.
#[derive(Debug, Error)]
pub(super) enum Refused {
    #[error("there is POST /sign-message and nothing else; the Workload API is gRPC, over HTTP/2")]
    Path,
    #[error("ask by POST")]
    Method,
    #[error("security header missing: workload.spiffe.io: true")]
    Header,
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes, broke off, or did not come")]
    Body,
    #[error("the request does not read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}: {1}")]
    Member(&'static str, &'static str),
    #[error("it would be no message: {0}")]
    Message(MessageError),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the device is not attached to its server now: try again")]
    NotAttached,
    #[error("there is no certificate for the RSA key: the server signs none, or not yet")]
    NoClassic,
    #[error("the server has given the device no number: it is older than this agent")]
    NoNumber,
    #[error("{WAITING_MAX} messages wait for the TPM already: wait a second")]
    Busy,
    #[error("the TPM did not sign: the agent's log says why")]
    Tpm,
    #[error("the system has no randomness")]
    NoRandomness,
}

impl Refused {
    fn told(&self) -> (StatusCode, &'static str) {
        match self {
            Refused::Path => (StatusCode::NOT_FOUND, "no-route"),
            Refused::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            Refused::Header => (StatusCode::BAD_REQUEST, "header"),
            Refused::Body => (StatusCode::PAYLOAD_TOO_LARGE, "body"),
            Refused::Json(_) | Refused::Member(..) => (StatusCode::BAD_REQUEST, "json"),
            Refused::Message(_) => (StatusCode::BAD_REQUEST, "message"),
            Refused::Denied(_) => (StatusCode::FORBIDDEN, "denied"),
            Refused::Unavailable(_) | Refused::NotAttached | Refused::NoNumber | Refused::NoClassic => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            Refused::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            Refused::Tpm | Refused::NoRandomness => (StatusCode::INTERNAL_SERVER_ERROR, "fault"),
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let (status, code) = self.told();
        let mut response =
            json_response(status, &json!({ "error": { "code": code, "message": self.to_string() } }));
        if matches!(self, Refused::Busy) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
