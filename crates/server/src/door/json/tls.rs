//! What TLS shows at the door of the JSON protocol, where it is not the server's own certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::JsonProtocol;
use crate::keys::read_secret;

/// The certificates that are configured cannot be shown.
#[derive(Debug, Error)]
#[error("json_protocol: {}: {problem}", path.display())]
pub struct CertificateError {
    path: PathBuf,
    problem: String,
}

/// The certificates that are configured; `None`: none are.
pub(crate) fn shown(settings: &JsonProtocol) -> Result<Option<Arc<ServerConfig>>, CertificateError> {
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else { return Ok(None) };
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |problem: String| CertificateError { path, problem }
    };
    let pem = |path: &Path| std::fs::read(path).map_err(|error| unusable(path)(error.to_string()));
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem(certificate)?).flatten().collect();
    if certificates.is_empty() {
        return Err(unusable(certificate)("no certificate in PEM".to_owned()));
    }
    let private = read_secret(key).map_err(|error| unusable(key)(error.to_string()))?;
    let private = PrivateKeyDer::from_pem_slice(&private);
    let private = private.map_err(|_| unusable(key)("no private key in PEM".to_owned()))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, private);
    let mut config = config.map_err(|error| unusable(certificate)(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}
