//! Devices, for operators: look, explain, vouch, revoke, approve.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_identity::signed_message::NodeId;
use assay_identity::{SpiffeId, TrustDomain};
use assay_trust::ear::Nonce;
use assay_trust::policy::Acceptable;
use assay_wire::clocks::Apart;
use assay_wire::console::Because;
use assay_wire::console::device::{
    Approve, Approved, Change, Device as Told, Ear, EkCertificate, Endorsement as Endorsed, Event,
    Explanation, Finding, Grant, Identity, Rename, Replace, Replaced, Replacement, SetLabels,
};
use assay_wire::console::policy::Citation;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;

use super::parameters::Asked;
use crate::actor::Actor;
use crate::archive::changes;
use crate::audit::Leaf;
use crate::device::Device;
use crate::fate::{AcceptedFile, NewApproval};
use crate::label::NewLabels;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::{Carrier, StoreError, SvidRecord};
use crate::{ear, fate, label, name, replace};

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, Refusal> {
    let device = find(&server, &name).await?;
    explanation(&server, &device).await.map(Json)
}

/// The same, and what changed since its evidence was last good, as far as that is kept.
pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, Refusal> {
    let device = find(&server, &name).await?;
    explained(&server, &device).await.map(Json)
}

/// How a device stands, why, and what changed.
pub(super) async fn explained(server: &Server, device: &Device) -> Result<Explanation, Refusal> {
    let answer = explanation(server, device).await?;
    let changes = changes::since_good(&server.store, device.id.as_str()).await.unwrap_or_else(|error| {
        tracing::warn!(device = %device.id, %error, "kept evidence cannot be read");
        None
    });
    let changes = changes.map(|changes| changes.into_iter().map(change).collect());
    Ok(Explanation { changes, ..answer })
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
) -> Result<Json<Ear>, Refusal> {
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
    Ok(Json(Ear { ear: token }))
}

pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Explanation>, Refusal> {
    let Because { reason } = read(&body)?;
    let reason = said(&reason)?;
    let device = find(&server, &name).await?;
    let device = fate::revoke(&server.store, &device.id, reason, by, server.now()).await?;
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
    by: Actor,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, Refusal> {
    let device = find(&server, &name).await?;
    let device = fate::readmit(&server.store, &device.id, by, server.now()).await?;
    explanation(&server, &device).await.map(Json)
}

pub(super) async fn approve(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Approved>, Refusal> {
    let Approve { result, files, boot } = read(&body)?;
    let accepted = |rule: &Value| Acceptable::deserialize(rule).map_err(|error| malformed(&error));
    let rules = boot.iter().map(accepted).collect::<Result<_, _>>()?;
    let named =
        files.iter().map(|file| AcceptedFile { path: file.path.clone(), digest: file.digest.clone() });
    let approval = NewApproval { result, files: named.collect(), boot: rules };
    let device = find(&server, &name).await?;
    let policy = fate::approve(server.planning(by, server.now()), &device.id, &approval).await?;
    let policy = policy.map(|policy| Citation { name: policy.name().to_owned(), version: policy.version() });
    Ok(Json(Approved { policy, approved: files, boot }))
}

pub(super) async fn label(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Explanation>, Refusal> {
    let SetLabels { set, remove, force } = read(&body)?;
    let labels = NewLabels { set, remove, force };
    let device = find(&server, &name).await?;
    let device = label::label(server.planning(by, server.now()), &device.id, &labels).await?;
    explanation(&server, &device).await.map(Json)
}

pub(super) async fn rename(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Explanation>, Refusal> {
    let Rename { name: new } = read(&body)?;
    let device = find(&server, &name).await?;
    let device = name::rename(&server.store, &device.id, new, by, server.now()).await?;
    explanation(&server, &device).await.map(Json)
}

/// Puts a device in another's place.
pub(super) async fn replace(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(old): Path<String>,
    body: Bytes,
) -> Result<Json<Replacement>, Refusal> {
    let Replace { by: new, force } = read(&body)?;
    let (old, new) = (find(&server, &old).await?.id, find(&server, &new).await?.id);
    let done = replace::replace(server.planning(by, server.now()), &old, &new, force).await?;
    let new = fate::enrolled(&server.store, &new).await?;
    let replaced = Replaced { id: old.to_string(), name: done.old_name };
    Ok(Json(Replacement { now: explanation(&server, &new).await?, replaced, entries: done.entries }))
}

/// A device by its SPIFFE ID, the hash in it or the start of that, its name, or what Keylime calls it.
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
    if let Some(agent) = server.store.keylime_agent(name).await?
        && let Some(record) = server.store.device(&agent.device_id).await?
    {
        return read(record);
    }
    let beginning = as_beginning(name, &server.config.trust_domain).ok_or_else(|| unknown(name))?;
    let mut found = server.store.devices_beginning(&beginning, 2).await?;
    match (found.pop(), found.is_empty()) {
        (Some(record), true) => read(record),
        (Some(_), false) => {
            let message = format!("the hashes of several devices begin with {name}: say more of it");
            Err(Refusal::new(Kind::OutOfTurn, "ambiguous", message))
        }
        (None, _) => Err(unknown(name)),
    }
}

pub(super) fn unknown(name: &str) -> Refusal {
    Refusal::new(Kind::NotFound, "unknown-device", format!("no device is called {name}"))
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

async fn explanation(server: &Server, device: &Device) -> Result<Explanation, Refusal> {
    let now = server.now();
    let id = device.id.as_str();
    let grants = server.store.svids_of_device(id, now, GRANTS_SHOWN_MAX).await?;
    let held = grants.iter().filter(|grant| grant.withdrawn_at.is_none()).count();
    let (result, findings) = match server.store.last_appraisal(id).await? {
        Some((result, last)) => (Some(result), findings(&last.findings)?),
        None => (None, Vec::new()),
    };
    let events = server.store.events(id, EVENTS_SHOWN_MAX).await?;
    let endorsement = device.endorsement(&server.endorsers.current(), now).map_err(|error| error.0)?;
    Ok(Explanation {
        device: told(server, device, u64::try_from(held).unwrap_or(u64::MAX), now),
        endorsement: endorsed(&endorsement),
        result,
        findings,
        grants: grants.into_iter().map(grant).collect(),
        events: events.into_iter().map(event).collect(),
        changes: None,
    })
}

/// How a device stands.
pub(super) fn told(server: &Server, device: &Device, svids: u64, now: UnixTime) -> Told {
    let state = &device.state;
    let labels = device.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    Told {
        id: device.id.to_string(),
        name: device.record.name.clone(),
        node: device.record.node.map(NodeId::get),
        status: state.status_at(now).name().to_owned(),
        tier: state.tier().name().to_owned(),
        since: Some(state.since()),
        evidence_at: state.evidence_at(),
        valid_until: state.valid_until(),
        policy: state.policy().map(str::to_owned),
        policy_in_force: server.policies.of(device).compiled.map(|policy| policy.citation().to_owned()),
        labels: labels.collect(),
        reset_count: state.reset_count(),
        reason: state.reason().to_owned(),
        awaiting_approval: state.awaiting_approval(),
        attached: server.registry.is_attached(&device.id),
        clock_offset_seconds: server.registry.clock(&device.id).map(Apart::seconds),
        clock: clock_sentence(server, &device.id),
        svids,
        enrolled_at: Some(device.record.enrolled_at),
        agent_version: device.record.agent_version.clone(),
    }
}

/// What is to be said of its clock, if anything is.
pub(super) fn clock_sentence(server: &Server, id: &SpiffeId) -> Option<String> {
    let apart = server.registry.clock(id)?;
    let consequence = apart.consequence(server.config.device_svid_ttl_seconds)?;
    Some(format!("its clock is {apart}: {consequence}"))
}

/// Who vouches for the TPM now, and why nobody does.
fn endorsed(endorsement: &Endorsement) -> Endorsed {
    let certificate = endorsement.certificate().map(|certificate| EkCertificate {
        issuer: certificate.issuer().to_owned(),
        manufacturer: certificate.manufacturer().map(str::to_owned),
        valid_until: certificate.valid_until(),
    });
    let identity = endorsement.identity().map(|identity| Identity {
        serial: identity.serial().to_owned(),
        issuer: identity.issuer().to_owned(),
        iak_certificate_sha256: identity.iak_certificate_sha256().to_hex(),
        idevid_certificate_sha256: identity.idevid_certificate_sha256().to_hex(),
        valid_until: identity.valid_until(),
    });
    let failures = endorsement.failures().iter().chain(endorsement.identity_failures());
    Endorsed {
        ek_sha256: endorsement.ek_sha256().to_hex(),
        certificate,
        identity,
        failures: failures.map(ToString::to_string).collect(),
    }
}

fn grant(svid: SvidRecord) -> Grant {
    let entry = match svid.carrier {
        Carrier::Device { entry_id, .. } => entry_id,
        Carrier::Node { .. } | Carrier::Operator | Carrier::Renewal { .. } => None,
    };
    Grant {
        spiffe_id: svid.spiffe_id,
        serial: svid.serial,
        entry,
        issued_at: svid.issued_at,
        not_after: svid.not_after,
        withdrawn_at: svid.withdrawn_at,
    }
}

/// A leaf that changed a device's fate, with what happened as a sentence and as data.
fn event(leaf: Leaf) -> Event {
    let event: Value = serde_json::from_str(&leaf.detail).unwrap_or_default();
    let detail = sentence(&event);
    let Leaf { index, at, kind, actor, subject, .. } = leaf;
    Event { leaf: index, at, kind, actor, device: subject, detail, event }
}

fn change(change: assay_trust::change::Change) -> Change {
    Change {
        cause: change.cause.name().to_owned(),
        pcrs: change.pcrs.iter().map(|pcr| u32::from(pcr.get())).collect(),
        before: change.before,
        after: change.after,
        items: change.items,
        count: u64::try_from(change.count).unwrap_or(u64::MAX),
        message: change.message,
    }
}

/// The findings of a result, as stored.
pub(super) fn findings(stored: &str) -> Result<Vec<Finding>, StoreError> {
    serde_json::from_str(stored).map_err(|_| StoreError::Corrupt { column: "appraisals.findings" })
}

/// What an event says to people.
pub(super) fn sentence(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("kind") {
        "enrolled" if event.get("device_key").is_none() => "EK and AK bound".to_owned(),
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
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal::new(Kind::Malformed, "json", error.to_string())
}

const GRANTS_SHOWN_MAX: u32 = 100;
const EVENTS_SHOWN_MAX: u32 = 50;
const REASON_BYTES_MAX: usize = 1024;
/// Of a device's hash, in tables: two that begin alike take some 2^24 devices.
const HASH_DIGITS_SHOWN: usize = 12;
