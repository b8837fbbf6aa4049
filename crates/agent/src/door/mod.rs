//! What programs of this device reach the agent by. Each protocol has its folder; `local` is the socket under them.

mod envoy_sds;
pub mod local;
pub mod otlp;
mod workload_api;

use assay_clock::Clock;
use assay_identity::TrustDomain;
use assay_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use tokio::sync::watch;
use tonic::service::Routes;

use self::envoy_sds::{EnvoySds, SecretDiscoveryServiceServer};
use self::local::Socket;
use self::workload_api::WorkloadApi;
use crate::ask::Asker;
use crate::holding::Holding;
use crate::workload::{Attestor, Engines};

/// Serves the Workload API on a socket, and beside it Envoy's secret discovery, until dropped.
pub async fn serve(
    socket: Socket,
    (holding, asker): (watch::Receiver<Holding>, Asker),
    trust_domain: TrustDomain,
    engines: Engines,
    clock: Clock,
) {
    let attestor = Attestor::new(engines, clock.clone());
    let named = holding.clone();
    let is_named = move |uid: u32| named.borrow().names_user(uid);
    local::serve(socket, is_named, move |peer| {
        let (holding, asker, trust_domain) = (holding.clone(), asker.clone(), trust_domain.clone());
        let (caller, clock) = (attestor.caller(peer), clock.clone());
        let sds =
            EnvoySds { holding: holding.clone(), trust_domain: trust_domain.clone(), caller: caller.clone() };
        let sds = SecretDiscoveryServiceServer::new(sds);
        let api = SpiffeWorkloadApiServer::new(WorkloadApi { holding, asker, trust_domain, caller, clock });
        Routes::new(api.max_decoding_message_size(workload_api::REQUEST_BYTES_MAX))
            .add_service(sds.max_decoding_message_size(envoy_sds::REQUEST_BYTES_MAX))
            .prepare()
    })
    .await;
}
