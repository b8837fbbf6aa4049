//! Registrations that wait to be activated, by who sent them and what they are called: who is at another address answers none of
//! them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_admission::{Crowded, Peer, Place, Places, Room};
use assay_evidence::time::UnixTime;

use crate::keylime::Registering;

/// They, each once.
#[derive(Debug)]
pub(super) struct Waiting(Mutex<Table>);

type Key = (Peer, String);

#[derive(Debug)]
struct Table {
    places: Places<Peer, Key>,
    registrations: HashMap<Key, (Place, Registering, UnixTime)>,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        let room = Room { total: WAITING_MAX, of_a_key: WAITING_MAX / 2, safe_for: SAFE_FOR };
        Waiting(Mutex::new(Table { places: Places::new(room), registrations: HashMap::new() }))
    }

    /// Has one wait; an earlier one of the same name from the same address is forgotten.
    pub(super) fn put(
        &self,
        (peer, id): (Peer, String),
        registering: Registering,
        (now, instant): (UnixTime, Instant),
    ) -> Result<(), Crowded> {
        let key = (peer.clone(), id);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.take(&key);
        let admitted = table.places.admit(peer, instant, key.clone())?;
        if let Some(evicted) = admitted.evicted {
            table.registrations.remove(&evicted);
        }
        table.registrations.insert(key, (admitted.place, registering, now.plus(WAITS_SECONDS)));
        Ok(())
    }

    /// Takes one to be answered: whatever comes of it, it is answered once.
    pub(super) fn take(&self, peer: Peer, id: &str, now: UnixTime) -> Option<Registering> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, registering, until) = table.take(&(peer, id.to_owned()))?;
        (now < until).then_some(registering)
    }

    /// Forgets those that waited too long.
    pub(super) fn forget_old(&self, now: UnixTime) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = table.registrations.iter().filter(|(_, (.., until))| *until <= now);
        let old: Vec<Key> = old.map(|(key, _)| key.clone()).collect();
        for key in old {
            table.take(&key);
        }
    }
}

impl Table {
    fn take(&mut self, key: &Key) -> Option<(Place, Registering, UnixTime)> {
        let taken = self.registrations.remove(key)?;
        self.places.release(taken.0);
        Some(taken)
    }
}

/// Each takes some 10 KiB, most of it certificates.
const WAITING_MAX: usize = 4096;
/// A discrete TPM takes some seconds to activate a credential.
const WAITS_SECONDS: u64 = 60;
const SAFE_FOR: Duration = Duration::from_secs(3);
