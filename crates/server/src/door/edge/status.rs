//! Outcomes as gRPC has them: a code, the family and the reason code, and where it helps when to try again.

use std::time::Duration;

use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::outcome::{Kind, Refusal};

/// To devices: family and code.
impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, code, retry_after, .. } = refusal;
        status(grpc(kind), &format!("{}: {code}", kind.family()), code, retry_after)
    }
}

fn grpc(kind: Kind) -> Code {
    match kind {
        Kind::Malformed => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Duplicate => Code::AlreadyExists,
        Kind::OutOfTurn => Code::FailedPrecondition,
        Kind::Overtaken => Code::Aborted,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Late => Code::DeadlineExceeded,
        Kind::Unavailable => Code::Unavailable,
        Kind::Fault => Code::Internal,
    }
}

/// Makes the status; the details are a `google.rpc.Status` with a `RetryInfo`, as gRPC clients know it.
fn status(code: Code, message: &str, reason: &'static str, retry_after: Option<Duration>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("assay-reason", MetadataValue::from_static(reason));
    if let Some(after) = retry_after {
        // As gRPC clients are told when to retry, for those that do not read details.
        metadata
            .insert("grpc-retry-pushback-ms", u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    }
    let details = retry_after.map(|after| details(code, message, after)).unwrap_or_default();
    Status::with_details_and_metadata(code, message, details.into(), metadata)
}

fn details(code: Code, message: &str, after: Duration) -> Vec<u8> {
    let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let delay = Delay { seconds, nanos: after.subsec_nanos().try_into().unwrap_or_default() };
    let info = RetryInfo { retry_delay: Some(delay) };
    let detail = Detail {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: info.encode_to_vec(),
    };
    RpcStatus { code: code as i32, message: message.to_owned(), details: vec![detail] }.encode_to_vec()
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}
