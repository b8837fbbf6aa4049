//! Certificates whose chains verified, so that those of senders who are heard often are not verified each time.
//!
//! What is remembered is the chain and never a verdict: whether the certificate is revoked, and whether there is news of that, is
//! looked up each time. A refusal is not remembered.

use std::collections::HashMap;
use std::time::Duration;

use super::sha256;
use crate::UnixTime;
use crate::bundle::Bundle;
use crate::crl::CrlSet;
use crate::life::Moment;
use crate::verify::{SvidError, VerifiedPeer, verify_svid};

/// The certificates of one authority's nodes.
#[derive(Debug, Default)]
pub struct Peers {
    known: HashMap<[u8; 32], Known>,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Known {
    peer: VerifiedPeer,
    verified_at: u64,
}

impl Peers {
    /// The peer of a chain, leaf first, of which everything below the leaf is the authority's own.
    pub fn verify<C: AsRef<[u8]>>(
        &mut self,
        chain: &[C],
        (bundle, crls): (&Bundle, &CrlSet),
        now: UnixTime,
    ) -> Result<VerifiedPeer, SvidError> {
        let leaf = chain.first().ok_or(SvidError::Empty)?;
        let key = sha256(leaf.as_ref());
        if let Some(known) = self.known.get(&key).filter(|known| known.is_young(now)) {
            check_news(&known.peer, crls, now)?;
            self.hits += 1;
            return Ok(known.peer.clone());
        }
        self.misses += 1;
        let peer = verify_svid(chain, bundle, crls, now)?;
        self.make_room(now);
        self.known.insert(key, Known { peer: peer.clone(), verified_at: now.as_secs() });
        Ok(peer)
    }

    /// How many chains were known, and how many had to be verified.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    fn make_room(&mut self, now: UnixTime) {
        if self.known.len() < PEERS_MAX {
            return;
        }
        self.known.retain(|_, known| known.is_young(now));
        let oldest = self.known.iter().min_by_key(|(_, known)| known.verified_at).map(|(key, _)| *key);
        if let Some(oldest) = oldest.filter(|_| self.known.len() >= PEERS_MAX) {
            self.known.remove(&oldest);
        }
    }
}

impl Known {
    fn is_young(&self, now: UnixTime) -> bool {
        // A clock that went back proves nothing about the time between.
        let age = now.as_secs().checked_sub(self.verified_at);
        age.is_some_and(|age| age < REMEMBERED_FOR.as_secs()) && now < self.peer.not_after()
    }
}

fn check_news(peer: &VerifiedPeer, crls: &CrlSet, now: UnixTime) -> Result<(), SvidError> {
    if crls.names(peer.serial()) {
        return Err(SvidError::Revoked);
    }
    match crls.next_update() {
        None => Err(SvidError::NoRevocationList),
        Some(ended) if ended <= now => {
            Err(SvidError::OldRevocationList { ended: Moment(ended), now: Moment(now) })
        }
        Some(_) => Ok(()),
    }
}

const PEERS_MAX: usize = 1000;
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
