//! The policy in force, and putting another in its place.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::super::error::Refusal;
use crate::clock;
use crate::server::Server;

pub(super) async fn show(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    let answer = match server.store.policy().await? {
        Some(policy) => json!({
            "name": policy.name, "version": policy.version, "text": policy.text,
            "set_at": policy.set_at, "set_by": policy.set_by, "digest": policy.digest,
        }),
        None => json!({ "name": null, "version": null, "text": null }),
    };
    Ok(Json(answer))
}

pub(super) async fn set(State(server): State<Arc<Server>>, text: String) -> Result<Json<Value>, Refusal> {
    let policy = server.policies.set(&server.store, &text, "operator", clock::now()).await?;
    Ok(Json(json!({ "name": policy.name, "version": policy.version, "digest": policy.digest })))
}
