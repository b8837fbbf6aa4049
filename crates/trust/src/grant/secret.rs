//! Secrets: released to devices that an operator meant, sealed to a key that is in their TPM.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::ExchangeKey;
use assay_identity::SpiffeId;
use assay_identity::secret::SecretName;

use super::{Denied, require_trust};
use crate::labels::{Labels, Selector};
use crate::state::TrustState;

/// Which devices a secret is for. All of it has to hold, and trust beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretCondition {
    /// The labels that a device has to have.
    pub labels: Selector,
    /// The policy that its last good evidence was judged by, whichever version; `None`: any.
    pub policy: Option<String>,
}

/// A secret's part in the decision.
#[derive(Clone, Debug)]
pub struct SecretRequest<'a> {
    /// Which secret.
    pub name: &'a SecretName,
    /// Which version of it.
    pub version: u64,
    /// Whom it is for.
    pub condition: &'a SecretCondition,
    /// What operators say about the device.
    pub labels: &'a Labels,
    /// What it is to be sealed to.
    pub key: &'a ExchangeKey,
}

/// The right to release one version of a secret to one key, once.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretGrant {
    device: SpiffeId,
    name: SecretName,
    version: u64,
    recipient: ExchangeKey,
    state_version: u64,
}

impl SecretGrant {
    /// To whom.
    pub fn device(&self) -> &SpiffeId {
        &self.device
    }

    /// Which secret.
    pub fn name(&self) -> &SecretName {
        &self.name
    }

    /// Which version of it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it is sealed to.
    pub fn recipient(&self) -> &ExchangeKey {
        &self.recipient
    }

    /// The version of the trust state that carries it.
    pub fn state_version(&self) -> u64 {
        self.state_version
    }
}

impl SecretCondition {
    /// Whether a device is entitled to the secret now.
    pub fn entitles(&self, state: &TrustState, labels: &Labels, now: UnixTime) -> bool {
        self.require(state, labels, now).is_ok()
    }

    fn require(&self, state: &TrustState, labels: &Labels, now: UnixTime) -> Result<(), Denied> {
        require_trust(state, now)?;
        if !state.basis().is_quote() {
            return Err(Denied::Unquoted { basis: state.basis() });
        }
        if !self.labels.matches(labels) {
            return Err(Denied::OtherLabels { selector: self.labels.to_string() });
        }
        // A policy is cited as `NAME vVERSION`.
        let judged_by = state.policy().and_then(|cited| cited.rsplit_once(" v")).map(|(name, _)| name);
        match &self.policy {
            Some(policy) if judged_by != Some(policy) => Err(Denied::OtherPolicy {
                policy: policy.clone(),
                found: state.policy().unwrap_or("none").to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// Decides whether a device is given a secret now.
pub fn decide(state: &TrustState, request: &SecretRequest<'_>, now: UnixTime) -> Result<SecretGrant, Denied> {
    request.condition.require(state, request.labels, now)?;
    Ok(SecretGrant {
        device: state.device().clone(),
        name: request.name.clone(),
        version: request.version,
        recipient: request.key.clone(),
        state_version: state.version(),
    })
}
