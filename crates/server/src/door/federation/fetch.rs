//! One request for a bundle.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assay_identity::bundle::BundleError;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, ForeignBundle, SpiffeId};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use crate::config::Config;
use crate::door::outward::{AskError, Connection, Place, Url, anchors};
use crate::federation::{DOCUMENT_BYTES_MAX, FederationError};
use crate::in_force::federation::Foreign;
use crate::parts::Server;

/// Asks for the bundle of a trust domain where it is said to be.
pub(super) async fn fetch(server: &Server, foreign: &Foreign) -> Result<ForeignBundle, FetchError> {
    let endpoint = foreign.endpoint.as_ref().ok_or(FetchError::NoEndpoint)?;
    let url = Url::read(&endpoint.url).filter(|url| url.is_https).ok_or(FetchError::Url)?;
    let tls = match &endpoint.id {
        None => server.web_tls.clone(),
        Some(id) => spiffe_tls(server, foreign, id)?,
    };
    let place = Place { host: url.host, port: url.port.unwrap_or(443), tls: Some(tls) };
    let request = Request::builder()
        .method(Method::GET)
        .uri(url.path.as_str())
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::new()))
        .map_err(|_| FetchError::Url)?;
    let answer = Connection::to(place).ask(request, ANSWER_WITHIN, DOCUMENT_BYTES_MAX).await?;
    match answer.status() {
        StatusCode::OK if answer.body().is_empty() => Err(FetchError::TooLong),
        StatusCode::OK => {
            let (trust_domain, body) = (foreign.trust_domain.clone(), answer.body());
            Ok(ForeignBundle::from_document(trust_domain, body)?)
        }
        status => Err(FetchError::Status(status.as_u16())),
    }
}

/// Who answers shows this ID, by the bundle of the trust domain that the ID is of.
fn spiffe_tls(server: &Server, foreign: &Foreign, id: &SpiffeId) -> Result<Arc<ClientConfig>, FetchError> {
    let bundle = bundle_of(server, foreign, id).ok_or_else(|| FetchError::NoBundle(id.clone()))?;
    // No standard says where another trust domain's revocation list is: what is fetched counts for what it is signed by, and
    // here that is the channel alone.
    let trust = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });
    let expected = id.clone();
    let accept: tls::AcceptPeer = Arc::new(move |shown: &SpiffeId| *shown == expected);
    let mut config = tls::client_config(None, trust, accept, (&server.clock).into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn bundle_of(server: &Server, foreign: &Foreign, id: &SpiffeId) -> Option<Bundle> {
    if id.trust_domain() == server.authority.bundle().trust_domain() {
        return Some(server.authority.bundle().clone());
    }
    if *id.trust_domain() == foreign.trust_domain {
        return Some(foreign.bundle.as_ref()?.x509().clone());
    }
    let other = server.federation.get(id.trust_domain().as_str())?;
    Some(other.bundle.as_ref()?.x509().clone())
}

/// How servers of `https_web` are known: by authorities that an operator names, or by those of the system.
pub(crate) fn web_roots(config: &Config) -> Result<Arc<ClientConfig>, NoWebRoots> {
    let mut roots = RootCertStore::empty();
    for path in &config.federation_anchors {
        let failed = |source| NoWebRoots { path: path.clone(), source };
        let pem = std::fs::read(path).map_err(failed)?;
        let nobody = || failed(std::io::Error::other("there is no certificate of an authority in it"));
        roots.extend(anchors(&pem).ok_or_else(nobody)?.roots);
    }
    if config.federation_anchors.is_empty() {
        // What cannot be read there is missing, and a server that is not known says so when it is asked.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// A file that names nobody.
#[derive(Debug, Error)]
#[error("{}", path.display())]
pub struct NoWebRoots {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// Why there is no bundle.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    /// Nobody said where it is.
    #[error("nobody said where its bundle is")]
    NoEndpoint,
    /// A URL that is none.
    #[error("its URL cannot be asked")]
    Url,
    /// Nothing to know the endpoint by.
    #[error("{0} is to answer, and there is no bundle of its trust domain yet: give one to begin with")]
    NoBundle(SpiffeId),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// Nobody answers, or nobody who is known.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Not what was asked for.
    #[error("the answer has status {0}")]
    Status(u16),
    /// More than a bundle has, or nothing.
    #[error("the answer is empty, or longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// Not a bundle of this trust domain.
    #[error("the answer is no bundle of this trust domain")]
    Bundle(#[from] BundleError),
    /// It does not count.
    #[error(transparent)]
    Taken(#[from] FederationError),
}

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
