//! Outcomes as gRPC has them: a code, the family and the reason code, and where it helps when to try again.

use std::time::Duration;

use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::door::rich;
use crate::outcome::Refusal;

/// To devices: family and code.
impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, code, retry_after, .. } = refusal;
        status(rich::code(kind), &format!("{}: {code}", kind.family()), code, retry_after)
    }
}

/// Makes the status; the details are a `RetryInfo`.
fn status(code: Code, message: &str, reason: &'static str, retry_after: Option<Duration>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("assay-reason", MetadataValue::from_static(reason));
    if let Some(after) = retry_after {
        // As gRPC clients are told when to retry, for those that do not read details.
        metadata
            .insert("grpc-retry-pushback-ms", u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
    }
    let details =
        retry_after.map(|after| rich::details(code, message, "google.rpc.RetryInfo", &retry_info(after)));
    Status::with_details_and_metadata(code, message, details.unwrap_or_default(), metadata)
}

fn retry_info(after: Duration) -> RetryInfo {
    let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
    let delay = Delay { seconds, nanos: after.subsec_nanos().try_into().unwrap_or_default() };
    RetryInfo { retry_delay: Some(delay) }
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
