//! The policies in force: each compiled once, shared by every appraisal under it, and word of every change.
//!
//! `publish.rs` gives a policy its number, `assign.rs` puts policies in force and takes them back, `rollout.rs` takes one
//! to its next version without any device falling, `fall.rs` says which devices would, `widen.rs` accepts files, `signature.rs` says what has to be
//! signed.

mod assign;
mod fall;
mod publish;
mod rollout;
mod signature;
mod widen;

use std::collections::HashMap;
use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::assignment::{Assignment, Plan, PlanError};
use assay_trust::labels::{LabelError, Labels};
use assay_trust::policy::{EnvelopeError, PolicySigners};
use assay_trust::rollout::{PercentError, Strain};
use assay_trust::{CompiledPolicy, Policy, PolicyError};
use thiserror::Error;
use tokio::sync::watch;

use self::signature::{vouched, vouched_union};
use crate::device::Device;
use crate::server::Server;
use crate::store::{PlanStep, Store, StoreError, Transaction};

pub(crate) use fall::{Devices, Fall};
pub(crate) use publish::{Published, Publisher};
pub(crate) use rollout::NewRollout;
pub use signature::NotVouched;
pub(crate) use signature::Submitted;
pub(crate) use widen::RefusedFile;

/// What a device is appraised under now.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyInForce {
    /// Its place among all that were ever published; 0: none is in force for the device.
    pub revision: u64,
    /// The policy; without one nothing is judged, and nothing granted.
    pub compiled: Option<Arc<CompiledPolicy>>,
}

/// The plan, and every policy in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanInForce {
    /// Counts changes of the plan.
    pub version: u64,
    /// Who is judged by what.
    pub plan: Plan,
    compiled: HashMap<u64, Arc<CompiledPolicy>>,
}

/// The door to the policies in force.
#[derive(Debug)]
pub(crate) struct Policies {
    current: watch::Sender<Arc<PlanInForce>>,
    /// Who has to have signed a policy; empty: nobody.
    signers: PolicySigners,
}

impl Policies {
    /// Loads the policies in force from the store.
    pub(crate) async fn open(store: &Store, signers: PolicySigners) -> Result<Policies, PolicyChangeError> {
        let policies = Policies { current: watch::Sender::default(), signers };
        policies.current.send_replace(policies.load(store).await?);
        Ok(policies)
    }

    /// Who has to have signed a policy; empty: nobody.
    pub(crate) fn signers(&self) -> &PolicySigners {
        &self.signers
    }

    /// Whether somebody has to.
    pub(crate) fn is_signing_required(&self) -> bool {
        !self.signers.is_empty()
    }

    /// What is in force now.
    pub(crate) fn current(&self) -> Arc<PlanInForce> {
        self.current.borrow().clone()
    }

    /// What is in force for a device now.
    pub(crate) fn of(&self, device: &Device) -> PolicyInForce {
        self.current.borrow().of(device)
    }

    /// Word of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<PlanInForce>> {
        self.current.subscribe()
    }

    /// The plan as the store has it: what a change is decided on. Another's change may be there that was not announced
    /// yet.
    pub(crate) async fn load(&self, store: &Store) -> Result<Arc<PlanInForce>, PolicyChangeError> {
        let record = store.plan().await?;
        let current = self.current();
        if record.version == current.version {
            return Ok(current);
        }
        let mut compiled = HashMap::new();
        for assignment in record.plan.assignments() {
            for revision in assignment.revisions() {
                let policy = match current.compiled.get(&revision) {
                    Some(known) => Some(known.clone()),
                    None => self.compiled(store, assignment, revision).await?,
                };
                compiled.extend(policy.map(|policy| (revision, policy)));
            }
        }
        Ok(Arc::new(PlanInForce { version: record.version, plan: record.plan, compiled }))
    }

    /// A stored policy, compiled; `None`, and a word in the log, for one that nobody vouches for. Then nothing is judged
    /// by it and nothing granted, and the server runs on so that a signed one can be set.
    async fn compiled(
        &self,
        store: &Store,
        assignment: &Assignment,
        revision: u64,
    ) -> Result<Option<Arc<CompiledPolicy>>, PolicyChangeError> {
        let (record, signers) = (store.policy(revision).await?, self.signers.clone());
        let citation = format!("{} v{}", record.name, record.version);
        let union = assignment.rollout.filter(|rollout| rollout.union == revision);
        let policy = match union {
            Some(rollout) => vouched_union(store, record, (assignment.revision, rollout), signers).await?,
            None => aside(move || vouched(&record, &signers)).await?,
        };
        match policy {
            Ok(policy) => compile(policy).await.map(Some),
            Err(error) if self.is_signing_required() => {
                let why = &error as &dyn std::error::Error;
                tracing::error!(
                    policy = citation,
                    why,
                    "policy not in force, and no device under it is trusted: sign one and set it with assay policy set"
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Commits a change of the plan and lets everyone know; `None` if another change came first.
    pub(crate) async fn commit<T: Transaction>(
        &self,
        store: &Store,
        change: T,
        next: PlanInForce,
    ) -> Result<Option<T::Output>, StoreError> {
        match store.commit(change).await {
            Ok(output) => {
                self.announce(next);
                Ok(Some(output))
            }
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Of two changes at once the later one stays, in whatever order they are announced.
    pub(crate) fn announce(&self, next: PlanInForce) {
        self.current.send_if_modified(|current| {
            let newer = current.version < next.version;
            if newer {
                *current = Arc::new(next);
            }
            newer
        });
    }
}

impl Server {
    /// Numbers policies of a name that are published together.
    async fn publisher(&self, name: &str, by: &str, now: UnixTime) -> Result<Publisher, StoreError> {
        Publisher::of(&self.store, name, self.policies.is_signing_required(), by, now).await
    }
}

impl PlanInForce {
    /// What is in force for a device.
    pub(crate) fn of(&self, device: &Device) -> PolicyInForce {
        self.labelled(&device.id, &device.labels)
    }

    /// What will be in force for a device that is not enrolled yet, and so has no labels.
    pub(crate) fn of_newcomer(&self, id: &SpiffeId) -> PolicyInForce {
        self.labelled(id, &Labels::default())
    }

    fn labelled(&self, id: &SpiffeId, labels: &Labels) -> PolicyInForce {
        let revision = self.plan.revision_for(id, labels);
        let found = revision.and_then(|revision| Some((revision, self.compiled.get(&revision)?.clone())));
        let (revision, compiled) = found.unzip();
        PolicyInForce { revision: revision.unwrap_or(0), compiled }
    }

    /// The policy of a revision that is in force for someone.
    pub(crate) fn compiled(&self, revision: u64) -> Option<&Arc<CompiledPolicy>> {
        self.compiled.get(&revision)
    }

    /// A policy as findings cite it.
    pub(crate) fn citation(&self, revision: u64) -> &str {
        self.compiled.get(&revision).map_or("", |policy| policy.citation())
    }

    /// A change of it as one transaction has it.
    pub(crate) fn step(&self, assignment: &Assignment, by: &str, at: UnixTime) -> PlanStep {
        PlanStep { from_version: self.version, assignment: assignment.clone(), at, by: by.to_owned() }
    }

    /// The next plan, with what is published for it; what it has no use for is let go.
    pub(crate) fn next(&self, plan: Plan, published: &[Published]) -> PlanInForce {
        let published = published.iter().map(|one| (one.record.revision, one.compiled.clone()));
        let mut known: HashMap<_, _> = published.collect();
        known.extend(self.compiled.iter().map(|(revision, policy)| (*revision, policy.clone())));
        let compiled = plan.revisions().filter_map(|revision| known.remove_entry(&revision)).collect();
        PlanInForce { version: self.version.saturating_add(1), plan, compiled }
    }
}

/// A policy of 100,000 files takes longer than a stream should wait.
async fn compile(policy: Policy) -> Result<Arc<CompiledPolicy>, PolicyChangeError> {
    let compiled = aside(move || CompiledPolicy::new(policy)).await?;
    Ok(Arc::new(compiled?))
}

/// Does long work on another thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PolicyChangeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| PolicyChangeError::Busy)
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
        "policies have to be signed here, so the server does not add files to {policy} by itself: add them to the policy, \
         sign it with `assay policy sign FILE --key KEY.pem` and set it with `assay policy set FILE`"
    )]
    SignatureRequired {
        /// Its name.
        policy: String,
    },
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
    /// Not every device is ready for the new version alone.
    #[error("{}", fall::sentence(devices))]
    WouldFall {
        /// Those that are not.
        devices: Vec<Fall>,
    },
    /// Threads are short.
    #[error("the server has no thread left for it")]
    Busy,
    /// It could not be stored, or others came first too often.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often a change is decided anew when another's comes first.
const ATTEMPTS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use assay_evidence::{HashAlgorithm, PcrIndex};
    use assay_trust::labels::Selector;

    use super::*;
    use crate::store::NewPolicy;

    fn published(revision: u64) -> Published {
        let mut policy = Policy::new("base");
        policy.allow_pcr(PcrIndex::new(0).unwrap(), HashAlgorithm::Sha256.zero());
        let record = NewPolicy {
            revision,
            name: policy.name.clone(),
            version: revision,
            text: String::new(),
            digest: String::new(),
            set_at: UnixTime(0),
            set_by: String::new(),
            envelope: None,
        };
        Published { record, compiled: Arc::new(CompiledPolicy::new(policy).unwrap()) }
    }

    fn assign(from: &PlanInForce, revision: u64) -> PlanInForce {
        let plan = from.plan.assign(&Selector::default(), "base", revision).unwrap();
        from.next(plan, &[published(revision)])
    }

    #[test]
    fn a_policy_is_held_once_and_let_go_when_nothing_is_judged_by_it() {
        let first = assign(&PlanInForce::default(), 1);
        let held = Arc::downgrade(first.compiled(1).unwrap());
        assert_eq!(held.strong_count(), 1);
        let other: Selector = "site=paris".parse().unwrap();
        let second = first.next(first.plan.assign(&other, "base", 2).unwrap(), &[published(2)]);
        drop(first);
        assert_eq!(held.strong_count(), 1, "carried over, not made anew");
        let third = assign(&second, 3);
        drop(second);
        assert!(held.upgrade().is_none() && third.compiled(2).is_some());
    }

    #[test]
    fn of_two_plans_the_later_one_stays() {
        let policies = Policies { current: watch::Sender::default(), signers: PolicySigners::default() };
        let first = assign(&policies.current(), 1);
        let second = assign(&first, 2);
        policies.announce(second);
        policies.announce(first);
        assert_eq!(policies.current().plan.revisions().collect::<Vec<_>>(), [2]);
    }
}
