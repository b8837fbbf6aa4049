//! Opening a session: an agent shows that it has its AK now, by having it certify itself over a challenge.

use assay_trust::Status;
use assay_wire::keylime::AgentId;
use assay_wire::keylime::session::{Proof, Told, read_beginning};
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::sessions::{Opening, Session, Worth};
use super::status::{V3, document};
use super::{At, body, peer};
use crate::door::admission::NoPlace;
use crate::door::listen::Caller;
use crate::keylime::{KeylimeAgent, KeylimeError, possesses};
use crate::keys::random;
use crate::outcome::{Kind, Refusal};
use crate::security::{Cause, Refused};

/// Anybody is asked to prove that they are who they say.
pub(super) async fn begin(State(at): State<At>, request: Request) -> Result<Response, V3> {
    let peer = peer(request.extensions());
    let body = body::read(&at, peer.clone(), request.into_body(), BEGINNING_BYTES_MAX).await?;
    let agent_id = read_beginning(&body)?;
    let instant = at.server.clock.instant().into_std();
    let opening = at.doors.sessions.open(peer, agent_id, random()?, (at.server.now(), instant));
    let opening = opening.map_err(NoPlace::from)?;
    Ok(document(200, &told(&opening).challenge()))
}

/// What they show. That nobody is registered under the name is told as what it is, a proof that fails is refused.
pub(super) async fn prove(
    State(at): State<At>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, V3> {
    let (server, peer) = (&at.server, peer(request.extensions()));
    let caller = request.extensions().get::<Caller>().cloned();
    let body = body::read(&at, peer.clone(), request.into_body(), PROOF_BYTES_MAX).await?;
    let proof = Proof::read(&body)?;
    let opening = at.doors.sessions.take(&id).ok_or_else(unknown_session)?;
    let (told, now) = (told(&opening), server.now());
    if proof.agent_id != opening.agent_id {
        return Err(refused(&at, &proof.agent_id, &peer.to_string(), "another's session").into());
    }
    let agent = match KeylimeAgent::load(&server.store, opening.agent_id.as_str()).await {
        Ok(agent) if now < opening.until => agent,
        Ok(_) | Err(KeylimeError::Unknown) => return Ok(document(200, &told.outcome(&proof, now, None))),
        Err(error) => return Err(error.into()),
    };
    if let Some(failure) = possesses(&agent, (&proof.message, &proof.signature), &opening.challenge)?.first()
    {
        return Err(refused(&at, &opening.agent_id, &peer.to_string(), &failure.to_string()).into());
    }
    if agent.device.state.status() == Status::Revoked {
        let who = agent.device.id.to_string();
        let (from, why) = (peer.to_string(), "opened a session".to_owned());
        server.refused(Refused { cause: Cause::RevokedDevice, who, from, why });
        return Err(Refusal::new(Kind::Forbidden, "revoked", "the device is revoked").into());
    }
    // The connection is nobody's whom strangers could push out.
    caller.map(|caller| caller.is_known()).transpose()?;
    let until = now.plus(at.session_seconds());
    let token = at.doors.sessions.grant(opening.clone(), agent.device.id, until)?;
    Ok(document(200, &told.outcome(&proof, now, Some((&token, until)))))
}

/// The session whose token a request shows, if it is that of this agent.
pub(super) fn of(at: &At, headers: &HeaderMap, agent_id: &str) -> Result<Session, Refusal> {
    let unauthenticated = |message: &str| Refusal::new(Kind::Unauthenticated, "token", message);
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    let token = token.ok_or_else(|| unauthenticated("show the token of a session"))?;
    match at.doors.sessions.worth(token, at.server.now()) {
        Worth::Session(session) if session.agent_id.as_str() == agent_id => Ok(session),
        Worth::Session(session) => {
            let message = format!("the token is that of {}", session.agent_id);
            Err(Refusal::new(Kind::Forbidden, "anothers-token", message))
        }
        Worth::Nothing => Err(unauthenticated("the session has ended, or never was")),
    }
}

impl At {
    /// How long a session lasts: until the agent has had two more times to come.
    pub(super) fn session_seconds(&self) -> u64 {
        self.settings().session_seconds.max(self.server.config.attest_interval_seconds.saturating_mul(3))
    }
}

fn refused(at: &At, id: &AgentId, from: &str, why: &str) -> Refusal {
    let (who, from) = (id.to_string(), from.to_owned());
    at.server.refused(Refused { cause: Cause::Request, who, from, why: why.to_owned() });
    Refusal::new(
        Kind::Unauthenticated,
        "possession",
        "what was shown is not by the agent's AK for this challenge",
    )
}

fn unknown_session() -> Refusal {
    Refusal::new(Kind::NotFound, "unknown-session", "no session of this number waits for a proof")
}

fn told(opening: &Opening) -> Told<'_> {
    Told {
        id: &opening.id,
        agent_id: &opening.agent_id,
        challenge: &opening.challenge,
        created_at: opening.created_at,
        challenge_until: opening.until,
    }
}

const BEGINNING_BYTES_MAX: usize = 4 << 10;
/// A certification and a signature by a key of 4096 bits take less than 2 KiB.
const PROOF_BYTES_MAX: usize = 16 << 10;
