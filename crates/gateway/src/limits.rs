//! Who may connect and how often they may ask: connections by address, requests by address and by SPIFFE ID.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_identity::SpiffeId;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::config::Limits;

/// The gateway's counters and rates.
pub(crate) struct Limiter {
    limits: Limits,
    connections: Mutex<Connections>,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_svid: DefaultKeyedRateLimiter<SpiffeId>,
    clock: DefaultClock,
}

#[derive(Default)]
struct Connections {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Room for one connection, given back when dropped.
pub(crate) struct ConnectionPermit {
    limiter: Arc<Limiter>,
    address: IpAddr,
}

/// Too many requests: when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Duration);

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (address_rate, address_burst) =
            (limits.address_requests_per_second, limits.address_requests_burst);
        Limiter {
            connections: Mutex::default(),
            by_address: rate(address_rate, address_burst),
            by_svid: rate(limits.svid_requests_per_second, limits.svid_requests_burst),
            clock: DefaultClock::default(),
            limits: limits.clone(),
        }
    }

    /// Room for one more connection from `address`, if there is any.
    pub(crate) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let address = network(address);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let from_address = connections.by_address.get(&address).copied().unwrap_or(0);
        if connections.total >= self.limits.connections_max
            || from_address >= self.limits.connections_per_address_max
        {
            return None;
        }
        connections.total += 1;
        connections.by_address.insert(address, from_address + 1);
        Some(ConnectionPermit { limiter: self.clone(), address })
    }

    /// Counts one request against its address and, where the peer showed one, its SVID.
    pub(crate) fn request(&self, address: IpAddr, svid: Option<&SpiffeId>) -> Result<(), RetryAfter> {
        take(&self.by_address, &network(address), &self.clock)?;
        svid.map_or(Ok(()), |id| take(&self.by_svid, id, &self.clock))
    }

    /// Connections open: all, and from `address`.
    pub(crate) fn open(&self, address: IpAddr) -> (usize, usize) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        (connections.total, connections.by_address.get(&network(address)).copied().unwrap_or(0))
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

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut connections = self.limiter.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.total = connections.total.saturating_sub(1);
        match connections.by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(connections.by_address.remove(&self.address)),
        }
    }
}

fn rate<K: Hash + Eq + Clone>(per_second: NonZeroU32, burst: NonZeroU32) -> DefaultKeyedRateLimiter<K> {
    RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
}

fn take<K: Hash + Eq + Clone>(
    rate: &DefaultKeyedRateLimiter<K>,
    key: &K,
    clock: &DefaultClock,
) -> Result<(), RetryAfter> {
    rate.check_key(key).map_err(|until| RetryAfter(until.wait_time_from(clock.now())))
}

/// What counts as one address: whoever has one IPv6 address has the /64 around it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(change: impl Fn(&mut Limits)) -> Arc<Limiter> {
        let mut limits = Limits::default();
        change(&mut limits);
        Arc::new(Limiter::new(&limits))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_and_given_back() {
        let limiter = limiter(|limits| (limits.connections_max, limits.connections_per_address_max) = (3, 2));
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = limiter.connect(a).unwrap();
        let second = limiter.connect(address("::ffff:192.0.2.1")).unwrap();
        assert!(limiter.connect(a).is_none());
        let third = limiter.connect(b).unwrap();
        assert!(limiter.connect(b).is_none());
        assert_eq!(limiter.open(a), (3, 2));
        drop((first, third));
        assert!(limiter.connect(a).is_some());
        drop(second);
        assert_eq!(limiter.open(a), (0, 0));
        assert!(limiter.connections.lock().unwrap().by_address.is_empty());
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        assert_eq!(network(address("2001:db8:1:2:3::4")), network(address("2001:db8:1:2::9")));
        assert_ne!(network(address("2001:db8:1:2::")), network(address("2001:db8:1:3::")));
    }

    #[test]
    fn rates_hold_for_addresses_and_identities() {
        let two = NonZeroU32::new(2).unwrap();
        let limiter = limiter(|limits| {
            limits.address_requests_burst = NonZeroU32::new(5).unwrap();
            limits.svid_requests_burst = two;
            limits.svid_requests_per_second = NonZeroU32::MIN;
        });
        let id = SpiffeId::parse("spiffe://example.org/a").unwrap();
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(limiter.request(here, Some(&id)), Ok(()));
        assert_eq!(limiter.request(here, Some(&id)), Ok(()));
        let RetryAfter(wait) = limiter.request(here, Some(&id)).unwrap_err();
        assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(500), "{wait:?}");
        assert!(limiter.request(there, Some(&id)).is_err());
        assert_eq!(limiter.request(here, None), Ok(()));
        assert_eq!(limiter.remembered(), (2, 1));
    }
}
