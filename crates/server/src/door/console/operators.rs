//! Operators who need a certificate, such as for Keylime's tenant: theirs, which there are, and the end of one's.

use std::sync::Arc;

use assay_identity::SpiffeId;
use assay_identity::bundle::pem_certificates;
use assay_wire::console::Because;
use assay_wire::console::operator::{Credentials, Ended, Enroll, Operators};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};

use super::devices::{read, said};
use super::gateways::{held, request};
use crate::actor::Actor;
use crate::audit::Kind as Leaf;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::RevokeGateway;

pub(super) async fn issue(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<Credentials>, Refusal> {
    let Enroll { name, csr } = read(&body)?;
    let operator = operator(&server, &name)?;
    let csr = request(&csr)?;
    let (store, now) = (&server.store, server.now());
    let chain = server.authority.sign_gateway(store, operator.clone(), &csr, TTL_SECONDS, (by, now)).await?;
    Ok(Json(Credentials {
        spiffe_id: operator.to_string(),
        certificate: pem_certificates(&chain.certificates),
        bundle: server.authority.bundle().to_pem(),
        not_after: chain.not_after,
    }))
}

/// Every operator with a certificate that has not ended.
pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Operators>, Refusal> {
    Ok(Json(Operators { operators: held(&server, "operator").await? }))
}

/// Ends what an operator is known by: their certificates go on the revocation list and their connections are dropped.
pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Ended>, Refusal> {
    let Because { reason } = read(&body)?;
    let operator = operator(&server, &name)?;
    let revoke = RevokeGateway {
        spiffe_id: operator.to_string(),
        kind: Leaf::OperatorRevoked,
        reason: said(&reason)?.to_owned(),
        actor: by.name().to_owned(),
        at: server.now(),
    };
    let withdrawn = server.store.commit_and_follow(revoke).await?;
    tracing::warn!(%operator, reason, %by, svids = withdrawn.serials.len(), "operator revoked");
    let certificates = u64::try_from(withdrawn.serials.len()).unwrap_or(u64::MAX);
    Ok(Json(Ended { spiffe_id: operator.to_string(), certificates }))
}

/// An operator's name goes on record with whatever they do.
fn operator(server: &Server, name: &str) -> Result<SpiffeId, Refusal> {
    let malformed = |message: String| Refusal::new(Kind::Malformed, "name", format!("name: {message}"));
    let id = SpiffeId::operator(&server.config.trust_domain, name)
        .map_err(|error| malformed(error.to_string()))?;
    Actor::named(&id).ok_or_else(|| malformed("at most 55 bytes".to_owned()))?;
    Ok(id)
}

/// A month: whoever leaves does not keep it for long, and nobody renews it by themselves.
const TTL_SECONDS: u64 = 30 * 24 * 3600;
