//! `/verify/identity`: whether a quote is that of an agent that is registered. Anybody may ask.

use assay_evidence::HashAlgorithm;
use assay_wire::keylime::{AgentId, Envelope, is_version, read_quote};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::status::{V2, envelope};
use super::{At, peer};
use crate::keylime::{KeylimeAgent, verify_identity};
use crate::outcome::{Kind, Refusal};

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    agent_uuid: String,
    hash_alg: String,
    nonce: String,
    quote: String,
}

pub(super) async fn verify(
    State(at): State<At>,
    Path(version): Path<String>,
    Query(asked): Query<Asked>,
    request: Request,
) -> Result<Response, V2> {
    let malformed = |code, message: &str| Refusal::new(Kind::Malformed, code, message);
    if !is_version(&version) {
        return Err(malformed("version", "API version not supported").into());
    }
    at.doors.rates.spend(&peer(request.extensions()), at.server.now())?;
    let id = AgentId::parse(&asked.agent_uuid)?;
    let bank = HashAlgorithm::from_name(&asked.hash_alg)
        .ok_or_else(|| malformed("hash-alg", "hash_alg is no hash algorithm"))?;
    // A query has spaces where base64 has plus signs that were not escaped.
    let quote = read_quote(&asked.quote.replace(' ', "+"))?;
    let agent = KeylimeAgent::load(&at.server.store, id.as_str()).await?;
    let failures = verify_identity(&agent, &quote, (asked.nonce.as_bytes(), bank))?;
    let results = match failures.first() {
        None => json!({ "valid": 1 }),
        Some(failure) => json!({ "valid": 0, "reason": failure.to_string() }),
    };
    Ok(envelope(&Envelope::success(results)))
}
