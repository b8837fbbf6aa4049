//! What TLS shows SPIRE's agents, under the name that they know servers by.

use std::sync::{Arc, PoisonError, RwLock};

use assay_clock::Clock;
use assay_evidence::time::UnixTime;
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::{CrlSet, Life};
use rustls::ServerConfig;

use crate::keys::{Authority, KeysError, ServerCertificate};

/// The configuration of the door, replaced as a whole when the certificate is renewed.
#[derive(Debug)]
pub(crate) struct SpireTls {
    trust: Arc<TrustSource>,
    clock: Clock,
    shown: RwLock<(Arc<ServerConfig>, Life)>,
}

impl SpireTls {
    /// Shows a certificate, and verifies those that are shown.
    ///
    /// No revocation list is asked: who was banned has to hear so, and not that TLS failed. What a certificate is worth is
    /// looked up with each request, which says more than a list, and one that is no node's gives nothing here.
    pub(crate) fn new(
        authority: &Authority,
        certificate: &ServerCertificate,
        clock: &Clock,
    ) -> Result<SpireTls, KeysError> {
        let trust =
            TrustSource::new(Trust { bundle: authority.bundle().clone(), crls: CrlSet::bootstrapping() });
        let shown = RwLock::new(configuration(&trust, certificate, clock)?);
        Ok(SpireTls { trust, clock: clock.clone(), shown })
    }

    /// Shows another certificate from the next handshake on.
    pub(crate) fn renew(&self, certificate: &ServerCertificate) -> Result<UnixTime, KeysError> {
        let shown = configuration(&self.trust, certificate, &self.clock)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(UnixTime(certificate.life.renew_at().as_secs()))
    }

    /// What is shown now.
    pub(crate) fn configuration(&self) -> Arc<ServerConfig> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The life of the certificate that is shown.
    pub(crate) fn life(&self) -> Life {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).1
    }

    /// What verifies the certificates that are shown.
    pub(crate) fn trust(&self) -> Arc<TrustSource> {
        self.trust.clone()
    }
}

fn configuration(
    trust: &Arc<TrustSource>,
    certificate: &ServerCertificate,
    clock: &Clock,
) -> Result<(Arc<ServerConfig>, Life), KeysError> {
    let nodes = ClientIdentity::Optional(Arc::new(|_| true));
    let shown = tls::server_config(certificate.key.clone(), trust.clone(), nodes, clock.into())?;
    Ok((Arc::new(shown), certificate.life))
}
