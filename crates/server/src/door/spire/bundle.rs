//! Bundles: this trust domain's, for everybody, and those of others, for nodes and operators.

use std::sync::Arc;

use assay_wire::spire::bundle::batch_delete_federated_bundle_request::Mode;
use assay_wire::spire::bundle::bundle_server::Bundle;
use assay_wire::spire::bundle::{
    BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse, BatchDeleteFederatedBundleRequest,
    BatchDeleteFederatedBundleResponse, BatchSetFederatedBundleRequest, BatchSetFederatedBundleResponse,
    BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse, CountBundlesRequest,
    CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest, ListFederatedBundlesRequest,
    ListFederatedBundlesResponse, batch_create_federated_bundle_response,
    batch_delete_federated_bundle_response, batch_set_federated_bundle_response,
    batch_update_federated_bundle_response,
};
use assay_wire::spire::types;
use tonic::{Request, Response, Status};

use super::status::{good, malformed, of, part, refused};
use super::{convert, who};
use crate::actor::Actor;
use crate::federation::{self, FederationError, There};
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::store::FederatedEntries;

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
        let foreign = self.0.federation.all().iter().filter(|foreign| foreign.bundle.is_some()).count();
        Ok(Response::new(CountBundlesResponse { count: convert::count(foreign + 1) }))
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
        let ListFederatedBundlesRequest { output_mask, page_size, page_token } = request.into_inner();
        let all = self.0.federation.all();
        let rest = all.iter().skip_while(|foreign| foreign.record.trust_domain <= page_token);
        let mut rest = rest.filter_map(|foreign| foreign.bundle.as_ref());
        let page: Vec<_> = rest.by_ref().take(convert::page_size(page_size)?).collect();
        let next = page.last().filter(|_| rest.next().is_some());
        Ok(Response::new(ListFederatedBundlesResponse {
            next_page_token: next.map(|last| last.trust_domain().to_string()).unwrap_or_default(),
            bundles: page.iter().map(|bundle| convert::bundle(bundle, output_mask.as_ref())).collect(),
        }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        if !who::is_local(request.extensions()) {
            who::node(&self.0, request.extensions()).await?;
        }
        let GetFederatedBundleRequest { trust_domain, output_mask } = request.into_inner();
        let trust_domain = convert::trust_domain("trust_domain", &trust_domain).map_err(refused)?;
        let foreign = self.0.federation.get(trust_domain.as_str());
        let bundle = foreign.as_ref().and_then(|foreign| foreign.bundle.as_ref());
        let bundle = bundle.ok_or_else(|| of(FederationError::NoBundle(trust_domain)))?;
        Ok(Response::new(convert::bundle(bundle, output_mask.as_ref())))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        let BatchCreateFederatedBundleRequest { bundle, output_mask } = request.into_inner();
        let mut results = Vec::with_capacity(bundle.len());
        for sent in bounded(bundle)? {
            let (status, bundle) = self.set(sent, There::No, output_mask.as_ref()).await;
            results.push(batch_create_federated_bundle_response::Result { status, bundle });
        }
        Ok(Response::new(BatchCreateFederatedBundleResponse { results }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        let BatchUpdateFederatedBundleRequest { bundle, output_mask, input_mask } = request.into_inner();
        if input_mask.is_some() {
            return Err(refused(malformed("input_mask: a bundle is set as a whole here")));
        }
        let mut results = Vec::with_capacity(bundle.len());
        for sent in bounded(bundle)? {
            let (status, bundle) = self.set(sent, There::Yes, output_mask.as_ref()).await;
            results.push(batch_update_federated_bundle_response::Result { status, bundle });
        }
        Ok(Response::new(BatchUpdateFederatedBundleResponse { results }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        let BatchSetFederatedBundleRequest { bundle, output_mask } = request.into_inner();
        let mut results = Vec::with_capacity(bundle.len());
        for sent in bounded(bundle)? {
            let (status, bundle) = self.set(sent, There::Either, output_mask.as_ref()).await;
            results.push(batch_set_federated_bundle_response::Result { status, bundle });
        }
        Ok(Response::new(BatchSetFederatedBundleResponse { results }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        who::operator(request.extensions())?;
        let request = request.into_inner();
        let entries = match request.mode() {
            Mode::Restrict => FederatedEntries::Refuse,
            Mode::Delete => FederatedEntries::Remove,
            Mode::Dissociate => FederatedEntries::Dissociate,
        };
        let mut results = Vec::with_capacity(request.trust_domains.len());
        for trust_domain in bounded(request.trust_domains)? {
            let status = Some(match self.remove(&trust_domain, entries).await {
                Ok(()) => good(),
                Err(refusal) => part(refusal),
            });
            results.push(batch_delete_federated_bundle_response::Result { status, trust_domain });
        }
        Ok(Response::new(BatchDeleteFederatedBundleResponse { results }))
    }
}

impl BundleService {
    async fn set(
        &self,
        sent: types::Bundle,
        there: There,
        mask: Option<&types::BundleMask>,
    ) -> (Option<types::Status>, Option<types::Bundle>) {
        let set = async {
            let bundle = convert::read_bundle(sent)?;
            let ours = (&self.0.store, &self.0.config.trust_domain);
            let by = (Actor::Operator, self.0.now());
            federation::set_bundle(ours, &bundle, there, by).await?;
            Ok::<_, Refusal>(bundle)
        };
        match set.await {
            Ok(bundle) => (Some(good()), Some(convert::bundle(&bundle, mask))),
            Err(refusal) => (Some(part(refusal)), None),
        }
    }

    async fn remove(&self, trust_domain: &str, entries: FederatedEntries) -> Result<(), Refusal> {
        let trust_domain = convert::trust_domain("trust_domain", trust_domain)?;
        let by = (Actor::Operator, self.0.now());
        Ok(federation::remove_bundle(&self.0.store, &trust_domain, entries, by).await?)
    }
}

/// Each is a transaction of its own.
fn bounded<T>(list: Vec<T>) -> Result<Vec<T>, Status> {
    match list.len() <= BATCH_MAX {
        true => Ok(list),
        false => Err(refused(malformed(format!("give at most {BATCH_MAX} at a time")))),
    }
}

const BATCH_MAX: usize = 256;
/// How often a bundle is worth fetching.
const REFRESH_HINT_SECONDS: i64 = 300;
