//! The accept loop under the doors on unix sockets: who connects is found out at once and held to limits of its own.

mod admission;
mod authority;
mod socket;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::body::Body;
use tower::Service;

pub use socket::{Socket, SocketError};

use crate::workload::peer::{Peer, PeerError};
use admission::{Admission, Permit};
use authority::Readdressed;

/// Serves a socket with a service made for each connection until dropped. `is_named` says of a user whether an entry
/// names it: for those there is room that nobody else can take.
pub(crate) async fn serve<S>(
    socket: Socket,
    is_named: impl Fn(u32) -> bool,
    service: impl Fn(Peer) -> S + Send,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (listener, _remove) = socket.into_parts();
    let admission = Admission::new();
    let mut connections = JoinSet::new();
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, user)) => {
                pause = PAUSE_MIN;
                // Before HTTP/2 there is nobody to tell: a connection too many is closed.
                let Some(permit) = admission.admit(user, is_named(user)) else {
                    tracing::debug!(user, "local connection refused: too many");
                    continue;
                };
                match Peer::of(&stream) {
                    Ok(peer) => drop(connections.spawn(connection(stream, service(peer), permit))),
                    Err(error) => gone(&error),
                }
            }
            Err(error) => {
                // Out of descriptors, most likely; trying again at once would only spin.
                tracing::warn!(%error, pause_ms = pause.as_millis(), "a local connection could not be accepted");
                sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }
}

async fn accept(listener: &UnixListener) -> io::Result<(UnixStream, u32)> {
    let (stream, _) = listener.accept().await?;
    let user = stream.peer_cred()?.uid();
    Ok((stream, user))
}

fn gone(error: &PeerError) {
    tracing::debug!(%error, "caller could not be identified");
}

/// Serves one connection until it ends, or nothing was asked on it for a while.
async fn connection<S>(stream: UnixStream, service: S, _permit: Permit)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let activity = Arc::new(Activity::default());
    let counted = {
        let activity = activity.clone();
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let (mut service, asked) = (service.clone(), activity.start());
            async move {
                std::future::poll_fn(|context| service.poll_ready(context)).await?;
                let response = service.call(request).await?;
                Ok::<_, Infallible>(response.map(|body| Asked { body, _asked: asked }))
            }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_WITHIN);
    let serving = builder.serve_connection(TokioIo::new(Readdressed::new(stream)), counted);
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(error, "a local connection ended early");
            }
        }
        // Dropped as it is: who asked for nothing loses nothing.
        () = activity.quiet_for(IDLE) => tracing::debug!("an idle local connection was closed"),
    }
}

/// How many requests of a connection are answered at the moment.
#[derive(Debug, Default)]
struct Activity {
    asked: AtomicUsize,
    changed: tokio::sync::Notify,
}

/// One of them, until its answer has ended.
#[derive(Debug)]
struct Counted(Arc<Activity>);

impl Activity {
    fn start(self: &Arc<Self>) -> Counted {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Counted(self.clone())
    }

    async fn quiet_for(&self, idle: Duration) {
        loop {
            let until = Instant::now() + idle;
            let changed = self.changed.notified();
            if self.asked.load(Ordering::Relaxed) > 0 {
                changed.await;
                continue;
            }
            tokio::select! {
                () = sleep_until(until) => return,
                () = changed => {}
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

/// An answer that counts until it has ended.
struct Asked {
    body: Body,
    _asked: Counted,
}

impl http_body::Body for Asked {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A workload needs two.
const STREAMS_PER_CONNECTION: u32 = 16;
/// Requests of local protocols are small; only answers are not.
const HEADER_BYTES_MAX: u32 = 8 << 10;
const WINDOW_BYTES: u32 = 64 << 10;
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// A workload keeps a stream open; a connection without one is of no use to it.
const IDLE: Duration = Duration::from_secs(30);
/// A stopped process does not answer, and its connection makes room.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(60);
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
