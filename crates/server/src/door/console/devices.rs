//! Devices, for operators: look, explain, vouch, revoke, approve.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_identity::signed_message::NodeId;
use assay_identity::{SpiffeId, TrustDomain};
use assay_trust::ear::Nonce;
use assay_wire::clocks::Apart;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::parameters::Asked;
use crate::archive::changes;
use crate::audit::Leaf;
use crate::device::Device;
use crate::fate::NewApproval;
use crate::label::NewLabels;
use crate::name::{self, NewName};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::replace::{self, NewReplacement};
use crate::store::{Carrier, StoreError, SvidRecord};
use crate::{ear, fate, label};

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let device = find(&server, &name).await?;
    explanation(&server, &device).await.map(Json)
}

/// The same, and what changed since its evidence was last good, as far as that is kept.
pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let device = find(&server, &name).await?;
    let mut answer = explanation(&server, &device).await?;
    let changes = changes::since_good(&server.store, device.id.as_str()).await.unwrap_or_else(|error| {
        tracing::warn!(device = %device.id, %error, "kept evidence cannot be read");
        None
    });
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("changes".to_owned(), json!(changes));
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Freshness {
    nonce: Option<String>,
}

/// The last result as a signed token, for whoever relies on the device.
pub(super) async fn ear(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Asked(Freshness { nonce }): Asked<Freshness>,
) -> Result<Json<Value>, Refusal> {
    let nonce = nonce.as_deref().map(Nonce::parse).transpose()?;
    let device = find(&server, &name).await?;
    let token = ear::sign(
        &server.store,
        (&server.config.trust_domain, &server.result_key),
        &device,
        nonce,
        server.now(),
    )
    .await?;
    Ok(Json(json!({ "ear": token })))
}

/// Why something is ended.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    pub reason: String,
}

pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let Revoke { reason } = read(&body)?;
    let reason = said(&reason)?;
    let device = find(&server, &name).await?;
    let device = fate::revoke(&server.store, &device.id, reason, server.now()).await?;
    explanation(&server, &device).await.map(Json)
}

/// Whoever ends something says why.
pub(super) fn said(reason: &str) -> Result<&str, Refusal> {
    match reason.trim() {
        reason if reason.is_empty() || reason.len() > REASON_BYTES_MAX => {
            let message = format!("reason: say why, in at most {REASON_BYTES_MAX} bytes");
            Err(Refusal::new(Kind::Malformed, "reason", message))
        }
        reason => Ok(reason),
    }
}

/// Takes a revoked device back.
pub(super) async fn readmit(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let device = find(&server, &name).await?;
    let device = fate::readmit(&server.store, &device.id, server.now()).await?;
    explanation(&server, &device).await.map(Json)
}

pub(super) async fn approve(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let approval: NewApproval = read(&body)?;
    let device = find(&server, &name).await?;
    let approval = fate::approve(server.planning("operator", server.now()), &device.id, &approval).await?;
    let policy = approval.policy.map(|policy| json!({ "name": policy.name(), "version": policy.version() }));
    Ok(Json(json!({ "policy": policy, "approved": approval.approved, "boot": approval.boot })))
}

pub(super) async fn label(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let labels: NewLabels = read(&body)?;
    let device = find(&server, &name).await?;
    let device = label::label(server.planning("operator", server.now()), &device.id, &labels).await?;
    explanation(&server, &device).await.map(Json)
}

pub(super) async fn rename(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let new: NewName = read(&body)?;
    let device = find(&server, &name).await?;
    let device = name::rename(&server.store, &device.id, new, "operator", server.now()).await?;
    explanation(&server, &device).await.map(Json)
}

/// Puts a device in another's place.
pub(super) async fn replace(
    State(server): State<Arc<Server>>,
    Path(old): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let NewReplacement { by, force } = read(&body)?;
    let (old, new) = (find(&server, &old).await?.id, find(&server, &by).await?.id);
    let replaced = replace::replace(server.planning("operator", server.now()), &old, &new, force).await?;
    let new = fate::enrolled(&server.store, &new).await?;
    let mut answer = explanation(&server, &new).await?;
    if let Some(answer) = answer.as_object_mut() {
        let old = json!({ "id": old.as_str(), "name": replaced.old_name });
        answer.insert("replaced".to_owned(), old);
        answer.insert("entries".to_owned(), replaced.entries.into());
    }
    Ok(Json(answer))
}

/// A device by its SPIFFE ID, the hash in it or the start of that, or its name.
pub(super) async fn find(server: &Server, name: &str) -> Result<Device, Refusal> {
    let read = |record| Device::of(record).map_err(|error| Refusal::from(error.0));
    if let Some(id) = as_id(name, &server.config.trust_domain)
        && let Some(device) = Device::load(&server.store, &id).await.map_err(|error| error.0)?
    {
        return Ok(device);
    }
    if let Some(record) = server.store.device_named(name).await? {
        return read(record);
    }
    let unknown = || Refusal::new(Kind::NotFound, "unknown-device", format!("no device is called {name}"));
    let beginning = as_beginning(name, &server.config.trust_domain).ok_or_else(unknown)?;
    let mut found = server.store.devices_beginning(&beginning, 2).await?;
    match (found.pop(), found.is_empty()) {
        (Some(record), true) => read(record),
        (Some(_), false) => {
            let message = format!("the hashes of several devices begin with {name}: say more of it");
            Err(Refusal::new(Kind::OutOfTurn, "ambiguous", message))
        }
        (None, _) => Err(unknown()),
    }
}

pub(super) fn as_id(name: &str, trust_domain: &TrustDomain) -> Option<SpiffeId> {
    if let Ok(id) = SpiffeId::parse(name) {
        return Some(id);
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(name.as_bytes()).ok()?;
    Some(SpiffeId::device(trust_domain, bytes.as_slice().try_into().ok()?))
}

/// What the SPIFFE IDs of devices begin with whose hashes begin with these digits, as tables show them.
pub(super) fn as_beginning(digits: &str, trust_domain: &TrustDomain) -> Option<String> {
    let is_hash = digits.len() >= HASH_DIGITS_SHOWN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let any = SpiffeId::device(trust_domain, &[0; 32]);
    let (path, _) = any.as_str().rsplit_once('/').filter(|_| is_hash)?;
    Some(format!("{path}/{}", digits.to_ascii_lowercase()))
}

async fn explanation(server: &Server, device: &Device) -> Result<Value, Refusal> {
    let now = server.now();
    let id = device.id.as_str();
    let grants = server.store.svids_of_device(id, now, GRANTS_SHOWN_MAX).await?;
    let held = grants.iter().filter(|grant| grant.withdrawn_at.is_none()).count();
    let (result, findings) = match server.store.last_appraisal(id).await? {
        Some((result, last)) => (Some(result), findings(&last.findings)?),
        None => (None, json!([])),
    };
    let events = server.store.events(id, EVENTS_SHOWN_MAX).await?;
    let endorsement = device.endorsement(&server.endorsers.current(), now).map_err(|error| error.0)?;
    Ok(json!({
        "device": device_json(server, device, u64::try_from(held).unwrap_or(u64::MAX), now),
        "endorsement": endorsement_json(&endorsement),
        "result": result,
        "findings": findings,
        "grants": grants.iter().map(grant_json).collect::<Vec<_>>(),
        "events": events.iter().map(event_json).collect::<Vec<_>>(),
    }))
}

pub(super) fn device_json(server: &Server, device: &Device, svids: u64, now: UnixTime) -> Value {
    let state = &device.state;
    json!({
        "id": device.id.as_str(),
        "name": device.record.name,
        "node": device.record.node.map(NodeId::get),
        "status": state.status_at(now).name(),
        "tier": state.tier().name(),
        "since": state.since(),
        "evidence_at": state.evidence_at(),
        "valid_until": state.valid_until(),
        "policy": state.policy(),
        "policy_in_force": server.policies.of(device).compiled.map(|policy| policy.citation().to_owned()),
        "labels": device.labels,
        "reset_count": state.reset_count(),
        "reason": state.reason(),
        "awaiting_approval": state.awaiting_approval(),
        "attached": server.registry.is_attached(&device.id),
        "clock_offset_seconds": server.registry.clock(&device.id).map(Apart::seconds),
        "clock": clock_sentence(server, &device.id),
        "svids": svids,
        "enrolled_at": device.record.enrolled_at,
        "agent_version": device.record.agent_version,
    })
}

/// What is to be said of its clock, if anything is.
pub(super) fn clock_sentence(server: &Server, id: &SpiffeId) -> Option<String> {
    let apart = server.registry.clock(id)?;
    let consequence = apart.consequence(server.config.device_svid_ttl_seconds)?;
    Some(format!("its clock is {apart}: {consequence}"))
}

/// Who vouches for the TPM now, and why nobody does.
fn endorsement_json(endorsement: &Endorsement) -> Value {
    let certificate = endorsement.certificate().map(|certificate| {
        json!({
            "issuer": certificate.issuer(),
            "manufacturer": certificate.manufacturer(),
            "valid_until": certificate.valid_until(),
        })
    });
    let identity = endorsement.identity().map(|identity| {
        json!({
            "serial": identity.serial(),
            "issuer": identity.issuer(),
            "iak_certificate_sha256": identity.iak_certificate_sha256().to_hex(),
            "idevid_certificate_sha256": identity.idevid_certificate_sha256().to_hex(),
            "valid_until": identity.valid_until(),
        })
    });
    let failures = endorsement.failures().iter().chain(endorsement.identity_failures());
    json!({
        "ek_sha256": endorsement.ek_sha256().to_hex(),
        "certificate": certificate,
        "identity": identity,
        "failures": failures.map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn grant_json(svid: &SvidRecord) -> Value {
    let entry = match &svid.carrier {
        Carrier::Device { entry_id, .. } => entry_id.as_deref(),
        Carrier::Node { .. } | Carrier::Operator | Carrier::Renewal { .. } => None,
    };
    json!({
        "spiffe_id": svid.spiffe_id,
        "serial": svid.serial,
        "entry": entry,
        "issued_at": svid.issued_at,
        "not_after": svid.not_after,
        "withdrawn_at": svid.withdrawn_at,
    })
}

/// A leaf that changed a device's fate, with what happened as a sentence and as data.
pub(super) fn event_json(leaf: &Leaf) -> Value {
    let event: Value = serde_json::from_str(&leaf.detail).unwrap_or_default();
    json!({
        "leaf": leaf.index,
        "at": leaf.at,
        "kind": leaf.kind,
        "actor": leaf.actor,
        "device": leaf.subject,
        "detail": sentence(&event),
        "event": event,
    })
}

/// The findings of a result, as stored.
pub(super) fn findings(stored: &str) -> Result<Value, StoreError> {
    serde_json::from_str(stored).map_err(|_| StoreError::Corrupt { column: "appraisals.findings" })
}

/// What an event says to people.
pub(super) fn sentence(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("kind") {
        "enrolled" => "EK, AK and device key bound".to_owned(),
        "appraised" => format!("{}: {}", text("tier"), text("reason")),
        "expired" => "no fresh evidence came in time".to_owned(),
        "revoked" => format!("by {}: {}", text("by"), text("reason")),
        "replaced" => format!("in the place of {}", text("device")),
        "approved" | "readmitted" => format!("by {}", text("by")),
        _ => String::new(),
    }
}

/// A JSON body; what is wrong with it is said.
pub(super) fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new(Kind::Malformed, "json", error.to_string()))
}

const GRANTS_SHOWN_MAX: u32 = 100;
const EVENTS_SHOWN_MAX: u32 = 50;
const REASON_BYTES_MAX: usize = 1024;
/// Of a device's hash, in tables: two that begin alike take some 2^24 devices.
const HASH_DIGITS_SHOWN: usize = 12;
