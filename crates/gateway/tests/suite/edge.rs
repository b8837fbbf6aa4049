//! A small server that speaks the edge protocol over mutual TLS, and says what it was asked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use assay_identity::tls::{ClientIdentity, server_config};
use assay_wire::edge::edge_server::{Edge, EdgeServer};
use assay_wire::edge::{
    DeviceMessage, EnrollRequest, EnrollResponse, ServerMessage, Signed, SubmitRequest, SubmitResponse,
    device_message, server_message,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::domain::Domain;

/// A server; gone, with its connections, when dropped.
pub struct Server {
    pub address: SocketAddr,
    serving: AbortHandle,
}

impl Server {
    /// Starts a server that shows the SVID of `path` and lets gateways in.
    pub async fn start(domain: &Domain, path: &str) -> Self {
        let gateways = ClientIdentity::Required(Arc::new(assay_identity::SpiffeId::is_gateway));
        let tls = server_config(domain.key(path), domain.trust(), gateways).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = socket.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = TowerToHyperService::new(EdgeServer::new(Echo { address }));
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Server { address, serving: serving.abort_handle() }
    }
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
