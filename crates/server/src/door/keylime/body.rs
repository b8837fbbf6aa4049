//! Bodies: within a size, within a time, and counted against whoever sends them.

use std::time::Duration;

use assay_admission::Peer;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::At;
use crate::outcome::{Kind, Refusal};

/// Reads a body of at most so many bytes.
pub(super) async fn read(at: &At, peer: Peer, body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    let in_flight = at.server.edge.bytes.of(peer);
    let body = Body::new(crate::door::edge::Counted::new(body, in_flight));
    match timeout(BODY_WITHIN, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Kind::Exhausted, "size", format!("more than {bytes_max} bytes")))
        }
        Ok(Err(_)) => Err(Refusal::new(Kind::Exhausted, "body", "the body was not taken")),
        Err(_) => Err(Refusal::new(Kind::Late, "deadline", "the body did not come in time")),
    }
}

/// A slow link brings a megabyte in that.
const BODY_WITHIN: Duration = Duration::from_secs(30);
