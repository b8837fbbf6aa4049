//! OTLP over gRPC: one unary method a signal. The frames are read here, and not by a library of gRPC, since the bytes of the
//! message are what is kept, and since they are bounded while they are unpacked.

use std::convert::Infallible;

use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use assay_telemetry::otlp::{Encoding, Signal};
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Frame, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Refused;
use super::{Body, body};
use crate::telemetry::Intake;

/// Answers one request.
pub(super) async fn answer(
    intake: &Intake,
    request: Request<Incoming>,
    place: Option<OwnedSemaphorePermit>,
) -> Response<Body> {
    match take(intake, request, place).await {
        Ok(()) => success(),
        Err(refused) => refused.grpc(),
    }
}

async fn take(
    intake: &Intake,
    request: Request<Incoming>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<(), Refused> {
    let signal = match request.uri().path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        _ => return Err(Refused::Path),
    };
    let header = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    if !matches!(header(header::CONTENT_TYPE), Some("application/grpc" | "application/grpc+proto")) {
        return Err(Refused::MediaType);
    }
    let compression = match header(GRPC_ENCODING) {
        None | Some("identity") => false,
        Some("gzip") => true,
        Some(_) => return Err(Refused::Compression),
    };
    let _place = place.ok_or(Refused::Busy)?;
    let framed = body::read(request.into_body(), body::BYTES_MAX + FRAME_BYTES).await?;
    let bytes = match message(&framed)? {
        (true, packed) if compression => body::gunzip(&packed)?,
        (true, _) => return Err(Refused::Malformed("compressed without saying how")),
        (false, bytes) => bytes,
    };
    Ok(intake.take(signal, Encoding::Protobuf, bytes).await?)
}

/// The one message of a unary call, and whether it is compressed.
fn message(framed: &Bytes) -> Result<(bool, Bytes), Refused> {
    let malformed = || Refused::Malformed("not one message of gRPC");
    let (prefix, rest) = framed.split_first_chunk::<FRAME_BYTES>().ok_or_else(malformed)?;
    let [flag, length @ ..] = *prefix;
    if flag > 1 || u32::try_from(rest.len()).ok() != Some(u32::from_be_bytes(length)) {
        return Err(malformed());
    }
    Ok((flag == 1, framed.slice(FRAME_BYTES..)))
}

/// An Export…ServiceResponse without a partial success, which is an empty message: everything was taken.
fn success() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from_static(&[0; FRAME_BYTES])), Frame::trailers(trailers)];
    let frames = tokio_stream::iter(frames.map(Ok::<_, Infallible>));
    let mut response = Response::new(UnsyncBoxBody::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// A flag and the length.
const FRAME_BYTES: usize = 5;
const GRPC_ENCODING: header::HeaderName = header::HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: header::HeaderName = header::HeaderName::from_static("grpc-accept-encoding");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_and_nothing_else() {
        let read = |bytes: &'static [u8]| message(&Bytes::from_static(bytes)).ok();
        assert_eq!(read(&[0, 0, 0, 0, 0]), Some((false, Bytes::new())));
        assert_eq!(read(&[1, 0, 0, 0, 2, 7, 8]), Some((true, Bytes::from_static(&[7, 8]))));
        for broken in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0]] {
            assert_eq!(message(&Bytes::copy_from_slice(broken)).ok(), None, "{broken:?}");
        }
    }
}
