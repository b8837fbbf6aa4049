//! A gateway with its servers, and ways to reach it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use assay_gateway::{Config, GatewayError, Limits};
use assay_identity::tls::client_config;
use assay_wire::edge::edge_client::EdgeClient;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::domain::Domain;

/// How long anything may take that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

pub struct Stage {
    pub domain: Domain,
    pub folder: tempfile::TempDir,
    pub gateway: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub running: JoinHandle<Result<(), GatewayError>>,
}

impl Stage {
    /// Starts a gateway of `domain` before `servers`.
    pub async fn start(domain: Domain, servers: &[SocketAddr], change: impl FnOnce(&mut Limits)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        domain.write_credentials("/assay/gateway/edge-1", folder.path());
        let addresses = folder.path().join("addresses.json");
        let mut limits = Limits::default();
        change(&mut limits);
        let config = Config {
            trust_domain: domain.name.clone(),
            listen: "127.0.0.1:0".parse().unwrap(),
            servers: servers.iter().map(SocketAddr::to_string).collect(),
            credentials: folder.path().to_owned(),
            addresses_file: Some(addresses.clone()),
            json_protocol: None,
            limits,
        };
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(assay_gateway::run(config, async {
            let _ = stopped.await;
        }));
        let gateway = eventually(async || {
            let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&addresses).ok()?).ok()?;
            value["gateway"].as_str()?.parse().ok()
        })
        .await;
        Stage { domain, folder, gateway, stop: Some(stop), running }
    }

    pub fn stop(&mut self) {
        self.stop.take();
    }

    /// A TLS connection to the gateway, showing `key`.
    pub async fn connect(&self, key: Option<Arc<CertifiedKey>>) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.gateway, &self.domain, key).await
    }

    /// The edge protocol through the gateway.
    pub async fn client(&self, key: Option<Arc<CertifiedKey>>) -> EdgeClient<Channel> {
        let tls = self.connect(key).await.unwrap();
        let mut once = Some(TokioIo::new(tls));
        let connector = tower::service_fn(move |_| {
            let io = once.take().ok_or_else(|| std::io::Error::other("one connection only"));
            async move { io }
        });
        let endpoint = Endpoint::from_static("http://gateway").timeout(SOON);
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        EdgeClient::new(channel).max_encoding_message_size(64 << 20)
    }

    /// One plain HTTP/2 request without a body; status and body of the answer.
    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.get_text(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The same, whatever the body is.
    pub async fn get_text(&self, path: &str) -> (u16, String) {
        let tls = self.connect(None).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::get(format!("https://gateway{path}")).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

async fn connect(
    address: SocketAddr,
    domain: &Domain,
    key: Option<Arc<CertifiedKey>>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let accept = Arc::new(|id: &assay_identity::SpiffeId| id.is_gateway());
    let config = client_config(key, domain.trust(), accept, (&Clock::system()).into()).unwrap();
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await
}

/// Asks until there is an answer.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    tokio::time::timeout(SOON, async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
    .unwrap()
}
