//! The conversation of an enrollment: begin, challenge, proof, result. One of each, in that order, within a time.

use std::time::Duration;

use assay_admission::Peer;
use assay_identity::SpiffeId;
use assay_wire::edge::{
    EnrollBegin, EnrollChallenge, EnrollProof, EnrollRequest, EnrollResponse, EnrollResult, enroll_request,
    enroll_response,
};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tonic::Status;

use super::convert;
use super::messages::{Heard, MessageError, Messages};
use crate::door::admission::NoPlace;
use crate::enroll::{Enrollment, Presented, Proof};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::security::{Cause, Refused};

pub(super) async fn converse(
    server: &Server,
    peer: &Peer,
    mut inbound: Messages<EnrollRequest>,
    answers: &Sender<Result<EnrollResponse, Status>>,
) -> Result<(), Refusal> {
    let mut shutdown = server.shutdown.clone();
    // Who says nothing holds what a stream holds, and no place of an enrollment.
    let place = server.edge.streams.admit(peer)?;
    let begin = tokio::select! {
        begin = timeout(BEGIN_WITHIN, next(&mut inbound)) => begin.unwrap_or_else(|_| Err(late()))?,
        () = place.leave() => return Err(NoPlace::made_room().into()),
        _ = shutdown.changed() => return Err(shutting_down()),
    };
    let Some(enroll_request::Step::Begin(begin)) = begin else { return Err(out_of_turn()) };
    let enrolling = server.edge.enrollments.admit(peer)?;
    drop(place);
    let address = peer.to_string();
    let device_key_public = begin.device_key_public.clone();
    let presented = presented(begin);
    let who = presented.device(&server.config.trust_domain);
    let conversation = async {
        let (enrollment, challenge) =
            Enrollment::begin(server.enrolling(), presented, device_key_public, server.now()).await?;
        let challenge = EnrollChallenge {
            credential_blob: challenge.credential_blob.into(),
            encrypted_secret: challenge.encrypted_secret.into(),
            nonce: challenge.nonce.to_vec().into(),
        };
        say(answers, enroll_response::Step::Challenge(challenge)).await;
        let Some(enroll_request::Step::Proof(proof)) = next(&mut inbound).await? else {
            return Err(out_of_turn());
        };
        let device = enrollment.prove(server.enrolling(), &address, proved(proof), server.now()).await?;
        let bundle = server.authority.bundle().to_der().into();
        let result = EnrollResult { device_id: device.to_string(), bundle };
        say(answers, enroll_response::Step::Result(result)).await;
        Ok(())
    };
    tokio::select! {
        ended = timeout(ENROLL_WITHIN, conversation) => {
            let ended = ended.unwrap_or_else(|_| Err(late()));
            ended.inspect_err(|refusal| note(server, who, peer, refusal))?;
        }
        () = enrolling.leave() => return Err(NoPlace::made_room().into()),
        _ = shutdown.changed() => return Err(shutting_down()),
    }
    drop(enrolling);
    // A second activation would be another step; the challenge is spent.
    match timeout(LAST_WORD_WITHIN, inbound.next()).await {
        Ok(Ok(Some(_))) => Err(out_of_turn()),
        _ => Ok(()),
    }
}

/// Notes that a device is not let in, unless it only has to wait, or was not understood.
fn note(server: &Server, who: Option<SpiffeId>, peer: &Peer, refusal: &Refusal) {
    if !matches!(refusal.kind, Kind::Unauthenticated | Kind::Forbidden) {
        return;
    }
    server.refused(Refused {
        cause: if refusal.code() == "revoked" { Cause::RevokedDevice } else { Cause::Enrollment },
        who: who.map(|id| id.to_string()).unwrap_or_default(),
        from: peer.to_string(),
        why: format!("{}: {}", refusal.code(), refusal.message),
    });
}

fn presented(mut begin: EnrollBegin) -> Presented {
    Presented {
        identity: convert::identity(&mut begin),
        ak_public: begin.ak_public,
        name: begin.name,
        agent_version: begin.agent_version,
    }
}

fn proved(proof: EnrollProof) -> Proof {
    Proof {
        proof: proof.proof,
        certified: (proof.certify_info, proof.certify_signature),
        csr: proof.csr,
        iak_certified: (proof.iak_certify_info, proof.iak_certify_signature),
    }
}

async fn next(inbound: &mut Messages<EnrollRequest>) -> Result<Option<enroll_request::Step>, Refusal> {
    match inbound.next().await? {
        Some(Heard::Message(request)) => Ok(request.step),
        // Nobody has proven anything before the end of an enrollment.
        Some(Heard::Beginning(_)) => Err(MessageError::TooLarge.into()),
        None => Ok(None),
    }
}

async fn say(answers: &Sender<Result<EnrollResponse, Status>>, step: enroll_response::Step) {
    // A device that is gone does not answer either, which the next step finds.
    answers.send(Ok(EnrollResponse { step: Some(step) })).await.ok();
}

fn late() -> Refusal {
    Refusal::new(Kind::Late, "deadline", "the enrollment took too long")
}

fn shutting_down() -> Refusal {
    Refusal::new(Kind::Unavailable, "shutting-down", "the server is shutting down")
}

fn out_of_turn() -> Refusal {
    Refusal::new(Kind::OutOfTurn, "out-of-turn", "the message does not belong here")
}

/// The first message is there when the stream is.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// A discrete TPM takes some seconds to make a key and to activate a credential.
const ENROLL_WITHIN: Duration = Duration::from_secs(60);
/// How long a device that has its result may take to close the stream.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(5);
