//! What programs of this device reach the agent by. Each protocol has its folder; `local` is the socket under them. Over it, gRPC
//! speaks HTTP/2, and what `message` offers HTTP/1.1. `secrets` is no protocol but a folder, and `actions` programs that are called.

pub mod actions;
mod envoy_sds;
pub mod json;
pub mod local;
mod message;
pub mod otlp;
pub mod secrets;
mod workload_api;

use assay_clock::Clock;
use assay_identity::TrustDomain;
use assay_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use http::{Request, Version};
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::service::Routes;
use tower::{ServiceExt as _, service_fn};

use self::envoy_sds::{EnvoySds, SecretDiscoveryServiceServer};
use self::local::Socket;
pub(crate) use self::message::PATH as MESSAGE_PATH;
use self::message::Signing;
use self::workload_api::WorkloadApi;
use crate::ask::Asker;
use crate::holding::Holding;
use crate::link::Linked;
use crate::workload::{Attestor, Engines};

/// Serves the Workload API on a socket, and beside it Envoy's secret discovery and the signing of messages, until dropped.
pub async fn serve(
    socket: Socket,
    (holding, asker, linked): (watch::Receiver<Holding>, Asker, Linked),
    trust_domain: TrustDomain,
    engines: Engines,
    clock: Clock,
) {
    let attestor = Attestor::new(engines, clock.clone());
    let signing = Signing::new(holding.clone(), linked, clock.clone());
    let named = holding.clone();
    let is_named = move |uid: u32| named.borrow().names_user(uid);
    local::serve(socket, is_named, move |peer| {
        let (holding, asker, trust_domain) = (holding.clone(), asker.clone(), trust_domain.clone());
        let (caller, clock) = (attestor.caller(peer), clock.clone());
        let sds =
            EnvoySds { holding: holding.clone(), trust_domain: trust_domain.clone(), caller: caller.clone() };
        let sds = SecretDiscoveryServiceServer::new(sds);
        let (signing, signs_for) = (signing.clone(), caller.clone());
        let api = SpiffeWorkloadApiServer::new(WorkloadApi { holding, asker, trust_domain, caller, clock });
        let grpc = Routes::new(api.max_decoding_message_size(workload_api::REQUEST_BYTES_MAX))
            .add_service(sds.max_decoding_message_size(envoy_sds::REQUEST_BYTES_MAX))
            .prepare();
        service_fn(move |request: Request<Incoming>| {
            let (grpc, signing, caller) = (grpc.clone(), signing.clone(), signs_for.clone());
            async move {
                match request.version() {
                    Version::HTTP_2 => grpc.oneshot(request).await,
                    _ => Ok(signing.answer(&caller, request).await),
                }
            }
        })
    })
    .await;
}
