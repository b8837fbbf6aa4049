//! Taking a policy to its next version in stages, so that no device falls on the way.

use std::sync::Arc;

use assay_trust::Policy;
use assay_trust::labels::Selector;
use assay_trust::rollout::{Percent, Rollout, Union, unite};

use super::fall::would_fall;
use super::{ATTEMPTS_MAX, Coming, Fall, Planning, PolicyChangeError, Submitted, publish};
use crate::in_force::policies::vouched;
use crate::store::{
    AbortRollout, FinishRollout, PlanStep, PolicyRecord, StartRollout, StoreError, WidenRollout,
};
use crate::thread::aside;

/// A roll-out as an operator asks for it.
#[derive(Debug)]
pub(crate) struct NewRollout {
    /// The new version of the policy, TOML or JSON, signed or not.
    pub text: String,
    /// Whose assignment it is about.
    pub selector: Selector,
    /// How many of its devices are in the first stage.
    pub percent: Percent,
    /// Whether devices may fall of what the union demands.
    pub force: bool,
}

/// A roll-out that began.
#[derive(Debug)]
pub(crate) struct Started {
    /// The policy under which a device is good before and after its update.
    pub union: PolicyRecord,
    /// The policy that will be in force in the end.
    pub new: PolicyRecord,
}

/// A roll-out that came to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The version in force.
    pub version: Option<u64>,
    /// Devices that were known to fall of it.
    pub accepted: Vec<Fall>,
}

impl Planning<'_> {
    /// Publishes the new version and the union with the one in force, and lets the union judge the first devices.
    pub(crate) async fn start(&self, rollout: NewRollout) -> Result<Started, PolicyChangeError> {
        let NewRollout { text, selector, percent, force } = rollout;
        let submitted = publish::read(text, self.policies.signers()).await?;
        let new = Arc::new(submitted.policy.clone());
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.load().await?;
            let assigned = in_force.plan.may_start(&selector, &new.name)?;
            let Union { policy: union, strains } = self.union(assigned.revision, new.clone()).await?;
            if !strains.is_empty() && !force {
                return Err(PolicyChangeError::Strained { strains });
            }
            // The union comes first, so that versions count up from stage to stage.
            let mut publisher = self.publisher(&new.name).await?;
            let union = publisher.publish(Submitted::of_server(union)).await?;
            let published = publisher.publish(submitted.clone()).await?;
            let started = Started { union: union.record.clone(), new: published.record.clone() };
            let [id, last] = [started.union.revision, started.new.revision];
            let plan =
                in_force.plan.start(&selector, &new.name, Rollout { id, union: id, new: last, percent })?;
            let change = StartRollout {
                step: in_force.step(plan.assigned(&selector)?, self.by.name(), self.now),
                union: started.union.clone(),
                new: started.new.clone(),
            };
            if self.commit(change, &[union, published]).await? {
                let (policy, version) = (&new.name, started.new.version);
                tracing::info!(policy, version, %selector, %percent, by = %self.by, "roll-out started");
                return Ok(started);
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// What accepts what the policy of a revision and the new one accept.
    async fn union(&self, revision: u64, new: Arc<Policy>) -> Result<Union, PolicyChangeError> {
        let (record, signers) = (self.store.policy(revision).await?, self.policies.signers().clone());
        aside(move || {
            let old = vouched(&record, &signers)?;
            if (Policy { version: old.version, ..Policy::clone(&new) }) == old {
                return Err(PolicyChangeError::NothingChanges { old: old.citation() });
            }
            Ok(unite(&old, &new)?)
        })
        .await?
    }

    /// Lets the union judge more devices.
    pub(crate) async fn widen_to(&self, name: &str, percent: Percent) -> Result<(), PolicyChangeError> {
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.load().await?;
            let plan = in_force.plan.widen(name, percent)?;
            let change = WidenRollout(in_force.step(plan.rolled_out(name)?.0, self.by.name(), self.now));
            if self.commit(change, &[]).await? {
                tracing::info!(policy = name, %percent, by = %self.by, "roll-out widened");
                return Ok(());
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Puts the new version in force alone. Devices that would fall forbid it, unless `force` accepts that.
    pub(crate) async fn finish(&self, name: &str, force: bool) -> Result<Finished, PolicyChangeError> {
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.load().await?;
            let (assigned, rollout) = in_force.plan.rolled_out(name)?;
            let plan = in_force.plan.finish(name)?;
            let coming = Coming { plan: &plan, published: None };
            let devices = would_fall(self.store, self.trials, &in_force, coming).await?;
            if !devices.is_empty() && !force {
                return Err(PolicyChangeError::WouldFall { devices });
            }
            let step = in_force.step(plan.assigned(&assigned.selector)?, self.by.name(), self.now);
            let step = PlanStep { forced: !devices.is_empty(), ..step };
            if self.commit(FinishRollout(step), &[]).await? {
                tracing::info!(policy = name, forced = devices.len(), by = %self.by, "roll-out finished");
                let version = in_force.compiled(rollout.new).map(|policy| policy.version());
                return Ok(Finished { version, accepted: devices });
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Leaves the version in force that was; which one that is. Devices that have been updated would fall, which forbids
    /// it, unless `force` accepts that.
    pub(crate) async fn abort(&self, name: &str, force: bool) -> Result<Option<u64>, PolicyChangeError> {
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.load().await?;
            let plan = in_force.plan.abort(name)?;
            let (assigned, _) = in_force.plan.rolled_out(name)?;
            if !force {
                self.guard(&in_force, Coming { plan: &plan, published: None }).await?;
            }
            let step = in_force.step(plan.assigned(&assigned.selector)?, self.by.name(), self.now);
            let change = AbortRollout(PlanStep { forced: force, ..step });
            if self.commit(change, &[]).await? {
                tracing::info!(policy = name, by = %self.by, "roll-out aborted");
                return Ok(in_force.compiled(assigned.revision).map(|policy| policy.version()));
            }
        }
        Err(StoreError::Conflict.into())
    }
}
