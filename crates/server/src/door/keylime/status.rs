//! Outcomes as Keylime's agents and tenant know them: an envelope of API 2.x, or an error of JSON:API of API 3.0.

use assay_wire::keylime::{self, Envelope, KeylimeError, MEDIA_TYPE};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::outcome::{Kind, Outcome, Refusal};

/// An answer of API 2.x.
pub(super) fn envelope(envelope: &Envelope) -> Response {
    let body = serde_json::to_string(envelope).unwrap_or_default();
    respond(envelope.code, "application/json", body)
}

/// An answer of API 3.0.
pub(super) fn document(status: u16, document: &Value) -> Response {
    respond(status, MEDIA_TYPE, document.to_string())
}

fn respond(status: u16, media_type: &'static str, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}

/// What did not come of a request of API 2.x.
#[derive(Debug)]
pub(super) struct V2(pub Refusal);

/// What did not come of a request of API 3.0.
#[derive(Debug)]
pub(super) struct V3(pub Refusal);

impl<E: Into<Refusal>> From<E> for V2 {
    fn from(error: E) -> Self {
        V2(error.into())
    }
}

impl<E: Into<Refusal>> From<E> for V3 {
    fn from(error: E) -> Self {
        V3(error.into())
    }
}

impl IntoResponse for V2 {
    fn into_response(self) -> Response {
        let V2(refusal) = self;
        let code = match (refusal.kind, refusal.code) {
            // It comes in once somebody lets it in, so that it is worth coming again, which 403 says it is not.
            (_, "admission-pending") => 503,
            (_, "size") => 413,
            // As Keylime has it for what does not prove what it should.
            (Kind::Malformed | Kind::Unauthenticated, _) => 400,
            // Nor has the protocol anything for what came first.
            (Kind::Duplicate | Kind::OutOfTurn | Kind::Overtaken, _) => 403,
            (kind, _) => common(kind),
        };
        let again = refusal.retry_after.map(|after| after.as_secs().max(1));
        let pending = (refusal.code == "admission-pending").then_some(PENDING_SECONDS);
        later(envelope(&Envelope::refusal(code, sentence(&refusal))), pending.or(again), code)
    }
}

impl IntoResponse for V3 {
    fn into_response(self) -> Response {
        let V3(refusal) = self;
        let code = match (refusal.kind, refusal.code) {
            (_, "size") => 413,
            (Kind::Malformed, _) => 400,
            (Kind::Unauthenticated, _) => 401,
            (Kind::Duplicate | Kind::OutOfTurn | Kind::Overtaken, _) => 409,
            (kind, _) => common(kind),
        };
        let error = keylime::error(code, refusal.code, &sentence(&refusal));
        later(document(code, &error), refusal.retry_after.map(|after| after.as_secs().max(1)), code)
    }
}

/// What both say alike.
fn common(kind: Kind) -> u16 {
    match kind {
        Kind::Malformed => 400,
        Kind::Unauthenticated => 401,
        Kind::Forbidden => 403,
        Kind::NotFound => 404,
        Kind::Late => 408,
        Kind::Duplicate | Kind::OutOfTurn | Kind::Overtaken => 409,
        Kind::Exhausted => 429,
        Kind::Unavailable => 503,
        Kind::Fault => 500,
    }
}

/// What is wrong here is in the log.
fn sentence(refusal: &Refusal) -> String {
    match refusal.kind {
        Kind::Fault | Kind::Unavailable => format!("{}: {}", refusal.kind.family(), refusal.code),
        _ => format!("{}: {}", refusal.code, refusal.message),
    }
}

fn later(mut response: Response, seconds: Option<u64>, code: u16) -> Response {
    if let Some(seconds) = seconds.filter(|_| matches!(code, 408 | 429 | 503)) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// A path that is none of the protocol's, or a method that it does not take.
pub(super) async fn nothing_here() -> Response {
    envelope(&Envelope::refusal(404, "Not Found"))
}

impl Outcome for KeylimeError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            KeylimeError::Json(_) => (Kind::Malformed, "json"),
            KeylimeError::AgentId => (Kind::Malformed, "agent-id"),
            KeylimeError::Encoding { .. } => (Kind::Malformed, "encoding"),
            KeylimeError::Missing(_) => (Kind::Malformed, "missing"),
            KeylimeError::Unexpected { .. } => (Kind::Malformed, "unexpected"),
        }
    }
}

/// How soon somebody may have been let in.
const PENDING_SECONDS: u64 = 60;
