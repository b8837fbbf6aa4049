//! `assay.edge.v1` over gRPC: messages in, use cases, messages out.

pub(crate) mod announce;
mod answers;
mod beginning;
mod convert;
mod enroll;
mod gateway;
mod messages;
mod peer;
pub(crate) mod session;
mod status;

use std::sync::Arc;
use std::time::Duration;

use assay_admission::Peer;
use assay_telemetry::stated_device;
use assay_wire::edge::edge_server::{Edge, EdgeServer};
use assay_wire::edge::{
    DeviceMessage, EnrollRequest, EnrollResponse, ServerMessage, SubmitRequest, SubmitResponse,
};
use assay_wire::{EDGE_MESSAGE_BYTES_MAX, SUBMIT_BYTES_MAX};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::middleware::{self, Next};
use axum::response::Response as HttpResponse;
use http::Extensions;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Empty;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use self::answers::Answers;
pub(super) use self::messages::Counted;
use self::messages::Messages;
pub(super) use self::peer::of;
use crate::grant::telemetry::{self, Batch};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::security::{Cause, Refused};
use crate::thread::caught;

/// The edge service; who may call it is decided in the handshake.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let service = EdgeServer::new(EdgeService(server.clone()))
        .max_decoding_message_size(EDGE_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(EDGE_MESSAGE_BYTES_MAX);
    let router = Routes::new(service).into_axum_router();
    router
        .merge(gateway::router(server))
        .merge(super::json::router(server))
        .layer(middleware::from_fn_with_state(server.clone(), in_time))
        .layer(middleware::from_fn(messages::keep_bodies))
        .layer(middleware::from_fn_with_state(server.clone(), peer::read))
}

/// A request that is sent drop by drop does not hold its place for ever, and its bytes are counted; streams look after
/// themselves.
async fn in_time(State(server): State<Arc<Server>>, request: HttpRequest, next: Next) -> HttpResponse {
    if !request.uri().path().ends_with("/Submit") {
        return next.run(request).await;
    }
    let in_flight = server.edge.bytes.of(peer::of(request.extensions()));
    let request = request.map(|body| Body::new(Counted::new(body, in_flight)));
    match timeout(SUBMIT_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let late = Refusal::new(Kind::Late, "deadline", "the request took too long");
            Status::from(late).into_http()
        }
    }
}

struct EdgeService(Arc<Server>);

impl EdgeService {
    /// Who speaks, and their messages.
    fn inbound<M: Message + Default>(&self, extensions: &Extensions) -> Result<(Peer, Messages<M>), Status> {
        let peer = peer::of(extensions);
        let inbound = Messages::of(extensions, self.0.edge.bytes.of(peer.clone()));
        Ok((peer, inbound.map_err(Refusal::from)?))
    }

    /// Notes a batch that is not from the device in whose name it came.
    fn note_batch(&self, batch: &Batch, from: &Peer, refusal: &Refusal) {
        let who = stated_device(&batch.statement).map(|id| id.to_string()).unwrap_or_default();
        let (from, why) = (from.to_string(), refusal.code().to_owned());
        self.0.refused(Refused { cause: Cause::Telemetry, who, from, why });
    }
}

#[tonic::async_trait]
impl Edge for EdgeService {
    type EnrollStream = ReceiverStream<Result<EnrollResponse, Status>>;
    /// See [`Answers`].
    type AttachStream = Empty<Result<ServerMessage, Status>>;

    async fn enroll(
        &self,
        request: Request<Streaming<EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let (server, (peer, inbound)) = (self.0.clone(), self.inbound(request.extensions())?);
        tokio::spawn(async move {
            let converse = caught(enroll::converse(&server, &peer, inbound, &answers)).await;
            if let Err(refusal) = converse.unwrap_or_else(|panicked| Err(panicked.into())) {
                tracing::info!(code = refusal.code(), refusal = ?refusal, "enrollment refused");
                answers.send(Err(refusal.into())).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn attach(
        &self,
        request: Request<Streaming<DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (answers, queue) = mpsc::channel(ANSWERS_WAITING_MAX);
        let (server, (peer, inbound)) = (self.0.clone(), self.inbound(request.extensions())?);
        tokio::spawn(async move {
            let attached = caught(session::attach(server, &peer, inbound, answers.clone())).await;
            let ended =
                attached.map_or_else(|panicked| Err(panicked.into()), |ended| ended.map_err(Refusal::from));
            if let Err(refusal) = ended {
                tracing::debug!(code = refusal.code(), refusal = ?refusal, "stream ended");
                timeout(LAST_WORD_WITHIN, answers.send(Box::new(Err(refusal.into())))).await.ok();
            }
        });
        Ok(Answers::of(queue).into_response())
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let from = peer::of(request.extensions());
        let request = request.into_inner();
        let bytes = request.statement.len() + request.signature.len() + request.payload.len();
        if bytes > SUBMIT_BYTES_MAX {
            return Err(Refusal::new(Kind::Exhausted, "size", "the submission is too large").into());
        }
        let SubmitRequest { statement, signature, payload } = request;
        let batch = Batch { statement, signature, payload };
        let submitted = caught(telemetry::submit(self.0.collecting(), &batch, self.0.now())).await;
        let submitted =
            submitted.map_or_else(|panicked| Err(panicked.into()), |ended| ended.map_err(Refusal::from));
        match submitted {
            Ok(answer) => {
                // Most batches have no leaf to be counted by.
                self.0.metrics.submitted(&answer);
                Ok(Response::new(convert::answer(answer)))
            }
            Err(refusal) => {
                tracing::info!(code = refusal.code(), refusal = ?refusal, "telemetry refused");
                if refusal.kind == Kind::Unauthenticated {
                    self.note_batch(&batch, &from, &refusal);
                }
                Err(refusal.into())
            }
        }
    }
}

/// Messages that may wait for a device to read; each is small, and a stream that lags is ended.
const ANSWERS_WAITING_MAX: usize = 8;
const SUBMIT_WITHIN: Duration = Duration::from_secs(30);
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);
