//! Which devices a policy judges, and which of them would fall if its new version were in force alone.

use std::collections::BTreeMap;

use assay_identity::SpiffeId;
use assay_trust::assignment::{Assignment, PlanError};
use assay_trust::labels::Labels;
use assay_trust::{Status, Tier};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{PolicyChangeError, trial};
use crate::in_force::policies::PlanInForce;
use crate::store::{LabelledDevice, Store, StoreError};

/// A device that would fall, or is not known to stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fall {
    /// Its SPIFFE ID.
    pub device: String,
    /// What people call it.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// How many devices an assignment judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// All of them.
    pub all: u64,
    /// Those that are trusted.
    pub trusted: u64,
    /// Those that the union of a roll-out judges.
    pub on_union: u64,
}

/// The devices of each assignment of the plan, in its order, and how many devices have none.
pub(crate) async fn devices_by_policy(
    store: &Store,
    in_force: &PlanInForce,
) -> Result<(Vec<Devices>, u64), StoreError> {
    let assignments = in_force.plan.assignments();
    let (mut counts, mut without) = (vec![Devices::default(); assignments.len()], 0);
    for device in store.labelled_devices().await? {
        let (id, labels) = plan_terms(&device)?;
        let assigned = in_force.plan.of(&labels);
        let place = assigned.and_then(|assigned| assignments.iter().position(|one| one == assigned));
        match (assigned, place.and_then(|place| counts.get_mut(place))) {
            (Some(assigned), Some(count)) => {
                count.all += 1;
                count.trusted += u64::from(device.status == Status::Trusted.name());
                count.on_union += u64::from(assigned.rollout.is_some_and(|rollout| rollout.includes(&id)));
            }
            _ => without += 1,
        }
    }
    Ok((counts, without))
}

/// The devices of an assignment that are trusted now and would not be under the new version alone, as far as what
/// is kept of them says. In the order of their names.
pub(crate) async fn would_fall(
    store: &Store,
    trials: &Semaphore,
    in_force: &PlanInForce,
    assigned: &Assignment,
) -> Result<Vec<Fall>, PolicyChangeError> {
    let new = assigned.rollout.and_then(|rollout| in_force.compiled(rollout.new));
    let new = new.ok_or_else(|| PlanError::NoRollout { name: assigned.name.clone() })?;
    let mut trusted = BTreeMap::new();
    for device in store.labelled_devices().await? {
        let (_, labels) = plan_terms(&device)?;
        if device.status == Status::Trusted.name() && in_force.plan.of(&labels) == Some(assigned) {
            trusted.insert(device.id.clone(), Fall::unknown(device));
        }
    }
    trial::of_last_evidence(store, trials, new, |device, result| match result {
        Some(result) if result.tier() == Tier::Affirming => {
            trusted.remove(device);
        }
        Some(result) => {
            if let Some(fall) = trusted.get_mut(device) {
                result.reason().clone_into(&mut fall.reason);
            }
        }
        None => {}
    })
    .await?;
    let mut falls: Vec<Fall> = trusted.into_values().collect();
    falls.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(falls)
}
impl Fall {
    /// Until its evidence says more, nobody knows.
    fn unknown(device: LabelledDevice) -> Fall {
        let reason = "no evidence of it is kept that could be judged again".to_owned();
        Fall { device: device.id, name: device.name, reason }
    }
}

/// What the plan goes by.
fn plan_terms(device: &LabelledDevice) -> Result<(SpiffeId, Labels), StoreError> {
    let id = SpiffeId::parse(&device.id).map_err(|_| StoreError::Corrupt { column: "devices.id" })?;
    let labels = device.labels.parse().map_err(|_| StoreError::Corrupt { column: "devices.labels" })?;
    Ok((id, labels))
}

/// The devices as an error names them, each on a line of its own.
pub(super) fn sentence(devices: &[Fall]) -> String {
    let mut text = match devices.len() {
        1 => "one device would fall:".to_owned(),
        count => format!("{count} devices would fall:"),
    };
    for fall in devices.iter().take(DEVICES_NAMED_MAX) {
        text += &format!("\n  {}: {}", fall.name, fall.reason);
    }
    if let Some(more) = devices.len().checked_sub(DEVICES_NAMED_MAX).filter(|more| *more > 0) {
        text += &format!("\n  and {more} more: assay policy rollout status");
    }
    text + "\nUpdate them first, or accept that with --force"
}

/// What an operator reads in one go.
const DEVICES_NAMED_MAX: usize = 20;
