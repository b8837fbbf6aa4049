//! Putting a policy in force for some devices or all, and taking it back.

use assay_trust::labels::Selector;

use super::{ATTEMPTS_MAX, Coming, Planning, PolicyChangeError, Submitted, publish};
use crate::store::{PlanStep, PolicyRecord, SetPolicy, StoreError, UnassignPolicy};
use crate::thread::aside;

impl Planning<'_> {
    /// Publishes a text as the next version of its name and puts it in force for whom the selector means; those of
    /// them that are attached are challenged under it. Devices that would fall forbid it; with `force` nobody looks, so
    /// that a stricter policy is in force at once.
    pub(crate) async fn set(
        &self,
        text: String,
        selector: &Selector,
        force: bool,
    ) -> Result<PolicyRecord, PolicyChangeError> {
        let mut submitted = publish::read(text, self.policies.signers()).await?;
        let name = submitted.policy.name.clone();
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.load().await?;
            let mut publisher = self.publisher(&name).await?;
            let published = publisher.publish(submitted).await?;
            let plan = in_force.plan.assign(selector, &name, published.record.revision)?;
            if !force {
                self.guard(&in_force, Coming { plan: &plan, published: Some(&published) }).await?;
            }
            let step = PlanStep {
                forced: force,
                ..in_force.step(plan.assigned(selector)?, self.by.name(), self.now)
            };
            let record = published.record.clone();
            let change = SetPolicy { step, policy: record.clone() };
            if self.commit(change, &[published]).await? {
                let by = self.by.name();
                tracing::info!(policy = record.name, version = record.version, %selector, by, "policy in force");
                return Ok(record);
            }
            // A copy of every policy for the rare case that another came first would be a dear one.
            submitted = aside(move || Submitted::again(&record)).await??;
        }
        Err(StoreError::Conflict.into())
    }

    /// Takes back what is assigned to a selector: its devices get what the next best one assigns, or nothing. Devices that
    /// would fall forbid it, unless `force` accepts that.
    pub(crate) async fn unassign(&self, selector: &Selector, force: bool) -> Result<(), PolicyChangeError> {
        for _ in 0..ATTEMPTS_MAX {
            let in_force = self.load().await?;
            let plan = in_force.plan.unassign(selector)?;
            if !force {
                self.guard(&in_force, Coming { plan: &plan, published: None }).await?;
            }
            let step = in_force.step(in_force.plan.assigned(selector)?, self.by.name(), self.now);
            let step = PlanStep { forced: force, ..step };
            if self.commit(UnassignPolicy(step), &[]).await? {
                tracing::info!(%selector, by = %self.by, "policy unassigned");
                return Ok(());
            }
        }
        Err(StoreError::Conflict.into())
    }
}
