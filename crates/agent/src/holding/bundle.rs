//! Whom the device believes: the trust domain's authorities and what they revoked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_identity::bundle::BundleError;
use assay_identity::crl::CrlError;
use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, TrustDomain, UnixTime};
use thiserror::Error;

use super::Svid;

/// Authorities or a list that cannot be used.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The bundle does not parse.
    #[error("the bundle cannot be read")]
    Bundle(#[from] BundleError),
    /// The revocation list does not parse.
    #[error("the revocation list cannot be read")]
    Crl(#[from] CrlError),
}

/// The authorities in force; TLS connections are verified with the same.
#[derive(Debug)]
pub(super) struct Authorities {
    source: Arc<TrustSource>,
    trust_domain: TrustDomain,
}

impl Authorities {
    pub(super) fn new(source: Arc<TrustSource>, trust_domain: TrustDomain) -> Self {
        Authorities { source, trust_domain }
    }

    pub(super) fn source(&self) -> &TrustSource {
        &self.source
    }

    /// Reads what is to come into force.
    pub(super) fn parse(&self, bundle: &[u8], crl: &[u8]) -> Result<Trust, TrustError> {
        let bundle = Bundle::from_der(self.trust_domain.clone(), bundle)?;
        let crls = CrlSet::from_der(Some(crl).filter(|crl| !crl.is_empty()))?;
        Ok(Trust { bundle, crls })
    }

    pub(super) fn replace(&self, trust: Trust) {
        self.source.replace(trust);
    }
}

/// Whether an SVID still stands.
pub(super) fn verifies(svid: &Svid, trust: &Trust, now: SystemTime) -> bool {
    assay_identity::verify_svid(&svid.chain, &trust.bundle, &trust.crls, unix_time(now)).is_ok()
}

/// A time as certificates have it; what lies before 1970 is taken as 1970.
pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(Duration::from_secs(since.map_or(0, |since| since.as_secs())))
}
