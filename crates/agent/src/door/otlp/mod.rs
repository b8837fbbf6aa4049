//! OTLP for programs of this device: gRPC and HTTP on loopback, traces, metrics and logs, protobuf and JSON.
//!
//! An answer of success says that the request is on disk. Whatever is refused is refused as the OTLP specification says, so that
//! exporters know whether to try again: `answer` has both protocols' words for it.

mod answer;
mod body;
mod grpc;
mod http;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::telemetry::Intake;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Sockets that are bound, one for each protocol that is spoken.
#[derive(Debug)]
pub struct Listeners {
    grpc: Option<std::net::TcpListener>,
    http: Option<std::net::TcpListener>,
    json: Option<std::net::TcpListener>,
}

impl Listeners {
    /// Binds what is configured: OTLP over gRPC, over HTTP, and the JSON protocol.
    pub fn bind([grpc, http, json]: [Option<SocketAddr>; 3]) -> std::io::Result<Listeners> {
        let bind = |address: Option<SocketAddr>| address.map(bound).transpose();
        Ok(Listeners { grpc: bind(grpc)?, http: bind(http)?, json: bind(json)? })
    }

    /// The one of the JSON protocol, whose door is another.
    pub(crate) fn take_json(&mut self) -> Option<std::net::TcpListener> {
        self.json.take()
    }

    /// Where they are, by protocol.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let at = |name, listener: &Option<std::net::TcpListener>| {
            Some((name, listener.as_ref()?.local_addr().ok()?))
        };
        let all = [at("otlp_grpc", &self.grpc), at("otlp_http", &self.http), at("json_protocol", &self.json)];
        all.into_iter().flatten().collect()
    }
}

fn bound(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Grpc,
    Http,
}

/// Serves until dropped.
pub async fn serve(listeners: Listeners, intake: Intake) {
    let door = Door {
        intake,
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
    };
    let Listeners { grpc, http, .. } = listeners;
    let grpc = door.clone().accept(grpc, Protocol::Grpc);
    tokio::join!(grpc, door.accept(http, Protocol::Http));
    // Where neither is configured there is nothing to do, for as long as the agent runs.
    std::future::pending::<()>().await;
}

/// What every connection shares.
#[derive(Clone, Debug)]
struct Door {
    intake: Intake,
    connections: Arc<Semaphore>,
    /// Requests whose bodies are in memory.
    requests: Arc<Semaphore>,
}

impl Door {
    async fn accept(self, listener: Option<std::net::TcpListener>, protocol: Protocol) {
        let Some(listener) = listener.and_then(|listener| TcpListener::from_std(listener).ok()) else {
            return;
        };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Nobody to tell before there is a request: a connection too many is closed.
                    let Ok(permit) = self.connections.clone().try_acquire_owned() else { continue };
                    let door = self.clone();
                    connections.spawn(async move {
                        door.connection(TokioIo::new(stream), protocol).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of a program could not be accepted");
                    self.intake.clock().sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TokioIo<tokio::net::TcpStream>, protocol: Protocol) {
        let service = service_fn(move |request| self.clone().answer(request, protocol));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(HEADER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .keep_alive_interval(KEEP_ALIVE_EVERY);
        if let Err(error) = builder.serve_connection(stream, service).await {
            tracing::debug!(error, "a connection of a program ended early");
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        protocol: Protocol,
    ) -> Result<Response<Body>, Infallible> {
        let place = self.requests.clone().try_acquire_owned().ok();
        Ok(match protocol {
            Protocol::Grpc => grpc::answer(&self.intake, request, place).await,
            Protocol::Http => http::answer(&self.intake, request, place).await,
        })
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    UnsyncBoxBody::new(Full::new(bytes.into()))
}

const CONNECTIONS_MAX: usize = 64;
/// Each holds at most two bodies: as it came and unpacked.
const REQUESTS_MAX: usize = 4;
const STREAMS_PER_CONNECTION: u32 = 16;
const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
