//! What is remembered of signed messages: whose certificates verified, and which messages were there.
//!
//! Neither outlives the server: what was said before it started is refused, because it may have been heard then.

use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::{Opened, Peers, ReplayError, Replays};
use assay_identity::tls::Trust;
use assay_identity::{SvidError, VerifiedPeer};

use crate::clock::certificate_time;

/// The memory of one server.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Each held for as long as a look-up takes, or the verification of a chain.
    peers: Mutex<Peers>,
    replays: Mutex<Replays>,
}

impl Messages {
    /// A memory that begins now.
    pub(crate) fn new(now: UnixTime) -> Messages {
        Messages { peers: Mutex::default(), replays: Mutex::new(Replays::new(certificate_time(now))) }
    }

    /// The peer of a chain, leaf first, by what is current.
    pub(crate) fn peer(
        &self,
        chain: &[Vec<u8>],
        trust: &Trust,
        now: UnixTime,
    ) -> Result<VerifiedPeer, SvidError> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.verify(chain, (&trust.bundle, &trust.crls), certificate_time(now))
    }

    /// Takes a message, once.
    pub(crate) fn take(&self, message: &Opened, now: UnixTime) -> Result<(), ReplayError> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner).take(message, certificate_time(now))
    }

    /// How many chains were known, and how many had to be verified.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).hits_and_misses()
    }
}
