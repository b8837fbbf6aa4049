//! A connection to a program outside that is kept: one HTTP/1.1 request and its answer at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Where somebody outside is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// A name or an address, as a URL has it.
    pub host: String,
    /// A TCP port.
    pub port: u16,
    /// How it is recognised, with https.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What `http` and `https` URLs say.
#[derive(Debug)]
pub(super) struct Url {
    pub host: String,
    pub port: Option<u16>,
    pub is_https: bool,
    /// Path and query.
    pub path: PathAndQuery,
}

impl Url {
    /// Reads one; `None`: it is none of either.
    pub(super) fn read(text: &str) -> Option<Url> {
        let uri: Uri = text.parse().ok()?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_owned();
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some(Url { host, port: uri.port_u16(), is_https, path })
    }
}

/// Whether somebody outside can be called this, in logs, metrics and queues.
pub(super) fn is_name(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_fit)
}

/// Those by whom somebody outside is recognised, PEM; `None`: there is nobody in it.
pub(super) fn anchors(pem: &[u8]) -> Option<RootCertStore> {
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    (!anchors.is_empty()).then_some(anchors)
}

/// A way there, and the connection if there is one.
pub(super) struct Connection {
    place: Place,
    kept: Option<SendRequest<Full<Bytes>>>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// No connection.
    #[error("it cannot be reached")]
    Connect(#[from] std::io::Error),
    #[error("its name cannot be one of a certificate")]
    Name,
    #[error("the connection failed")]
    Http(#[from] hyper::Error),
    #[error("it does not answer")]
    Silent,
}

impl Connection {
    pub(super) fn to(place: Place) -> Connection {
        Connection { place, kept: None }
    }

    /// Asks, and reads so many bytes of the answer; of one that is longer nothing is read, and the connection is not used again.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Full<Bytes>>,
        within: Duration,
        answer_bytes_max: usize,
    ) -> Result<Response<Bytes>, AskError> {
        let Place { host, port, .. } = &self.place;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Ok(host) = format!("{host}:{port}").parse() {
            headers.insert(header::HOST, host);
        }
        timeout(within, self.exchange(request, answer_bytes_max)).await.unwrap_or(Err(AskError::Silent))
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<Response<Bytes>, AskError> {
        let mut kept = self.kept.take();
        let is_ready = match &mut kept {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept.filter(|_| is_ready) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let (parts, body) = connection.send_request(request).await?.into_parts();
        let body = match Limited::new(body, answer_bytes_max).collect().await {
            Ok(body) => {
                self.kept = Some(connection);
                body.to_bytes()
            }
            Err(_) => Bytes::new(),
        };
        Ok(Response::from_parts(parts, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, AskError> {
        let Place { host, port, tls } = &self.place;
        let host = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, *port)).await?;
        stream.set_nodelay(true)?;
        match tls {
            None => Ok(handshake(stream).await?),
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned()).map_err(|_| AskError::Name)?;
                Ok(handshake(TlsConnector::from(tls.clone()).connect(name, stream).await?).await?)
            }
        }
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
) -> Result<SendRequest<Full<Bytes>>, hyper::Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender.
    tokio::spawn(connection);
    Ok(sender)
}

const NAME_BYTES_MAX: usize = 32;
const USER_AGENT: &str = concat!("assay/", env!("CARGO_PKG_VERSION"));
