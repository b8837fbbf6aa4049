//! A small server that speaks the edge protocol over mutual TLS, and says what it was asked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use assay_clock::Clock;
use assay_identity::tls::{ClientIdentity, server_config};
use assay_wire::edge::edge_server::{Edge, EdgeServer};
use assay_wire::edge::{
    DeviceMessage, EnrollRequest, EnrollResponse, ServerMessage, Signed, SubmitRequest, SubmitResponse,
    device_message, server_message,
};
use axum::extract::Query;
use axum::routing::get;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::domain::Domain;

/// A server; gone, with its connections, when dropped.
pub struct Server {
    pub address: SocketAddr,
    /// The revocation list that it gives out.
    pub list: watch::Sender<(u64, Vec<u8>)>,
    serving: AbortHandle,
}

impl Server {
    /// Starts a server that shows the SVID of `path`, lets gateways in, and has revoked nothing.
    pub async fn start(domain: &Domain, path: &str) -> Self {
        Server::start_with(domain, path, &[]).await
    }

    /// The same, with a list that names the certificates of these paths.
    pub async fn start_with(domain: &Domain, path: &str, revoked: &[&str]) -> Self {
        let (list, lists) = watch::channel((1, domain.list(1, revoked)));
        let gateways = ClientIdentity::Required(Arc::new(assay_identity::SpiffeId::is_gateway));
        let tls =
            server_config(domain.key(path), domain.trust(), gateways, (&Clock::system()).into()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = socket.accept().await.unwrap();
                let (acceptor, lists) = (acceptor.clone(), lists.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let edge = Routes::new(EdgeServer::new(Echo { address })).into_axum_router();
                    let router =
                        edge.route("/gateway/crl", get(async move |query| newer(lists, query).await));
                    let service = TowerToHyperService::new(router);
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Server { address, list, serving: serving.abort_handle() }
    }
}

#[derive(serde::Deserialize)]
struct Newer {
    than: u64,
    wait: bool,
}

async fn newer(
    mut lists: watch::Receiver<(u64, Vec<u8>)>,
    Query(newer): Query<Newer>,
) -> Result<Vec<u8>, StatusCode> {
    let found = match newer.wait {
        true => lists.wait_for(|(number, _)| *number > newer.than).await.ok(),
        false => Some(lists.borrow_and_update()).filter(|list| list.0 > newer.than),
    };
    found.map(|list| list.1.clone()).ok_or(StatusCode::NO_CONTENT)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers with what it got, and with which server it is.
struct Echo {
    address: SocketAddr,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Edge for Echo {
    type EnrollStream = Answers<EnrollResponse>;
    type AttachStream = Answers<ServerMessage>;

    /// Never gets anywhere.
    async fn enroll(
        &self,
        _: Request<Streaming<EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    /// A statement for each message; ends in an error status after `changed`.
    async fn attach(
        &self,
        request: Request<Streaming<DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let answers = request.into_inner().map(|message| match message?.message {
            Some(device_message::Message::Hello(hello)) => {
                let signed = Signed { statement: hello.device_id.into(), ..Signed::default() };
                Ok(ServerMessage { message: Some(server_message::Message::Statement(signed)) })
            }
            _ => Err(Status::failed_precondition("that is all, 100 %")),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        Ok(Response::new(SubmitResponse {
            accepted: true,
            reason: self.address.to_string(),
            ledger_sequence: request.get_ref().payload.len() as u64,
            ..SubmitResponse::default()
        }))
    }
}
