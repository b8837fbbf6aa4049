//! Gateways, on an operator's word: their credentials, which there are, and the end of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_identity::bundle::pem_certificates;
use assay_identity::{Csr, SpiffeId};
use assay_wire::console::Because;
use assay_wire::console::gateway::{Credentials, Ended, Enroll, Gateway, Gateways};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use data_encoding::BASE64;

use super::devices::{read, said};
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
    let gateway = SpiffeId::gateway(&server.config.trust_domain, &name)
        .map_err(|error| Refusal::new(Kind::Malformed, "name", format!("name: {error}")))?;
    let csr = request(&csr)?;
    let ttl = server.config.gateway_svid_ttl_seconds;
    let chain =
        server.authority.sign_gateway(&server.store, gateway.clone(), &csr, ttl, (by, server.now())).await?;
    Ok(Json(Credentials {
        spiffe_id: gateway.to_string(),
        certificate: pem_certificates(&chain.certificates),
        bundle: server.authority.bundle().to_pem(),
        not_after: chain.not_after,
    }))
}

/// A certificate request, DER in Base64.
pub(super) fn request(csr: &str) -> Result<Csr, Refusal> {
    let malformed = |error: String| Refusal::new(Kind::Malformed, "csr", format!("csr: {error}"));
    let der = BASE64.decode(csr.trim().as_bytes()).map_err(|error| malformed(error.to_string()))?;
    Csr::parse(&der).map_err(|error| malformed(error.to_string()))
}

/// Every gateway with a certificate that has not ended.
pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Gateways>, Refusal> {
    Ok(Json(Gateways { gateways: held(&server, "gateway").await? }))
}

/// Everybody of a kind, by name, as their newest certificates tell.
pub(super) async fn held(server: &Server, kind: &str) -> Result<Vec<Gateway>, Refusal> {
    let path = format!("{}/assay/{kind}/", server.config.trust_domain.id());
    let svids = server.store.svids_under(&path, server.now(), SVIDS_SHOWN_MAX).await?;
    let mut gateways: BTreeMap<String, Gateway> = BTreeMap::new();
    // Newest first: each is what the last certificate is.
    for svid in svids {
        let name = svid.spiffe_id.strip_prefix(&path).unwrap_or(&svid.spiffe_id).to_owned();
        gateways.entry(name).or_insert_with_key(|name| Gateway {
            name: name.clone(),
            spiffe_id: svid.spiffe_id,
            status: if svid.withdrawn_at.is_some() { "revoked" } else { "standing" }.to_owned(),
            serial: svid.serial,
            issued_at: svid.issued_at,
            not_after: svid.not_after,
            revoked_at: svid.withdrawn_at,
        });
    }
    Ok(gateways.into_values().collect())
}

/// Ends a gateway: its certificates go on the revocation list and its connections are dropped.
pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Ended>, Refusal> {
    let Because { reason } = read(&body)?;
    let reason = said(&reason)?;
    let gateway = SpiffeId::gateway(&server.config.trust_domain, &name)
        .map_err(|error| Refusal::new(Kind::Malformed, "name", format!("name: {error}")))?;
    let revoke = RevokeGateway {
        spiffe_id: gateway.to_string(),
        kind: Leaf::GatewayRevoked,
        reason: reason.to_owned(),
        actor: by.name().to_owned(),
        at: server.now(),
    };
    let withdrawn = server.store.commit_and_follow(revoke).await?;
    tracing::warn!(%gateway, reason, %by, svids = withdrawn.serials.len(), "gateway revoked");
    let certificates = u64::try_from(withdrawn.serials.len()).unwrap_or(u64::MAX);
    Ok(Json(Ended { spiffe_id: gateway.to_string(), certificates }))
}

/// A gateway has a few at a time.
const SVIDS_SHOWN_MAX: u32 = 10_000;
