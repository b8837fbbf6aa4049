//! Federation, for operators.

use std::sync::Arc;

use assay_identity::{ForeignBundle, SpiffeId, TrustDomain};
use assay_wire::console::federation as wire;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;

use super::devices::read;
use crate::actor::Actor;
use crate::door::federation::refresh as fetch;
use crate::federation::{self, FederationError, There};
use crate::in_force::federation::{Endpoint, Foreign};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::FederatedEntries;

pub(super) async fn list(State(server): State<Arc<Server>>) -> Json<wire::Federations> {
    let all = server.federation.all();
    let federations = all.iter().map(|foreign| told(&server, foreign, false)).collect();
    Json(wire::Federations { federations })
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<wire::Federation>, Refusal> {
    let foreign = known(&server, &named(&name)?)?;
    Ok(Json(told(&server, &foreign, true)))
}

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<wire::Federation>, Refusal> {
    relate(&server, read(&body)?, There::No, by).await
}

pub(super) async fn update(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<wire::Federation>, Refusal> {
    let relate_with: wire::Relate = read(&body)?;
    if relate_with.trust_domain != name {
        return Err(malformed("trust_domain: it is another than the path's"));
    }
    relate(&server, relate_with, There::Yes, by).await
}

async fn relate(
    server: &Server,
    asked: wire::Relate,
    there: There,
    by: Actor,
) -> Result<Json<wire::Federation>, Refusal> {
    let wire::Relate { trust_domain, endpoint: wire::Endpoint { url, endpoint_spiffe_id }, bundle } = asked;
    let trust_domain = named(&trust_domain)?;
    let id = endpoint_spiffe_id.map(|id| SpiffeId::parse(&id)).transpose();
    let id = id.map_err(|error| malformed(format!("endpoint_spiffe_id: {error}")))?;
    let bundle = bundle.map(|bundle| document(&trust_domain, &bundle)).transpose()?;
    let ours = (&server.store, &server.config.trust_domain);
    let endpoint = (Endpoint { url, id }, bundle);
    federation::relate(ours, &trust_domain, endpoint, there, (by, server.now())).await?;
    Ok(Json(told(server, &*known(server, &trust_domain)?, true)))
}

pub(super) async fn end(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
) -> Result<Json<wire::Ended>, Refusal> {
    let trust_domain = named(&name)?;
    federation::end(&server.store, &trust_domain, (by, server.now())).await?;
    Ok(Json(wire::Ended { trust_domain: name }))
}

pub(super) async fn refresh(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<wire::Refreshed>, Refusal> {
    let foreign = known(&server, &named(&name)?)?;
    let changed = fetch(&server, &foreign).await?;
    Ok(Json(wire::Refreshed { trust_domain: name, changed }))
}

pub(super) async fn set_bundle(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<wire::Federation>, Refusal> {
    let wire::SetBundle { bundle } = read(&body)?;
    let trust_domain = named(&name)?;
    let bundle = document(&trust_domain, &bundle)?;
    let ours = (&server.store, &server.config.trust_domain);
    federation::set_bundle(ours, &bundle, There::Either, (by, server.now())).await?;
    Ok(Json(told(&server, &*known(&server, &trust_domain)?, true)))
}

#[derive(Deserialize)]
pub(super) struct Removing {
    #[serde(default)]
    entries: wire::Entries,
}

pub(super) async fn remove_bundle(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    Query(Removing { entries }): Query<Removing>,
) -> Result<Json<wire::Ended>, Refusal> {
    let entries = match entries {
        wire::Entries::Refuse => FederatedEntries::Refuse,
        wire::Entries::Remove => FederatedEntries::Remove,
        wire::Entries::Dissociate => FederatedEntries::Dissociate,
    };
    federation::remove_bundle(&server.store, &named(&name)?, entries, (by, server.now())).await?;
    Ok(Json(wire::Ended { trust_domain: name }))
}

fn told(server: &Server, foreign: &Foreign, with_bundle: bool) -> wire::Federation {
    let progress = server.federation.progress(&foreign.trust_domain);
    let name = foreign.trust_domain.to_string();
    let federates = server.entries.all().iter().filter(|entry| entry.federates_with.contains(&name)).count();
    let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    let bundle = foreign.bundle.as_ref();
    wire::Federation {
        endpoint: foreign.endpoint.as_ref().map(|Endpoint { url, id }| wire::Endpoint {
            url: url.clone(),
            endpoint_spiffe_id: id.as_ref().map(SpiffeId::to_string),
        }),
        bundle: bundle
            .filter(|_| with_bundle)
            .and_then(|bundle| serde_json::from_str(&bundle.to_document()).ok()),
        x509_authorities: bundle.map_or(0, |bundle| count(bundle.x509().authorities().count())),
        jwt_authorities: bundle.map_or(0, |bundle| count(bundle.jwt_authorities().len())),
        sequence: foreign.record.sequence,
        changed_at: foreign.record.changed_at,
        fetched_at: progress.fetched_at,
        failure: progress.failure,
        entries: count(federates),
        trust_domain: name,
    }
}

fn named(name: &str) -> Result<TrustDomain, Refusal> {
    TrustDomain::parse(name).map_err(|error| malformed(format!("trust_domain: {error}")))
}

fn known(server: &Server, trust_domain: &TrustDomain) -> Result<Arc<Foreign>, Refusal> {
    let known = server.federation.get(trust_domain.as_str());
    known.ok_or_else(|| FederationError::Unknown(trust_domain.clone()).into())
}

fn document(trust_domain: &TrustDomain, bundle: &Value) -> Result<ForeignBundle, Refusal> {
    let read = ForeignBundle::from_document(trust_domain.clone(), bundle.to_string().as_bytes());
    Ok(read.map_err(FederationError::from)?)
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Malformed, "federation", message)
}
