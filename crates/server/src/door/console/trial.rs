//! Trying a policy on the evidence that is kept.

use std::convert::Infallible;
use std::sync::Arc;

use assay_evidence::time::UnixTime;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::parameters::Asked;
use super::policy::selector_of;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::policy::trial::{self, Scope};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    /// How far back recorded results are judged; nothing: each device's last evidence alone.
    since_seconds: Option<u64>,
    /// Whom the policy would be for, as labels are written; nothing: every device.
    #[serde(default)]
    selector: String,
}

/// Judges without consequence: a line of JSON for the progress now and then, and the report.
pub(super) async fn start(
    State(server): State<Arc<Server>>,
    Asked(what): Asked<What>,
    text: String,
) -> Result<Response, Refusal> {
    let ago = |seconds| UnixTime(server.now().0.saturating_sub(seconds));
    let since = what.since_seconds.filter(|seconds| *seconds > 0).map(ago);
    let scope = Scope { since, selector: selector_of(&what.selector)? };
    let lines = trial::start(server.trying(), text, scope).await?;
    let lines = ReceiverStream::new(lines).map(Ok::<_, Infallible>);
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
