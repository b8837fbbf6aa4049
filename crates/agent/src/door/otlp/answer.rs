//! Why a request is refused, and how each protocol says so. The specification names the codes that exporters try again after:
//! here `UNAVAILABLE` with a `RetryInfo`, and 503 with `Retry-After`.

use std::time::Duration;

use ::http::{HeaderValue, Response, StatusCode, header};
use assay_telemetry::otlp::Encoding;
use prost::Message;
use thiserror::Error;
use tonic::{Code, Status};

use super::{Body, full};
use crate::telemetry::IntakeError;

/// Why a request is refused.
#[derive(Debug, Error)]
pub(super) enum Refused {
    /// There is no such path.
    #[error("OTLP knows no such path: /v1/traces, /v1/metrics and /v1/logs are served")]
    Path,
    /// There is no such method.
    #[error("OTLP is POST")]
    Method,
    /// Another media type.
    #[error("OTLP is application/x-protobuf or application/json over HTTP, application/grpc over gRPC")]
    MediaType,
    /// Another compression.
    #[error("gzip is the only compression")]
    Compression,
    /// Not what it says it is.
    #[error("{0}")]
    Malformed(&'static str),
    /// Too long, as it came or unpacked.
    #[error("a request has at most {} bytes, unpacked", super::body::BYTES_MAX)]
    TooLong,
    /// It did not come in time.
    #[error("the request did not come in time")]
    Late,
    /// The connection ended.
    #[error("the request ended early")]
    Broken,
    /// More than there is room for at the moment.
    #[error("more requests than there is room for: try again")]
    Busy,
    /// It cannot be kept.
    #[error("the request cannot be written to disk: try again")]
    Disk,
}

impl From<IntakeError> for Refused {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Request(_) => Refused::Malformed("not an OTLP request of this kind"),
            IntakeError::Spool(error) => {
                tracing::warn!(%error, "a request could not be written down");
                Refused::Disk
            }
        }
    }
}

impl Refused {
    fn code(&self) -> Code {
        match self {
            Refused::Path | Refused::Method => Code::Unimplemented,
            Refused::MediaType | Refused::Compression => Code::Unimplemented,
            Refused::Malformed(_) => Code::InvalidArgument,
            // Without a RetryInfo: it would not get shorter.
            Refused::TooLong => Code::ResourceExhausted,
            Refused::Late => Code::DeadlineExceeded,
            Refused::Broken => Code::Cancelled,
            Refused::Busy | Refused::Disk => Code::Unavailable,
        }
    }

    fn status_code(&self) -> StatusCode {
        match self {
            Refused::Path => StatusCode::NOT_FOUND,
            Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refused::MediaType | Refused::Compression => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refused::Malformed(_) | Refused::Broken => StatusCode::BAD_REQUEST,
            Refused::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Late => StatusCode::REQUEST_TIMEOUT,
            Refused::Busy | Refused::Disk => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Refused::Busy | Refused::Disk).then_some(RETRY_AFTER)
    }

    fn rpc_status(&self) -> RpcStatus {
        let details = self.retry_after().map(|after| {
            let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            let info = RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos: 0 }) };
            let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
            prost_types::Any { type_url, value: info.encode_to_vec() }
        });
        RpcStatus {
            code: self.code() as i32,
            message: self.to_string(),
            details: details.into_iter().collect(),
        }
    }

    /// In gRPC's trailers.
    pub(super) fn grpc(&self) -> Response<Body> {
        let status = self.rpc_status();
        let details = if status.details.is_empty() { Vec::new() } else { status.encode_to_vec() };
        Status::with_details(self.code(), status.message, details.into()).into_http()
    }

    /// As a `Status` in the body, encoded as the request was.
    pub(super) fn http(&self, encoding: Encoding) -> Response<Body> {
        let status = self.rpc_status();
        let body = match encoding {
            Encoding::Json => {
                serde_json::json!({ "code": status.code, "message": status.message }).to_string().into()
            }
            _ => status.encode_to_vec(),
        };
        let mut response = answer(encoding, body);
        *response.status_mut() = self.status_code();
        if let Some(after) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().into());
        }
        if matches!(self, Refused::Method) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        if matches!(self, Refused::Late | Refused::TooLong) {
            // What is left of the body is not waited for.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// An answer in the request's own encoding.
pub(super) fn answer(encoding: Encoding, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(body));
    let media_type = encoding.media_type().unwrap_or("application/x-protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

const RETRY_AFTER: Duration = Duration::from_secs(1);
