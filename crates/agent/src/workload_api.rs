//! The SPIFFE Workload API on a unix socket: each workload gets the identities that its entry grants, and nothing
//! else.
//!
//! Who calls is asked of the kernel ([`peer`]), what they are of procfs ([`selectors`]); nothing a caller says counts.
//! Every message is the complete state, sent at once and after every change.

mod listener;
mod peer;
mod selectors;
mod stream;

use std::pin::Pin;

use assay_identity::TrustDomain;
use assay_wire::WORKLOAD_API_HEADER;
use assay_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use assay_wire::workload::{X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

pub use listener::{Listener, SocketError};

use crate::holding::Holding;
use peer::Peer;
use selectors::Caller;

/// The service, over what the device holds.
struct WorkloadApi {
    holding: watch::Receiver<Holding>,
    trust_domain: TrustDomain,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let caller = attest(&request).await?;
        Ok(Response::new(Box::pin(stream::messages(self.holding.clone(), move |holding| {
            stream::x509_svids(holding, &caller)
        }))))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let caller = attest(&request).await?;
        let trust_domain = self.trust_domain.clone();
        Ok(Response::new(Box::pin(stream::messages(self.holding.clone(), move |holding| {
            stream::x509_bundles(holding, &caller, &trust_domain)
        }))))
    }
}

/// Finds out who calls. The header comes first: without it the request may be a forged one.
async fn attest<T>(request: &Request<T>) -> Result<Caller, Status> {
    // SPIFFE Workload Endpoint §6.1: a browser or a server tricked into a request cannot set this header.
    if request.metadata().get(WORKLOAD_API_HEADER).is_none_or(|value| value != "true") {
        return Err(Status::invalid_argument("security header missing: workload.spiffe.io: true"));
    }
    let peer = request.extensions().get::<Option<Peer>>().cloned().flatten();
    let peer = peer.ok_or_else(|| Status::unavailable("the caller could not be identified"))?;
    let caller = tokio::task::spawn_blocking(move || Caller::attest(peer)).await;
    match caller {
        Ok(Ok(caller)) => Ok(caller),
        Ok(Err(error)) => {
            tracing::warn!(%error, "caller could not be attested");
            Err(Status::unavailable("the caller could not be attested"))
        }
        Err(_) => Err(Status::unavailable("the agent is stopping")),
    }
}
