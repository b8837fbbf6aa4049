//! The devices that run tasks, as of one moment: who is attached, what is held about them, and what they have taken on.

use std::collections::HashMap;

use assay_evidence::time::UnixTime;
use assay_trust::placement::{Candidate, Demand, Room, weigh};

use super::{Placement, PlacementError, Weighed};
use crate::device::Device;
use crate::store::AttemptRecord;

/// They.
pub(super) struct Fleet {
    pub(super) runners: Vec<Runner>,
}

/// A device that runs tasks.
pub(super) struct Runner {
    pub(super) device: Device,
    room: Room,
    taken: Room,
}

/// Where a task was before.
pub(super) struct Record<'a>(pub(super) &'a [AttemptRecord]);

impl Placement {
    pub(super) async fn fleet(&self) -> Result<Fleet, PlacementError> {
        let rooms: HashMap<String, Room> =
            self.registry.runners().into_iter().map(|(id, room)| (id.to_string(), room)).collect();
        let mut taken: HashMap<String, Room> = HashMap::new();
        for attempt in self.store.standing_attempts(None).await? {
            let AttemptRecord { device_id, memory_bytes, cpu_millis, .. } = attempt;
            let of = taken.entry(device_id).or_default();
            *of = of.and(Room { memory_bytes, cpu_millis, tasks: 1 });
        }
        let ids: Vec<&str> = rooms.keys().map(String::as_str).collect();
        let mut runners = Vec::with_capacity(ids.len());
        for record in self.store.devices_of(&ids).await? {
            let room = rooms.get(&record.id).copied().unwrap_or_default();
            let taken = taken.get(&record.id).copied().unwrap_or_default();
            runners.push(Runner { device: Device::of(record)?, room, taken });
        }
        Ok(Fleet { runners })
    }
}

impl Fleet {
    /// The devices as candidates for a task that was where its record says.
    pub(super) fn candidates<'a>(&'a self, spread: &str, record: &Record<'_>) -> Vec<Candidate<'a>> {
        let value = |runner: &'a Runner| {
            runner.device.labels.iter().find(|(key, _)| *key == spread).map(|(_, value)| value)
        };
        let mut busy: HashMap<&str, u64> = HashMap::new();
        for runner in &self.runners {
            if let Some(value) = value(runner) {
                *busy.entry(value).or_default() += runner.taken.tasks;
            }
        }
        let candidate = |runner: &'a Runner| Candidate {
            state: &runner.device.state,
            labels: &runner.device.labels,
            room: Some(runner.room),
            taken: runner.taken,
            failed: record.failed_at(runner.device.id.as_str()),
            neighbours: value(runner)
                .and_then(|value| busy.get(value))
                .map_or(0, |tasks| tasks - runner.taken.tasks),
        };
        self.runners.iter().map(candidate).collect()
    }

    /// What each device is worth for a task, the best first.
    pub(super) fn weighed(&self, demand: &Demand<'_>, record: &Record<'_>, now: UnixTime) -> Vec<Weighed> {
        let candidates = self.candidates(demand.spread, record);
        let weighed = |(runner, candidate): (&Runner, Candidate<'_>)| Weighed {
            device: runner.device.id.to_string(),
            name: runner.device.record.name.clone(),
            verdict: weigh(demand, &candidate, now).map_err(|unfit| (unfit.code(), unfit.to_string())),
        };
        let mut all: Vec<Weighed> = self.runners.iter().zip(candidates).map(weighed).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.verdict.as_ref().map_or(0, |score| score.total() + 1)));
        all
    }

    /// A device has taken on one more.
    pub(super) fn take(&mut self, place: usize, room: Room) {
        if let Some(runner) = self.runners.get_mut(place) {
            runner.taken = runner.taken.and(room);
        }
    }
}

impl Record<'_> {
    fn failed_at(&self, device: &str) -> u32 {
        let failed = self.0.iter().filter(|attempt| attempt.device_id == device && !attempt.stands());
        u32::try_from(failed.count()).unwrap_or(u32::MAX)
    }
}
