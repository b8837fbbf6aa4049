//! One request and its answer, over a connection that is kept; what the answer means is in the OTLP specification.

use std::sync::Arc;
use std::time::Duration;

use assay_telemetry::otlp::{Encoding, Signal};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use prost::Message;

use super::destination::Destination;
use crate::door::outward::Connection;
use crate::outcome::chain;

/// What became of a request or a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// The destination has it.
    Delivered,
    /// The destination has some of it, or none, and says that it does not want the rest.
    Refused,
    /// It is no longer kept.
    Lost,
    /// It has to be tried again, at the earliest after this.
    Later(Option<Duration>),
}

impl Given {
    /// The name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Given::Delivered => "delivered",
            Given::Refused => "refused",
            Given::Lost => "lost",
            Given::Later(_) => "later",
        }
    }
}

/// A destination, and the way there.
pub(super) struct Exchange {
    destination: Arc<Destination>,
    connection: Connection,
    /// Whether the last request went through, so that only a change is said.
    was_well: bool,
}

impl Exchange {
    pub(super) fn with(destination: Arc<Destination>) -> Exchange {
        let connection = Connection::to(destination.place.clone());
        Exchange { destination, connection, was_well: true }
    }

    /// Gives one request, exactly as it is.
    pub(super) async fn give(
        &mut self,
        signal: Signal,
        encoding: Encoding,
        body: Bytes,
        origin: &[(&'static str, String)],
    ) -> Given {
        let (Some(signal), Some(media_type)) = (signal.name(), encoding.media_type()) else {
            return Given::Refused;
        };
        let request = self.request(signal, media_type, body, origin);
        let given = match self.connection.ask(request, WITHIN, ANSWER_BYTES_MAX).await {
            Ok(answer) => self.meaning(answer.status(), answer.headers(), answer.body()),
            Err(error) => {
                self.say(&chain(&error));
                Given::Later(None)
            }
        };
        self.was_well = !matches!(given, Given::Later(_));
        given
    }

    fn meaning(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Given {
        match status.as_u16() {
            200..=299 => match PartialSuccess::of(headers, body) {
                Some(PartialSuccess { rejected: 1.., message }) => {
                    self.refused(status, &message);
                    Given::Refused
                }
                _ => Given::Delivered,
            },
            // OTLP: these, and no others, are tried again.
            429 | 502 | 503 | 504 => {
                self.say(&format!("{status}"));
                let seconds =
                    headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Given::Later(seconds.map(Duration::from_secs))
            }
            _ => {
                self.refused(status, &String::from_utf8_lossy(body));
                Given::Refused
            }
        }
    }

    fn say(&self, what: &str) {
        let destination = self.destination.name();
        if self.was_well {
            tracing::warn!(destination, what, "telemetry waits: the destination does not take it now");
        }
    }

    fn refused(&self, status: StatusCode, message: &str) {
        let message: String =
            message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARACTERS_MAX).collect();
        tracing::warn!(destination = self.destination.name(), %status, message, "a destination refused telemetry");
    }

    fn request(
        &self,
        signal: &str,
        media_type: &'static str,
        body: Bytes,
        origin: &[(&'static str, String)],
    ) -> Request<Full<Bytes>> {
        let Destination { path, authorization, .. } = &*self.destination;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{path}/v1/{signal}").parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        for (name, value) in origin {
            if let Ok(value) = value.parse() {
                headers.insert(*name, value);
            }
        }
        request
    }
}

/// What a destination did not take of a request that it took.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

/// Any of the Export…ServiceResponse.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

impl PartialSuccess {
    fn of(headers: &HeaderMap, body: &[u8]) -> Option<PartialSuccess> {
        let media_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match media_type.split(';').next()?.trim() {
            "application/x-protobuf" => ExportResponse::decode(body).ok()?.partial_success,
            "application/json" => PartialSuccess::of_json(&serde_json::from_slice(body).ok()?),
            _ => None,
        }
    }

    /// As protobuf's JSON has it: a number of 64 bits is a text, or a number.
    fn of_json(answer: &serde_json::Value) -> Option<PartialSuccess> {
        let partial = answer.get("partialSuccess")?;
        let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"]
            .iter()
            .find_map(|name| partial.get(name))
            .and_then(|number| number.as_i64().or_else(|| number.as_str()?.parse().ok()))
            .unwrap_or(0);
        let message = partial.get("errorMessage").and_then(serde_json::Value::as_str).unwrap_or_default();
        Some(PartialSuccess { rejected, message: message.to_owned() })
    }
}

const WITHIN: Duration = Duration::from_secs(10);
/// The specification's.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const MESSAGE_CHARACTERS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_destination_does_not_take_is_read_in_either_encoding() {
        let check = |media_type: &'static str, body: &[u8], rejected: Option<i64>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
            let found = PartialSuccess::of(&headers, body).map(|partial| partial.rejected);
            assert_eq!(found, rejected, "{media_type} {body:?}");
        };
        let json = "application/json; charset=utf-8";
        check(json, br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#, Some(2));
        check(json, br#"{"partialSuccess":{"rejectedSpans":3}}"#, Some(3));
        check(json, br#"{"partialSuccess":{"errorMessage":"only a word"}}"#, Some(0));
        check(json, b"{}", None);
        check(json, b"{", None);
        check("application/x-protobuf", &[0x0a, 2, 0x08, 4], Some(4));
        check("application/x-protobuf", &[], None);
        check("text/plain", &[0x0a, 2, 0x08, 4], None);
    }
}
