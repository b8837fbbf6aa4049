//! Which policy is in force for whom: one transaction per thing that can happen to the plan.
//!
//! Each names the version of the plan it was decided on, and carries the one assignment that it changes, as the plan
//! has it afterwards. If the plan is another by now, nothing is written and the caller gets [`StoreError::Conflict`].

use assay_evidence::time::UnixTime;
use assay_trust::assignment::{Assignment, Plan};
use assay_trust::labels::Selector;
use assay_trust::rollout::{Percent, Rollout};
use serde_json::{Value, json};

use super::policies::{self, NewPolicy};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};
use crate::store::sql::{Row, query};

/// The plan as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRecord {
    /// Counts its changes.
    pub version: u64,
    /// The plan.
    pub plan: Plan,
}

/// What every change of the plan has.
#[derive(Clone, Debug)]
pub struct PlanStep {
    /// The version it was decided on.
    pub from_version: u64,
    /// The assignment that changes, as it will be.
    pub assignment: Assignment,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub by: String,
    /// Whether the operator accepts that devices fall with it.
    pub forced: bool,
}

/// Publishes a policy and puts it in force.
#[derive(Clone, Debug)]
pub struct SetPolicy {
    /// For whom.
    pub step: PlanStep,
    /// The policy.
    pub policy: NewPolicy,
}

impl Transaction for SetPolicy {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        policies::insert(unit, &self.policy).await?;
        put(unit, &self.step).await?;
        self.step.audit(unit, Kind::PolicySet, published(&self.policy)).await
    }
}

/// Ends an assignment.
#[derive(Clone, Debug)]
pub struct UnassignPolicy(
    /// The assignment that ends, as it was.
    pub PlanStep,
);

impl Transaction for UnassignPolicy {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        advance(unit, self.0.from_version).await?;
        query("DELETE FROM assignments WHERE selector = $1")
            .bind(self.0.assignment.selector.to_string())
            .execute(unit.connection())
            .await?;
        self.0.audit(unit, Kind::PolicyUnassigned, json!({})).await
    }
}

/// Publishes a policy, and one that accepts what it and the one in force accept, and begins with the latter.
#[derive(Clone, Debug)]
pub struct StartRollout {
    /// For whom.
    pub step: PlanStep,
    /// The policy on the way.
    pub union: NewPolicy,
    /// The policy in the end.
    pub new: NewPolicy,
}

impl Transaction for StartRollout {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        policies::insert(unit, &self.union).await?;
        policies::insert(unit, &self.new).await?;
        put(unit, &self.step).await?;
        let detail = json!({ "union": published(&self.union), "new": published(&self.new) });
        self.step.audit(unit, Kind::RolloutStarted, detail).await
    }
}

/// Lets the policy on the way judge more devices.
#[derive(Clone, Debug)]
pub struct WidenRollout(
    /// How far.
    pub PlanStep,
);

impl Transaction for WidenRollout {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        put(unit, &self.0).await?;
        self.0.audit(unit, Kind::RolloutWidened, json!({})).await
    }
}

/// Puts the new policy in force alone.
#[derive(Clone, Debug)]
pub struct FinishRollout(
    /// For whom.
    pub PlanStep,
);

impl Transaction for FinishRollout {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        put(unit, &self.0).await?;
        self.0.audit(unit, Kind::RolloutFinished, json!({})).await
    }
}

/// Puts the old policy in force alone again.
#[derive(Clone, Debug)]
pub struct AbortRollout(
    /// For whom.
    pub PlanStep,
);

impl Transaction for AbortRollout {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        put(unit, &self.0).await?;
        self.0.audit(unit, Kind::RolloutAborted, json!({})).await
    }
}

/// Puts other versions in the place of an assignment's policies; part of an approval.
#[derive(Clone, Debug)]
pub struct RevisePolicies {
    /// For whom.
    pub step: PlanStep,
    /// The policies.
    pub policies: Vec<NewPolicy>,
}

impl RevisePolicies {
    pub(super) async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        for policy in &self.policies {
            policies::insert(unit, policy).await?;
            self.step.audit(unit, Kind::PolicySet, published(policy)).await?;
        }
        put(unit, &self.step).await
    }
}

impl PlanStep {
    /// Puts the step on record, with how the assignment is from now on.
    async fn audit(&self, unit: &mut Unit, kind: Kind, mut detail: Value) -> Result<(), StoreError> {
        let Assignment { selector, name, revision, rollout } = &self.assignment;
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("revision".to_owned(), (*revision).into());
            detail.insert("selector".to_owned(), selector.to_string().into());
            if self.forced {
                detail.insert("forced".to_owned(), true.into());
            }
            if let Some(rollout) = rollout {
                detail.insert("percent".to_owned(), u64::from(rollout.percent).into());
            }
        }
        unit.audit(Line {
            kind,
            at: self.at,
            actor: self.by.clone(),
            subject: name.clone(),
            detail: detail.to_string(),
        })
        .await?;
        Ok(())
    }
}

impl Store {
    /// Which policy is in force for whom.
    pub async fn plan(&self) -> Result<PlanRecord, StoreError> {
        // One statement, so that both are of one moment. The version is there even where no assignment is.
        let rows = query(
            "SELECT plan.version AS plan_version, policies.name AS name, assignments.* FROM plan
             LEFT JOIN assignments ON plan.id = 1
             LEFT JOIN policies ON policies.revision = assignments.revision",
        )
        .fetch_all(&self.readers)
        .await?;
        let version = rows.first().ok_or(StoreError::Corrupt { column: "plan.version" })?;
        let version = loaded(version.try_get("plan_version")?, "plan.version")?;
        let assignments = rows.iter().filter_map(|row| assignment(row).transpose());
        let plan = Plan::new(assignments.collect::<Result<_, _>>()?);
        let plan = plan.map_err(|_| StoreError::Corrupt { column: "assignments.selector" })?;
        Ok(PlanRecord { version, plan })
    }
}

/// The compare-and-set that every change of the plan goes through.
/// Refuses unless the plan is still the one that something was decided under.
pub(super) async fn is_of(unit: &mut Unit, version: u64) -> Result<(), StoreError> {
    query("SELECT 1 FROM plan WHERE id = 1 AND version = $1")
        .bind(stored(version))
        .fetch_optional(unit.connection())
        .await?
        .map(drop)
        .ok_or(StoreError::Conflict)
}

async fn advance(unit: &mut Unit, from_version: u64) -> Result<(), StoreError> {
    let done = query("UPDATE plan SET version = version + 1 WHERE id = 1 AND version = $1")
        .bind(stored(from_version))
        .execute(unit.connection())
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

async fn put(unit: &mut Unit, step: &PlanStep) -> Result<(), StoreError> {
    advance(unit, step.from_version).await?;
    let Assignment { selector, revision, rollout, .. } = &step.assignment;
    let (id, union, new, percent) = rollout
        .map_or((0, 0, 0, 0), |rollout| (rollout.id, rollout.union, rollout.new, rollout.percent.into()));
    query(
        "INSERT INTO assignments (selector, revision, rollout, union_revision, new_revision, percent)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (selector) DO UPDATE SET revision = $2, rollout = $3, union_revision = $4, new_revision = $5,
             percent = $6",
    )
    .bind(selector.to_string())
    .bind(stored(*revision))
    .bind(stored(id))
    .bind(stored(union))
    .bind(stored(new))
    .bind(stored(percent))
    .execute(unit.connection())
    .await?;
    Ok(())
}

fn published(policy: &NewPolicy) -> Value {
    json!({ "version": policy.version, "digest": policy.digest })
}

fn assignment(row: &Row) -> Result<Option<Assignment>, StoreError> {
    let Some(selector) = row.try_get::<Option<String>>("selector")? else { return Ok(None) };
    let corrupt = |column| move || StoreError::Corrupt { column };
    let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
    let rollout = match number("rollout")? {
        0 => None,
        id => {
            let percent = Percent::try_from(number("percent")?).ok();
            let percent = percent.ok_or_else(corrupt("assignments.percent"))?;
            Some(Rollout { id, union: number("union_revision")?, new: number("new_revision")?, percent })
        }
    };
    Ok(Some(Assignment {
        selector: selector.parse::<Selector>().ok().ok_or_else(corrupt("assignments.selector"))?,
        name: row.try_get("name")?,
        revision: number("revision")?,
        rollout,
    }))
}
