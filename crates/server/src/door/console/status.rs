//! Outcomes as HTTP has them: a status, the code and the sentence as JSON, and where it helps when to try again.

use assay_wire::console;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;

use crate::outcome::{Kind, Refusal};

/// To operators: code and sentence.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = console::Refusal { code: self.code.into(), message: self.message.clone() };
        let body = console::Refused { error };
        let mut response = (status(self.kind), Json(body)).into_response();
        response.extensions_mut().insert(self.clone());
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}

pub(super) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Malformed => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Duplicate | Kind::OutOfTurn | Kind::Overtaken => StatusCode::CONFLICT,
        Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Late => StatusCode::REQUEST_TIMEOUT,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Fault => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
