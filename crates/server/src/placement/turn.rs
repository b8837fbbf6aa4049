//! One look at everything that has to do with time and room: leases, deadlines, and what waits.

use std::collections::BTreeSet;

use assay_clock::Clock;
use assay_evidence::task::Occasion;
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::grant::task::{TaskGrant, decide};
use assay_trust::placement::{Demand, Score, place};
use tokio::sync::watch;

use super::fleet::{Fleet, Record};
use super::{Demands, Placement, PlacementError, definition};
use crate::clock;
use crate::keys::random;
use crate::outcome::{Outcome as _, fault};
use crate::store::{
    AttemptRecord, EndAttempt, EndTask, ExtendLeases, PlaceTask, StoreError, TakeBack, TaskRecord,
};
use crate::thread::caught;

impl Placement {
    /// Places and takes back until the server stops.
    pub(crate) async fn run(&self, clock: Clock, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = clock.ticks(TICK);
        loop {
            tokio::select! {
                () = self.news.notified() => {}
                _ = ticks.tick() => {}
                _ = shutdown.changed() => return,
            }
            match caught(self.turn(clock::now(&clock))).await {
                Ok(Ok(())) | Ok(Err(PlacementError::Store(StoreError::Closed | StoreError::NoSpace(_)))) => {}
                Ok(Err(error)) => fault(error.told().1, &error),
                Err(panicked) => fault("panic", &panicked),
            }
        }
    }

    /// One look.
    pub(super) async fn turn(&self, now: UnixTime) -> Result<(), PlacementError> {
        self.look_at_leases(now).await?;
        self.end_what_is_late(now).await?;
        let waiting = self.store.tasks_to_place(now, PLACED_AT_ONCE_MAX).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut fleet = self.fleet().await?;
        for task in waiting {
            match self.place(&task, &mut fleet, now).await {
                // Its device fell meanwhile, or somebody ended it: the next look sees that.
                Ok(()) | Err(PlacementError::Store(StoreError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A device that is there keeps what it has; one that is away for longer than a lease has lost it.
    async fn look_at_leases(&self, now: UnixTime) -> Result<(), PlacementError> {
        let (mut there, mut away) = (BTreeSet::new(), Vec::new());
        for attempt in self.store.standing_attempts(None).await? {
            let is_there = SpiffeId::parse(&attempt.device_id).is_ok_and(|id| self.registry.is_attached(&id));
            if is_there && attempt.lease_until <= now.plus(LEASE_SECONDS / 2) {
                there.insert(attempt.device_id);
            } else if !is_there && attempt.lease_until <= now {
                away.push(attempt);
            }
        }
        if !there.is_empty() {
            let devices = there.into_iter().collect();
            self.store.commit(ExtendLeases { devices, until: now.plus(LEASE_SECONDS) }).await?;
        }
        for attempt in away {
            let reason = format!("its device was away for more than {LEASE_SECONDS} s");
            let next_at = now.plus(back_off(attempt.number));
            match self.store.commit(TakeBack { end: end(&attempt, reason, now), next_at }).await {
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn end_what_is_late(&self, now: UnixTime) -> Result<(), PlacementError> {
        for task in self.store.tasks_too_late(now, PLACED_AT_ONCE_MAX).await? {
            self.give_up(&task, "it did not end before its deadline".to_owned(), now).await?;
        }
        Ok(())
    }

    async fn give_up(&self, task: &TaskRecord, reason: String, now: UnixTime) -> Result<(), PlacementError> {
        let (task_id, number, by) = (task.id.clone(), task.attempts, "server".to_owned());
        let end = EndAttempt { task_id, number, reason, at: now, by };
        self.store.commit(EndTask { end, is_cancelled: false }).await?;
        Ok(())
    }

    /// Gives a task to the best device that there is for it.
    async fn place(&self, task: &TaskRecord, fleet: &mut Fleet, now: UnixTime) -> Result<(), PlacementError> {
        if task.attempts >= ATTEMPTS_MAX {
            let reason = format!("it was placed {} times and never ended by itself", task.attempts);
            return self.give_up(task, reason, now).await;
        }
        let (definition, demands) = (definition(task)?, Demands::read(&task.demands)?);
        let selector =
            demands.selector.parse().map_err(|_| StoreError::Corrupt { column: "tasks.demands" })?;
        let (request, room) = (demands.request(&definition), demands.room(&definition));
        let attempts = self.store.attempts(&task.id).await?;
        let demand = Demand { request, room, selector: &selector, spread: &demands.spread };
        let candidates = fleet.candidates(&demands.spread, &Record(&attempts));
        let Some((best, score)) = place(&demand, candidates, now) else { return Ok(()) };
        let Some(runner) = fleet.runners.get(best) else { return Ok(()) };
        let occasion = Occasion {
            task: task.id.clone(),
            attempt: task.attempts + 1,
            device: runner.device.id.to_string(),
            nonce: random()?,
        };
        let Ok(grant) = decide(&runner.device.state, request, occasion, now) else { return Ok(()) };
        let name = runner.device.record.name.clone();
        let attempt = attempt(grant, (room.memory_bytes, room.cpu_millis), now);
        tracing::info!(
            task = task.id,
            device = attempt.device_id,
            name,
            score = score.total(),
            "task placed"
        );
        self.store.commit(PlaceTask { attempt, why: why(score) }).await?;
        fleet.take(best, room);
        Ok(())
    }
}

/// The attempt that a grant entitles to.
fn attempt(grant: TaskGrant, (memory_bytes, cpu_millis): (u64, u64), now: UnixTime) -> AttemptRecord {
    let occasion = grant.occasion();
    AttemptRecord {
        task_id: occasion.task.clone(),
        number: occasion.attempt,
        device_id: occasion.device.clone(),
        nonce: occasion.nonce,
        state_version: grant.state_version(),
        memory_bytes,
        cpu_millis,
        status: "standing".to_owned(),
        reason: String::new(),
        placed_at: now,
        lease_until: now.plus(LEASE_SECONDS),
        ended_at: UnixTime(0),
    }
}

fn end(attempt: &AttemptRecord, reason: String, now: UnixTime) -> EndAttempt {
    let (task_id, number, by) = (attempt.task_id.clone(), attempt.number, "server".to_owned());
    EndAttempt { task_id, number, reason, at: now, by }
}

fn why(score: Score) -> String {
    let parts = score.parts().map(|(name, points, most)| format!("{name} {points}/{most}"));
    format!("score {}: {}", score.total(), parts.join(", "))
}

/// How long a task waits that has to be tried again: twice as long each time.
pub(super) fn back_off(attempts: u32) -> u64 {
    1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX).min(BACK_OFF_SECONDS_MAX)
}

const TICK: std::time::Duration = std::time::Duration::from_secs(1);
/// How long a device may be away with a task: a connection that breaks is there again sooner.
const LEASE_SECONDS: u64 = 30;
const BACK_OFF_SECONDS_MAX: u64 = 300;
/// A task that takes down its devices one after the other ends somewhere.
const ATTEMPTS_MAX: u32 = 32;
/// Tasks at one look, so that leases are looked at meanwhile.
const PLACED_AT_ONCE_MAX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fails_again_waits_longer_and_never_too_long() {
        assert_eq!([1, 2, 3, 9, 10, 64, u32::MAX].map(back_off), [1, 2, 4, 256, 300, 300, 300]);
    }
}
