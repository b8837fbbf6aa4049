//! Places at the doors, and the bytes that wait at them: what `assay_admission` decides, kept and given back.
//!
//! Strangers and those who have proven who they are have places apart, so that no crowd of strangers keeps a known one
//! out. Whoever has to make room is told by a notice that they wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_admission::{Crowded, Peer, Place, Places, Quota, Room, Spent};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Limits;
use crate::outcome::{Kind, Outcome};

/// What the edge door shares out.
#[derive(Debug)]
pub(crate) struct EdgeAdmission {
    /// Streams that have not shown any evidence yet.
    pub streams: Admission,
    /// Enrollments under way.
    pub enrollments: Admission,
    /// Bytes of messages that are not whole yet.
    pub bytes: Bytes,
}

impl EdgeAdmission {
    pub(crate) fn new(limits: &Limits) -> EdgeAdmission {
        let strangers = limits.unproven_streams_max.div_ceil(2);
        let streams = Admission::apart(
            Room {
                total: strangers,
                of_a_key: limits.unproven_streams_per_address_max,
                safe_for: PLACE_SAFE_FOR,
            },
            Room {
                total: limits.unproven_streams_max - strangers,
                of_a_key: STREAMS_OF_A_DEVICE_MAX,
                safe_for: PLACE_SAFE_FOR,
            },
        );
        let enrollments = Admission::together(Room {
            total: limits.enrollments_max,
            of_a_key: limits.enrollments_max.div_ceil(2),
            safe_for: PLACE_SAFE_FOR,
        });
        EdgeAdmission { streams, enrollments, bytes: Bytes::new(limits.bytes_in_flight_max) }
    }
}

/// Places of one kind.
#[derive(Debug)]
pub(crate) struct Admission {
    strangers: Arc<Pool>,
    known: Arc<Pool>,
}

type Pool = Mutex<Places<Peer, Arc<Notify>>>;

/// A place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    at: Mutex<(Arc<Pool>, Place)>,
    leave: Arc<Notify>,
}

impl Admission {
    /// Strangers and known ones each have places of their own.
    pub(crate) fn apart(strangers: Room, known: Room) -> Admission {
        let pool = |room| Arc::new(Mutex::new(Places::new(room)));
        Admission { strangers: pool(strangers), known: pool(known) }
    }

    /// All share the same places.
    pub(crate) fn together(room: Room) -> Admission {
        let pool: Arc<Pool> = Arc::new(Mutex::new(Places::new(room)));
        Admission { strangers: pool.clone(), known: pool }
    }

    /// Lets somebody in, if need be in the place of one who has many or had theirs for long.
    pub(crate) fn admit(&self, peer: &Peer) -> Result<Admitted, NoPlace> {
        let pool = if peer.is_known() { &self.known } else { &self.strangers };
        let leave = Arc::new(Notify::new());
        let place = enter(pool, peer, &leave)?;
        Ok(Admitted { at: Mutex::new((pool.clone(), place)), leave })
    }

    /// Gives one who has proven who they are a place among the known, in exchange for the one they have.
    pub(crate) fn promote(&self, admitted: &Admitted, peer: &Peer) -> Result<(), NoPlace> {
        let mut at = admitted.at();
        if !Arc::ptr_eq(&at.0, &self.known) {
            let place = enter(&self.known, peer, &admitted.leave)?;
            let (strangers, before) = std::mem::replace(&mut *at, (self.known.clone(), place));
            lock(&strangers).release(before);
        }
        Ok(())
    }
}

fn enter(pool: &Arc<Pool>, peer: &Peer, leave: &Arc<Notify>) -> Result<Place, NoPlace> {
    let admitted = lock(pool).admit(peer.clone(), Instant::now().into_std(), leave.clone())?;
    if let Some(evicted) = admitted.evicted {
        evicted.notify_one();
    }
    Ok(admitted.place)
}

fn lock(pool: &Pool) -> MutexGuard<'_, Places<Peer, Arc<Notify>>> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Admitted {
    /// Completes when its holder has to make room.
    pub(crate) async fn leave(&self) {
        self.leave.notified().await;
    }

    /// Something was done with it.
    pub(crate) fn renew(&self) {
        let at = self.at();
        lock(&at.0).renew(at.1, Instant::now().into_std());
    }

    fn at(&self) -> MutexGuard<'_, (Arc<Pool>, Place)> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let at = self.at.get_mut().unwrap_or_else(PoisonError::into_inner);
        lock(&at.0).release(at.1);
    }
}

/// Every place is taken, or was needed by another.
#[derive(Clone, Copy, Debug, Error)]
#[error("as many are let in as there may be")]
pub(crate) struct NoPlace {
    retry_after: Duration,
}

impl NoPlace {
    /// Of one who had to make room.
    pub(crate) fn made_room() -> NoPlace {
        NoPlace { retry_after: PLACE_SAFE_FOR }
    }
}

impl From<Crowded> for NoPlace {
    fn from(Crowded { retry_after }: Crowded) -> Self {
        NoPlace { retry_after }
    }
}

impl Outcome for NoPlace {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Exhausted, "no-room")
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(self.retry_after.max(RETRY_MIN))
    }
}

/// Bytes that wait in memory for the rest of their message, of strangers and of known ones.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    strangers: Arc<Mutex<Quota<Peer>>>,
    known: Arc<Mutex<Quota<Peer>>>,
}

/// What one stream or request has waiting; given back when dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: Bytes,
    peer: Peer,
    spent: usize,
}

impl Bytes {
    fn new(total: usize) -> Bytes {
        let strangers = total / STRANGERS_SHARE;
        let quota = |total, of_a_key| Arc::new(Mutex::new(Quota::new(total, of_a_key)));
        Bytes {
            strangers: quota(strangers, strangers / ADDRESS_SHARE),
            known: quota(total - strangers, BYTES_OF_A_DEVICE_MAX),
        }
    }

    /// Counts what a peer sends.
    pub(crate) fn of(&self, peer: Peer) -> InFlight {
        InFlight { bytes: self.clone(), peer, spent: 0 }
    }
}

impl InFlight {
    /// Counts bytes that came.
    pub(crate) fn spend(&mut self, amount: usize) -> Result<(), Spent> {
        self.quota(|quota, peer| quota.spend(peer, amount))?;
        self.spent += amount;
        Ok(())
    }

    /// Takes bytes off the count until so many are left.
    pub(crate) fn keep(&mut self, left: usize) {
        let done = self.spent.saturating_sub(left);
        if done == 0 {
            return;
        }
        self.quota(|quota, peer| quota.give_back(peer, done));
        self.spent -= done;
    }

    /// Whom they are counted against.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Counts them against somebody else from now on.
    pub(crate) fn become_of(&mut self, peer: Peer) -> Result<(), Spent> {
        let mut other = self.bytes.of(peer);
        other.spend(self.spent)?;
        *self = other;
        Ok(())
    }

    fn quota<T>(&self, change: impl FnOnce(&mut Quota<Peer>, &Peer) -> T) -> T {
        let quota = if self.peer.is_known() { &self.bytes.known } else { &self.bytes.strangers };
        change(&mut quota.lock().unwrap_or_else(PoisonError::into_inner), &self.peer)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.keep(0);
    }
}

/// A TPM quotes within a second or two, and proofs of an enrollment take little longer.
const PLACE_SAFE_FOR: Duration = Duration::from_secs(3);
/// A device attaches once; while a connection breaks it may come again before the first is noticed to be gone.
const STREAMS_OF_A_DEVICE_MAX: usize = 4;
/// Of all bytes, one in so many is for strangers, who send small messages only.
const STRANGERS_SHARE: usize = 8;
/// Of theirs, one in so many for one address.
const ADDRESS_SHARE: usize = 4;
/// The longest message, and another before the first is noticed to have ended.
const BYTES_OF_A_DEVICE_MAX: usize = 64 << 20;
const RETRY_MIN: Duration = Duration::from_secs(1);
