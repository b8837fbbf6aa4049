//! The SPIFFE Workload API on a unix socket: each workload gets the identities that its entry grants, and nothing
//! else.
//!
//! Who calls is found out by [`crate::workload`]; nothing a caller says counts. Every message is the complete state, sent
//! at once and after every change; a token is asked of the server when one is asked for, unless there is a fresh one.

mod jwt;
mod stream;

use std::pin::Pin;

use assay_clock::Clock;
use assay_identity::TrustDomain;
use assay_wire::WORKLOAD_API_HEADER;
use assay_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use assay_wire::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

pub(super) use stream::{entitled, nothing_yet};

use crate::ask::Asker;
use crate::holding::Holding;
use crate::workload::Caller;

/// The service for one connection, over what the device holds.
pub(super) struct WorkloadApi {
    pub(super) holding: watch::Receiver<Holding>,
    pub(super) asker: Asker,
    pub(super) trust_domain: TrustDomain,
    pub(super) caller: Caller,
    pub(super) clock: Clock,
}

impl WorkloadApi {
    fn now(&self) -> Holding {
        self.holding.borrow().clone()
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        check_header(&request)?;
        let messages = stream::messages(self.holding.clone(), self.caller.clone(), stream::x509_svids);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        check_header(&request)?;
        let trust_domain = self.trust_domain.clone();
        let bundles =
            move |holding: &Holding, mine: &[usize]| stream::x509_bundles(holding, mine, &trust_domain);
        Ok(Response::new(Box::pin(stream::messages(self.holding.clone(), self.caller.clone(), bundles))))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        check_header(&request)?;
        let answer =
            jwt::tokens(self.now(), &self.caller, (&self.asker, &self.clock), request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        check_header(&request)?;
        let trust_domain = self.trust_domain.clone();
        let bundles = move |holding: &Holding, mine: &[usize]| jwt::bundles(holding, mine, &trust_domain);
        Ok(Response::new(Box::pin(stream::messages(self.holding.clone(), self.caller.clone(), bundles))))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check_header(&request)?;
        let holding = self.now();
        let mine = stream::entitled(&holding, &self.caller).await?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        let (whose, said) = ((&holding, mine.as_slice()), (audience.as_str(), svid.as_str()));
        jwt::validated(whose, &self.trust_domain, said, self.clock.now()).map(Response::new)
    }
}

/// The header comes first: without it the request may be a forged one.
fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    // SPIFFE Workload Endpoint §6.1: a browser or a server tricked into a request cannot set this header.
    match request.metadata().get(WORKLOAD_API_HEADER) {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing: workload.spiffe.io: true")),
    }
}

/// A token to be validated is the longest thing that is asked about.
pub(super) const REQUEST_BYTES_MAX: usize = 40 << 10;
