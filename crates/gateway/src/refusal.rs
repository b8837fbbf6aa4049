//! What the gateway answers itself when it does not pass a request on: gRPC errors without a body, or JSON.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use prost::Message as _;

use crate::body::{AnswerBody, full, nothing};
use crate::limits::RetryAfter;

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such method.
    Unknown,
    /// The peer asks too often.
    TooOften(RetryAfter),
    /// The request is larger than it may be.
    TooLarge,
    /// The request took longer than it may.
    TooLong,
    /// No healthy server, or it went away.
    Unavailable,
}

impl Refusal {
    /// The gRPC status code.
    fn code(self) -> u32 {
        match self {
            Refusal::Unknown => 12,
            Refusal::TooOften(_) | Refusal::TooLarge => 8,
            Refusal::TooLong => 4,
            Refusal::Unavailable => 14,
        }
    }

    fn http(self) -> StatusCode {
        match self {
            Refusal::Unknown => StatusCode::NOT_FOUND,
            Refusal::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooLong => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The reason code in JSON answers and counters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::Unknown => "unknown-path",
            Refusal::TooOften(_) => "too-many-requests",
            Refusal::TooLarge => "request-too-large",
            Refusal::TooLong => "request-timeout",
            Refusal::Unavailable => "no-healthy-server",
        }
    }

    // ASCII without '%', so that it is its own percent-encoding.
    fn message(self) -> &'static str {
        match self {
            Refusal::Unknown => "the gateway passes on assay.edge.v1.Edge only",
            Refusal::TooOften(_) => "too many requests",
            Refusal::TooLarge => "the request is larger than the gateway allows",
            Refusal::TooLong => "the request took longer than the gateway allows",
            Refusal::Unavailable => "no healthy server",
        }
    }

    /// When to come again, if waiting helps.
    fn retry_after(self) -> Option<Duration> {
        match self {
            Refusal::TooOften(RetryAfter(wait)) => Some(wait),
            Refusal::Unavailable => Some(RECONNECT),
            Refusal::Unknown | Refusal::TooLarge | Refusal::TooLong => None,
        }
    }

    /// The answer in the caller's protocol.
    pub(crate) fn answer(self, grpc: bool) -> Response<AnswerBody> {
        if grpc { self.grpc() } else { self.json() }
    }

    // gRPC over HTTP/2, Trailers-Only: status 200, everything in one header block.
    fn grpc(self) -> Response<AnswerBody> {
        let mut response = Response::new(nothing());
        *response.headers_mut() = self.trailers();
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    fn json(self) -> Response<AnswerBody> {
        let error = serde_json::json!({ "error": { "code": self.name(), "message": self.message() } });
        let mut response = Response::new(full(error.to_string()));
        *response.status_mut() = self.http();
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after() {
            headers.insert("retry-after", HeaderValue::from(wait.as_secs().saturating_add(1)));
        }
        response
    }

    /// The status as trailers, for a stream whose answer has begun.
    pub(crate) fn trailers(self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(self.code()));
        trailers.insert("grpc-message", HeaderValue::from_static(self.message()));
        if let Some(wait) = self.retry_after() {
            let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            trailers.insert("grpc-retry-pushback-ms", HeaderValue::from(milliseconds.max(1)));
            if let Ok(details) = HeaderValue::try_from(self.details(wait)) {
                trailers.insert("grpc-status-details-bin", details);
            }
        }
        trailers
    }

    /// `google.rpc.Status` with a `google.rpc.RetryInfo`, as binary metadata is written: base64 without padding.
    fn details(self, wait: Duration) -> String {
        let retry = RetryInfo { retry_delay: prost_types::Duration::try_from(wait).ok() };
        let detail = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: retry.encode_to_vec(),
        };
        let code = i32::try_from(self.code()).unwrap_or_default();
        let status = RpcStatus { code, message: self.message().to_owned(), details: vec![detail] };
        data_encoding::BASE64_NOPAD.encode(&status.encode_to_vec())
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

// A server that went away is tried again about this often.
const RECONNECT: Duration = Duration::from_millis(500);
