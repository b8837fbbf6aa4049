//! Mutual TLS with X.509-SVIDs: rustls verifiers for both directions over a trust source that can be swapped.
//!
//! TLS 1.3 only, and no session resumption: a resumed session would skip verification, and with it revocation.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme, SupportedProtocolVersion, version,
};

use crate::bundle::Bundle;
use crate::crl::CrlSet;
use crate::spiffe_id::SpiffeId;
use crate::verify::{SvidError, VerifiedPeer, verify_svid};

/// What peers are verified with.
#[derive(Debug)]
pub struct Trust {
    /// The trust domain's authorities.
    pub bundle: Bundle,
    /// What they revoked.
    pub crls: CrlSet,
}

/// The current [`Trust`], shared by every verifier made over it. A handshake uses what is current when it happens.
#[derive(Debug)]
pub struct TrustSource(RwLock<Arc<Trust>>);

impl TrustSource {
    /// Starts with this trust.
    pub fn new(trust: Trust) -> Arc<Self> {
        Arc::new(TrustSource(RwLock::new(Arc::new(trust))))
    }

    /// What is current now.
    pub fn current(&self) -> Arc<Trust> {
        // The lock guards one assignment, so a poisoned lock holds a whole value.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces bundle and lists; handshakes from now on use them.
    pub fn replace(&self, trust: Trust) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }

    /// Verifies a chain with what is current.
    pub fn verify<C: AsRef<[u8]>>(&self, chain: &[C], now: UnixTime) -> Result<VerifiedPeer, SvidError> {
        let trust = self.current();
        verify_svid(chain, &trust.bundle, &trust.crls, now)
    }
}

/// Which verified peers are accepted.
pub type AcceptPeer = Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>;

/// What a TLS server asks of its clients.
#[derive(Clone)]
pub enum ClientIdentity {
    /// No certificate is asked for.
    None,
    /// A client may come without a certificate; one that is shown must verify and be accepted.
    Optional(AcceptPeer),
    /// No certificate, no connection.
    Required(AcceptPeer),
}

/// Makes aws-lc the process's TLS cryptography; later calls change nothing.
pub fn install_crypto_provider() {
    let _ = provider::default_provider().install_default();
}

/// Joins a chain, leaf first, with its PKCS#8 key.
pub fn certified_key(chain: Vec<Vec<u8>>, key_pkcs8: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let key = provider::sign::any_supported_type(&PrivatePkcs8KeyDer::from(key_pkcs8).into())?;
    let certified = CertifiedKey::new(chain.into_iter().map(CertificateDer::from).collect(), key);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

/// The configuration of a server that shows `key` and speaks HTTP/2; certificates are verified as of what `time` says.
pub fn server_config(
    key: Arc<CertifiedKey>,
    trust: Arc<TrustSource>,
    clients: ClientIdentity,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_details(Arc::new(provider::default_provider()), time)
        .with_protocol_versions(VERSIONS)?;
    let builder = match clients {
        ClientIdentity::None => builder.with_no_client_auth(),
        ClientIdentity::Optional(accept) => {
            builder.with_client_cert_verifier(Arc::new(SvidVerifier::new(trust, accept, false)))
        }
        ClientIdentity::Required(accept) => {
            builder.with_client_cert_verifier(Arc::new(SvidVerifier::new(trust, accept, true)))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ShowAlways(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    Ok(config)
}

/// The configuration of a client that shows `key`, if any, to servers it accepts by SPIFFE ID, over HTTP/2.
///
/// Host names are not looked at: the SPIFFE ID says whom we reached.
pub fn client_config(
    key: Option<Arc<CertifiedKey>>,
    trust: Arc<TrustSource>,
    accept: AcceptPeer,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_details(Arc::new(provider::default_provider()), time)
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SvidVerifier::new(trust, accept, true)));
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(ShowAlways(key))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    Ok(config)
}

/// Shows the same certificate to everyone.
#[derive(Debug)]
struct ShowAlways(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for ShowAlways {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for ShowAlways {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies peers, servers and clients alike, as X.509-SVIDs.
struct SvidVerifier {
    trust: Arc<TrustSource>,
    accept: AcceptPeer,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SvidVerifier {
    fn new(trust: Arc<TrustSource>, accept: AcceptPeer, mandatory: bool) -> Self {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        SvidVerifier { trust, accept, mandatory, algorithms }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<&[u8]> =
            std::iter::once(leaf).chain(intermediates).map(|certificate| certificate.as_ref()).collect();
        let peer = self.trust.verify(&chain, now).map_err(refusal)?;
        match (self.accept)(peer.spiffe_id()) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The alert the peer gets; the log has the cause.
fn refusal(error: SvidError) -> Error {
    let error = match error {
        SvidError::Revoked => CertificateError::Revoked,
        SvidError::NoRevocationList | SvidError::OldRevocationList { .. } => {
            CertificateError::UnknownRevocationStatus
        }
        SvidError::Empty | SvidError::Malformed => CertificateError::BadEncoding,
        SvidError::Path(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
        SvidError::Ended { ended, now } => {
            CertificateError::ExpiredContext { time: now.0, not_after: ended.0 }
        }
        SvidError::NotYet { begins, now } => {
            CertificateError::NotValidYetContext { time: now.0, not_before: begins.0 }
        }
        error => CertificateError::Other(OtherError(Arc::new(error))),
    };
    error.into()
}

impl fmt::Debug for SvidVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SvidVerifier").field("mandatory", &self.mandatory).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for SvidVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: the bundle may change while this verifier lives, and clients have one SVID to show.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

static VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13];
const ALPN_HTTP2: &[u8] = b"h2";
