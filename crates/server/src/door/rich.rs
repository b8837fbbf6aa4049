//! What a gRPC status says beside its code: a `google.rpc.Status` in its details, as gRPC clients read it.

use bytes::Bytes;
use prost::Message;
use tonic::Code;

use crate::outcome::Kind;

/// The code of a kind of outcome.
pub(super) fn code(kind: Kind) -> Code {
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

/// Details of one message, of the type that this names.
pub(super) fn details(code: Code, message: &str, of: &str, detail: &impl Message) -> Bytes {
    let detail = Detail { type_url: format!("type.googleapis.com/{of}"), value: detail.encode_to_vec() };
    RpcStatus { code: code as i32, message: message.to_owned(), details: vec![detail] }.encode_to_vec().into()
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
