//! What TLS shows and asks at each door; replaced as a whole when the server's certificate is renewed.

use std::sync::{Arc, PoisonError, RwLock};

use assay_identity::SpiffeId;
use assay_identity::tls::{self, ClientIdentity, TrustSource};
use rustls::ServerConfig;

use crate::keys::{KeysError, ServerCertificate};

/// The configurations of both doors.
#[derive(Debug)]
pub(crate) struct DoorTls {
    trust: Arc<TrustSource>,
    edge: RwLock<Arc<ServerConfig>>,
    console: RwLock<Arc<ServerConfig>>,
}

impl DoorTls {
    /// Shows a certificate, and verifies peers with what `trust` holds at the time.
    pub(crate) fn new(
        trust: Arc<TrustSource>,
        certificate: &ServerCertificate,
    ) -> Result<DoorTls, KeysError> {
        let (edge, console) = configurations(&trust, certificate)?;
        Ok(DoorTls { trust, edge: RwLock::new(edge), console: RwLock::new(console) })
    }

    /// Shows another certificate from the next handshake on.
    pub(crate) fn renew(&self, certificate: &ServerCertificate) -> Result<(), KeysError> {
        let (edge, console) = configurations(&self.trust, certificate)?;
        *self.edge.write().unwrap_or_else(PoisonError::into_inner) = edge;
        *self.console.write().unwrap_or_else(PoisonError::into_inner) = console;
        Ok(())
    }

    /// For gateways.
    pub(crate) fn edge(&self) -> Arc<ServerConfig> {
        self.edge.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For browsers and operators' tools.
    pub(crate) fn console(&self) -> Arc<ServerConfig> {
        self.console.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Gateways have to show who they are; browsers and operators' tools need not.
fn configurations(
    trust: &Arc<TrustSource>,
    certificate: &ServerCertificate,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), KeysError> {
    let gateways = ClientIdentity::Required(Arc::new(SpiffeId::is_gateway));
    let edge = tls::server_config(certificate.key.clone(), trust.clone(), gateways)?;
    let mut console = tls::server_config(certificate.key.clone(), trust.clone(), ClientIdentity::None)?;
    console.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(edge), Arc::new(console)))
}
