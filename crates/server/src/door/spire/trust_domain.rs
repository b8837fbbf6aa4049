//! Whom this trust domain federates with, for operators.

use std::sync::Arc;

use assay_identity::TrustDomain;
use assay_wire::spire::trustdomain::trust_domain_server::TrustDomain as Service;
use assay_wire::spire::trustdomain::{
    BatchCreateFederationRelationshipRequest, BatchCreateFederationRelationshipResponse,
    BatchDeleteFederationRelationshipRequest, BatchDeleteFederationRelationshipResponse,
    BatchUpdateFederationRelationshipRequest, BatchUpdateFederationRelationshipResponse,
    GetFederationRelationshipRequest, ListFederationRelationshipsRequest,
    ListFederationRelationshipsResponse, RefreshBundleRequest, batch_create_federation_relationship_response,
    batch_delete_federation_relationship_response, batch_update_federation_relationship_response,
};
use assay_wire::spire::types::federation_relationship::BundleEndpointProfile;
use assay_wire::spire::types::{
    self, FederationRelationship, FederationRelationshipMask, HttpsWebProfile, HttpsspiffeProfile,
};
use tonic::{Request, Response, Status};

use super::status::{good, malformed, of, part, refused};
use super::{convert, who};
use crate::actor::Actor;
use crate::door::federation::refresh;
use crate::federation::{self, FederationError, There};
use crate::in_force::federation::{Endpoint, Foreign};
use crate::outcome::Refusal;
use crate::parts::Server;

pub(super) struct TrustDomainService(pub Arc<Server>);

#[tonic::async_trait]
impl Service for TrustDomainService {
    async fn list_federation_relationships(
        &self,
        request: Request<ListFederationRelationshipsRequest>,
    ) -> Result<Response<ListFederationRelationshipsResponse>, Status> {
        who::operator(request.extensions())?;
        let ListFederationRelationshipsRequest { output_mask, page_size, page_token } = request.into_inner();
        let all = self.0.federation.all();
        let rest = all.iter().skip_while(|foreign| foreign.record.trust_domain <= page_token);
        let mut rest = rest.filter(|foreign| foreign.endpoint.is_some());
        let page: Vec<_> = rest.by_ref().take(convert::page_size(page_size)?).collect();
        let next = page.last().filter(|_| rest.next().is_some());
        Ok(Response::new(ListFederationRelationshipsResponse {
            next_page_token: next.map(|last| last.record.trust_domain.clone()).unwrap_or_default(),
            federation_relationships: page
                .iter()
                .filter_map(|foreign| relationship(foreign, output_mask.as_ref()))
                .collect(),
        }))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<GetFederationRelationshipRequest>,
    ) -> Result<Response<FederationRelationship>, Status> {
        who::operator(request.extensions())?;
        let GetFederationRelationshipRequest { trust_domain, output_mask } = request.into_inner();
        let foreign = self.known(&trust_domain).map_err(refused)?;
        let told = relationship(&foreign, output_mask.as_ref());
        told.map(Response::new).ok_or_else(|| of(FederationError::Unknown(foreign.trust_domain.clone())))
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<BatchCreateFederationRelationshipResponse>, Status> {
        who::operator(request.extensions())?;
        let request = request.into_inner();
        let mut results = Vec::new();
        for sent in request.federation_relationships {
            let related = self.relate(sent, None, There::No, request.output_mask.as_ref()).await;
            let (status, federation_relationship) = told(related);
            results.push(batch_create_federation_relationship_response::Result {
                status,
                federation_relationship,
            });
        }
        Ok(Response::new(BatchCreateFederationRelationshipResponse { results }))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<BatchUpdateFederationRelationshipResponse>, Status> {
        who::operator(request.extensions())?;
        let request = request.into_inner();
        let masks = (request.input_mask, request.output_mask);
        let mut results = Vec::new();
        for sent in request.federation_relationships {
            let related = self.relate(sent, masks.0.as_ref(), There::Yes, masks.1.as_ref()).await;
            let (status, federation_relationship) = told(related);
            results.push(batch_update_federation_relationship_response::Result {
                status,
                federation_relationship,
            });
        }
        Ok(Response::new(BatchUpdateFederationRelationshipResponse { results }))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<BatchDeleteFederationRelationshipResponse>, Status> {
        who::operator(request.extensions())?;
        let mut results = Vec::new();
        for trust_domain in request.into_inner().trust_domains {
            let status = Some(match self.end(&trust_domain).await {
                Ok(()) => good(),
                Err(refusal) => part(refusal),
            });
            results.push(batch_delete_federation_relationship_response::Result { status, trust_domain });
        }
        Ok(Response::new(BatchDeleteFederationRelationshipResponse { results }))
    }

    async fn refresh_bundle(&self, request: Request<RefreshBundleRequest>) -> Result<Response<()>, Status> {
        who::operator(request.extensions())?;
        let foreign = self.known(&request.into_inner().trust_domain).map_err(refused)?;
        refresh(&self.0, &foreign).await.map_err(of)?;
        Ok(Response::new(()))
    }
}

impl TrustDomainService {
    fn known(&self, trust_domain: &str) -> Result<Arc<Foreign>, Refusal> {
        let trust_domain = convert::trust_domain("trust_domain", trust_domain)?;
        let known = self.0.federation.get(trust_domain.as_str()).filter(|foreign| foreign.endpoint.is_some());
        known.ok_or_else(|| FederationError::Unknown(trust_domain).into())
    }

    /// As it is sent, or of what is there those parts that are meant.
    async fn relate(
        &self,
        sent: FederationRelationship,
        meant: Option<&FederationRelationshipMask>,
        there: There,
        mask: Option<&FederationRelationshipMask>,
    ) -> Result<FederationRelationship, Refusal> {
        let trust_domain = convert::trust_domain("trust_domain", &sent.trust_domain)?;
        let before = self.0.federation.get(trust_domain.as_str());
        let before = before.and_then(|foreign| foreign.endpoint.clone());
        let is_meant = |part: fn(&FederationRelationshipMask) -> bool| meant.is_none_or(part);
        let url = match (is_meant(|mask| mask.bundle_endpoint_url), &before) {
            (false, Some(before)) => before.url.clone(),
            _ => sent.bundle_endpoint_url,
        };
        let id = match (is_meant(|mask| mask.bundle_endpoint_profile), &before) {
            (false, Some(before)) => before.id.clone(),
            _ => match sent.bundle_endpoint_profile {
                Some(BundleEndpointProfile::HttpsWeb(HttpsWebProfile {})) => None,
                Some(BundleEndpointProfile::HttpsSpiffe(profile)) => Some(endpoint_id(&profile)?),
                None => return Err(malformed("bundle_endpoint_profile: give https_web or https_spiffe")),
            },
        };
        let bundle = sent.trust_domain_bundle.filter(|_| is_meant(|mask| mask.trust_domain_bundle));
        let bundle = bundle.map(convert::read_bundle).transpose()?;
        let ours = (&self.0.store, &self.0.config.trust_domain);
        let endpoint = (Endpoint { url, id }, bundle);
        let by = (Actor::Operator, self.0.now());
        federation::relate(ours, &trust_domain, endpoint, there, by).await?;
        let foreign = self.known(trust_domain.as_str())?;
        relationship(&foreign, mask).ok_or_else(|| FederationError::Unknown(trust_domain).into())
    }

    async fn end(&self, trust_domain: &str) -> Result<(), Refusal> {
        let trust_domain: TrustDomain = convert::trust_domain("trust_domain", trust_domain)?;
        Ok(federation::end(&self.0.store, &trust_domain, (Actor::Operator, self.0.now())).await?)
    }
}

fn endpoint_id(profile: &HttpsspiffeProfile) -> Result<assay_identity::SpiffeId, Refusal> {
    assay_identity::SpiffeId::parse(&profile.endpoint_spiffe_id)
        .map_err(|error| malformed(format!("endpoint_spiffe_id: {error}")))
}

fn relationship(
    foreign: &Foreign,
    mask: Option<&FederationRelationshipMask>,
) -> Option<FederationRelationship> {
    let Endpoint { url, id } = foreign.endpoint.as_ref()?;
    let asked = |part: fn(&FederationRelationshipMask) -> bool| mask.is_none_or(part);
    let profile = match id {
        None => BundleEndpointProfile::HttpsWeb(HttpsWebProfile {}),
        Some(id) => {
            let endpoint_spiffe_id = id.to_string();
            BundleEndpointProfile::HttpsSpiffe(HttpsspiffeProfile { endpoint_spiffe_id })
        }
    };
    let bundle = foreign.bundle.as_ref().filter(|_| asked(|mask| mask.trust_domain_bundle));
    Some(FederationRelationship {
        trust_domain: foreign.trust_domain.to_string(),
        bundle_endpoint_url: if asked(|mask| mask.bundle_endpoint_url) { url.clone() } else { String::new() },
        bundle_endpoint_profile: Some(profile).filter(|_| asked(|mask| mask.bundle_endpoint_profile)),
        trust_domain_bundle: bundle.map(|bundle| convert::bundle(bundle, None)),
    })
}

fn told(
    related: Result<FederationRelationship, Refusal>,
) -> (Option<types::Status>, Option<FederationRelationship>) {
    match related {
        Ok(relationship) => (Some(good()), Some(relationship)),
        Err(refusal) => (Some(part(refusal)), None),
    }
}
