//! What anyone may fetch: health, metrics, revocation list, bundle, keys, and who is trusted right now.

use std::sync::Arc;

use assay_identity::SpiffeId;
use assay_trust::labels::Selector;
use axum::Json;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::fate::{self, FateError};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Result<impl IntoResponse, Refusal> {
    let devices = server.store.device_counts().await?;
    let text = server.metrics.render(server.registry.attached(), devices);
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

pub(super) async fn crl(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/pkix-crl")], server.revocations.current())
}

pub(super) async fn bundle(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-pem-file")], server.authority.bundle().to_pem())
}

/// What verifies the attestation results that are signed here.
pub(super) async fn jwks(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/jwk-set+json")], server.result_key.jwks().to_string())
}

/// How many leaves the ledger has and the last one's hash, as a signed note: for whoever remembers it, so that the ledger
/// cannot be made anew behind their back.
pub(super) async fn ledger_head(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], server.ledger_head.note())
}

/// What verifies it.
pub(super) async fn ledger_key(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{}\n", server.ledger_head.verifier()))
}

#[derive(Deserialize)]
pub(super) struct About {
    id: Option<String>,
}

/// The fleet in numbers, or one identity: a device by its state, a workload by the device that carries it.
pub(super) async fn trust_status(
    State(server): State<Arc<Server>>,
    Query(about): Query<About>,
) -> Result<Json<Value>, Refusal> {
    match about.id {
        Some(id) => identity_status(&server, &id).await.map(Json),
        None => fleet_status(&server).await.map(Json),
    }
}

async fn fleet_status(server: &Server) -> Result<Value, Refusal> {
    let counts: Map<String, Value> = server
        .store
        .device_counts()
        .await?
        .into_iter()
        .map(|(status, count)| (status, count.into()))
        .collect();
    let in_force = server.policies.current();
    let policy = in_force.plan.assigned(&Selector::default()).ok();
    Ok(json!({
        "trust_domain": server.config.trust_domain.as_str(),
        "devices": counts,
        "attached": server.registry.attached(),
        "policy": policy.map(|assigned| in_force.citation(assigned.revision)),
    }))
}

async fn identity_status(server: &Server, text: &str) -> Result<Value, Refusal> {
    let malformed = |_| Refusal::new(Kind::Malformed, "spiffe-id", "id: not a SPIFFE ID");
    let id = SpiffeId::parse(text).map_err(malformed)?;
    let now = clock::now();
    let carrier = match id.device_hex() {
        Some(_) => Some(id.to_string()),
        None => server.store.carrier_of(id.as_str(), now).await?,
    };
    let unknown = || Refusal::new(Kind::NotFound, "unknown-id", "nothing of this id was ever issued");
    let device = carrier.and_then(|carrier| SpiffeId::parse(&carrier).ok()).ok_or_else(unknown)?;
    let device = fate::enrolled(&server.store, &device).await.map_err(|error| match error {
        FateError::Unknown => unknown(),
        error => error.into(),
    })?;
    Ok(json!({
        "id": id.as_str(),
        "device": device.id.as_str(),
        "status": device.state.status_at(now).name(),
        "tier": device.state.tier().name(),
        "valid_until": device.state.valid_until(),
    }))
}
