//! Bundles: this trust domain's, for everybody.

use std::sync::Arc;

use assay_wire::spire::bundle::bundle_server::Bundle;
use assay_wire::spire::bundle::{
    BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse, BatchDeleteFederatedBundleRequest,
    BatchDeleteFederatedBundleResponse, BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
    BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse, CountBundlesRequest,
    CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
    ListFederatedBundlesResponse,
};
use assay_wire::spire::types;
use tonic::{Request, Response, Status};

use super::who;
use crate::parts::Server;

pub(super) struct BundleService(pub Arc<Server>);

impl BundleService {
    /// This trust domain's.
    fn own(&self, mask: Option<&types::BundleMask>) -> types::Bundle {
        let all = types::BundleMask {
            x509_authorities: true,
            jwt_authorities: true,
            refresh_hint: true,
            sequence_number: true,
        };
        let mask = mask.unwrap_or(&all);
        let bundle = self.0.authority.bundle();
        let x509 =
            bundle.authorities().map(|der| types::X509Certificate { asn1: der.to_vec(), tainted: false });
        let (key_id, public_key) = self.0.granting.jwt_key.public();
        let jwt = types::JwtKey { public_key, key_id, expires_at: 0, tainted: false };
        types::Bundle {
            trust_domain: bundle.trust_domain().to_string(),
            x509_authorities: if mask.x509_authorities { x509.collect() } else { Vec::new() },
            jwt_authorities: if mask.jwt_authorities { vec![jwt] } else { Vec::new() },
            refresh_hint: if mask.refresh_hint { REFRESH_HINT_SECONDS } else { 0 },
            sequence_number: if mask.sequence_number { self.0.revocations.number() } else { 0 },
        }
    }
}

#[tonic::async_trait]
impl Bundle for BundleService {
    async fn count_bundles(
        &self,
        request: Request<CountBundlesRequest>,
    ) -> Result<Response<CountBundlesResponse>, Status> {
        who::operator(request.extensions())?;
        Ok(Response::new(CountBundlesResponse { count: 1 }))
    }

    async fn get_bundle(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Ok(Response::new(self.own(request.into_inner().output_mask.as_ref())))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Result<Response<ListFederatedBundlesResponse>, Status> {
        who::operator(request.extensions())?;
        Ok(Response::new(ListFederatedBundlesResponse::default()))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        if !who::is_local(request.extensions()) {
            who::node(&self.0, request.extensions()).await?;
        }
        Err(Status::not_found("bundle not found"))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        Err(no_federation())
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        Err(no_federation())
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        Err(no_federation())
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        Err(no_federation())
    }
}

fn no_federation() -> Status {
    Status::unimplemented("this server holds no bundles of other trust domains")
}

/// How often a bundle is worth fetching.
const REFRESH_HINT_SECONDS: i64 = 300;
