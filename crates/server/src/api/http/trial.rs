//! Trying a policy on the evidence that is kept.

use std::convert::Infallible;
use std::sync::Arc;

use assay_evidence::time::UnixTime;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::super::error::Refusal;
use crate::clock;
use crate::server::Server;
use crate::trial;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    /// How far back recorded results are judged; nothing: each device's last evidence alone.
    since_seconds: Option<u64>,
}

/// Judges without consequence: a line of JSON for the progress now and then, and the report.
pub(super) async fn start(
    State(server): State<Arc<Server>>,
    Query(period): Query<Period>,
    text: String,
) -> Result<Response, Refusal> {
    let since = match period.since_seconds {
        None | Some(0) => UnixTime(u64::MAX),
        Some(seconds) => UnixTime(clock::now().0.saturating_sub(seconds)),
    };
    let lines = trial::start(server, text, since).await?;
    let lines = ReceiverStream::new(lines).map(Ok::<_, Infallible>);
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
