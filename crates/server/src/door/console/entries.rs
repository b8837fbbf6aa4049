//! Registration entries.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::devices::{find, read};
use crate::entry;
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
    let Server { store, config, .. } = server.as_ref();
    let mut named: Value = read(&body)?;
    let new = match named.get_mut("parent") {
        // A device that has yet to enroll is known by its ID alone.
        Some(Value::String(parent)) if !parent.starts_with("spiffe://") => {
            *parent = find(&server, parent).await?.id.to_string();
            read(named.to_string().as_bytes())?
        }
        _ => read(&body)?,
    };
    Ok(Json(entry::create(store, &config.trust_domain, new, server.now()).await?))
}

pub(super) async fn remove(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let withdrawn = entry::remove(&server.store, &id, server.now()).await?;
    Ok(Json(json!({ "removed": id, "withdrawn": withdrawn.serials.len() })))
}
