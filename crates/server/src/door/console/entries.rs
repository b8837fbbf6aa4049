//! Registration entries.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::devices::read;
use crate::clock;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::store::EntryRecord;

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({ "entries": server.store.entries().await? })))
}

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    body: Bytes,
) -> Result<Json<EntryRecord>, Refusal> {
    Ok(Json(server.entries.create(&server.store, read(&body)?, clock::now()).await?))
}

pub(super) async fn remove(
    State(server): State<Arc<Server>>,
    Path(entry): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let now = clock::now();
    let withdrawn = server.entries.remove(&server.store, &entry, now).await?;
    server.metrics.withdrawn(withdrawn.serials.len());
    server.revocations.publish(&withdrawn, now)?;
    Ok(Json(json!({ "removed": entry, "withdrawn": withdrawn.serials.len() })))
}
