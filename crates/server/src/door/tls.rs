//! What TLS shows and asks at each door; replaced as a whole when the server's certificate is renewed.

use std::sync::{Arc, PoisonError, RwLock};

use assay_clock::Clock;
use assay_identity::tls::{self, ClientIdentity, TrustSource};
use assay_identity::{Life, SpiffeId};
use rustls::ServerConfig;

use crate::keys::{KeysError, ServerCertificate};

/// The configurations of both doors.
#[derive(Debug)]
pub(crate) struct DoorTls {
    trust: Arc<TrustSource>,
    clock: Clock,
    shown: RwLock<Shown>,
}

#[derive(Clone, Debug)]
struct Shown {
    edge: Arc<ServerConfig>,
    console: Arc<ServerConfig>,
    keylime: Arc<ServerConfig>,
    life: Life,
}

impl DoorTls {
    /// Shows a certificate, and verifies peers with what `trust` holds at the time.
    pub(crate) fn new(
        trust: Arc<TrustSource>,
        certificate: &ServerCertificate,
        clock: &Clock,
    ) -> Result<DoorTls, KeysError> {
        let shown = RwLock::new(configurations(&trust, certificate, clock)?);
        Ok(DoorTls { trust, clock: clock.clone(), shown })
    }

    /// Shows another certificate from the next handshake on.
    pub(crate) fn renew(&self, certificate: &ServerCertificate) -> Result<(), KeysError> {
        let shown = configurations(&self.trust, certificate, &self.clock)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    /// For gateways.
    pub(crate) fn edge(&self) -> Arc<ServerConfig> {
        self.shown().edge
    }

    /// For browsers and operators' tools.
    pub(crate) fn console(&self) -> Arc<ServerConfig> {
        self.shown().console
    }

    /// For agents of Keylime's, and operators with its tenant.
    pub(crate) fn keylime(&self) -> Arc<ServerConfig> {
        self.shown().keylime
    }

    /// The life of the certificate that is shown.
    pub(crate) fn life(&self) -> Life {
        self.shown().life
    }

    fn shown(&self) -> Shown {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Gateways have to show who they are; browsers and operators' tools need not. Of Keylime's programs, agents have nothing to
/// show, and operators are believed by nothing else.
fn configurations(
    trust: &Arc<TrustSource>,
    certificate: &ServerCertificate,
    clock: &Clock,
) -> Result<Shown, KeysError> {
    let gateways = ClientIdentity::Required(Arc::new(SpiffeId::is_gateway));
    let edge = tls::server_config(certificate.key.clone(), trust.clone(), gateways, clock.into())?;
    let mut console =
        tls::server_config(certificate.key.clone(), trust.clone(), ClientIdentity::None, clock.into())?;
    console.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let operators = ClientIdentity::Optional(Arc::new(|id: &SpiffeId| id.operator_name().is_some()));
    let mut keylime = tls::server_config(certificate.key.clone(), trust.clone(), operators, clock.into())?;
    keylime.alpn_protocols.clone_from(&console.alpn_protocols);
    let (edge, console, keylime) = (Arc::new(edge), Arc::new(console), Arc::new(keylime));
    Ok(Shown { edge, console, keylime, life: certificate.life })
}
