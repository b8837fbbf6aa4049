//! One notice and its answer.

use std::sync::Arc;
use std::time::Duration;

use assay_evidence::time::UnixTime;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::Full;

use super::receiver::Receiver;
use crate::door::outward::Connection;
use crate::notice::Signed;
use crate::outcome::chain;

/// What became of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// The receiver has it.
    Delivered,
    /// It does not want it, and why.
    Refused(String),
    /// It has to be tried again, at the earliest after this, and why.
    Later(Option<Duration>, String),
}

impl Given {
    /// The name in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Given::Delivered => "delivered",
            Given::Refused(_) => "refused",
            Given::Later(..) => "later",
        }
    }
}

/// A receiver, and the way there.
pub(super) struct Exchange {
    receiver: Arc<Receiver>,
    connection: Connection,
    /// Whether the last notice went through, so that only a change is said.
    was_well: bool,
}

impl Exchange {
    pub(super) fn with(receiver: Arc<Receiver>) -> Exchange {
        let connection = Connection::to(receiver.place.clone());
        Exchange { receiver, connection, was_well: true }
    }

    /// Gives one notice, signed at this time.
    pub(super) async fn give(&mut self, leaf: u64, event: Vec<u8>, now: UnixTime) -> Given {
        let request = self.request(leaf, event, now);
        let given = match self.connection.ask(request, WITHIN, ANSWER_BYTES_MAX).await {
            Ok(answer) => meaning(&answer),
            Err(error) => Given::Later(None, chain(&error)),
        };
        let webhook = self.receiver.name();
        match &given {
            Given::Later(_, why) if self.was_well => {
                tracing::warn!(webhook, why, "notices wait: the receiver does not take them now");
            }
            Given::Refused(why) => tracing::warn!(webhook, leaf, why, "a receiver refused a notice"),
            Given::Delivered | Given::Later(..) => {}
        }
        self.was_well = !matches!(given, Given::Later(..));
        given
    }

    fn request(&self, leaf: u64, event: Vec<u8>, now: UnixTime) -> Request<Full<Bytes>> {
        let signed = self.receiver.key.as_ref().map(|key| key.sign(leaf, &event, now));
        let mut request = Request::new(Full::new(event.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.receiver.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CLOUD_EVENT));
        let signed = signed.into_iter().flat_map(|Signed { id, timestamp, signature }| {
            let timestamp = timestamp.to_string();
            [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)]
        });
        for (name, value) in signed {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        request
    }
}

/// Whoever says that a notice is wrong will say so again; whoever is busy, or fails, may take it later.
fn meaning(answer: &Response<Bytes>) -> Given {
    let status = answer.status();
    match status.as_u16() {
        200..=299 => Given::Delivered,
        408 | 425 | 429 | 500..=599 => {
            let asked =
                answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Given::Later(asked.map(Duration::from_secs), format!("it answers {status}"))
        }
        _ => Given::Refused(format!("it answers {status}")),
    }
}

const CLOUD_EVENT: &str = "application/cloudevents+json; charset=utf-8";
const WITHIN: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 64 << 10;
