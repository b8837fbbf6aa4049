//! Who tried what they may not: in numbers since the server started, and the last on record.

use std::sync::Arc;

use assay_wire::console::record::{Attempt, Security};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::parameters::Asked;
use crate::audit::Leaf;
use crate::outcome::Refusal;
use crate::parts::Server;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    limit: Option<u32>,
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Security>, Refusal> {
    let limit = which.limit.unwrap_or(SHOWN_DEFAULT).clamp(1, SHOWN_MAX);
    let counts = server.metrics.refusals().map(|(cause, count)| (cause.to_owned(), count)).collect();
    let last = server.store.refusals(limit).await?;
    Ok(Json(Security { counts, refusals: last.into_iter().map(attempt).collect() }))
}

fn attempt(leaf: Leaf) -> Attempt {
    let detail: Value = serde_json::from_str(&leaf.detail).unwrap_or_default();
    let text = |member| detail.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    Attempt {
        leaf: leaf.index,
        at: leaf.at,
        who: leaf.subject,
        cause: text("cause"),
        from: text("from"),
        why: text("why"),
        unsaid: detail.get("unsaid").and_then(Value::as_u64).unwrap_or_default(),
    }
}

const SHOWN_DEFAULT: u32 = 50;
const SHOWN_MAX: u32 = 1000;
