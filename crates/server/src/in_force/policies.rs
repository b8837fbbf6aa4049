//! The policies in force: each compiled once, shared by every appraisal under it, and word of every change.
//!
//! With signers configured nothing is in force on the store's word alone, which somebody may have changed: each policy is
//! opened again from what was signed. The one exception can be recomputed from what is signed: the union of a roll-out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::assignment::{Assignment, Plan};
use assay_trust::labels::Labels;
use assay_trust::policy::{EnvelopeError, PolicySigners};
use assay_trust::rollout::{Rollout, unite};
use assay_trust::{CompiledPolicy, Policy, PolicyError};
use thiserror::Error;
use tokio::sync::watch;

use crate::device::Device;
use crate::store::{NewPolicy, PlanStep, PolicyKey, PolicyRecord, Store, StoreError};
use crate::thread::{Panicked, aside};

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
    /// Policies about to be stored, the latest last. Locked for a moment at a time.
    expected: Mutex<Vec<(PolicyKey, Arc<CompiledPolicy>)>>,
    /// Who has to have signed a policy; empty: nobody.
    signers: PolicySigners,
}

impl Policies {
    /// Loads the policies in force from the store.
    pub(crate) async fn open(store: &Store, signers: PolicySigners) -> Result<Policies, PolicyLoadError> {
        let policies = Policies { current: watch::Sender::default(), expected: Mutex::default(), signers };
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

    /// The plan as the store has it: what a change is decided on. Another's change may be there that is not in force
    /// yet.
    pub(crate) async fn load(&self, store: &Store) -> Result<Arc<PlanInForce>, PolicyLoadError> {
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
    ) -> Result<Option<Arc<CompiledPolicy>>, PolicyLoadError> {
        if let Some(expected) = self.expected(&store.policy_key(revision).await?) {
            return Ok(Some(expected));
        }
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

    /// Holds on to a policy that is about to be stored, so that it is not compiled again when it comes into force.
    pub(crate) fn expect(&self, published: &[Published]) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (expected.len() + published.len()).saturating_sub(EXPECTED_MAX);
        let gone = excess.min(expected.len());
        expected.drain(..gone);
        expected.extend(published.iter().map(|one| (one.record.key(), one.compiled.clone())));
    }

    /// Puts in force what the store has. What was expected and did not come is let go.
    pub(crate) async fn reload(&self, store: &Store) -> Result<(), PolicyLoadError> {
        let next = self.load(store).await?;
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.current.send_if_modified(|current| {
            let other = current.version != next.version;
            *current = next;
            other
        });
        Ok(())
    }

    fn expected(&self, key: &PolicyKey) -> Option<Arc<CompiledPolicy>> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.iter().find(|(of, _)| of == key).map(|(_, compiled)| compiled.clone())
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

    /// A change of it as one transaction has it, with which no device is known to fall.
    pub(crate) fn step(&self, assignment: &Assignment, by: &str, at: UnixTime) -> PlanStep {
        let (assignment, by) = (assignment.clone(), by.to_owned());
        PlanStep { from_version: self.version, assignment, at, by, forced: false }
    }
}

/// A policy of 100,000 files takes longer than a stream should wait.
async fn compile(policy: Policy) -> Result<Arc<CompiledPolicy>, PolicyLoadError> {
    let compiled = aside(move || CompiledPolicy::new(policy)).await?;
    Ok(Arc::new(compiled?))
}

/// Policies of one change.
const EXPECTED_MAX: usize = 4;

/// A policy about to be stored, known to be usable.
#[derive(Debug)]
pub(crate) struct Published {
    /// What will be stored.
    pub record: NewPolicy,
    /// What will judge.
    pub compiled: Arc<CompiledPolicy>,
}

/// Why what is in force cannot be read.
#[derive(Debug, Error)]
pub enum PolicyLoadError {
    /// A stored text is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A stored policy that nobody vouches for.
    #[error("the policy in force cannot be built upon: {0}. Set a signed one first")]
    NotVouched(#[from] NotVouched),
    /// The server's own fault.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
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
pub(crate) fn vouched(record: &PolicyRecord, signers: &PolicySigners) -> Result<Policy, NotVouched> {
    if signers.is_empty() {
        return Ok(Policy::from_toml(&record.text)?);
    }
    let policy = signers.open(record.envelope.as_deref().ok_or(NotVouched::Unsigned)?)?;
    // The text is what operators are shown.
    if policy.to_toml() == *record.text { Ok(policy) } else { Err(NotVouched::Changed) }
}

/// The union of a roll-out, which has no signature: it has to be what the signed policies around it make.
async fn vouched_union(
    store: &Store,
    union: PolicyRecord,
    (old, rollout): (u64, Rollout),
    signers: PolicySigners,
) -> Result<Result<Policy, NotVouched>, PolicyLoadError> {
    let (old, new) = (store.policy(old).await?, store.policy(rollout.new).await?);
    let vouched = aside(move || {
        if signers.is_empty() {
            return Ok(Policy::from_toml(&union.text)?);
        }
        let made = unite(&vouched(&old, &signers)?, &vouched(&new, &signers)?)?.policy;
        let made = Policy { version: union.version, ..made };
        if made.to_toml() == *union.text { Ok(made) } else { Err(NotVouched::NotTheUnion) }
    });
    Ok(vouched.await?)
}

#[cfg(test)]
mod tests {
    use assay_evidence::{HashAlgorithm, PcrIndex};
    use assay_trust::labels::Selector;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{Database, SetPolicy};

    async fn publish(store: &Store, policies: &Policies, selector: &str, revision: u64) {
        let mut policy = Policy::new("base");
        policy.version = revision;
        policy.allow_pcr(PcrIndex::new(0).unwrap(), HashAlgorithm::Sha256.zero());
        let record = NewPolicy {
            revision,
            name: policy.name.clone(),
            version: revision,
            text: policy.to_toml().into(),
            digest: policy.digest().to_hex(),
            set_at: UnixTime(0),
            set_by: String::new(),
            envelope: None,
        };
        let selector: Selector = selector.parse().unwrap();
        let in_force = policies.load(store).await.unwrap();
        let plan = in_force.plan.assign(&selector, "base", revision).unwrap();
        let step = in_force.step(plan.assigned(&selector).unwrap(), "operator", UnixTime(0));
        let compiled = Arc::new(CompiledPolicy::new(policy).unwrap());
        policies.expect(&[Published { record: record.clone(), compiled }]);
        store.commit(SetPolicy { step, policy: record }).await.unwrap();
        policies.reload(store).await.unwrap();
    }

    #[tokio::test]
    async fn a_policy_is_held_once_and_let_go_when_nothing_is_judged_by_it() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&Database::for_test(folder.path())).await.unwrap();
        let policies = Policies::open(&store, PolicySigners::default()).await.unwrap();
        publish(&store, &policies, "", 1).await;
        let held = Arc::downgrade(policies.current().compiled(1).unwrap());
        assert_eq!(held.strong_count(), 1, "what was expected is not held twice");
        publish(&store, &policies, "site=paris", 2).await;
        assert_eq!(held.strong_count(), 1, "carried over, not made anew");
        publish(&store, &policies, "", 3).await;
        assert!(held.upgrade().is_none() && policies.current().compiled(2).is_some());
    }

    #[tokio::test]
    async fn what_another_stored_in_its_place_is_not_what_was_expected() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&Database::for_test(folder.path())).await.unwrap();
        let [ours, theirs] = [
            Policies::open(&store, PolicySigners::default()).await.unwrap(),
            Policies::open(&store, PolicySigners::default()).await.unwrap(),
        ];
        publish(&store, &theirs, "", 1).await;
        let stored = theirs.current().compiled(1).unwrap().clone();
        let mut other = Policy::new("other");
        other.allow_pcr(PcrIndex::new(0).unwrap(), HashAlgorithm::Sha256.zero());
        let record = NewPolicy { name: other.name.clone(), ..store.policy(1).await.unwrap() };
        let compiled = Arc::new(CompiledPolicy::new(other).unwrap());
        ours.expect(&[Published { record, compiled }]);
        ours.reload(&store).await.unwrap();
        assert_eq!(ours.current().compiled(1).unwrap().citation(), stored.citation());
    }
}
