//! Who tried what they may not: in numbers since the server started, and the last on record.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

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
) -> Result<Json<Value>, Refusal> {
    let limit = which.limit.unwrap_or(SHOWN_DEFAULT).clamp(1, SHOWN_MAX);
    let counts: Map<String, Value> =
        server.metrics.refusals().map(|(cause, count)| (cause.to_owned(), count.into())).collect();
    let last = server.store.refusals(limit).await?;
    Ok(Json(json!({ "counts": counts, "refusals": last.iter().map(refusal).collect::<Vec<_>>() })))
}

fn refusal(leaf: &Leaf) -> Value {
    let detail: Value = serde_json::from_str(&leaf.detail).unwrap_or_default();
    json!({
        "leaf": leaf.index, "at": leaf.at, "who": leaf.subject, "cause": detail["cause"], "from": detail["from"],
        "why": detail["why"], "unsaid": detail["unsaid"],
    })
}

const SHOWN_DEFAULT: u32 = 50;
const SHOWN_MAX: u32 = 1000;
