//! Trying a policy on the evidence that is kept.

use std::convert::Infallible;
use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_wire::console::policy::Citation;
use assay_wire::console::trial::{Cause, Change, Devices, Line, Progress, Report, Results};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::parameters::Asked;
use super::policy::{covered, selector_of};
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
    let lines = ReceiverStream::new(lines).map(|line| Ok::<_, Infallible>(written(&told(line))));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn told(line: trial::Line) -> Line {
    match line {
        trial::Line::Progress { done, of } => Line::Progress(Progress { done, of }),
        trial::Line::Report(report) => Line::Report(Box::new(reported(*report))),
        trial::Line::Failed(why) => Line::Error(why),
    }
}

fn reported(report: trial::Report) -> Report {
    let trial::Devices {
        would_fall,
        would_have_fallen,
        would_rise,
        otherwise_changed,
        unchanged,
        without_evidence,
    } = report.devices;
    Report {
        policy: Citation { name: report.name, version: report.version },
        coverage: covered(&report.coverage),
        since: report.since,
        selector: report.selector.to_string(),
        devices: Devices {
            would_fall,
            would_have_fallen,
            would_rise,
            otherwise_changed,
            unchanged,
            without_evidence,
        },
        results: Results { judged: report.judged, unreadable: report.unreadable },
        changes: report.changes.into_iter().map(changed).collect(),
        changes_left_off: report.changes_left_off,
        causes: report.causes.into_iter().map(caused).collect(),
        causes_left_off: report.causes_left_off,
    }
}

fn changed(change: trial::Change) -> Change {
    let trial::Change { device, id, from, to, at, result, now, reason } = change;
    let (from, to) = (from.name().to_owned(), to.name().to_owned());
    Change { device, id, from, to, at, result, now, reason }
}

fn caused(cause: trial::Cause) -> Cause {
    let trial::Cause { finding, devices, results, examples } = cause;
    Cause {
        check: finding.check.name().to_owned(),
        tier: finding.tier.name().to_owned(),
        claim: finding.claim,
        message: finding.message,
        devices,
        results,
        examples,
    }
}

fn written(line: &Line) -> Bytes {
    let mut line = serde_json::to_vec(line).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
