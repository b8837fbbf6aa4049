//! OTLP over HTTP: `/v1/traces`, `/v1/metrics`, `/v1/logs`; the answer is encoded as the request was.

use ::http::{Method, Request, Response, header};
use assay_telemetry::otlp::{Encoding, Signal};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{Refused, answer as success};
use super::{Body, body};
use crate::telemetry::Intake;

/// Answers one request.
pub(super) async fn answer(
    intake: &Intake,
    request: Request<Incoming>,
    place: Option<OwnedSemaphorePermit>,
) -> Response<Body> {
    let encoding = encoding(&request);
    let taken = take(intake, request, encoding, place).await;
    let encoding = encoding.unwrap_or(Encoding::Protobuf);
    match taken {
        // An Export…ServiceResponse without a partial success: everything was taken.
        Ok(()) => success(encoding, if encoding == Encoding::Json { b"{}".to_vec() } else { Vec::new() }),
        Err(refused) => refused.http(encoding),
    }
}

async fn take(
    intake: &Intake,
    request: Request<Incoming>,
    encoding: Option<Encoding>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<(), Refused> {
    let signals = [Signal::Traces, Signal::Metrics, Signal::Logs];
    let asked = request.uri().path().strip_prefix("/v1/");
    let signal = signals.into_iter().find(|signal| asked.is_some() && signal.name() == asked);
    let signal = signal.ok_or(Refused::Path)?;
    if request.method() != Method::POST {
        return Err(Refused::Method);
    }
    let encoding = encoding.ok_or(Refused::MediaType)?;
    let is_packed = match request.headers().get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(Refused::Compression),
    };
    let _place = place.ok_or(Refused::Busy)?;
    let bytes = body::read(request.into_body(), body::BYTES_MAX).await?;
    let bytes = if is_packed { body::gunzip(&bytes)? } else { bytes };
    Ok(intake.take(signal, encoding, bytes).await?)
}

/// By the media type, whatever its parameters are.
fn encoding(request: &Request<Incoming>) -> Option<Encoding> {
    let media_type = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = media_type.split(';').next()?.trim();
    [Encoding::Protobuf, Encoding::Json]
        .into_iter()
        .find(|encoding| encoding.media_type().is_some_and(|known| known.eq_ignore_ascii_case(media_type)))
}
