//! What the original answers: JSON in one line, members in order, and one `error` where something is refused.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::grant::submission::{NoNonce, NotSubmitted};
use crate::grant::telemetry::Answer;
use crate::outcome::Outcome;
use assay_telemetry::json_protocol::SubmissionError;
use assay_trust::grant::Denied;

/// A body with its status.
pub(super) fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, json)], format!("{body}\n")).into_response()
}

/// Why something is refused.
pub(super) fn error(status: u16, why: &str) -> Response {
    answer(status, &json!({ "error": why }))
}

/// Why there is no nonce.
pub(super) fn no_nonce(refused: &NoNonce) -> Response {
    match refused {
        NoNonce::Whose => error(400, "public_key_hash parameter is required"),
        NoNonce::UnknownKey => error(403, "Agent not found in allowlist"),
        NoNonce::Random => error(500, "Failed to generate nonce"),
        NoNonce::Store(store) => later(store, "Failed to generate nonce"),
    }
}

/// What became of a submission that is whose it says.
pub(super) fn outcome(outcome: &Answer, at: &str) -> Response {
    match outcome {
        Answer::Accepted(receipt) => {
            let message = "Metrics received and verified successfully";
            let mut response =
                answer(200, &json!({ "status": "success", "message": message, "processing_id": at }));
            // The receipt goes beside the body, which is the original's.
            if let Ok(leaf) = HeaderValue::try_from(receipt.leaf.to_string()) {
                response.headers_mut().insert(LEDGER_HEADER, leaf);
            }
            response
        }
        Answer::Denied(Denied::LocationRefused { .. }) => error(400, "Geographic region verification failed"),
        Answer::Denied(_) => error(400, "Agent verification failed"),
    }
}

/// Why a submission is not even denied.
pub(super) fn not_submitted(refused: &NotSubmitted) -> Response {
    match refused {
        NotSubmitted::Submission(SubmissionError::Json(_)) => error(500, NOT_PROCESSED),
        NotSubmitted::Submission(SubmissionError::Empty) => error(400, "No payload provided"),
        NotSubmitted::Submission(SubmissionError::Member { .. }) => error(400, "Invalid payload structure"),
        NotSubmitted::Nonce => error(400, "Invalid or expired nonce"),
        NotSubmitted::Signature => error(400, "Signature verification failed"),
        NotSubmitted::UnknownDevice => error(400, "Agent verification failed"),
        NotSubmitted::Store(store) => later(store, NOT_PROCESSED),
    }
}

/// What may go better later says when, which the original does not.
fn later(why: &impl Outcome, message: &str) -> Response {
    let Some(after) = why.retry_after() else { return error(500, message) };
    let mut response = error(503, message);
    response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
    response
}

pub(super) const NOT_PROCESSED: &str = "Failed to process metrics";
/// The leaf of the trail that the submission's run begins with.
const LEDGER_HEADER: &str = "assay-ledger-leaf";
