//! Who may be connected: strangers by their address, and whoever has shown an SVID by that, in places of their own.
//!
//! A stranger too many gets the place of the one whose address has most of them, so that nobody's many keep another out. Who
//! has shown who they are leaves the strangers' places: a device behind the same address as a crowd is not counted with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_admission::{Crowded, Peer, Place, Places, Room};
use tokio::sync::Notify;

use crate::config::Limits;

/// The places of both kinds.
#[derive(Debug)]
pub(crate) struct Connections {
    strangers: Arc<Pool>,
    known: Arc<Pool>,
}

type Pool = Mutex<Places<Peer, Arc<Notify>>>;

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    at: Mutex<(Arc<Pool>, Place)>,
    leave: Arc<Notify>,
}

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Connections {
        // Few devices are strangers at a time: before they enroll, and until they have attested again.
        let strangers = limits.connections_max.div_ceil(STRANGERS_SHARE);
        let pool = |total, of_a_key| {
            Arc::new(Mutex::new(Places::new(Room { total, of_a_key, safe_for: PLACE_SAFE_FOR })))
        };
        Connections {
            strangers: pool(strangers, limits.connections_per_address_max),
            known: pool(limits.connections_max - strangers, CONNECTIONS_OF_A_DEVICE_MAX),
        }
    }

    /// A place for one more stranger, if need be that of another.
    pub(crate) fn admit(&self, peer: &Peer) -> Result<Connected, Crowded> {
        let leave = Arc::new(Notify::new());
        let place = enter(&self.strangers, peer, &leave)?;
        Ok(Connected { at: Mutex::new((self.strangers.clone(), place)), leave })
    }

    /// It has shown who it is: a place among those who have.
    pub(crate) fn promote(&self, connected: &Connected, peer: &Peer) -> Result<(), Crowded> {
        let place = enter(&self.known, peer, &connected.leave)?;
        let (before, stranger) = std::mem::replace(&mut *connected.at(), (self.known.clone(), place));
        lock(&before).release(stranger);
        Ok(())
    }

    /// Connections open: all, and of this peer.
    pub(crate) fn open(&self, peer: &Peer) -> (usize, usize) {
        let of = |pool: &Pool| {
            let places = lock(pool);
            (places.taken(), places.taken_by(peer))
        };
        let ((strangers, as_stranger), (known, as_known)) = (of(&self.strangers), of(&self.known));
        (strangers + known, as_stranger + as_known)
    }
}

fn enter(pool: &Pool, peer: &Peer, leave: &Arc<Notify>) -> Result<Place, Crowded> {
    let admitted = lock(pool).admit(peer.clone(), Instant::now(), leave.clone())?;
    if let Some(evicted) = admitted.evicted {
        evicted.notify_one();
    }
    Ok(admitted.place)
}

fn lock(pool: &Pool) -> MutexGuard<'_, Places<Peer, Arc<Notify>>> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connected {
    /// Completes when it has to make room.
    pub(crate) async fn leave(&self) {
        self.leave.notified().await;
    }

    /// A request came on it.
    pub(crate) fn renew(&self) {
        let at = self.at();
        lock(&at.0).renew(at.1, Instant::now());
    }

    fn at(&self) -> MutexGuard<'_, (Arc<Pool>, Place)> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let at = self.at.get_mut().unwrap_or_else(PoisonError::into_inner);
        lock(&at.0).release(at.1);
    }
}

/// One place in so many is for strangers.
const STRANGERS_SHARE: usize = 4;
/// A TLS handshake, and the first word after it.
const PLACE_SAFE_FOR: Duration = Duration::from_secs(3);
/// A device has one; while it breaks it may come again before the first is noticed to be gone.
const CONNECTIONS_OF_A_DEVICE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use assay_identity::SpiffeId;

    fn connections(connections_max: usize, connections_per_address_max: usize) -> Connections {
        Connections::new(&Limits { connections_max, connections_per_address_max, ..Limits::default() })
    }

    fn stranger(address: &str) -> Peer {
        Peer::at(address.parse().unwrap())
    }

    fn device(name: &str) -> Peer {
        Peer::Known(SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap())
    }

    #[test]
    fn finding_7_a_crowd_of_strangers_keeps_no_known_device_out_not_even_of_its_own_address() {
        let connections = connections(8, 2);
        let here = stranger("192.0.2.1");
        let crowd: Vec<Connected> = (0..2).map(|_| connections.admit(&here).unwrap()).collect();
        assert!(connections.admit(&here).is_err(), "an address has its share");
        drop(crowd);
        // Each comes as a stranger, and leaves the place once it has shown who it is.
        let known: Vec<Connected> = (0..6)
            .map(|number| {
                let connected = connections.admit(&here).unwrap();
                connections.promote(&connected, &device(&format!("device-{number}"))).unwrap();
                connected
            })
            .collect();
        assert_eq!(connections.open(&here), (6, 0));
        assert_eq!(connections.open(&device("device-3")), (6, 1));
        let crowd: Vec<Connected> = (0..2).map(|_| connections.admit(&here).unwrap()).collect();
        assert_eq!(connections.open(&here), (8, 2));
        drop((known, crowd));
        assert_eq!(connections.open(&here), (0, 0));
    }

    #[tokio::test]
    async fn finding_7_whoever_has_many_connections_makes_room_for_another_address() {
        let connections = connections(16, 4);
        let (greedy, other) = (stranger("192.0.2.1"), stranger("2001:db8::1"));
        let crowd: Vec<Connected> = (0..4).map(|_| connections.admit(&greedy).unwrap()).collect();
        let let_in = connections.admit(&other).unwrap();
        crowd[0].leave().await;
        assert_eq!(connections.open(&greedy), (4, 3));
        drop((crowd, let_in));
    }
}
