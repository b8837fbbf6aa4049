//! Keys that sign for devices by the JSON protocol.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::devices::{find, read};
use super::parameters::Asked;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::TelemetryKey;
use crate::telemetry_key;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    device: Option<String>,
}

/// All of them, or those of a device.
pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(Which { device }): Asked<Which>,
) -> Result<Json<Value>, Refusal> {
    let device = match device {
        Some(name) => Some(find(&server, &name).await?.id.to_string()),
        None => None,
    };
    let keys = server.store.telemetry_keys(device.as_deref(), KEYS_SHOWN_MAX).await?;
    Ok(Json(json!({ "keys": keys.iter().map(shown).collect::<Vec<_>>() })))
}

/// A key, and whose it is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    device: String,
    /// SubjectPublicKeyInfo, base64.
    key: String,
}

pub(super) async fn add(State(server): State<Arc<Server>>, body: Bytes) -> Result<Json<Value>, Refusal> {
    let NewKey { device, key } = read(&body)?;
    let spki = BASE64.decode(key.as_bytes());
    let spki = spki.map_err(|_| Refusal::new(Kind::Malformed, "key", "key: not base64"))?;
    let device = find(&server, &device).await?;
    let key = telemetry_key::add(&server.store, &device.id, spki, "operator", server.now()).await?;
    Ok(Json(shown(&key)))
}

pub(super) async fn remove(
    State(server): State<Arc<Server>>,
    Path(hash): Path<String>,
) -> Result<Json<Value>, Refusal> {
    telemetry_key::remove(&server.store, &hash, "operator", server.now()).await?;
    Ok(Json(json!({ "hash": hash })))
}

fn shown(key: &TelemetryKey) -> Value {
    json!({
        "hash": key.hash, "device": key.device_id, "added_at": key.added_at, "key": BASE64.encode(&key.spki),
    })
}

const KEYS_SHOWN_MAX: u32 = 10_000;
