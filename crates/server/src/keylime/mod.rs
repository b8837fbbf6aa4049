//! Devices whose agent is one of Keylime's.
//!
//! Such an agent has an EK and an AK and no device key, so that its device is enrolled to quote: what it shows is verified,
//! appraised and put on record as of every device, and no grant is made to a key. Keylime's name of it is one more name of the
//! device, which is who its EK says. Where a TPM has an agent of ours as well, that one says more, and it is heard.

pub(crate) mod evidence;
mod identity;
pub(crate) mod policy;
mod possession;
mod register;

use assay_identity::SpiffeId;
use thiserror::Error;

use crate::device::{Device, DeviceError};
use crate::enroll::EnrollError;
use crate::keys::KeysError;
use crate::outcome::{Kind, Outcome};
use crate::store::{KeylimeAgentRecord, Store, StoreError};
pub(crate) use identity::verify_identity;
pub(crate) use possession::possesses;
pub(crate) use register::{Registering, Registrant};

/// An agent of Keylime's, and the device that it is on.
#[derive(Clone, Debug)]
pub(crate) struct KeylimeAgent {
    pub record: KeylimeAgentRecord,
    pub device: Device,
}

impl KeylimeAgent {
    /// Loads the agent that Keylime calls so.
    pub(crate) async fn load(store: &Store, id: &str) -> Result<KeylimeAgent, KeylimeError> {
        let record = store.keylime_agent(id).await?.ok_or(KeylimeError::Unknown)?;
        let device = SpiffeId::parse(&record.device_id)
            .map_err(|_| StoreError::Corrupt { column: "keylime_agents.device_id" })?;
        let device = Device::load(store, &device).await?.ok_or(KeylimeError::Unknown)?;
        Ok(KeylimeAgent { record, device })
    }

    /// Whether the device is bound to the AK that this agent has, and not to that of another.
    pub(crate) fn is_its_only(&self) -> bool {
        self.device.record.ak_public == self.record.ak_public
    }
}

/// Why an agent of Keylime's does not get what it asks for.
#[derive(Debug, Error)]
pub(crate) enum KeylimeError {
    /// The name is another TPM's.
    #[error("the agent's id is that of another TPM: give this one an id of its own, or remove the other")]
    OtherIdentity,
    /// Nobody is called so.
    #[error("no agent of this id is registered")]
    Unknown,
    /// No challenge is open that this would answer.
    #[error("no registration of this id waits to be activated from there")]
    NoChallenge,
    /// What it showed of its TPM.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<DeviceError> for KeylimeError {
    fn from(error: DeviceError) -> Self {
        KeylimeError::Store(error.0)
    }
}

impl Outcome for KeylimeError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            KeylimeError::OtherIdentity => (Kind::Forbidden, "other-identity"),
            KeylimeError::Unknown => (Kind::NotFound, "unknown-agent"),
            KeylimeError::NoChallenge => (Kind::NotFound, "no-challenge"),
            KeylimeError::Enroll(error) => error.told(),
            KeylimeError::Store(error) => error.told(),
            KeylimeError::Keys(error) => error.told(),
        }
    }
}
