//! What is remembered of signed messages: whose certificates verified, and which messages were there.
//!
//! Neither outlives the server: what was said before it started is refused, because it may have been heard then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::{Opened, Peers, ReplayError, Replays};
use assay_identity::tls::Trust;
use assay_identity::{SvidError, VerifiedPeer};

use crate::clock::certificate_time;
use crate::metrics::Stopwatch;
use crate::metrics::trust::TrustMetrics;

/// The memory of one server.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Each held for as long as a look-up takes, or the verification of a chain.
    peers: Mutex<Peers>,
    replays: Mutex<Replays>,
    /// Chains of nodes that were looked at because somebody asked how they stand.
    shown: Mutex<Peers>,
    metrics: Option<TrustMetrics>,
}

impl Messages {
    /// A memory that begins now.
    pub(crate) fn new(metrics: Option<TrustMetrics>, now: UnixTime) -> Messages {
        let replays = Mutex::new(Replays::new(certificate_time(now)));
        Messages { peers: Mutex::default(), replays, shown: Mutex::default(), metrics }
    }

    /// The peer of a chain, leaf first, by what is current.
    pub(crate) fn peer(
        &self,
        chain: &[Vec<u8>],
        trust: &Trust,
        now: UnixTime,
    ) -> Result<VerifiedPeer, SvidError> {
        let watch = Stopwatch::start();
        let mut peers = self.waited("chains", &self.peers);
        let peer = peers.verify(chain, (&trust.bundle, &trust.crls), certificate_time(now));
        drop(peers);
        if let Some(metrics) = &self.metrics {
            metrics.chain(watch.elapsed(), peer.is_ok());
        }
        peer
    }

    /// Whether a chain leads to the bundle now, whatever the revocation list says of it.
    pub(crate) fn leads_to_the_bundle(&self, chain: &[Vec<u8>], trust: &Trust, now: UnixTime) -> bool {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let found = shown.verify(chain, (&trust.bundle, &trust.crls), certificate_time(now));
        matches!(found, Ok(_) | Err(SvidError::Revoked))
    }

    /// Takes a message, once.
    pub(crate) fn take(&self, message: &Opened, now: UnixTime) -> Result<(), ReplayError> {
        self.waited("messages", &self.replays).take(message, certificate_time(now))
    }

    /// How often messages were forgotten as too old, and how many.
    pub(crate) fn forgotten(&self) -> (u64, u64) {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner).forgotten()
    }

    fn waited<'a, T>(&self, of: &'static str, memory: &'a Mutex<T>) -> MutexGuard<'a, T> {
        let watch = Stopwatch::start();
        let held = memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &self.metrics {
            metrics.waited(of, watch.elapsed());
        }
        held
    }

    /// How many chains were known, and how many had to be verified.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).hits_and_misses()
    }
}
