//! SVIDs for a node's workloads.

use std::sync::Arc;

use assay_identity::{Csr, SpiffeId};
use assay_wire::spire::svid::svid_server::Svid;
use assay_wire::spire::svid::{
    BatchNewX509svidRequest, BatchNewX509svidResponse, MintJwtsvidRequest, MintJwtsvidResponse,
    MintX509svidRequest, MintX509svidResponse, NewJwtsvidRequest, NewJwtsvidResponse, NewX509svidParams,
    batch_new_x509svid_response,
};
use assay_wire::spire::types;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use super::status::{good, malformed, of, part, refused};
use super::{convert, who};
use crate::grant::svid::SvidError;
use crate::keys::{Chain, Token};
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::spire::SpireAgent;
use crate::store::EntryRecord;

pub(super) struct SvidService(pub Arc<Server>);

#[tonic::async_trait]
impl Svid for SvidService {
    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        let agent = Arc::new(who::node(&self.0, request.extensions()).await?);
        let params = request.into_inner().params;
        if params.len() > BATCH_MAX {
            return Err(refused(malformed(format!("params: give at most {BATCH_MAX}"))));
        }
        let entries: Arc<[_]> = self.0.entries.reached_by(&agent.id, &agent.selectors()).into();
        // All at once, so that the writer takes them together.
        let mut granting = JoinSet::new();
        for (index, params) in params.into_iter().enumerate() {
            let (server, agent, entries) = (self.0.clone(), agent.clone(), entries.clone());
            granting.spawn(async move { (index, one(&server, &agent, &entries, params).await) });
        }
        let mut granted = Vec::with_capacity(granting.len());
        while let Some(one) = granting.join_next().await {
            granted.push(one.map_err(|_| Status::internal("fault: panic"))?);
        }
        granted.sort_by_key(|(index, _)| *index);
        let results = granted.into_iter().map(|(_, result)| result).collect();
        Ok(Response::new(BatchNewX509svidResponse { results }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<NewJwtsvidRequest>,
    ) -> Result<Response<NewJwtsvidResponse>, Status> {
        let agent = who::node(&self.0, request.extensions()).await?;
        let NewJwtsvidRequest { entry_id, audience } = request.into_inner();
        let entries = self.0.entries.reached_by(&agent.id, &agent.selectors());
        let by = (entries.as_slice(), entry_id.as_str());
        let token = self.0.granting.token_by(&agent.state, by, &audience, self.0.now()).await.map_err(of)?;
        let hint = entries.iter().find(|entry| entry.id == entry_id).map(|entry| entry.hint.clone());
        let Token { token, svid } = token;
        let svid = types::Jwtsvid {
            id: Some(convert::id(&svid.spiffe_id)),
            expires_at: i64::try_from(svid.expires_at).unwrap_or(i64::MAX),
            issued_at: i64::try_from(svid.issued_at).unwrap_or(i64::MAX),
            hint: hint.unwrap_or_default(),
            token,
        };
        Ok(Response::new(NewJwtsvidResponse { svid: Some(svid) }))
    }

    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        who::operator(request.extensions())?;
        Err(Status::unimplemented(
            "an SVID is granted by an entry, and to nobody on an operator's word alone",
        ))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        who::operator(request.extensions())?;
        Err(Status::unimplemented(
            "a token is granted by an entry, and to nobody on an operator's word alone",
        ))
    }
}

async fn one(
    server: &Server,
    agent: &SpireAgent,
    entries: &[Arc<EntryRecord>],
    params: NewX509svidParams,
) -> batch_new_x509svid_response::Result {
    let entry = entries.iter().find(|entry| entry.id == params.entry_id);
    let granted = match Csr::parse(&params.csr) {
        Ok(csr) => grant(server, agent, (entries, &params.entry_id), &csr).await,
        Err(error) => Err(error.into()),
    };
    let id = entry.and_then(|entry| SpiffeId::parse(&entry.spiffe_id).ok());
    match (granted, entry, id) {
        (Ok(chain), Some(entry), Some(id)) => {
            let svid = types::X509svid { hint: entry.hint.clone(), ..convert::x509_svid(&id, chain) };
            batch_new_x509svid_response::Result { status: Some(good()), svid: Some(svid) }
        }
        (granted, ..) => {
            let error = granted.err().unwrap_or(SvidError::NoEntry);
            tracing::info!(node = %agent.id, entry = params.entry_id, reason = %error, "workload svid denied");
            batch_new_x509svid_response::Result { status: Some(part(Refusal::from(error))), svid: None }
        }
    }
}

async fn grant(
    server: &Server,
    agent: &SpireAgent,
    by: (&[Arc<EntryRecord>], &str),
    csr: &Csr,
) -> Result<Chain, SvidError> {
    let timer = server.metrics.issuing();
    let chain = server.granting.workload_svid_by(&agent.state, by, csr, server.now()).await?;
    timer.done();
    Ok(chain)
}

/// As many as a SPIRE agent asks for at once.
const BATCH_MAX: usize = 500;
