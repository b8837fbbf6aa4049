//! Who may connect and how often they may ask: whoever has shown an SVID by that, everybody else by their address.

use std::num::NonZeroU32;
use std::time::Duration;

use assay_admission::Peer;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::config::Limits;
use crate::places::Connections;

/// The gateway's counters and rates.
pub(crate) struct Limiter {
    limits: Limits,
    /// Who is connected.
    pub(crate) connections: Connections,
    by_address: DefaultKeyedRateLimiter<Peer>,
    by_svid: DefaultKeyedRateLimiter<Peer>,
    clock: DefaultClock,
}

/// Too many requests: when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Duration);

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (address_rate, address_burst) =
            (limits.address_requests_per_second, limits.address_requests_burst);
        Limiter {
            connections: Connections::new(limits),
            by_address: rate(address_rate, address_burst),
            by_svid: rate(limits.svid_requests_per_second, limits.svid_requests_burst),
            clock: DefaultClock::default(),
            limits: limits.clone(),
        }
    }

    /// Counts one request against whoever makes it: the SVID that was shown, else the address.
    pub(crate) fn request(&self, peer: &Peer) -> Result<(), RetryAfter> {
        let rate = if peer.is_known() { &self.by_svid } else { &self.by_address };
        let taken = rate.check_key(peer);
        taken.map_err(|until| RetryAfter(until.wait_time_from(self.clock.now())))
    }

    /// Addresses and SPIFFE IDs with a rate to remember.
    pub(crate) fn remembered(&self) -> (usize, usize) {
        (self.by_address.len(), self.by_svid.len())
    }

    /// Forgets whoever has their whole burst again.
    pub(crate) fn forget_quiet(&self) {
        self.by_address.retain_recent();
        self.by_svid.retain_recent();
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn rate(per_second: NonZeroU32, burst: NonZeroU32) -> DefaultKeyedRateLimiter<Peer> {
    RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_identity::SpiffeId;

    #[test]
    fn finding_7_rates_hold_for_addresses_and_identities_each_by_itself() {
        let two = NonZeroU32::new(2).unwrap();
        let limiter = Limiter::new(&Limits {
            address_requests_per_second: NonZeroU32::MIN,
            address_requests_burst: two,
            svid_requests_per_second: NonZeroU32::MIN,
            svid_requests_burst: two,
            ..Limits::default()
        });
        let device = Peer::Known(SpiffeId::parse("spiffe://example.org/a").unwrap());
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|address| Peer::at(address.parse().unwrap()));
        for peer in [&here, &there, &device] {
            // Whatever strangers of the device's address ask for, it has its own.
            assert_eq!(limiter.request(peer), Ok(()));
            assert_eq!(limiter.request(peer), Ok(()));
            let RetryAfter(wait) = limiter.request(peer).unwrap_err();
            assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(500), "{wait:?}");
        }
        assert_eq!(limiter.remembered(), (2, 1));
    }
}
