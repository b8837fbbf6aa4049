//! The doors of SPIRE's server: what an agent of SPIRE's needs over TLS, and what `spire-server` needs on a unix socket.
//!
//! Both serve the same services. Who asks decides what is answered ([`who`]): anybody attests and gets the bundle; a node that
//! attested, known by its certificate, gets its entries and SVIDs; whoever opens the socket is an operator. A method that is
//! not here is unimplemented, as gRPC has it.

mod agent;
mod attest;
mod bundle;
mod convert;
mod entry;
mod health;
mod status;
mod svid;
mod sync;
mod tls;
mod trust_domain;
mod who;

use std::sync::Arc;

use assay_wire::health::health_server::HealthServer;
use assay_wire::spire::agent::agent_server::AgentServer;
use assay_wire::spire::bundle::bundle_server::BundleServer;
use assay_wire::spire::entry::entry_server::EntryServer;
use assay_wire::spire::svid::svid_server::SvidServer;
use assay_wire::spire::trustdomain::trust_domain_server::TrustDomainServer;
use axum::{Extension, Router};
use tonic::service::Routes;

use crate::parts::Server;
pub(crate) use tls::SpireTls;

/// For agents: who shows a certificate is known by it.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    services(server).into_axum_router()
}

/// For `spire-server`: who opened the socket is an operator.
pub(crate) fn local_router(server: &Arc<Server>) -> Router {
    let services = services(server).add_service(HealthServer::new(health::HealthService));
    services.into_axum_router().layer(Extension(who::Local))
}

fn services(server: &Arc<Server>) -> Routes {
    Routes::new(AgentServer::new(agent::AgentService(server.clone())))
        .add_service(BundleServer::new(bundle::BundleService(server.clone())))
        .add_service(EntryServer::new(entry::EntryService(server.clone())))
        .add_service(SvidServer::new(svid::SvidService(server.clone())))
        .add_service(TrustDomainServer::new(trust_domain::TrustDomainService(server.clone())))
}
