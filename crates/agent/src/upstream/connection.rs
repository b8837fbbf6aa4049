//! The connection to the gateway: HTTP/2 over TLS 1.3, the other end recognised by its SPIFFE ID alone.
//!
//! While the device holds an SVID it shows it, its key in the TPM; the gateway's limits then go by device instead of
//! by address. Nothing else rests on that: every word of the device that counts is signed by its TPM.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use assay_identity::crl::CrlError;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Crl, CrlSet, SpiffeId, SvidError, TrustDomain};
use assay_wire::EDGE_MESSAGE_BYTES_MAX;
use assay_wire::edge::edge_client::EdgeClient;
use http::Request;
use http::header::DATE;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::tpm::DeviceSigningKey;

/// A client of the edge protocol over one connection.
pub type Client = EdgeClient<Channel>;

/// The gateway cannot be reached.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The revocation list that was kept does not read.
    #[error("the revocation list that was kept cannot be read")]
    List(#[from] CrlError),
    /// No connection.
    #[error("gateway {gateway} cannot be reached: {}", innermost(source))]
    Connect {
        /// The gateway's address.
        gateway: String,
        /// What was in the way.
        source: tonic::transport::Error,
    },
    /// No answer.
    #[error("gateway {gateway} cannot be reached: {}", innermost(source))]
    Meet {
        /// The gateway's address.
        gateway: String,
        /// What was in the way.
        source: io::Error,
    },
}

/// Where the gateway is, and how it is recognised.
#[derive(Clone, Debug)]
pub struct Connection {
    gateway: String,
    trust_domain: TrustDomain,
    trust: Arc<TrustSource>,
    clock: Clock,
    /// The chain that the gateway showed last.
    peer: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What the device shows: its SVID's chain, and the key in the TPM.
pub struct Credential {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The key.
    pub key: DeviceSigningKey,
}

impl Connection {
    /// The gateway at HOST:PORT, of a trust domain whose authorities are in `trust`.
    pub fn new(gateway: String, trust_domain: TrustDomain, trust: Arc<TrustSource>, clock: Clock) -> Self {
        Connection { gateway, trust_domain, trust, clock, peer: Arc::default() }
    }

    /// What its certificates are verified by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Verifies the gateway again with what is believed now: before the first announcement there is no revocation list
    /// to look it up in.
    pub(super) fn check_peer(&self) -> Result<(), SvidError> {
        let chain = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.trust.verify(&chain, self.clock.unix_time()).map(|_| ())
    }

    /// Connects, with the device's certificate if there is one.
    ///
    /// What the list names that was heard last is refused. It may be out of date, or there may be none: a fresh one comes
    /// through the gateway alone, signed, and [`Connection::check_peer`] holds the gateway to it.
    pub async fn connect(
        &self,
        credential: Option<Credential>,
        heard: &[u8],
    ) -> Result<Client, ConnectionError> {
        let crls = match heard {
            [] => CrlSet::bootstrapping(),
            heard => CrlSet::bootstrapping_with(vec![Crl::parse(heard)?]),
        };
        let bundle = self.trust.current().bundle.clone();
        let trust = TrustSource::new(Trust { bundle, crls });
        let certified = credential.map(|Credential { chain, key }| {
            let chain = chain.into_iter().map(CertificateDer::from).collect();
            Arc::new(CertifiedKey::new(chain, Arc::new(key)))
        });
        let trust_domain = self.trust_domain.clone();
        let accept = Arc::new(move |id: &SpiffeId| is_ours(id, &trust_domain));
        let config = tls::client_config(certified, trust, accept, (&self.clock).into())?;
        let failed = |source| ConnectionError::Connect { gateway: self.gateway.clone(), source };
        // The connector makes the TLS connection, so to tonic the address is a plain one.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.gateway))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let (gateway, config, peer) = (self.gateway.clone(), Arc::new(config), self.peer.clone());
        let connector = service_fn(move |_| connect_tls(gateway.clone(), config.clone(), peer.clone()));
        let channel = endpoint.connect_with_connector(connector).await.map_err(failed)?;
        Ok(EdgeClient::new(channel)
            .max_decoding_message_size(EDGE_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(EDGE_MESSAGE_BYTES_MAX))
    }
}

impl Connection {
    /// Meets the gateway and asks for nothing; what its clock shows, if it says that.
    pub(crate) async fn date(&self) -> Result<Option<SystemTime>, ConnectionError> {
        let trust_domain = self.trust_domain.clone();
        let accept = Arc::new(move |id: &SpiffeId| is_ours(id, &trust_domain));
        let mut config = tls::client_config(None, self.trust.clone(), accept, (&self.clock).into())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let meeting = async {
            let stream = connect_tls(self.gateway.clone(), Arc::new(config), self.peer.clone()).await?;
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
            // It ends with the task set.
            let mut task = JoinSet::new();
            task.spawn(async { drop(connection.await) });
            let request = Request::get(format!("https://{}/", self.gateway)).body(String::new());
            let answer = sender.send_request(request.map_err(io::Error::other)?).await;
            let answer = answer.map_err(io::Error::other)?;
            let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
            Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
        };
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        let met = timeout(CONNECT_TIMEOUT, meeting).await.unwrap_or_else(late);
        met.map_err(|source| ConnectionError::Meet { gateway: self.gateway.clone(), source })
    }
}

/// The gateway, or the server itself where no gateway stands before it.
fn is_ours(id: &SpiffeId, trust_domain: &TrustDomain) -> bool {
    id.trust_domain() == trust_domain && (id.is_gateway() || id.is_server())
}

async fn connect_tls(
    gateway: String,
    config: Arc<ClientConfig>,
    peer: Arc<Mutex<Vec<Vec<u8>>>>,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(&gateway).await?;
    stream.set_nodelay(true)?;
    // The name is sent for routing only: the SPIFFE ID says whom we reached.
    let host = gateway.rsplit_once(':').map_or(gateway.as_str(), |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    let tls = TlsConnector::from(config).connect(name, stream).await?;
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    *peer.lock().unwrap_or_else(PoisonError::into_inner) = shown.iter().map(|der| der.to_vec()).collect();
    Ok(TokioIo::new(tls))
}

/// The cause that says most: transports wrap it several times.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the minute after which home routers forget a connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
