//! Enrollment: the device shows which TPM it is, and gets its identity.
//!
//! Nothing is kept until the server has answered, so an exchange that breaks off is simply started again.

use assay_evidence::tpm::public_area::{PublicArea, PublicAreaError};
use assay_identity::csr::CsrError;
use assay_identity::{SpiffeId, TrustDomain};
use assay_telemetry::sha256;
use assay_wire::binding::enroll_proof_body;
use assay_wire::edge::{
    EnrollBegin, EnrollChallenge, EnrollProof, EnrollRequest, EnrollResponse, EnrollResult, enroll_request,
    enroll_response,
};
use aws_lc_rs::{digest, hmac};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::connection::Client;
use super::refusal;
use crate::VERSION;
use crate::config::Config;
use crate::device::Device;
use crate::state_dir::{StateDir, StateError};
use crate::tpm::TpmError;
use crate::tpm::ek::EndorsementKey;
use crate::tpm::identity::{Identity, IdentityError};

/// Enrollment did not come to its end.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The TPM did not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The device's IDevID or IAK is not where it is said to be.
    #[error(transparent)]
    MakersIdentity(#[from] IdentityError),
    /// No request could be made for the device key.
    #[error("no certificate request could be made")]
    Request(#[from] CsrError),
    /// The server refused, or the connection broke.
    #[error("{}", refusal::told(.0))]
    Server(#[from] Status),
    /// The server does not keep to the exchange.
    #[error("the server answered out of order: expected {expected}")]
    OutOfOrder {
        /// What should have come.
        expected: &'static str,
    },
    /// The endorsement key is of a kind we do not know.
    #[error("the endorsement key cannot be read")]
    EndorsementKey(#[from] PublicAreaError),
    /// The server gave an identity that is not this device's.
    #[error("the server gave {id:?} as the device's identity, which it is not")]
    Identity {
        /// What came.
        id: String,
    },
    /// The enrollment could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What the agent keeps of its enrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// The device's SPIFFE ID.
    pub device_id: String,
}

impl Enrollment {
    /// The enrollment of an earlier run, if it was in this trust domain.
    pub fn load(state: &StateDir, trust_domain: &TrustDomain) -> Result<Option<Self>, StateError> {
        let Some(bytes) = state.read(FILE)? else { return Ok(None) };
        let enrollment: Enrollment =
            serde_json::from_slice(&bytes).map_err(|_| StateError::Damaged { path: state.path(FILE) })?;
        Ok(Some(enrollment).filter(|enrollment| enrollment.is_of(trust_domain)))
    }

    fn is_of(&self, trust_domain: &TrustDomain) -> bool {
        SpiffeId::parse(&self.device_id).is_ok_and(|id| id.trust_domain() == trust_domain)
    }

    fn save(&self, state: &StateDir) -> Result<(), StateError> {
        let text = serde_json::to_vec(self).map_err(|_| StateError::Damaged { path: state.path(FILE) })?;
        state.write(FILE, &text)
    }
}

/// Enrolls the device and keeps the result.
pub async fn enroll(
    client: &mut Client,
    device: &Device,
    config: &Config,
    state: &StateDir,
) -> Result<Enrollment, EnrollError> {
    // Its slot in the TPM is free again when the exchange is over, however it ends.
    let ek = device.run(|device| EndorsementKey::load(&device.tpm)).await?;
    for unread in ek.unread() {
        tracing::warn!("{unread}; enrolling without it");
    }
    let own_id =
        SpiffeId::device(&config.trust_domain, &sha256(&PublicArea::parse_tpm2b(ek.public())?.spki_der()));
    let keys = device.key.keys();
    let identity = match config.identity.clone() {
        Some(config) => Some(device.run(move |device| Ok(Identity::load(&device.tpm, &config))).await??),
        None => None,
    };
    let mut begin = EnrollBegin {
        ek_public: ek.public().to_vec().into(),
        ek_certificate: ek.certificate().unwrap_or_default().to_vec().into(),
        ek_intermediates: ek.intermediates().iter().map(|der| der.clone().into()).collect(),
        ak_public: keys.ak.public().to_vec().into(),
        device_key_public: keys.device.public().to_vec().into(),
        name: config.name.clone(),
        agent_version: VERSION.to_owned(),
        ..EnrollBegin::default()
    };
    if let Some(identity) = &identity {
        begin.iak_public = identity.iak_public.clone().into();
        begin.iak_certificate = identity.iak_certificate.clone().into();
        begin.idevid_public = identity.idevid_public.clone().into();
        begin.idevid_certificate = identity.idevid_certificate.clone().into();
        begin.idevid_intermediates = identity.intermediates.iter().map(|der| der.clone().into()).collect();
    }
    let (sender, receiver) = mpsc::channel(1);
    send(&sender, enroll_request::Step::Begin(begin)).await;
    let mut answers = client.enroll(ReceiverStream::new(receiver)).await?.into_inner();
    let challenge = next_challenge(&mut answers).await?;
    let name = config.name.clone();
    let proof =
        device.run(move |device| Ok(prove(device, &ek, identity.as_ref(), &challenge, &name))).await??;
    send(&sender, enroll_request::Step::Proof(proof)).await;
    let result = next_result(&mut answers).await?;
    // The device knows its own name: it follows from the TPM, and nobody on the way can give it another.
    if own_id.as_str() != result.device_id {
        return Err(EnrollError::Identity { id: result.device_id });
    }
    let enrollment = Enrollment { device_id: result.device_id };
    enrollment.save(state)?;
    Ok(enrollment)
}

/// Opens the credential and ties everything said in the exchange to it.
fn prove(
    device: &Device,
    ek: &EndorsementKey,
    identity: Option<&Identity>,
    challenge: &EnrollChallenge,
    name: &str,
) -> Result<EnrollProof, EnrollError> {
    let keys = device.key.keys();
    let secret = ek.activate(&keys.ak, &challenge.credential_blob, &challenge.encrypted_secret)?;
    let (certify_info, certify_signature) = keys.ak.certify(&keys.device, &challenge.nonce)?;
    let by_iak = identity.map(|identity| identity.certify(&keys.ak, &challenge.nonce)).transpose()?;
    let (iak_certify_info, iak_certify_signature) = by_iak.unwrap_or_default();
    let csr = device.key.certificate_request()?;
    let body = enroll_proof_body(&challenge.nonce, keys.ak.public(), keys.device.public(), &csr, name);
    let hash = digest::digest(&digest::SHA256, &body);
    let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), hash.as_ref());
    Ok(EnrollProof {
        proof: proof.as_ref().to_vec().into(),
        certify_info: certify_info.into(),
        certify_signature: certify_signature.into(),
        csr: csr.into(),
        iak_certify_info: iak_certify_info.into(),
        iak_certify_signature: iak_certify_signature.into(),
    })
}

async fn send(sender: &mpsc::Sender<EnrollRequest>, step: enroll_request::Step) {
    // A closed channel is the answer stream's end, which says why.
    let _ = sender.send(EnrollRequest { step: Some(step) }).await;
}

async fn next_challenge(answers: &mut Streaming<EnrollResponse>) -> Result<EnrollChallenge, EnrollError> {
    match answers.message().await?.and_then(|answer| answer.step) {
        Some(enroll_response::Step::Challenge(challenge)) => Ok(challenge),
        _ => Err(EnrollError::OutOfOrder { expected: "a challenge" }),
    }
}

async fn next_result(answers: &mut Streaming<EnrollResponse>) -> Result<EnrollResult, EnrollError> {
    match answers.message().await?.and_then(|answer| answer.step) {
        Some(enroll_response::Step::Result(result)) => Ok(result),
        _ => Err(EnrollError::OutOfOrder { expected: "the result" }),
    }
}

const FILE: &str = "enrollment.json";
