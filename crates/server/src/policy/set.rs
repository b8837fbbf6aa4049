//! Putting a policy in force for some devices or all, and taking it back.
//!
//! Load, decide, commit, announce. If another change came first, it is decided anew.

use assay_evidence::time::UnixTime;
use assay_trust::labels::Selector;

use super::{ATTEMPTS_MAX, PolicyChangeError, publish};
use crate::parts::Server;
use crate::store::{PolicyRecord, SetPolicy, StoreError, UnassignPolicy};

impl Server {
    /// Publishes a text as the next version of its name and puts it in force for whom the selector means; those of
    /// them that are attached are challenged under it.
    pub(crate) async fn set_policy(
        &self,
        text: String,
        selector: &Selector,
        by: &str,
        now: UnixTime,
    ) -> Result<PolicyRecord, PolicyChangeError> {
        let submitted = publish::read(text, self.policies.signers()).await?;
        let name = submitted.policy.name.clone();
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.policies.load(&self.store).await?;
            let mut publisher = self.publisher(&name, by, now).await?;
            let published = publisher.publish(submitted.clone()).await?;
            let plan = in_force.plan.assign(selector, &name, published.record.revision)?;
            let step = in_force.step(plan.assigned(selector)?, by, now);
            let record = published.record.clone();
            let change = SetPolicy { step, policy: record.clone() };
            if self.policies.commit(&self.store, change, in_force.next(plan, &[published])).await?.is_some() {
                tracing::info!(policy = record.name, version = record.version, %selector, by, "policy in force");
                return Ok(record);
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Takes back what is assigned to a selector: its devices get what the next best one assigns, or nothing.
    pub(crate) async fn unassign_policy(
        &self,
        selector: &Selector,
        by: &str,
        now: UnixTime,
    ) -> Result<(), PolicyChangeError> {
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.policies.load(&self.store).await?;
            let plan = in_force.plan.unassign(selector)?;
            let change = UnassignPolicy(in_force.step(in_force.plan.assigned(selector)?, by, now));
            if self.policies.commit(&self.store, change, in_force.next(plan, &[])).await?.is_some() {
                tracing::info!(%selector, by, "policy unassigned");
                return Ok(());
            }
        }
        Err(StoreError::Conflict.into())
    }
}
