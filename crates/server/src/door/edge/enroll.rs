//! The conversation of an enrollment: begin, challenge, proof, result. One of each, in that order, within a time.

use std::time::Duration;

use assay_wire::edge::{
    EnrollBegin, EnrollChallenge, EnrollProof, EnrollRequest, EnrollResponse, EnrollResult, enroll_request,
    enroll_response,
};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::convert;
use crate::clock;
use crate::enroll::{Enrollment, Presented, Proof};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;

pub(super) async fn converse(
    server: &Server,
    mut inbound: Streaming<EnrollRequest>,
    answers: &Sender<Result<EnrollResponse, Status>>,
) -> Result<(), Refusal> {
    let permit = server
        .enrollments
        .clone()
        .try_acquire_owned()
        .map_err(|_| Refusal::new(Kind::Exhausted, "no-room", "too many enrollments are under way"))?;
    let mut shutdown = server.shutdown.clone();
    let conversation = async {
        let Some(enroll_request::Step::Begin(begin)) = next(&mut inbound).await? else {
            return Err(out_of_turn());
        };
        let (enrollment, challenge) =
            Enrollment::begin(server.enrolling(), presented(begin), clock::now()).await?;
        let challenge = EnrollChallenge {
            credential_blob: challenge.credential_blob.into(),
            encrypted_secret: challenge.encrypted_secret.into(),
            nonce: challenge.nonce.to_vec().into(),
        };
        say(answers, enroll_response::Step::Challenge(challenge)).await;
        let Some(enroll_request::Step::Proof(proof)) = next(&mut inbound).await? else {
            return Err(out_of_turn());
        };
        let device = enrollment.prove(&server.store, proved(proof), clock::now()).await?;
        let bundle = server.authority.bundle().to_der().into();
        let result = EnrollResult { device_id: device.to_string(), bundle };
        say(answers, enroll_response::Step::Result(result)).await;
        drop(permit);
        // A second activation would be another step; the challenge is spent.
        match timeout(LAST_WORD_WITHIN, inbound.message()).await {
            Ok(Ok(Some(_))) => Err(out_of_turn()),
            _ => Ok(()),
        }
    };
    tokio::select! {
        ended = timeout(ENROLL_WITHIN, conversation) => {
            ended.unwrap_or_else(|_| Err(Refusal::new(Kind::Late, "deadline", "the enrollment took too long")))
        }
        _ = shutdown.changed() => {
            Err(Refusal::new(Kind::Unavailable, "shutting-down", "the server is shutting down"))
        }
    }
}

fn presented(mut begin: EnrollBegin) -> Presented {
    Presented {
        identity: convert::identity(&mut begin),
        ak_public: begin.ak_public,
        device_key_public: begin.device_key_public,
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

async fn next(inbound: &mut Streaming<EnrollRequest>) -> Result<Option<enroll_request::Step>, Refusal> {
    match inbound.message().await {
        Ok(Some(request)) => Ok(request.step),
        Ok(None) => Ok(None),
        Err(status) if status.code() == Code::OutOfRange => {
            Err(Refusal::new(Kind::Exhausted, "size", "the message is too large"))
        }
        Err(status) => Err(Refusal::new(Kind::Malformed, "message", status.message())),
    }
}

async fn say(answers: &Sender<Result<EnrollResponse, Status>>, step: enroll_response::Step) {
    // A device that is gone does not answer either, which the next step finds.
    answers.send(Ok(EnrollResponse { step: Some(step) })).await.ok();
}

fn out_of_turn() -> Refusal {
    Refusal::new(Kind::OutOfTurn, "out-of-turn", "the message does not belong here")
}

/// A discrete TPM takes some seconds to make a key and to activate a credential.
const ENROLL_WITHIN: Duration = Duration::from_secs(60);
/// How long a device that has its result may take to close the stream.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(5);
