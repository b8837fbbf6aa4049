//! The servers behind the gateway: connections kept open, checked by ping, and chosen by load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use assay_clock::Backoff;
use assay_identity::{Serial, SvidError, VerifiedPeer};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::body::RequestBody;
use crate::config::Config;
use crate::credentials::CredentialSource;
use crate::upkeep::{self, UpkeepError};

/// Every server configured, healthy or not.
pub(crate) struct Servers {
    servers: Vec<Arc<Server>>,
    connected: Arc<Notify>,
}

/// A request's place in a connection; given back when dropped.
pub(crate) struct Lease(#[expect(dead_code, reason = "counted, not read")] Arc<()>);

/// Why a request reached no server, or no answer came back.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    #[error("no healthy server")]
    NoServer,
    #[error("the server did not answer")]
    Broken(#[source] hyper::Error),
}

impl Servers {
    pub(crate) fn new(config: &Config, credentials: Arc<CredentialSource>) -> Self {
        let connected = Arc::new(Notify::new());
        let server = |address: &String| {
            Arc::new(Server {
                address: address.clone(),
                streams_max: config.limits.streams_per_server_connection_max,
                credentials: credentials.clone(),
                connections: Mutex::default(),
                former: Mutex::default(),
                connecting: tokio::sync::Mutex::default(),
                lost: Notify::new(),
                connected: connected.clone(),
            })
        };
        Servers { servers: config.servers.iter().map(server).collect(), connected }
    }

    /// Keeps a connection to every server; never ends.
    pub(crate) async fn keep_connected(self: Arc<Self>) {
        let mut tasks: JoinSet<()> =
            self.servers.iter().map(|server| server.clone().keep_connected()).collect();
        while tasks.join_next().await.is_some() {}
    }

    /// Waits for the first connection.
    pub(crate) async fn connected(&self) {
        let first = self.connected.notified();
        if self.healthy() == 0 {
            first.await;
        }
    }

    pub(crate) fn healthy(&self) -> usize {
        self.servers.iter().filter(|server| server.is_healthy()).count()
    }

    /// Meets each once; see [`Server::meet`].
    pub(crate) async fn meet(&self) -> Vec<(String, Result<Option<SystemTime>, String>)> {
        let mut met = Vec::new();
        for server in &self.servers {
            let outcome = server.meet().await.map_err(|error| sentence(&error));
            met.push((server.address.clone(), outcome));
        }
        met
    }

    pub(crate) fn total(&self) -> usize {
        self.servers.len()
    }

    /// Ends the connections to servers whose certificates were revoked.
    pub(crate) fn part_with_revoked(&self) {
        self.servers.iter().for_each(|server| server.part_if_revoked());
    }

    /// Sends a request to the least busy healthy server; to the next one if it never left us.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let mut candidates: Vec<_> = self.servers.iter().filter(|server| server.is_healthy()).collect();
        candidates.sort_by_key(|server| server.active());
        for server in candidates {
            let Some((mut sender, lease)) = server.lease().await else {
                continue;
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Broken(error.into_error())),
                },
            }
        }
        Err(SendError::NoServer)
    }
}

struct Server {
    address: String,
    streams_max: usize,
    credentials: Arc<CredentialSource>,
    /// Live connections. Locked for look-ups only, never across an await.
    connections: Mutex<Vec<Connection>>,
    /// Those that were made with an earlier certificate of ours: they carry what they carry to its end, and nothing new.
    former: Mutex<Vec<(VerifiedPeer, AbortHandle)>>,
    /// Held while connecting, so that a crowd of requests opens one connection and not a crowd of them.
    connecting: tokio::sync::Mutex<()>,
    /// A connection ended.
    lost: Notify,
    connected: Arc<Notify>,
}

struct Connection {
    sender: SendRequest<RequestBody>,
    /// One reference is ours; each lease holds another.
    leases: Arc<()>,
    /// The server, as a fresh list had it.
    peer: VerifiedPeer,
    /// What we showed it.
    shown: Serial,
    task: AbortHandle,
}

impl Connection {
    fn active(&self) -> usize {
        Arc::strong_count(&self.leases).saturating_sub(1)
    }
}

/// Why a server could not be reached.
#[derive(Debug, Error)]
enum ConnectError {
    #[error("no connection within {} s", CONNECT.as_secs())]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("no TCP or TLS connection")]
    Io(#[from] std::io::Error),
    #[error("no HTTP/2 connection")]
    Http(#[from] hyper::Error),
    #[error("no revocation list from it")]
    List(#[from] UpkeepError),
    #[error("its certificate does not stand")]
    Untrusted(#[from] SvidError),
}

impl Server {
    fn with_connections<T>(&self, look: impl FnOnce(&mut Vec<Connection>) -> T) -> T {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.sender.is_closed());
        look(&mut connections)
    }

    fn is_healthy(&self) -> bool {
        self.with_connections(|connections| !connections.is_empty())
    }

    fn active(&self) -> usize {
        self.with_connections(|connections| connections.iter().map(Connection::active).sum())
    }

    /// A place in the least busy connection, or in a new one.
    async fn lease(self: &Arc<Self>) -> Option<(SendRequest<RequestBody>, Lease)> {
        if let Some(place) = self.free_place() {
            return Some(place);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(place) = self.free_place() {
            return Some(place);
        }
        if self.with_connections(|connections| connections.len()) < CONNECTIONS_PER_SERVER_MAX {
            self.connect().await.ok()?;
        }
        self.free_place()
    }

    fn free_place(&self) -> Option<(SendRequest<RequestBody>, Lease)> {
        self.with_connections(|connections| {
            let free = connections.iter().filter(|connection| connection.active() < self.streams_max);
            let connection = free.min_by_key(|connection| connection.active())?;
            Some((connection.sender.clone(), Lease(connection.leases.clone())))
        })
    }

    async fn keep_connected(self: Arc<Self>) {
        let (clock, mut credentials) = (self.credentials.clock(), self.credentials.watch());
        let mut backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
        loop {
            match self.connect().await {
                Ok(()) => {
                    tracing::info!(server = self.address, "server connected");
                    self.part_with_former();
                    let since = clock.instant();
                    while self.is_current() {
                        tokio::select! {
                            () = self.lost.notified() => {}
                            _ = credentials.changed() => {}
                        }
                    }
                    backoff.held_for(clock.instant() - since);
                    if self.is_healthy() {
                        // Ours is the reason to connect anew.
                        backoff.succeeded();
                        continue;
                    }
                }
                Err(error) => self.log_unreachable(&error),
            }
            clock.sleep(backoff.wait()).await;
        }
    }

    /// Whether a connection stands that was made with the certificate of now.
    fn is_current(&self) -> bool {
        let credentials = self.credentials.current();
        self.with_connections(|connections| {
            connections.iter().any(|connection| connection.shown == *credentials.own.serial())
        })
    }

    /// Puts nothing new on connections that were made with an earlier certificate.
    fn part_with_former(&self) {
        let credentials = self.credentials.current();
        let former: Vec<_> = self.with_connections(|connections| {
            let is_former = |connection: &mut Connection| connection.shown != *credentials.own.serial();
            connections.extract_if(.., is_former).collect()
        });
        // With the sender gone, such a connection ends when what it carries has ended.
        let former = former.into_iter().map(|connection| (connection.peer, connection.task));
        let mut kept = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, task)| !task.is_finished());
        kept.extend(former);
    }

    fn log_unreachable(&self, error: &ConnectError) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(server = self.address, error, "server unreachable");
    }

    async fn connect(self: &Arc<Self>) -> Result<(), ConnectError> {
        let credentials = self.credentials.current();
        let shaking = self.handshake(credentials.client.clone());
        let (mut sender, connection, chain) = tokio::time::timeout(CONNECT, shaking).await??;
        let server = self.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(server = server.address, error, "server connection broke");
            }
            server.lost.notify_one();
        });
        let task = task.abort_handle();
        let checked = tokio::time::timeout(CONNECT, self.check(&mut sender, &chain)).await;
        let peer = checked.map_err(ConnectError::from).flatten().inspect_err(|_| task.abort())?;
        let shown = credentials.own.serial().clone();
        let connection = Connection { sender, leases: Arc::default(), peer, shown, task };
        self.with_connections(|connections| connections.push(connection));
        self.connected.notify_waiters();
        Ok(())
    }

    /// A server carries devices once its certificate stood by a fresh list, which may come from itself: it is signed.
    async fn check(
        &self,
        sender: &mut SendRequest<RequestBody>,
        chain: &[Vec<u8>],
    ) -> Result<VerifiedPeer, ConnectError> {
        let answer = sender.send_request(upkeep::list_request(&self.credentials, false)).await?;
        upkeep::take_list(answer, &self.credentials).await?;
        Ok(self.credentials.trust().verify(chain, self.credentials.clock().unix_time())?)
    }

    /// Meets the server, as a connection does before it carries devices, and reads what its clock shows.
    async fn meet(&self) -> Result<Option<SystemTime>, ConnectError> {
        let (mut sender, connection, chain) =
            tokio::time::timeout(CONNECT, self.handshake(self.credentials.current().client.clone()))
                .await??;
        // It ends with the task set.
        let mut task = JoinSet::new();
        task.spawn(async { drop(connection.await) });
        let meeting = async {
            let answer = sender.send_request(upkeep::list_request(&self.credentials, false)).await?;
            let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
            upkeep::take_list(answer, &self.credentials).await?;
            self.credentials.trust().verify(&chain, self.credentials.clock().unix_time())?;
            Ok(date)
        };
        tokio::time::timeout(CONNECT, meeting).await?
    }

    fn part_if_revoked(&self) {
        let trust = self.credentials.trust().current();
        let stands = |peer: &VerifiedPeer, task: &AbortHandle| {
            let stands = !trust.crls.names(peer.serial());
            if !stands {
                tracing::warn!(server = self.address, "a server's certificate was revoked");
                task.abort();
            }
            stands
        };
        self.with_connections(|connections| {
            connections.retain(|connection| stands(&connection.peer, &connection.task));
        });
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.retain(|(peer, task)| stands(peer, task));
        self.lost.notify_one();
    }

    async fn handshake(
        &self,
        client: Arc<ClientConfig>,
    ) -> Result<(SendRequest<RequestBody>, Http2, Vec<Vec<u8>>), ConnectError> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        // Whom we reached is told by the SPIFFE ID; the name on the wire is of no account.
        let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(client);
        let tls = connector.connect(name, tcp).await?;
        let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = shown.iter().map(|der| der.to_vec()).collect();
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(tls));
        let (sender, connection) = handshake.await?;
        Ok((sender, connection, chain))
    }
}

/// An error with its causes.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

type Http2 =
    http2::Connection<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>, RequestBody, TokioExecutor>;

pub(crate) const SERVER_NAME: &str = "server.assay.internal";
const CONNECTIONS_PER_SERVER_MAX: usize = 64;
const CONNECT: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
// A server that stops answering is noticed within two seconds.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
