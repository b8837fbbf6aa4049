//! Registration: what is checked of a TPM is what every enrollment checks, and nothing is on record before its answer is.

use assay_evidence::request::DeviceIdentity;
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::Status;
use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::BASE64;

use super::KeylimeError;
use crate::device::Device;
use crate::enroll::{Challenge, Challenged, EnrollError, Enrolling, Presented};
use crate::name;
use crate::store::{BindKeylimeAgent, KeylimeAgentRecord, StoreError};

/// An agent that asks to be registered.
#[derive(Clone, Debug)]
pub(crate) struct Registrant {
    /// What Keylime calls it.
    pub id: String,
    /// Its TPM, and the identity its maker gave it.
    pub identity: DeviceIdentity,
    /// TPM2B_PUBLIC of its AK.
    pub ak_public: Bytes,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify(AK) by the IAK, over the id or its hash; empty where there is no IAK.
    pub iak_certified: (Bytes, Bytes),
    /// Where it listens: address, port and what it shows there.
    pub contact: (String, u16, String),
}

/// A registration that waits to be activated.
#[derive(Debug)]
pub(crate) struct Registering {
    challenged: Challenged,
    agent: KeylimeAgentRecord,
}

impl Registering {
    /// Checks what an agent shows and makes a challenge that only its TPM can answer.
    pub(crate) async fn begin(
        enrolling: Enrolling<'_>,
        registrant: Registrant,
        now: UnixTime,
    ) -> Result<(Registering, Challenge), KeylimeError> {
        let Registrant { id, identity, ak_public, iak_certified, contact } = registrant;
        // A device goes by its agent's id where that can be a name, which the hash of a key cannot.
        let name = if name::check(&id).is_ok() { id.clone() } else { String::new() };
        let presented = Presented { identity, ak_public, name, agent_version: AGENT_VERSION.to_owned() };
        let (challenged, challenge) = Challenged::begin(enrolling, presented, Vec::new(), now).await?;
        // It is no fresh word, as the protocol has no nonce for it: that this IAK and this AK are in one TPM stays true.
        let hashed = assay_telemetry::sha256(id.as_bytes());
        challenged.verify_iak(&iak_certified, &[&hashed, id.as_bytes()])?;
        let (address, port, certificate) = contact;
        let agent = KeylimeAgentRecord {
            device_id: challenged.id().to_string(),
            ak_public: challenged.presented().ak_public.to_vec(),
            id,
            address,
            port,
            certificate,
            registered_at: now,
            registrations: 0,
            added_at: None,
        };
        let registering = Registering { challenged, agent };
        registering.is_nobody_elses(enrolling).await?;
        Ok((registering, challenge))
    }

    /// Checks that the secret was opened, and binds the device, which came from this address, if it may come in.
    pub(crate) async fn prove(
        mut self,
        enrolling: Enrolling<'_>,
        address: &str,
        tag: &[u8],
        now: UnixTime,
    ) -> Result<SpiffeId, KeylimeError> {
        self.agent.registered_at = now;
        // The protocol's key is the text of the secret's base64 and not its bytes.
        let key = BASE64.encode(self.challenged.secret());
        let key = hmac::Key::new(hmac::HMAC_SHA384, key.as_bytes());
        // In constant time: the tag is a secret's.
        hmac::verify(&key, self.agent.id.as_bytes(), tag).map_err(|_| EnrollError::Activation)?;
        for _ in 0..ATTEMPTS_MAX {
            match self.bind(enrolling, address, now).await {
                Err(
                    KeylimeError::Store(StoreError::Conflict)
                    | KeylimeError::Enroll(EnrollError::Store(StoreError::Conflict)),
                ) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(self.challenged.id().clone()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Keys that are bound stay where they are these, or those of an agent of ours; only the name is noted then.
    async fn bind(&self, enrolling: Enrolling<'_>, address: &str, now: UnixTime) -> Result<(), KeylimeError> {
        self.is_nobody_elses(enrolling).await?;
        let known = Device::load(enrolling.store, self.challenged.id()).await?;
        let agent = self.agent.clone();
        if known.is_some_and(|known| self.is_bound_as(&known)) {
            enrolling.store.commit(BindKeylimeAgent { agent }).await?;
            tracing::info!(device = %self.challenged.id(), agent = self.agent.id, "agent of Keylime's registered");
            return Ok(());
        }
        Ok(self.challenged.bind(enrolling, address, (None, &[]), Some(agent), now).await?)
    }

    fn is_bound_as(&self, known: &Device) -> bool {
        let is_bound = !matches!(known.state.status(), Status::Pending | Status::Revoked);
        let has_own_agent = !known.record.device_key_spki.is_empty();
        is_bound && (has_own_agent || known.record.ak_public == self.agent.ak_public)
    }

    /// A name is one TPM's: who shows another under it is another.
    async fn is_nobody_elses(&self, enrolling: Enrolling<'_>) -> Result<(), KeylimeError> {
        match enrolling.store.keylime_agent(&self.agent.id).await? {
            Some(known) if known.device_id != self.agent.device_id => Err(KeylimeError::OtherIdentity),
            _ => Ok(()),
        }
    }
}

/// What such an agent is shown as: it does not say its version.
const AGENT_VERSION: &str = "keylime";
/// An agent that registers twice at once.
const ATTEMPTS_MAX: usize = 3;
