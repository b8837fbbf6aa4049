//! Whom something is counted against.

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;

use assay_identity::{SpiffeId, TrustDomain};
use thiserror::Error;

/// One who asks: whoever has proven an identity by it, everybody else by their network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Proven.
    Known(SpiffeId),
    /// An IPv4 address, or the /64 around an IPv6 address: whoever has one of its addresses has them all.
    Stranger(IpAddr),
}

/// By which a gateway tells a server the address of the peer whose request it passes on.
pub const ADDRESS_HEADER: &str = "assay-peer-address";
/// By which it tells the SPIFFE ID that the peer showed in TLS, if it did.
pub const IDENTITY_HEADER: &str = "assay-peer-identity";

impl Peer {
    /// Somebody at this address.
    pub fn at(address: IpAddr) -> Peer {
        Peer::Stranger(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 64))),
            address @ IpAddr::V4(_) => address,
        })
    }

    /// Reads what a gateway says of a peer in the two headers.
    pub fn from_headers(
        address: &[u8],
        identity: Option<&[u8]>,
        trust_domain: &TrustDomain,
    ) -> Result<Peer, PeerError> {
        if let Some(identity) = identity {
            let identity = std::str::from_utf8(identity).ok().and_then(|text| SpiffeId::parse(text).ok());
            let ours = identity.filter(|identity| identity.trust_domain() == trust_domain);
            return ours.map(Peer::Known).ok_or(PeerError::Identity);
        }
        let address = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok());
        address.map(Peer::at).ok_or(PeerError::Address)
    }

    /// Whether it has proven who it is.
    pub fn is_known(&self) -> bool {
        matches!(self, Peer::Known(_))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Known(identity) => write!(f, "{identity}"),
            Peer::Stranger(network) => write!(f, "{network}"),
        }
    }
}

/// What a gateway says of a peer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// The address.
    #[error("{ADDRESS_HEADER}: not an IP address")]
    Address,
    /// The identity.
    #[error("{IDENTITY_HEADER}: not a SPIFFE ID of the trust domain")]
    Identity,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_ipv6_network_is_one_stranger() {
        assert_eq!(Peer::at(address("2001:db8:1:2:3::4")), Peer::at(address("2001:db8:1:2::9")));
        assert_ne!(Peer::at(address("2001:db8:1:2::")), Peer::at(address("2001:db8:1:3::")));
        assert_eq!(Peer::at(address("::ffff:192.0.2.1")), Peer::at(address("192.0.2.1")));
        assert_ne!(Peer::at(address("192.0.2.1")), Peer::at(address("192.0.2.2")));
    }

    #[test]
    fn what_a_gateway_says_is_read_whole_or_refused() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let of = |address: &str, identity: Option<&str>| {
            Peer::from_headers(address.as_bytes(), identity.map(str::as_bytes), &domain)
        };
        assert_eq!(of("192.0.2.1", None), Ok(Peer::at(address("192.0.2.1"))));
        let known = of("192.0.2.1", Some("spiffe://example.org/a")).unwrap();
        assert!(known.is_known());
        assert_eq!(of("192.0.2.1", Some("spiffe://elsewhere.org/a")), Err(PeerError::Identity));
        assert_eq!(of("192.0.2.1", Some("a")), Err(PeerError::Identity));
        assert_eq!(of("192.0.2", None), Err(PeerError::Address));
        assert_eq!(of("", None), Err(PeerError::Address));
    }
}
