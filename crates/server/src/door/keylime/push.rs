//! Attestation of agents that push: one says what it can show, is challenged, and shows it.

use std::time::Duration;

use assay_evidence::request::Challenge;
use assay_evidence::tpm::public_area::PublicArea;
use assay_wire::keylime::attestation::{Capabilities, Request as Asking, location, taken};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderValue;
use http::header::LOCATION;
use tokio::time::Instant;

use super::desk::{Asked, Desk, silence};
use super::sessions::Session;
use super::status::{V3, document};
use super::{At, body, session};
use crate::attest::{AttestError, Judgement, Silence};
use crate::keylime::KeylimeAgent;
use crate::keys::random;
use crate::outcome::{Kind, Refusal};
use crate::security::{Cause, Refused};
use crate::store::StoreError;
use crate::thread::caught;
use assay_admission::Peer;

/// What an agent can show, and what it is asked for.
pub(super) async fn begin(
    State(at): State<At>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, V3> {
    let session = session::of(&at, request.headers(), &id)?;
    let peer = Peer::Known(session.device.clone());
    let body = body::read(&at, peer, request.into_body(), CAPABILITIES_BYTES_MAX).await?;
    let capabilities = Capabilities::read(&body)?;
    let agent = KeylimeAgent::load(&at.server.store, &id).await?;
    let (number, asking) = match agent.is_its_only() {
        true => ask(&at, &agent, capabilities).await?,
        false => {
            at.doors.desks.close(&agent.device.id);
            (0, ask_nothing(&agent, capabilities)?)
        }
    };
    let now = at.server.now();
    let until = now.plus(at.server.config.challenge_ttl_seconds);
    let mut response = document(201, &asking.told(now, until));
    if let Ok(location) = HeaderValue::try_from(location(&session.agent_id, number)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Challenges an agent. Of two that are open the newer one counts.
async fn ask(at: &At, agent: &KeylimeAgent, capabilities: Capabilities) -> Result<(u64, Asking), Refusal> {
    let server = &at.server;
    let mut desk = at.doors.desks.of(at, agent).await?.lock_owned().await;
    match server.attesting.look_again(&mut desk.attester).await {
        Ok(()) => {}
        // It has another AK since, and a desk of its own.
        Err(AttestError::Rebound) => {
            at.doors.desks.close(&agent.device.id);
            desk = at.doors.desks.of(at, agent).await?.lock_owned().await;
        }
        Err(error) => {
            at.doors.desks.close(&agent.device.id);
            return Err(gone(at, agent, error));
        }
    }
    let now = server.clock.instant();
    if desk.begun.is_some_and(|begun| now < begun + BEGINNINGS_APART) {
        let refusal = Refusal::new(Kind::Exhausted, "too-early", "the last attestation has only begun");
        return Err(Refusal { retry_after: Some(BEGINNINGS_APART), ..refusal });
    }
    (desk.heard, desk.begun) = (now, Some(now));
    if !capabilities.is_of(&desk.ak) {
        return Err(Refusal::new(Kind::Malformed, "ak-public", "the key is not the AK that was registered"));
    }
    server.attesting.endorse_again(&mut desk.attester, server.now()).await?;
    let challenged = server.attesting.challenge(&desk.attester, true, server.now())?;
    // As many are asked for whole logs as may be.
    let Some((open, challenge)) = challenged else {
        return Err(Refusal::new(Kind::Unavailable, "full-challenges", "too many logs are on their way"));
    };
    let asking = Asking::of(&challenge, capabilities, &desk.ak).ok_or_else(no_scheme)?;
    desk.number += 1;
    let until = now + server.config.challenge_ttl();
    desk.asked = Some(Asked { open, request: asking.clone(), until });
    Ok((desk.number, asking))
}

/// A TPM that has an agent of ours is judged by what that one shows, which is more: of another it is asked as little as it takes to
/// be content.
fn ask_nothing(agent: &KeylimeAgent, capabilities: Capabilities) -> Result<Asking, Refusal> {
    let challenge = Challenge {
        nonce: random()?,
        selection: Vec::new(),
        watched: Vec::new(),
        boot_log_wanted: false,
        ima_from_entry: 0,
        banks_wanted: false,
    };
    let ak = PublicArea::parse_tpm2b(&agent.record.ak_public)
        .map_err(|_| StoreError::Corrupt { column: "keylime_agents.ak_public" })?;
    let capabilities = Capabilities { ima_list: false, boot_log: false, ..capabilities };
    Asking::of(&challenge, capabilities, &ak).ok_or_else(no_scheme)
}

/// What an agent shows. It is judged before it is answered, and the answer is that it was taken: what came of it is the operator's to
/// see.
pub(super) async fn evidence(
    State(at): State<At>,
    Path((id, number)): Path<(String, String)>,
    request: Request,
) -> Result<Response, V3> {
    let session = session::of(&at, request.headers(), &id)?;
    let Some(desk) = at.doors.desks.find(&session.device) else {
        let agent = KeylimeAgent::load(&at.server.store, &id).await?;
        return match agent.is_its_only() {
            true => {
                Err(Refusal::new(Kind::NotFound, "unknown-attestation", "no attestation was begun").into())
            }
            false => Ok(document(202, &taken(at.interval_seconds()))),
        };
    };
    let mut desk = desk.lock().await;
    let asked = answered(&mut desk, &number, at.server.clock.instant())?;
    let peer = Peer::Known(session.device.clone());
    let body = body::read(&at, peer, request.into_body(), EVIDENCE_BYTES_MAX).await?;
    let evidence = asked.request.read(&body)?;
    drop(body);
    desk.heard = at.server.clock.instant();
    let attesting = &at.server.attesting;
    let judged = caught(attesting.judge(&mut desk.attester, asked.open, evidence, at.server.now())).await?;
    match judged {
        Ok(Judgement::Verdict(_)) => {
            let until = at.server.now().plus(at.session_seconds());
            at.doors.sessions.extend(&session.agent_id, until);
            Ok(document(202, &taken(at.interval_seconds())))
        }
        // Another boot, or more than was asked for: it is to come again at once.
        Ok(Judgement::AskAgain) => Ok(document(202, &taken(BEGINNINGS_APART.as_secs()))),
        // It is in force, and whoever put it there says so.
        Err(AttestError::Store(StoreError::Unrecorded)) => Ok(document(202, &taken(at.interval_seconds()))),
        Err(error) => Err(not_judged(&at, &session, &desk, error).await.into()),
    }
}

/// What an agent was asked that answers this attestation: each is answered once, and in time.
fn answered(desk: &mut Desk, number: &str, now: Instant) -> Result<Asked, Refusal> {
    let forbidden = |code, message: &str| Err(Refusal::new(Kind::Forbidden, code, message));
    let unknown = || Refusal::new(Kind::NotFound, "unknown-attestation", "no such attestation was begun");
    let named = match number {
        "latest" => desk.number,
        number => number.parse().map_err(|_| unknown())?,
    };
    if named > desk.number || named == 0 {
        return Err(unknown());
    }
    if named < desk.number {
        return forbidden("old_attestation", "a newer attestation was begun");
    }
    match desk.asked.take() {
        None => forbidden(
            "evidence_immutable",
            "the attestation has its evidence, or had it and was not believed",
        ),
        Some(asked) if asked.until <= now => {
            forbidden("challenges_expired", "the challenge was not answered in time")
        }
        Some(asked) => Ok(asked),
    }
}

/// What is not the device's evidence is no word of the device: it is one that does not answer. An agent that is told 401 would try
/// again at once and for ever.
async fn not_judged(at: &At, session: &Session, desk: &Desk, error: AttestError) -> Refusal {
    let Some(reason) = error.unanswered() else {
        if matches!(error, AttestError::Revoked | AttestError::Rebound | AttestError::Unknown) {
            at.doors.desks.close(&session.device);
        }
        return Refusal::from(error);
    };
    silence(at, &desk.attester, Silence::Unanswered(reason)).await;
    let refusal = Refusal::from(error);
    let (who, from) = (session.device.to_string(), session.agent_id.to_string());
    at.server.refused(Refused { cause: Cause::Evidence, who, from, why: refusal.code.to_owned() });
    Refusal { kind: if refusal.kind == Kind::Fault { Kind::Fault } else { Kind::Forbidden }, ..refusal }
}

/// A device that was ended came again.
fn gone(at: &At, agent: &KeylimeAgent, error: AttestError) -> Refusal {
    if matches!(error, AttestError::Revoked) {
        let (who, from) = (agent.device.id.to_string(), agent.record.id.clone());
        let why = "began an attestation".to_owned();
        at.server.refused(Refused { cause: Cause::RevokedDevice, who, from, why });
    }
    Refusal::from(error)
}

fn no_scheme() -> Refusal {
    Refusal::new(Kind::Forbidden, "ak-attributes", "the AK is bound to no signature scheme")
}

/// Capabilities list algorithms and PCRs, some 3 KiB.
const CAPABILITIES_BYTES_MAX: usize = 64 << 10;
/// The longest list there is, with what JSON puts before quotation marks, and the longest boot log in base64.
const EVIDENCE_BYTES_MAX: usize = 48 << 20;
/// How soon an agent may begin again.
const BEGINNINGS_APART: Duration = Duration::from_secs(1);
