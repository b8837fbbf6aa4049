//! Which devices a policy judges, and which would fall if the plan were another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_identity::SpiffeId;
use assay_trust::assignment::Plan;
use assay_trust::labels::Labels;
use assay_trust::{AttestationResult, CompiledPolicy, Status, Tier};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{PolicyChangeError, trial};
use crate::device::Device;
use crate::in_force::policies::{PlanInForce, Published};
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

/// The devices that are trusted now and would not be once another plan is in force, as far as what is kept of them says.
/// In the order of their names. Those whose policy stays the same are not looked at.
pub(crate) async fn would_fall(
    store: &Store,
    trials: &Semaphore,
    in_force: &PlanInForce,
    coming: Coming<'_>,
) -> Result<Vec<Fall>, PolicyChangeError> {
    let Moved { by_policy, mut falls } = moved(store, &in_force.plan, coming.plan).await?;
    // The semaphore is never closed.
    let _turn = trials.acquire().await.ok();
    for (revision, mut devices) in by_policy {
        if let Some(policy) = coming.compiled(in_force, revision) {
            stay(store, policy, &mut devices).await?;
        }
        falls.extend(devices.into_values());
    }
    falls.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(falls)
}

/// Why a device that is trusted now would not be once it had other labels, as far as what is kept of it says.
pub(crate) async fn would_fall_as(
    store: &Store,
    trials: &Semaphore,
    in_force: &PlanInForce,
    device: &Device,
    labels: &Labels,
) -> Result<Option<Fall>, PolicyChangeError> {
    let next = in_force.plan.revision_for(&device.id, labels);
    let stays = next == in_force.plan.revision_for(&device.id, &device.labels);
    if stays || device.state.status() != Status::Trusted {
        return Ok(None);
    }
    let fall = |reason: &str| Fall {
        device: device.id.to_string(),
        name: device.record.name.clone(),
        reason: reason.to_owned(),
    };
    let Some(next) = next else { return Ok(Some(fall(JUDGED_BY_NONE))) };
    let mut falls = BTreeMap::from([(device.id.to_string(), fall(NOTHING_KEPT))]);
    // The semaphore is never closed.
    let _turn = trials.acquire().await.ok();
    if let Some(policy) = in_force.compiled(next) {
        stay(store, policy, &mut falls).await?;
    }
    Ok(falls.into_values().next())
}

/// A plan that may come into force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coming<'a> {
    pub plan: &'a Plan,
    /// The policy that is published with it, if one is.
    pub published: Option<&'a Published>,
}

impl Coming<'_> {
    fn compiled<'a>(&'a self, in_force: &'a PlanInForce, revision: u64) -> Option<&'a Arc<CompiledPolicy>> {
        let published = self.published.filter(|published| published.record.revision == revision);
        published.map(|published| &published.compiled).or_else(|| in_force.compiled(revision))
    }
}

/// The trusted devices that a change of the plan concerns.
#[derive(Default)]
struct Moved {
    /// Those that another policy would judge, by its revision and their SPIFFE ID.
    by_policy: BTreeMap<u64, BTreeMap<String, Fall>>,
    /// Those that none would.
    falls: Vec<Fall>,
}

async fn moved(store: &Store, from: &Plan, to: &Plan) -> Result<Moved, StoreError> {
    let mut moved = Moved::default();
    for device in store.labelled_devices().await? {
        if device.status != Status::Trusted.name() {
            continue;
        }
        let (id, labels) = plan_terms(&device)?;
        match to.revision_for(&id, &labels) {
            next if next == from.revision_for(&id, &labels) => {}
            Some(next) => {
                let fall = Fall::of(&device, NOTHING_KEPT);
                moved.by_policy.entry(next).or_default().insert(device.id, fall);
            }
            None => moved.falls.push(Fall::of(&device, JUDGED_BY_NONE)),
        }
    }
    Ok(moved)
}

/// Takes those out that a policy affirms, and says of the others why it does not.
async fn stay(
    store: &Store,
    policy: &Arc<CompiledPolicy>,
    devices: &mut BTreeMap<String, Fall>,
) -> Result<(), PolicyChangeError> {
    let concerned: BTreeSet<String> = devices.keys().cloned().collect();
    let see = |device: &str, result: Option<&AttestationResult>| match result {
        Some(result) if result.tier() == Tier::Affirming => {
            devices.remove(device);
        }
        Some(result) => {
            if let Some(fall) = devices.get_mut(device) {
                result.reason().clone_into(&mut fall.reason);
            }
        }
        None => {}
    };
    Ok(trial::of_last_evidence(store, policy, |device| concerned.contains(device), see).await?)
}

impl Fall {
    fn of(device: &LabelledDevice, reason: &str) -> Fall {
        Fall { device: device.id.clone(), name: device.name.clone(), reason: reason.to_owned() }
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
        text += &format!("\n  and {more} more: assay policy try says all");
    }
    text + "\nUpdate them first (assay policy rollout takes devices and policy along), or accept that with --force"
}

const NOTHING_KEPT: &str = "no evidence of it is kept that could be judged again";
const JUDGED_BY_NONE: &str = "no policy would judge it";
/// What an operator reads in one go.
const DEVICES_NAMED_MAX: usize = 20;
