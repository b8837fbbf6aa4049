//! Who is attached: one seat per device, and a way to make its stream look at its state again.
//!
//! Signals say only that something changed, never what: a slow stream misses nothing by missing some of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use assay_identity::SpiffeId;
use assay_trust::placement::Room;
use assay_wire::clocks::Apart;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::Limits;
use crate::outcome::{Kind, Outcome};

/// The seats. Locked for a moment at a time, never across an await.
#[derive(Debug)]
pub(crate) struct Registry {
    seats: Mutex<HashMap<SpiffeId, Seated>>,
    seats_max: usize,
    full_challenges: Arc<Semaphore>,
}

/// Who has a seat.
#[derive(Debug)]
struct Seated {
    sender: watch::Sender<Signal>,
    /// How far its clock is from ours, as it said last.
    clock: Option<Apart>,
    /// The room that it says it has for tasks; `None`: it runs none.
    room: Option<Room>,
}

/// The clocks of those that are attached, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clocks {
    /// How many are further off than is forgiven.
    pub off: u64,
    /// The furthest, in seconds.
    pub furthest: u64,
}

/// What a seat hears.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signal {
    /// Counts reasons to look again.
    changes: u64,
    /// Counts changes of what its workloads are entitled to.
    pub entries: u64,
    /// Counts changes of what secrets there are for whom.
    pub secrets: u64,
    /// Counts changes of the tasks that it has.
    pub tasks: u64,
    /// Another stream has proven to be this device.
    pub replaced: bool,
}

/// A device's place among the attached; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Seat {
    registry: Arc<Registry>,
    id: SpiffeId,
    /// What it hears.
    pub signal: watch::Receiver<Signal>,
}

impl Registry {
    /// With room for so many devices, and so many that were asked for everything.
    pub(crate) fn new(limits: &Limits) -> Registry {
        Registry {
            seats: Mutex::default(),
            seats_max: limits.attached_devices_max,
            full_challenges: Arc::new(Semaphore::new(limits.full_challenges_max)),
        }
    }

    /// Leave to ask a device for whole logs, if not too many are on their way already.
    pub(crate) fn full_challenge(&self) -> Option<OwnedSemaphorePermit> {
        self.full_challenges.clone().try_acquire_owned().ok()
    }

    /// Gives a device that has proven itself its seat; whoever had it before is told to go.
    pub(crate) fn seat(self: &Arc<Self>, id: &SpiffeId) -> Result<Seat, NoRoom> {
        let (sender, signal) = watch::channel(Signal::default());
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.len() >= self.seats_max && !seats.contains_key(id) {
            return Err(NoRoom);
        }
        if let Some(earlier) = seats.insert(id.clone(), Seated { sender, clock: None, room: None }) {
            earlier.sender.send_modify(|signal| signal.replaced = true);
        }
        Ok(Seat { registry: self.clone(), id: id.clone(), signal })
    }

    /// Makes a device's stream look at its state again, if it is attached.
    pub(crate) fn wake(&self, id: &SpiffeId) {
        if let Some(seat) = self.seats.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            seat.sender.send_modify(|signal| signal.changes = signal.changes.wrapping_add(1));
        }
    }

    /// The same, because its workloads are entitled to something else now.
    pub(crate) fn wake_for_entries(&self, id: &SpiffeId) {
        if let Some(seat) = self.seats.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            seat.sender.send_modify(|signal| signal.entries = signal.entries.wrapping_add(1));
        }
    }

    /// Makes every stream look whether its device may have other secrets now.
    pub(crate) fn wake_for_secrets(&self) {
        for seat in self.seats.lock().unwrap_or_else(PoisonError::into_inner).values() {
            seat.sender.send_modify(|signal| signal.secrets = signal.secrets.wrapping_add(1));
        }
    }

    /// The same, because it has other tasks now.
    pub(crate) fn wake_for_tasks(&self, id: &SpiffeId) {
        if let Some(seat) = self.seats.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            seat.sender.send_modify(|signal| signal.tasks = signal.tasks.wrapping_add(1));
        }
    }

    /// Takes down what room an attached device has for tasks.
    pub(crate) fn room_is(&self, id: &SpiffeId, room: Room) {
        if let Some(seat) = self.seats.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            seat.room = Some(room);
        }
    }

    /// Those that are attached and run tasks, with the room that they have.
    pub(crate) fn runners(&self) -> Vec<(SpiffeId, Room)> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.iter().filter_map(|(id, seat)| Some((id.clone(), seat.room?))).collect()
    }

    /// Whether a device is attached.
    pub(crate) fn is_attached(&self, id: &SpiffeId) -> bool {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Takes down what an attached device's clock shows.
    pub(crate) fn clock_is(&self, id: &SpiffeId, apart: Apart) {
        if let Some(seat) = self.seats.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            seat.clock = Some(apart);
        }
    }

    /// How far an attached device's clock is from ours, if it said so.
    pub(crate) fn clock(&self, id: &SpiffeId) -> Option<Apart> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.clock
    }

    /// The clocks of all.
    pub(crate) fn clocks(&self) -> Clocks {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let told = seats.values().filter_map(|seat| seat.clock);
        told.fold(Clocks::default(), |Clocks { off, furthest }, apart| Clocks {
            off: off + u64::from(apart.matters()),
            furthest: furthest.max(apart.seconds().unsigned_abs()),
        })
    }

    /// How many are.
    pub(crate) fn attached(&self) -> usize {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.registry.seats.lock().unwrap_or_else(PoisonError::into_inner);
        // A seat taken over is another's by now.
        if !self.signal.borrow().replaced {
            seats.remove(&self.id);
        }
    }
}

/// Everything is taken.
#[derive(Clone, Copy, Debug, Error)]
#[error("as many devices are attached as there may be")]
pub(crate) struct NoRoom;

impl Outcome for NoRoom {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Exhausted, "no-room")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(attached_devices_max: usize) -> Arc<Registry> {
        let limits = Limits { attached_devices_max, ..Limits::default() };
        Arc::new(Registry::new(&limits))
    }

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://td/{name}")).unwrap()
    }

    #[test]
    fn a_seat_is_taken_over_and_freed_by_its_last_holder_only() {
        let registry = registry(1);
        let first = registry.seat(&id("a")).unwrap();
        assert!(registry.seat(&id("b")).is_err(), "the bound holds");
        let second = registry.seat(&id("a")).unwrap();
        assert!(first.signal.borrow().replaced && !second.signal.borrow().replaced);
        drop(first);
        assert!(registry.is_attached(&id("a")));
        drop(second);
        assert_eq!(registry.attached(), 0);
    }

    #[test]
    fn waking_is_heard_once_however_often() {
        let registry = registry(4);
        let mut seat = registry.seat(&id("a")).unwrap();
        assert!(!seat.signal.has_changed().unwrap());
        registry.wake(&id("a"));
        registry.wake(&id("a"));
        registry.wake(&id("b"));
        assert!(seat.signal.has_changed().unwrap());
        seat.signal.borrow_and_update();
        assert!(!seat.signal.has_changed().unwrap());
    }
}
