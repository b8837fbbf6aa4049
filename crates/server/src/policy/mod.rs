//! Changing which policy is in force for whom.
//!
//! `publish.rs` gives a policy its number, `set.rs` puts policies in force and takes them back, `rollout.rs` takes one to
//! its next version without any device falling, `fall.rs` says which devices would, `widen.rs` accepts files and boots, `trial/`
//! judges kept evidence by a policy to come. What is in force is in `in_force/policies.rs`.

mod fall;
mod publish;
mod rollout;
mod set;
pub(crate) mod trial;
mod widen;

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_trust::PolicyError;
use assay_trust::assignment::PlanError;
use assay_trust::labels::{LabelError, Labels};
use assay_trust::policy::{EnvelopeError, NotAcceptable};
use assay_trust::rollout::{PercentError, Strain};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::actor::Actor;
use crate::device::Device;
use crate::in_force::policies::{NotVouched, PlanInForce, Policies, PolicyLoadError, Published};
use crate::outcome::{Kind, Outcome};
use crate::store::{Store, StoreError, Transaction};
use crate::thread::Panicked;

use fall::would_fall_as;
pub(crate) use fall::{Coming, Devices, Fall, devices_by_policy, would_fall};
pub(crate) use publish::{Publisher, Submitted};
pub(crate) use rollout::NewRollout;
use trial::TrialError;
pub(crate) use widen::{Accepted, RefusedFile};

/// A change of the plan, and who makes it: load, decide, commit. If another change came first, it is decided anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planning<'a> {
    pub store: &'a Store,
    pub policies: &'a Policies,
    /// One at a time judges kept evidence.
    pub trials: &'a Semaphore,
    pub by: Actor,
    pub now: UnixTime,
}

impl Planning<'_> {
    /// Numbers policies of a name that are published together.
    async fn publisher(&self, name: &str) -> Result<Publisher, StoreError> {
        Publisher::of(self.store, name, self.policies.is_signing_required(), self.by.name(), self.now).await
    }

    /// The plan to decide on.
    async fn load(&self) -> Result<Arc<PlanInForce>, PolicyLoadError> {
        self.policies.load(self.store).await
    }

    /// Refuses a plan with which devices would fall.
    async fn guard(&self, in_force: &PlanInForce, coming: Coming<'_>) -> Result<(), PolicyChangeError> {
        let devices = would_fall(self.store, self.trials, in_force, coming).await?;
        if devices.is_empty() { Ok(()) } else { Err(PolicyChangeError::WouldFall { devices }) }
    }

    /// Refuses labels with which a device would fall under the plan in force; the plan's version, to be held to.
    pub(crate) async fn guard_labels(
        &self,
        device: &Device,
        labels: &Labels,
        force: bool,
    ) -> Result<u64, PolicyChangeError> {
        let in_force = self.load().await?;
        if !force
            && let Some(fall) = would_fall_as(self.store, self.trials, &in_force, device, labels).await?
        {
            return Err(PolicyChangeError::WouldFall { devices: vec![fall] });
        }
        Ok(in_force.version)
    }

    /// Commits a change with what is published for it, and waits until it is in force; whether it was the first.
    async fn commit(&self, change: impl Transaction, published: &[Published]) -> Result<bool, StoreError> {
        self.policies.expect(published);
        match self.store.commit_and_follow(change).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Why the policies in force did not change.
#[derive(Debug, Error)]
pub enum PolicyChangeError {
    /// The text is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The text is no policy signed by somebody who may.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A stored policy that nobody vouches for.
    #[error("the policy in force cannot be built upon: {0}. Set a signed one first")]
    NotVouched(#[from] NotVouched),
    /// A signed policy of a version that was there already.
    #[error(
        "{policy} is signed, and versions before v{next} are spent: sign it as version = {next} or higher"
    )]
    VersionSpent {
        /// The policy, as it was signed.
        policy: String,
        /// The lowest version that is free.
        next: u64,
    },
    /// The server may not change a policy by itself.
    #[error(
        "policies have to be signed here, so the server does not add files or boots to {policy} by itself: add them to the policy, \
         sign it with `assay policy sign FILE --key KEY.pem` and set it with `assay policy set FILE`"
    )]
    SignatureRequired {
        /// Its name.
        policy: String,
    },
    /// Another policy judges the device now than the one whose words are accepted.
    #[error(
        "the result is by {judged}, which is not in force for the device any more: look at the device's next result before \
         its boot is accepted"
    )]
    OtherPolicy {
        /// Name and version of the policy that the result is by.
        judged: String,
    },
    /// No boot comes of what is accepted.
    #[error(transparent)]
    NotAcceptable(#[from] NotAcceptable),
    /// No label, or no selector.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// No percentage.
    #[error(transparent)]
    Percent(#[from] PercentError),
    /// The plan does not allow it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The new version says what the old one says.
    #[error("{old} says the same already: there is nothing to roll out")]
    NothingChanges {
        /// The policy in force.
        old: String,
    },
    /// Old and new disagree about what has to be.
    #[error(
        "devices could fall while both are in force, since of two demands the stricter one holds: {}. Make the \
         policies agree on it, or accept that with --force",
        strains.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Strained {
        /// What devices that pass one alone could fall of.
        strains: Vec<Strain>,
    },
    /// Not every device is ready for it.
    #[error("{}", fall::sentence(devices))]
    WouldFall {
        /// Those that are not.
        devices: Vec<Fall>,
    },
    /// The server's own fault.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// It could not be stored, or others came first too often.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PolicyLoadError> for PolicyChangeError {
    fn from(error: PolicyLoadError) -> Self {
        match error {
            PolicyLoadError::Policy(error) => PolicyChangeError::Policy(error),
            PolicyLoadError::NotVouched(error) => PolicyChangeError::NotVouched(error),
            PolicyLoadError::Panicked(error) => PolicyChangeError::Panicked(error),
            PolicyLoadError::Store(error) => PolicyChangeError::Store(error),
        }
    }
}

impl From<TrialError> for PolicyChangeError {
    fn from(error: TrialError) -> Self {
        match error {
            TrialError::Policy(error) => PolicyChangeError::Policy(error),
            TrialError::Panicked(error) => PolicyChangeError::Panicked(error),
            TrialError::Store(error) => PolicyChangeError::Store(error),
            TrialError::Busy => PolicyChangeError::Store(StoreError::Busy),
        }
    }
}

impl Outcome for PolicyChangeError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            PolicyChangeError::Policy(_) => (Kind::Malformed, "policy"),
            PolicyChangeError::Envelope(EnvelopeError::Policy(_)) => (Kind::Malformed, "policy"),
            PolicyChangeError::Envelope(EnvelopeError::Unsigned | EnvelopeError::NotAccepted { .. }) => {
                (Kind::Forbidden, "policy-signature")
            }
            PolicyChangeError::Envelope(_) => (Kind::Malformed, "policy-envelope"),
            PolicyChangeError::NotVouched(_) => (Kind::OutOfTurn, "policy-not-vouched"),
            PolicyChangeError::VersionSpent { .. } => (Kind::OutOfTurn, "version-spent"),
            PolicyChangeError::SignatureRequired { .. } => (Kind::Forbidden, "policy-signature"),
            PolicyChangeError::OtherPolicy { .. } => (Kind::Overtaken, "other-policy-judged"),
            PolicyChangeError::NotAcceptable(_) => (Kind::Malformed, "not-acceptable"),
            PolicyChangeError::Label(_) => (Kind::Malformed, "label"),
            PolicyChangeError::Percent(_) => (Kind::Malformed, "percent"),
            PolicyChangeError::Plan(error) => plan_told(error),
            PolicyChangeError::NothingChanges { .. } => (Kind::OutOfTurn, "nothing-changes"),
            PolicyChangeError::Strained { .. } => (Kind::OutOfTurn, "policies-disagree"),
            PolicyChangeError::WouldFall { .. } => (Kind::OutOfTurn, "would-fall"),
            PolicyChangeError::Panicked(error) => error.told(),
            PolicyChangeError::Store(error) => error.told(),
        }
    }
}

fn plan_told(error: &PlanError) -> (Kind, &'static str) {
    match error {
        PlanError::Ambiguous { .. } => (Kind::OutOfTurn, "ambiguous"),
        PlanError::TooMany => (Kind::OutOfTurn, "too-many-assignments"),
        PlanError::NotAssigned { .. } => (Kind::NotFound, "not-assigned"),
        PlanError::OtherName { .. } => (Kind::OutOfTurn, "other-policy"),
        PlanError::UnderWay { .. } => (Kind::OutOfTurn, "rollout-under-way"),
        PlanError::NoRollout { .. } => (Kind::NotFound, "no-rollout"),
        PlanError::NotWider { .. } => (Kind::OutOfTurn, "not-wider"),
    }
}

/// How often a change is decided anew when another's comes first.
const ATTEMPTS_MAX: usize = 5;
