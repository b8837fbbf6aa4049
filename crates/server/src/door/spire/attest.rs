//! The conversation by which a node attests: what it shows, a challenge where that takes one, and its certificate.

use std::time::Duration;

use assay_admission::Peer;
use assay_evidence::tpm::ShownEk;
use assay_identity::SpiffeId;
use assay_identity::selector::node::X509POP;
use assay_identity::selector::tpm::KIND as TPM;
use assay_identity::x509pop::Answer;
use assay_wire::node_attestors::{
    CertificateShown, NodeAttestorError, Possession, TpmShown, possession_challenge, tpm_answer,
    tpm_challenge,
};
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
use crate::spire::attest::{JOIN_TOKEN, Shown, join};
use crate::spire::{SpireError, tpm, x509pop};
use crate::thread::caught;

type Answers = Sender<Result<AttestAgentResponse, Status>>;

/// Answers with a certificate or with why there is none.
pub(super) async fn converse(
    server: &Server,
    from: &Peer,
    inbound: Streaming<AttestAgentRequest>,
    answers: &Answers,
) {
    let node = Node { server, from, inbound, answers };
    let answer = match caught(timeout(ATTEST_WITHIN, node.attest())).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(refused(Refusal::new(Kind::Late, "deadline", "the attestation took too long"))),
        Err(panicked) => Err(of(panicked)),
    };
    answers.send(answer).await.ok();
}

/// Who attests.
struct Node<'a> {
    server: &'a Server,
    from: &'a Peer,
    inbound: Streaming<AttestAgentRequest>,
    answers: &'a Answers,
}

impl Node<'_> {
    async fn attest(mut self) -> Result<AttestAgentResponse, Status> {
        let place = self.server.edge.enrollments.admit(self.from).map_err(of)?;
        let joining = self.server.joining().ok_or_else(not_here)?;
        let Some(AttestAgentRequest { step: Some(Asked::Params(Params { data: Some(data), params })) }) =
            self.inbound.message().await?
        else {
            return Err(refused(malformed("params: a node begins with what it attests by")));
        };
        let csr = csr(params)?;
        let shown = self.shown(&data).await?;
        // A token is a secret, and who shows one that is none may have mistyped it.
        let who = Some(&shown.id).filter(|_| shown.spends.is_none());
        let joined = join(joining, &shown, &csr, self.server.now()).await;
        let chain = joined.map_err(|error| self.not_in(who, error))?;
        drop(place);
        let svid = Some(convert::x509_svid(&shown.id, chain));
        let result = Outcome { svid, reattestable: shown.can_reattest };
        Ok(AttestAgentResponse { step: Some(Step::Result(result)) })
    }

    async fn shown(&mut self, data: &AttestationData) -> Result<Shown, Status> {
        let accepts = attestors(self.server);
        match data.r#type.as_str() {
            JOIN_TOKEN => Shown::join_token(&self.server.config.trust_domain, &data.payload)
                .map_err(|error| self.not_in(None, error)),
            TPM if accepts.contains(&TPM) => self.tpm(&data.payload).await,
            X509POP if accepts.contains(&X509POP) => self.x509pop(&data.payload).await,
            other => Err(of(SpireError::Attestor {
                kind: other.chars().take(KIND_CHARACTERS_SHOWN).collect(),
                why: format!("what does is {}", accepts.join(", ")),
            })),
        }
    }

    async fn tpm(&mut self, payload: &[u8]) -> Result<Shown, Status> {
        let (server, from) = (self.server, self.from.to_string());
        let TpmShown { ek_pem, ak } = TpmShown::read(payload).map_err(said)?;
        let ek = ShownEk::from_pem(&ek_pem.0).map_err(|error| self.not_in(None, error.into()))?;
        let creation = (ak.creation_data.0, ak.creation_info.0, ak.creation_signature.0);
        let shown = tpm::ShownTpm { ek, ak_public: ak.public.0, creation };
        let who = shown.id(&server.config.trust_domain);
        let begun = tpm::Challenging::begin(server.enrolling(), shown, server.now()).await;
        let (challenging, challenge) = begun.map_err(|error| self.not_in(Some(&who), error))?;
        let challenge = tpm_challenge(&challenge.credential_blob, &challenge.encrypted_secret);
        let secret = tpm_answer(&self.ask(challenge).await?).map_err(said)?;
        let proven = challenging.prove(server.enrolling(), &from, &secret, server.now()).await;
        proven.map_err(|error| self.not_in(Some(&who), error))
    }

    async fn x509pop(&mut self, payload: &[u8]) -> Result<Shown, Status> {
        let server = self.server;
        let CertificateShown { certificates } = CertificateShown::read(payload).map_err(said)?;
        let chain: Vec<Vec<u8>> = certificates.into_iter().map(|der| der.0).collect();
        let begun = x509pop::Challenging::begin(&server.x509pop_anchors, &chain, server.now());
        let challenging = begun.map_err(|error| self.not_in(None, error))?;
        let (is_rsa, nonce) = challenging.challenge();
        let answer = self.ask(possession_challenge(is_rsa, nonce)).await?;
        let answer = Possession::read(&answer).map_err(said)?;
        let (theirs, answer) = match &answer {
            Possession::Rsa { nonce, signature } => (nonce, Answer::Rsa(signature)),
            Possession::Ecdsa { nonce, r, s } => (nonce, Answer::Ecdsa(r, s)),
        };
        let proven = challenging.prove(&server.config.trust_domain, theirs, answer);
        proven.map_err(|error| self.not_in(None, error))
    }

    /// Challenges the node; its answer.
    async fn ask(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, Status> {
        let challenge = AttestAgentResponse { step: Some(Step::Challenge(challenge)) };
        // A node that is gone does not answer either.
        self.answers.send(Ok(challenge)).await.ok();
        match self.inbound.message().await? {
            Some(AttestAgentRequest { step: Some(Asked::ChallengeResponse(answer)) }) => Ok(answer),
            _ => Err(refused(malformed("challenge_response: a node that was challenged answers"))),
        }
    }

    /// Puts it where it is noticed that a node is not let in.
    fn not_in(&self, who: Option<&SpiffeId>, error: SpireError) -> Status {
        let is_about_trust = error.is_about_trust();
        let refusal = Refusal::from(error);
        if is_about_trust {
            self.server.refused(Refused {
                cause: Cause::SpireAgent,
                who: who.map(SpiffeId::to_string).unwrap_or_default(),
                from: self.from.to_string(),
                why: format!("{}: {}", refusal.code(), refusal.message),
            });
        }
        refused(refusal)
    }
}

/// What nodes attest by here.
fn attestors(server: &Server) -> Vec<&'static str> {
    let tpm = server.config.spire.as_ref().is_some_and(|spire| spire.tpm).then_some(TPM);
    let x509pop = (!server.x509pop_anchors.is_empty()).then_some(X509POP);
    [JOIN_TOKEN].into_iter().chain(tpm).chain(x509pop).collect()
}

fn said(error: NodeAttestorError) -> Status {
    refused(malformed(error.to_string()))
}

/// The section of the configuration is gone.
pub(super) fn not_here() -> Status {
    Status::unavailable("this server lets no nodes in that do not quote")
}

/// As SPIRE's agents wait.
const ATTEST_WITHIN: Duration = Duration::from_secs(30);
const KIND_CHARACTERS_SHOWN: usize = 64;
