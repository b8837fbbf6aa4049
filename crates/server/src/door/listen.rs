//! The accept loop of both doors: TLS within a time, HTTP/1.1 or HTTP/2, so many connections, a clean end.
//!
//! A connection is a stranger's until it has shown who it is: at the edge in the handshake, at the console by the
//! operator's token. Strangers have places of their own, lose them when idle, and make room for each other, the longest
//! idle first; nothing they do keeps a gateway or an operator out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use assay_admission::{Peer, Room};
use assay_clock::Clock;
use assay_identity::tls::TrustSource;
use assay_identity::{SpiffeId, VerifiedPeer};
use axum::{Extension, Router};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Layer;

use super::admission::{Admission, Admitted, NoPlace};
use super::corked::Corked;

/// One door: whom it lets in, and what it shows them.
pub(crate) struct Door {
    /// What TLS shows and asks; `None`: there is none.
    pub tls: Option<Tls>,
    /// What verifies the certificates that are shown, where any is asked for.
    pub peers: Option<Peers>,
    pub router: Router,
    pub limits: Limits,
    pub admission: Arc<Admission>,
    /// What certificates are verified by.
    pub clock: Clock,
}

/// What TLS shows and asks now.
type Tls = Box<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// What verifies the certificates that are shown at a door, when they are shown and for as long as their connections last.
pub(crate) struct Peers {
    pub trust: Arc<TrustSource>,
    /// Word of every new revocation list, once it is in `trust`.
    pub lists: watch::Receiver<Bytes>,
    /// Hears of each whose certificate does not hold, or no longer: in whose name, where known, from where, and why.
    pub refused: Refused,
}

/// What hears of a refusal.
type Refused = Box<dyn Fn(Option<&SpiffeId>, IpAddr, String) + Send + Sync>;

/// What one door takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    connections_max: usize,
    streams_max: u32,
}

impl Limits {
    /// Of the door for gateways, which carry many devices in one connection.
    pub(crate) fn edge(limits: &crate::config::Limits) -> Limits {
        Limits { connections_max: limits.connections_max, streams_max: limits.streams_per_connection_max }
    }

    /// Of the door for SPIRE's agents, each of which has a connection of its own.
    pub(crate) fn spire(limits: &crate::config::Limits) -> Limits {
        Limits { connections_max: limits.connections_max, streams_max: SPIRE_STREAMS_MAX }
    }

    /// Of a door for Keylime's agents, each of which has a connection of its own.
    pub(crate) fn keylime(config: &crate::config::Config) -> Limits {
        let connections_max = config.keylime.as_ref().map_or(2, |keylime| keylime.connections_max);
        Limits { connections_max, streams_max: CONSOLE_STREAMS_MAX }
    }

    /// Of the door for operators and the public.
    pub(crate) fn console(limits: &crate::config::Limits) -> Limits {
        Limits { connections_max: limits.connections_max, streams_max: CONSOLE_STREAMS_MAX }
    }

    /// Half of the places are for those who have shown who they are.
    pub(crate) fn admission(self) -> Arc<Admission> {
        let room = |total: usize, of_a_key| Room { total, of_a_key, safe_for: Duration::ZERO };
        let strangers = self.connections_max.div_ceil(2);
        let known = self.connections_max - strangers;
        Arc::new(Admission::apart(room(strangers, strangers.div_ceil(4)), room(known, known)))
    }
}

/// Who is at the other end of a connection, and how it is let in. In the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    /// Whom the certificate names that was shown.
    peer: Option<VerifiedPeer>,
    admission: Arc<Admission>,
    place: Admitted,
    is_known: AtomicBool,
    /// Requests under way, and those begun since somebody last looked.
    busy: AtomicUsize,
    begun: AtomicUsize,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Busy(Caller);

impl Caller {
    /// Where it comes from.
    pub(crate) fn address(&self) -> IpAddr {
        self.0.address
    }

    /// The certificate it showed, if one is asked for.
    pub(crate) fn certificate(&self) -> Option<&VerifiedPeer> {
        self.0.peer.as_ref()
    }

    /// It has shown who it is: it gets a place among those who have.
    pub(crate) fn is_known(&self) -> Result<(), NoPlace> {
        let peer = match &self.0.peer {
            Some(peer) => Peer::Known(peer.spiffe_id().clone()),
            None => Peer::at(self.0.address),
        };
        self.0.admission.promote(&self.0.place, &peer)?;
        self.0.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// A request has begun.
    pub(crate) fn begin(&self) -> Busy {
        self.0.place.renew();
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Completes when a stranger has asked for nothing during a whole period.
    async fn idle(&self) {
        loop {
            sleep(STRANGER_IDLE_MAX).await;
            let begun = self.0.begun.swap(0, Ordering::Relaxed);
            let is_quiet = begun == 0 && self.0.busy.load(Ordering::Relaxed) == 0;
            if is_quiet && !self.0.is_known.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the server stops, then lets what is under way end.
pub(crate) async fn serve(listener: TcpListener, door: Door, mut shutdown: watch::Receiver<bool>) {
    let door = Arc::new(door);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = shutdown.changed() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                // Before TLS there is nobody to tell: a connection too many is closed.
                let Ok(place) = door.admission.admit(&Peer::at(address.ip())) else { continue };
                let (door, shutdown) = (door.clone(), shutdown.clone());
                connections.spawn(async move { door.connection(stream, address, place, shutdown).await });
            }
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only spin.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

impl Door {
    async fn connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: Admitted,
        shutdown: watch::Receiver<bool>,
    ) {
        stream.set_nodelay(true).ok();
        let Some(tls) = &self.tls else {
            let caller = self.caller(address.ip(), None, place);
            return self.converse(stream, caller, shutdown).await;
        };
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(tls()).accept(Corked::new(stream))) => shaken,
            () = place.leave() => return tracing::debug!(%address, "a handshake made room for another"),
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.not_shaken(address.ip(), &error),
            Err(_) => return tracing::debug!(%address, "a handshake took too long"),
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let now = self.clock.unix_time();
        // The handshake verified it; this reads the name.
        let shown = self.peers.as_ref().filter(|_| !chain.is_empty());
        let peer = shown.map(|peers| peers.trust.verify(chain, now)).transpose();
        let Ok(peer) = peer else { return };
        let caller = self.caller(address.ip(), peer, place);
        if caller.certificate().is_some() && caller.is_known().is_err() {
            return tracing::warn!(%address, "as many are connected that show who they are as there may be");
        }
        self.converse(stream, caller, shutdown).await;
    }

    fn caller(&self, address: IpAddr, peer: Option<VerifiedPeer>, place: Admitted) -> Caller {
        Caller(Arc::new(Connection {
            address,
            peer,
            admission: self.admission.clone(),
            place,
            is_known: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
        }))
    }

    /// A certificate that does not hold, or none, is no accident of the network.
    fn not_shaken(&self, address: IpAddr, error: &io::Error) {
        tracing::debug!(%address, %error, "a handshake failed");
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let (Some(peers), Some(tls)) = (&self.peers, tls)
            && let rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented = tls
        {
            (peers.refused)(None, address, tls.to_string());
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: Caller,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let service = Extension(caller.clone()).layer(self.router.clone());
        let builder = builder(self.limits);
        let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = self.revoked(&caller) => {
                // Its devices hear of the list first, which says whom not to come to again.
                return drop(timeout(LAST_LIST_WITHIN, serving).await);
            }
            () = caller.0.place.leave() => {}
            () = caller.idle() => {}
            _ = shutdown.changed() => {}
        }
        serving.as_mut().graceful_shutdown();
        timeout(LAST_WORDS_WITHIN, serving).await.ok();
    }
}

impl Door {
    /// Completes when a revocation list names the certificate that the caller showed.
    async fn revoked(&self, caller: &Caller) {
        if let (Some(Peers { trust, lists, refused }), Some(peer)) = (&self.peers, caller.certificate()) {
            let mut lists = lists.clone();
            loop {
                lists.borrow_and_update();
                if trust.current().crls.names(peer.serial()) {
                    refused(Some(peer.spiffe_id()), caller.address(), "revoked: it is cut off".to_owned());
                    return;
                }
                if lists.changed().await.is_err() {
                    break;
                }
            }
        }
        std::future::pending().await
    }
}

fn builder(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        // A gateway carries many devices in one connection: one that does not read must not stop the others.
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN);
    builder
}

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// The page looks for news every few seconds, and programs ask when they connect.
const STRANGER_IDLE_MAX: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Well within the second in which a revocation takes effect.
const LAST_LIST_WITHIN: Duration = Duration::from_millis(300);
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// What a browser opens at once.
const CONSOLE_STREAMS_MAX: u32 = 100;
/// Bundles of ten trust domains are fetched at once, beside entries and SVIDs.
const SPIRE_STREAMS_MAX: u32 = 100;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
