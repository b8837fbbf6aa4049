//! Credentials for gateways, on an operator's word.

use std::sync::Arc;

use assay_identity::bundle::pem_certificates;
use assay_identity::{Csr, SpiffeId};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::devices::read;
use crate::clock;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGateway {
    name: String,
    /// PKCS#10, DER in Base64.
    csr: String,
}

pub(super) async fn issue(State(server): State<Arc<Server>>, body: Bytes) -> Result<Json<Value>, Refusal> {
    let NewGateway { name, csr } = read(&body)?;
    let malformed = |what: &'static str, message: String| Refusal::new(Kind::Malformed, what, message);
    let gateway = SpiffeId::gateway(&server.config.trust_domain, &name)
        .map_err(|error| malformed("name", format!("name: {error}")))?;
    let der =
        BASE64.decode(csr.trim().as_bytes()).map_err(|error| malformed("csr", format!("csr: {error}")))?;
    let csr = Csr::parse(&der).map_err(|error| malformed("csr", format!("csr: {error}")))?;
    let ttl = server.config.gateway_svid_ttl_seconds;
    let chain =
        server.authority.sign_gateway(&server.store, gateway.clone(), &csr, ttl, clock::now()).await?;
    Ok(Json(json!({
        "spiffe_id": gateway.as_str(),
        "certificate": pem_certificates(&chain.certificates),
        "bundle": server.authority.bundle().to_pem(),
        "not_after": chain.not_after,
    })))
}
