//! The conversation by which a node attests: what it shows, a challenge where that takes one, and its certificate.

use std::time::Duration;

use assay_admission::Peer;
use assay_wire::spire::agent::attest_agent_request::{Params, Step as Asked};
use assay_wire::spire::agent::attest_agent_response::{Result as Outcome, Step};
use assay_wire::spire::agent::{AttestAgentRequest, AttestAgentResponse};
use assay_wire::spire::types::AttestationData;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::agent::csr;
use super::convert;
use super::status::{malformed, of, refused};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::security::{Cause, Refused};
use crate::spire::SpireError;
use crate::spire::attest::{JOIN_TOKEN, Shown, join};
use crate::thread::caught;

/// Answers with a certificate or with why there is none.
pub(super) async fn converse(
    server: &Server,
    from: &Peer,
    mut inbound: Streaming<AttestAgentRequest>,
    answers: &Sender<Result<AttestAgentResponse, Status>>,
) {
    let attested = caught(timeout(ATTEST_WITHIN, attest(server, from, &mut inbound))).await;
    let answer = match attested {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(refused(Refusal::new(Kind::Late, "deadline", "the attestation took too long"))),
        Err(panicked) => Err(of(panicked)),
    };
    answers.send(answer).await.ok();
}

async fn attest(
    server: &Server,
    from: &Peer,
    inbound: &mut Streaming<AttestAgentRequest>,
) -> Result<AttestAgentResponse, Status> {
    let place = server.edge.enrollments.admit(from).map_err(of)?;
    let joining = server.joining().ok_or_else(not_here)?;
    let Some(AttestAgentRequest { step: Some(Asked::Params(Params { data: Some(data), params })) }) =
        inbound.message().await?
    else {
        return Err(refused(malformed("params: a node begins with what it attests by")));
    };
    let csr = csr(params)?;
    let shown = shown(server, &data).map_err(|error| note(server, from, None, error))?;
    let joined = join(joining, &shown, &csr, server.now()).await;
    let chain = joined.map_err(|error| note(server, from, Some(&shown), error))?;
    drop(place);
    let svid = Some(convert::x509_svid(&shown.id, chain));
    let result = Outcome { svid, reattestable: shown.can_reattest };
    Ok(AttestAgentResponse { step: Some(Step::Result(result)) })
}

fn shown(server: &Server, data: &AttestationData) -> Result<Shown, SpireError> {
    match data.r#type.as_str() {
        JOIN_TOKEN => Shown::join_token(&server.config.trust_domain, &data.payload),
        other => Err(SpireError::Attestor {
            kind: other.chars().take(KIND_CHARACTERS_SHOWN).collect(),
            why: "join_token is",
        }),
    }
}

/// Puts it where it is noticed that a node is not let in.
fn note(server: &Server, from: &Peer, shown: Option<&Shown>, error: SpireError) -> Status {
    let is_about_trust = matches!(
        error,
        SpireError::NoToken | SpireError::LateToken | SpireError::Quotes | SpireError::Banned
    );
    let refusal = Refusal::from(error);
    if is_about_trust {
        // A token is a secret, and who shows one that is none may have mistyped it.
        let who = shown.filter(|shown| shown.spends.is_none()).map(|shown| shown.id.to_string());
        server.refused(Refused {
            cause: Cause::SpireAgent,
            who: who.unwrap_or_default(),
            from: from.to_string(),
            why: format!("{}: {}", refusal.code(), refusal.message),
        });
    }
    refused(refusal)
}

/// The section of the configuration is gone.
pub(super) fn not_here() -> Status {
    Status::unavailable("this server lets no nodes in that do not quote")
}

/// As SPIRE's agents wait.
const ATTEST_WITHIN: Duration = Duration::from_secs(30);
const KIND_CHARACTERS_SHOWN: usize = 64;
