//! Who has to have signed a policy before it comes into force, and whether a stored one was.
//!
//! With signers configured nothing comes into force on the server's word alone: neither what the store holds, which
//! somebody may have changed, nor a policy that an operator widens by approving a device. The one exception can be
//! recomputed from what is signed: the union of a roll-out.

use assay_trust::policy::{Envelope, EnvelopeError, PolicySigners, payload};
use assay_trust::rollout::{Rollout, unite};
use assay_trust::{Policy, PolicyError};
use thiserror::Error;

use super::PolicyChangeError;
use crate::store::{PolicyRecord, Store};

/// A policy as somebody wants it in force.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    /// What it says.
    pub policy: Policy,
    /// What it came in, where it was signed.
    pub envelope: Option<String>,
}

impl Submitted {
    /// Reads a text: a signed one where there are signers, and else either.
    pub(crate) fn read(text: String, signers: &PolicySigners) -> Result<Submitted, PolicyChangeError> {
        if !signers.is_empty() {
            return Ok(Submitted { policy: signers.open(&text)?, envelope: Some(text) });
        }
        let is_signed = Envelope::parse(&text).is_ok();
        let policy = Policy::from_text(&payload(&text)?)?;
        Ok(Submitted { policy, envelope: is_signed.then_some(text) })
    }

    /// What the server made of policies that are in force.
    pub(crate) fn of_server(policy: Policy) -> Submitted {
        Submitted { policy, envelope: None }
    }
}

/// Why a stored policy is not put in force.
#[derive(Debug, Error)]
pub enum NotVouched {
    /// It has no signature that counts.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It was set when nobody had to sign.
    #[error("it is not signed")]
    Unsigned,
    /// What is stored is not what was signed.
    #[error("its text is not what was signed")]
    Changed,
    /// The union of a roll-out is not that of old and new.
    #[error("it is not what the server would make of the old and the new version")]
    NotTheUnion,
    /// Old and new do not make a policy together.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The policy of a record: on the word of a signature where there are signers, and else of the store.
pub(super) fn vouched(record: &PolicyRecord, signers: &PolicySigners) -> Result<Policy, NotVouched> {
    if signers.is_empty() {
        return Ok(Policy::from_toml(&record.text)?);
    }
    let policy = signers.open(record.envelope.as_deref().ok_or(NotVouched::Unsigned)?)?;
    // The text is what operators are shown.
    if policy.to_toml() == record.text { Ok(policy) } else { Err(NotVouched::Changed) }
}

/// The union of a roll-out, which has no signature: it has to be what the signed policies around it make.
pub(super) async fn vouched_union(
    store: &Store,
    union: PolicyRecord,
    (old, rollout): (u64, Rollout),
    signers: PolicySigners,
) -> Result<Result<Policy, NotVouched>, PolicyChangeError> {
    let (old, new) = (store.policy(old).await?, store.policy(rollout.new).await?);
    super::aside(move || {
        if signers.is_empty() {
            return Ok(Policy::from_toml(&union.text)?);
        }
        let made = unite(&vouched(&old, &signers)?, &vouched(&new, &signers)?)?.policy;
        let made = Policy { version: union.version, ..made };
        if made.to_toml() == union.text { Ok(made) } else { Err(NotVouched::NotTheUnion) }
    })
    .await
}
