//! Registration: an agent shows its TPM, and proves that it has it.

use assay_admission::Peer;
use assay_wire::keylime::registration::{Contact, Registration, credential, read_proof};
use assay_wire::keylime::{AgentId, Envelope, is_version, versions};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::status::{V2, envelope};
use super::{At, body, peer};
use crate::keylime::{KeylimeError, Registering, Registrant};
use crate::outcome::{Kind, Refusal};
use crate::security::{Cause, Refused};
use crate::thread::caught;

/// What is spoken.
pub(super) async fn version() -> Response {
    envelope(&Envelope::success(versions()))
}

/// An agent shows itself, and is given what only its TPM can open.
pub(super) async fn register(
    State(at): State<At>,
    Path((version, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, V2> {
    let (id, peer) = (agent_id(&version, &id)?, peer(request.extensions()));
    at.doors.rates.spend(&peer, at.server.now())?;
    let body = body::read(&at, peer.clone(), request.into_body(), REGISTRATION_BYTES_MAX).await?;
    let registrant = registrant(&id, Registration::read(&body)?);
    let place = at.server.edge.enrollments.admit(&peer)?;
    let begun = caught(Registering::begin(at.server.enrolling(), registrant, at.server.now())).await?;
    drop(place);
    let (registering, challenge) = begun.map_err(|error| note(&at, &id, &peer, error))?;
    let instant = at.server.clock.instant().into_std();
    let waits = at.doors.waiting.put((peer, id.to_string()), registering, (at.server.now(), instant));
    waits.map_err(crate::door::admission::NoPlace::from)?;
    let blob = credential(&challenge.credential_blob, &challenge.encrypted_secret);
    Ok(envelope(&Envelope::success(json!({ "blob": blob }))))
}

/// It opened it.
pub(super) async fn activate(
    State(at): State<At>,
    Path((version, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, V2> {
    let (id, peer) = (agent_id(&version, &id)?, peer(request.extensions()));
    let body = body::read(&at, peer.clone(), request.into_body(), PROOF_BYTES_MAX).await?;
    let tag = read_proof(&body)?;
    let waiting = at.doors.waiting.take(peer.clone(), id.as_str(), at.server.now());
    let registering = waiting.ok_or(KeylimeError::NoChallenge)?;
    let (server, address) = (&at.server, peer.to_string());
    let proven = caught(registering.prove(server.enrolling(), &address, &tag, server.now())).await?;
    proven.map_err(|error| note(&at, &id, &peer, error))?;
    Ok(envelope(&Envelope::success(Value::Object(Map::new()))))
}

/// The agent that a path is about, in a version that is spoken.
fn agent_id(version: &str, id: &str) -> Result<AgentId, Refusal> {
    if !is_version(version) {
        let message = format!("API version not supported: {version}");
        return Err(Refusal::new(Kind::Malformed, "version", message));
    }
    Ok(AgentId::parse(id)?)
}

fn registrant(id: &AgentId, registration: Registration) -> Registrant {
    let Registration { identity, ak_public, iak_certified, contact } = registration;
    let Contact { address, port, certificate } = contact;
    Registrant {
        id: id.to_string(),
        identity,
        ak_public,
        iak_certified,
        contact: (address, port, certificate),
    }
}

/// Notes that an agent is not let in, unless it only has to wait, or was not understood.
fn note(at: &At, id: &AgentId, peer: &Peer, error: KeylimeError) -> Refusal {
    let refusal = Refusal::from(error);
    tracing::info!(agent = %id, code = refusal.code, refusal = ?refusal, "registration of an agent of Keylime's refused");
    if matches!(refusal.kind, Kind::Unauthenticated | Kind::Forbidden) {
        at.server.refused(Refused {
            cause: if refusal.code == "revoked" { Cause::RevokedDevice } else { Cause::Enrollment },
            who: id.to_string(),
            from: peer.to_string(),
            why: format!("{}: {}", refusal.code, refusal.message),
        });
    }
    refusal
}

/// What is kept of a device's certificates, in PEM, and keys of 4096 bits.
const REGISTRATION_BYTES_MAX: usize = 160 << 10;
const PROOF_BYTES_MAX: usize = 4 << 10;
