//! How often one address may have work done before it has proven anything.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use assay_admission::Peer;
use assay_evidence::time::UnixTime;

use crate::outcome::{Kind, Refusal};

/// What every address has spent of its allowance, which refills with time.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Peer, u64>>);

impl Rates {
    /// Spends one of the allowance.
    pub(super) fn spend(&self, peer: &Peer, now: UnixTime) -> Result<(), Refusal> {
        let mut full_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= ADDRESSES_MAX && !full_at.contains_key(peer) {
            full_at.retain(|_, at| *at > now.0);
            // So many addresses at once are more than a fleet that starts anew.
            if full_at.len() >= ADDRESSES_MAX {
                return Err(too_often(EACH_SECONDS));
            }
        }
        let at = full_at.entry(peer.clone()).or_insert(now.0);
        // A clock that went back makes it wait no longer than one that has spent all.
        let spent = at.saturating_sub(now.0).min(AT_ONCE * EACH_SECONDS);
        if spent + EACH_SECONDS > AT_ONCE * EACH_SECONDS {
            return Err(too_often(EACH_SECONDS));
        }
        *at = now.0.saturating_add(spent + EACH_SECONDS);
        Ok(())
    }
}

fn too_often(seconds: u64) -> Refusal {
    let message = format!("{AT_ONCE} at once are taken from an address, and then one each {EACH_SECONDS} s");
    let refusal = Refusal::new(Kind::Exhausted, "too-often", message);
    Refusal { retry_after: Some(Duration::from_secs(seconds)), ..refusal }
}

/// A site's agents that start together, behind one address.
const AT_ONCE: u64 = 256;
const EACH_SECONDS: u64 = 1;
const ADDRESSES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_allowance_and_no_other_is_kept_out_by_it() {
        let rates = Rates::default();
        let peer = |last: u8| Peer::at([192, 0, 2, last].into());
        let taken = |peer: &Peer, now| (0..1000).filter(|_| rates.spend(peer, UnixTime(now)).is_ok()).count();
        assert_eq!((taken(&peer(1), 1000), taken(&peer(1), 1010), taken(&peer(2), 1010)), (256, 10, 256));
        assert_eq!(taken(&peer(1), 2000), 256);
        assert_eq!(
            rates.spend(&peer(1), UnixTime(2000)).unwrap_err().retry_after,
            Some(Duration::from_secs(1))
        );
    }
}
