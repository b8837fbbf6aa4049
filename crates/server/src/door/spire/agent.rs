//! Nodes: how they attest and renew, and what an operator says of them.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::Csr;
use assay_wire::spire::agent::agent_server::Agent;
use assay_wire::spire::agent::{
    AgentX509svidParams, AttestAgentRequest, AttestAgentResponse, BanAgentRequest, CountAgentsRequest,
    CountAgentsResponse, CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
    ListAgentsResponse, PostStatusRequest, PostStatusResponse, RenewAgentRequest, RenewAgentResponse,
    list_agents_request,
};
use assay_wire::spire::types;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{self, own_id};
use super::status::{malformed, of, refused};
use super::{attest, who};
use crate::actor::Actor;
use crate::parts::Server;
use crate::spire::{SpireAgent, SpireError, fate, token};
use crate::store::{NoteSpireAgent, OwnSvid};

#[derive(Clone)]
pub(super) struct AgentService(pub Arc<Server>);

#[tonic::async_trait]
impl Agent for AgentService {
    type AttestAgentStream = ReceiverStream<Result<AttestAgentResponse, Status>>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        let (server, from) = (self.0.clone(), who::address(request.extensions()));
        tokio::spawn(async move { attest::converse(&server, &from, request.into_inner(), &answers).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn renew_agent(
        &self,
        request: Request<RenewAgentRequest>,
    ) -> Result<Response<RenewAgentResponse>, Status> {
        let agent = who::node(&self.0, request.extensions()).await?;
        let csr = csr(request.into_inner().params)?;
        let joining = self.0.joining().ok_or_else(attest::not_here)?;
        let chain = crate::spire::attest::renew(joining, &agent, &csr, self.0.now()).await.map_err(of)?;
        Ok(Response::new(RenewAgentResponse { svid: Some(convert::x509_svid(&agent.id, chain)) }))
    }

    async fn post_status(
        &self,
        request: Request<PostStatusRequest>,
    ) -> Result<Response<PostStatusResponse>, Status> {
        let agent = who::node(&self.0, request.extensions()).await?;
        let said: String = request.into_inner().agent_version.chars().take(VERSION_CHARACTERS_MAX).collect();
        if said != agent.record.agent_version {
            let note = NoteSpireAgent { id: agent.id.to_string(), agent_version: said };
            self.0.store.commit(note).await.map_err(of)?;
        }
        Ok(Response::new(PostStatusResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        who::operator(request.extensions())?;
        let CreateJoinTokenRequest { ttl, token, agent_id } = request.into_inner();
        let rules = self.0.entry_rules();
        let alias = agent_id.map(|id| own_id("agent_id", Some(id), rules.trust_domain)).transpose();
        let new = token::NewToken {
            ttl_seconds: u64::try_from(ttl).unwrap_or(0),
            token: Some(token).filter(|token| !token.is_empty()),
            alias: alias.map_err(refused)?,
        };
        let created = token::create(&self.0.store, rules, new, Actor::Operator, self.0.now()).await;
        let (value, expires_at) = created.map_err(refused)?;
        Ok(Response::new(types::JoinToken { value, expires_at: convert::seconds(expires_at) }))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        who::operator(request.extensions())?;
        let ListAgentsRequest { filter, output_mask, page_size, page_token } = request.into_inner();
        let size = convert::page_size(page_size)?;
        let wanted = Wanted::of(filter.unwrap_or_default())?;
        let mut after = page_token;
        let mut agents = Vec::new();
        let next_page_token = loop {
            let page = self.0.store.spire_agents(&after, READ_AT_ONCE).await.map_err(of)?;
            let is_last = page.len() < usize::try_from(READ_AT_ONCE).unwrap_or(usize::MAX);
            for record in page {
                if agents.len() == size {
                    break;
                }
                after.clone_from(&record.id);
                let agent = SpireAgent::of(record).map_err(of)?;
                if wanted.is(&agent) {
                    agents.push(self.told(&agent, output_mask.as_ref()).await?);
                }
            }
            match (agents.len() == size, is_last) {
                (true, _) => break after,
                (false, true) => break String::new(),
                (false, false) => {}
            }
        };
        Ok(Response::new(ListAgentsResponse { agents, next_page_token }))
    }

    async fn count_agents(
        &self,
        request: Request<CountAgentsRequest>,
    ) -> Result<Response<CountAgentsResponse>, Status> {
        who::operator(request.extensions())?;
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = Wanted::of(list_agents_request::Filter {
            by_attestation_type: filter.by_attestation_type,
            by_selector_match: filter.by_selector_match,
            by_banned: filter.by_banned,
            by_can_reattest: filter.by_can_reattest,
            by_expires_before: filter.by_expires_before,
        })?;
        let (mut after, mut count) = (String::new(), 0_usize);
        loop {
            let page = self.0.store.spire_agents(&after, READ_AT_ONCE).await.map_err(of)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.id);
            for record in page {
                count += usize::from(wanted.is(&SpireAgent::of(record).map_err(of)?));
            }
        }
        Ok(Response::new(CountAgentsResponse { count: convert::count(count) }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<types::Agent>, Status> {
        who::operator(request.extensions())?;
        let GetAgentRequest { id, output_mask } = request.into_inner();
        let id = own_id("id", id, &self.0.config.trust_domain).map_err(refused)?;
        let agent = SpireAgent::load(&self.0.store, &id).await.map_err(of)?;
        let agent = agent.ok_or_else(|| of(SpireError::Unknown))?;
        Ok(Response::new(self.told(&agent, output_mask.as_ref()).await?))
    }

    async fn delete_agent(&self, request: Request<DeleteAgentRequest>) -> Result<Response<()>, Status> {
        who::operator(request.extensions())?;
        let id = own_id("id", request.into_inner().id, &self.0.config.trust_domain).map_err(refused)?;
        fate::evict(&self.0.store, &id, Actor::Operator, self.0.now()).await.map_err(of)?;
        Ok(Response::new(()))
    }

    async fn ban_agent(&self, request: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        who::operator(request.extensions())?;
        let id = own_id("id", request.into_inner().id, &self.0.config.trust_domain).map_err(refused)?;
        fate::ban(&self.0.store, &id, Actor::Operator, self.0.now()).await.map_err(of)?;
        Ok(Response::new(()))
    }
}

impl AgentService {
    async fn told(
        &self,
        agent: &SpireAgent,
        mask: Option<&types::AgentMask>,
    ) -> Result<types::Agent, Status> {
        let own: Vec<OwnSvid> = self.0.store.own_svids(agent.id.as_str(), self.0.now()).await.map_err(of)?;
        Ok(convert::agent(agent, own.first(), mask))
    }
}

/// Which nodes a filter means.
struct Wanted {
    filter: list_agents_request::Filter,
    expires_before: Option<UnixTime>,
}

impl Wanted {
    fn of(filter: list_agents_request::Filter) -> Result<Wanted, Status> {
        if filter.by_selector_match.is_some() {
            return Err(Status::unimplemented("nodes are not looked for by their selectors here"));
        }
        let expires_before = match filter.by_expires_before.as_str() {
            "" => None,
            text => Some(convert::time(text).ok_or_else(|| {
                refused(malformed("by_expires_before: give a time as 2026-01-02 15:04:05 -0700 -07"))
            })?),
        };
        Ok(Wanted { filter, expires_before })
    }

    fn is(&self, agent: &SpireAgent) -> bool {
        let Wanted { filter, expires_before } = self;
        (filter.by_attestation_type.is_empty() || filter.by_attestation_type == agent.record.attestor)
            && filter.by_banned.is_none_or(|banned| banned == convert::is_banned(agent))
            && filter.by_can_reattest.is_none_or(|can| can == agent.record.can_reattest)
            && expires_before.is_none_or(|before| agent.record.trust.valid_until < before)
    }
}

/// A node's request for its own certificate: its signature proves that it has the key.
pub(super) fn csr(params: Option<AgentX509svidParams>) -> Result<Csr, Status> {
    let params = params.ok_or_else(|| refused(malformed("params: no certificate is asked for")))?;
    Csr::parse(&params.csr).map_err(|error| of(SpireError::Csr(error)))
}

/// Of the store, whatever is asked for.
const READ_AT_ONCE: u32 = 500;
const VERSION_CHARACTERS_MAX: usize = 64;
