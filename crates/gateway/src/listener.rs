//! Connections: accepted within limits, given so long for TLS, closed when idle or told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Config;
use crate::credentials::CredentialSource;
use crate::limits::Limiter;
use crate::places::Connected;
use crate::proxy::{Peer, Proxy};

/// The door devices come in by.
pub(crate) struct Listener {
    socket: TcpListener,
    limiter: Arc<Limiter>,
    stopping: watch::Receiver<()>,
    connection: Arc<Service>,
}

/// What every connection needs.
struct Service {
    credentials: Arc<CredentialSource>,
    proxy: Arc<Proxy>,
    handshake: Duration,
    idle: Duration,
    http: auto::Builder<TokioExecutor>,
}

impl Listener {
    pub(crate) fn new(
        socket: TcpListener,
        config: &Config,
        limiter: Arc<Limiter>,
        credentials: Arc<CredentialSource>,
        proxy: Arc<Proxy>,
        stopping: watch::Receiver<()>,
    ) -> Self {
        let limits = &config.limits;
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection_max)
            .max_header_list_size(limits.header_bytes_max)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        // Devices speak HTTP/2; what speaks the JSON protocol may know nothing but HTTP/1.1.
        if config.json_protocol.is_none() {
            http = http.http2_only();
        } else {
            let handshake = Duration::from_secs(limits.handshake_seconds);
            http.http1().timer(TokioTimer::new()).header_read_timeout(handshake);
        }
        let connection = Arc::new(Service {
            credentials,
            proxy,
            handshake: Duration::from_secs(limits.handshake_seconds),
            idle: Duration::from_secs(limits.idle_seconds),
            http,
        });
        Listener { socket, limiter, stopping, connection }
    }

    /// Accepts until told to stop, then lets connections end.
    pub(crate) async fn serve(self) {
        let mut stopping = self.stopping.clone();
        let mut connections = JoinSet::new();
        let mut housekeeping = self.connection.credentials.clock().ticks(HOUSEKEEPING);
        loop {
            tokio::select! {
                _ = stopping.changed() => break,
                _ = housekeeping.tick() => self.limiter.forget_quiet(),
                Some(_) = connections.join_next() => {}
                accepted = self.socket.accept() => match accepted {
                    Ok((tcp, address)) => self.admit(tcp, address, &mut connections),
                    Err(error) => {
                        // Out of file descriptors, most likely: let some connections end.
                        tracing::warn!(%error, "cannot accept");
                        self.connection.credentials.clock().sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    fn admit(&self, tcp: TcpStream, address: SocketAddr, connections: &mut JoinSet<()>) {
        // Before TLS there is nobody to tell: a connection too many is closed.
        let Ok(place) = self.limiter.connections.admit(&assay_admission::Peer::at(address.ip())) else {
            tracing::debug!(%address, "connection refused: too many");
            return;
        };
        let (service, stopping) = (self.connection.clone(), self.stopping.clone());
        connections.spawn(async move { service.connection(tcp, address, place, stopping).await });
    }
}

impl Service {
    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        address: SocketAddr,
        place: Connected,
        mut stopping: watch::Receiver<()>,
    ) {
        let stop = async { drop(stopping.changed().await) };
        tokio::pin!(stop);
        let shaken = tokio::select! {
            shaken = self.handshake(tcp, address) => shaken,
            () = place.leave() => return tracing::debug!(%address, "a handshake made room for another"),
            () = &mut stop => return,
        };
        let Some((tls, peer)) = shaken else {
            return;
        };
        let id = peer.id(&self.credentials);
        let counted = peer.counted(id.as_ref());
        if id.is_some() && self.proxy.limiter.connections.promote(&place, &counted).is_err() {
            return tracing::debug!(%address, "connection refused: as many devices as there may be");
        }
        let activity = Arc::new(Activity::default());
        let service = service_fn(|request| {
            place.renew();
            let (service, peer, request_in_progress) = (self.clone(), peer.clone(), activity.start());
            async move {
                Ok::<_, std::convert::Infallible>(
                    service.proxy.answer(&peer, request, request_in_progress).await,
                )
            }
        });
        let serving = self.http.serve_connection(TokioIo::new(tls), service);
        tokio::pin!(serving);
        tokio::select! {
            _ = &mut serving => return,
            () = activity.quiet_for(self.idle) => {}
            () = place.leave() => {}
            () = &mut stop => {}
        }
        // GOAWAY; streams that do not end by themselves are cut. The peer connects again elsewhere.
        serving.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(GRACE, serving).await;
    }

    async fn handshake(&self, tcp: TcpStream, address: SocketAddr) -> Option<(TlsStream<TcpStream>, Peer)> {
        tcp.set_nodelay(true).ok()?;
        let credentials = self.credentials.current();
        let accepting = TlsAcceptor::from(credentials.server.clone()).accept(tcp);
        let tls = match tokio::time::timeout(self.handshake, accepting).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "handshake refused");
                return None;
            }
            Err(_) => {
                tracing::debug!(%address, "handshake timed out");
                return None;
            }
        };
        let shown = match tls.get_ref().1.peer_certificates() {
            None => None,
            // The handshake verified it; this reads the name, and costs one more verification.
            Some(chain) => {
                Some(self.credentials.trust().verify(chain, self.credentials.clock().unix_time()).ok()?)
            }
        };
        Some((tls, Peer { address: address.ip().to_canonical(), shown }))
    }
}

/// How busy a connection is.
#[derive(Default)]
struct Activity {
    requests: AtomicUsize,
    /// Requests started since somebody last looked.
    started: AtomicUsize,
}

/// A request under way.
struct RequestInProgress(Arc<Activity>);

impl Activity {
    fn start(self: &Arc<Self>) -> RequestInProgress {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.started.fetch_add(1, Ordering::Relaxed);
        RequestInProgress(self.clone())
    }

    /// Completes once there was no request for a whole period.
    async fn quiet_for(&self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            let started = self.started.swap(0, Ordering::Relaxed);
            if started == 0 && self.requests.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

// A batch of telemetry or an IMA list in a few round trips, at little memory per connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BUFFER: usize = 128 << 10;
// A device that vanished holds its streams for half a minute at most.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const HOUSEKEEPING: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const GRACE: Duration = Duration::from_secs(1);
