//! Recognises a server by the SPIFFE ID in its certificate, as a device does, with nothing but rustls.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Accepts one SPIFFE ID under given roots.
#[derive(Debug)]
pub(crate) struct SpiffeServer {
    chains: Arc<WebPkiServerVerifier>,
    uri_name: Vec<u8>,
}

impl SpiffeServer {
    /// A verifier for the server called `spiffe_id`.
    pub(crate) fn new(roots: &[Vec<u8>], spiffe_id: &str) -> Result<SpiffeServer, Error> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root.clone()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        // RFC 5280, GeneralName: uniformResourceIdentifier [6], its length, its text.
        let uri_name = [&[0x86, spiffe_id.len() as u8], spiffe_id.as_bytes()].concat();
        Ok(SpiffeServer { chains, uri_name })
    }
}

impl ServerCertVerifier for SpiffeServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.chains.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // The chain is looked at before the name, so what failed is the name alone.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        if leaf.windows(self.uri_name.len()).any(|window| window == self.uri_name) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
