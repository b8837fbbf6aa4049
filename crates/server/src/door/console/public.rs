//! What anyone may fetch: health, metrics, revocation list, bundle, keys, and who is trusted right now.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_identity::SpiffeId;
use assay_trust::labels::Selector;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::access::has_token;
use super::devices::find;
use super::parameters::Asked;
use super::{message, trust};
use crate::concern::Concern;
use crate::fate::{self, FateError};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::{NodeCounts, StoreError};

/// Whether all is well; what is not, in sentences for who shows the token.
pub(super) async fn health(State(server): State<Arc<Server>>, headers: HeaderMap) -> Json<Value> {
    let concerns = server.concerns.current();
    let status = if concerns.is_empty() { "ok" } else { "degraded" };
    let codes: BTreeSet<_> = concerns.iter().map(Concern::code).collect();
    let mut health = json!({ "status": status, "version": env!("CARGO_PKG_VERSION"), "concerns": codes });
    if has_token(&server, &headers) {
        health["sentences"] = concerns.iter().map(Concern::to_string).collect();
    }
    Json(health)
}

/// Whoever asks again and again is sent it only once it is another.
pub(super) async fn crl(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    list(server.revocations.current(), &headers)
}

/// A list, to whoever has not got it.
pub(super) fn list(current: Bytes, headers: &HeaderMap) -> Response {
    // How its signature ends tells it from every other.
    let end = current.get(current.len().saturating_sub(TAG_BYTES)..).unwrap_or_default();
    let tag = format!("\"{}\"", HEXLOWER.encode(end));
    let has_it = headers.get(IF_NONE_MATCH).is_some_and(|had| had.as_bytes() == tag.as_bytes());
    let tag = [(ETAG, tag)];
    match has_it {
        true => (StatusCode::NOT_MODIFIED, tag).into_response(),
        false => (tag, [(CONTENT_TYPE, "application/pkix-crl")], current).into_response(),
    }
}

pub(super) async fn bundle(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-pem-file")], server.authority.bundle().to_pem())
}

/// What verifies the attestation results that are signed here.
pub(super) async fn jwks(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/jwk-set+json")], server.result_key.jwks().to_string())
}

/// The trust domain's bundle for those of others (SPIFFE Federation 5): who is shown by TLS is one of its servers, so that the
/// profile is `https_spiffe`.
pub(super) async fn spiffe_bundle(State(server): State<Arc<Server>>) -> Json<Value> {
    // The list's number goes up at least as often as the bundle changes.
    let document = server.authority.bundle().to_jwks(server.revocations.number(), BUNDLE_REFRESH_SECONDS);
    let mut document: Value = serde_json::from_str(&document).unwrap_or_default();
    let tokens: Value = serde_json::from_str(&server.granting.jwt_key.jwks()).unwrap_or_default();
    if let (Some(Value::Array(keys)), Some(Value::Array(more))) =
        (document.get_mut("keys"), tokens.get("keys"))
    {
        keys.extend(more.iter().cloned());
    }
    Json(document)
}

/// Where verifiers of tokens that know no SPIFFE find the keys.
pub(super) async fn openid_configuration(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    let (issuer, _) = server.granting.jwt_key.oidc().ok_or_else(no_issuer)?;
    Ok(Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/keys"),
        // There is nobody to log in, and the specification wants to be told where.
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })))
}

/// The keys.
pub(super) async fn openid_keys(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    server.granting.jwt_key.oidc().map(|(_, keys)| Json(keys)).ok_or_else(no_issuer)
}

fn no_issuer() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "no-issuer",
        "tokens bear no issuer: jwt_issuer of the server's configuration gives one",
    )
}

/// How many leaves the ledger has and the last one's hash, as a signed note: for whoever remembers it, so that the ledger
/// cannot be made anew behind their back.
pub(super) async fn ledger_head(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], server.ledger_head.note())
}

/// What verifies it.
pub(super) async fn ledger_key(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{}\n", server.ledger_head.verifier()))
}

/// Size and root of the ledger as a Merkle tree, as C2SP tlog-checkpoint has it.
pub(super) async fn ledger_checkpoint(State(server): State<Arc<Server>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], server.ledger_head.tree().note())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    id: Option<String>,
    /// Details of nodes above this number.
    after: Option<u32>,
    limit: Option<usize>,
}

/// The fleet in numbers, or one identity: a device by its state, a workload by the device that carries it.
pub(super) async fn trust_status(
    State(server): State<Arc<Server>>,
    Asked(about): Asked<About>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let headers = request.headers().clone();
    match about.id {
        Some(id) => {
            let _turn = turn(&server, &headers).await?;
            identity_status(&server, &headers, &id).await.map(Json)
        }
        None => {
            let is_signed = server.config.trust_api.is_some() && message::is_signed(&headers);
            if is_signed {
                message::hear_request(&server, request).await?;
            }
            let mut status = fleet_status(&server, &headers).await?;
            let page = (about.after, about.limit);
            status.extend(trust::status(&server, &headers, is_signed, page).await?);
            Ok(Json(Value::Object(status)))
        }
    }
}

/// Leave for the public to read the database: one at a time, so that the other readers are the fleet's and the operator's.
pub(super) async fn turn(
    server: &Server,
    headers: &HeaderMap,
) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
    if has_token(server, headers) {
        return Ok(None);
    }
    let waiting = timeout(TURN_WITHIN, server.public.turns.clone().acquire_owned()).await;
    let busy = || Refusal::new(Kind::Exhausted, "busy", "too many ask at once, try again in a moment");
    waiting.ok().and_then(Result::ok).map(Some).ok_or_else(busy)
}

/// How many devices there are of each status; for the public as they were counted last.
pub(super) async fn device_counts(server: &Server, headers: &HeaderMap) -> Result<Counts, Refusal> {
    lately(server, headers, &server.public.devices, server.store.device_counts()).await
}

/// How many nodes there are, and are verified; likewise.
pub(super) async fn node_counts(server: &Server, headers: &HeaderMap) -> Result<NodeCounts, Refusal> {
    lately(server, headers, &server.public.nodes, server.store.node_counts(server.now())).await
}

async fn lately<T: Clone>(
    server: &Server,
    headers: &HeaderMap,
    memory: &Lately<T>,
    count: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Refusal> {
    if let Some(counts) = memory.counted().filter(|_| !has_token(server, headers)) {
        return Ok(counts);
    }
    let turn = turn(server, headers).await?;
    // Whoever had the turn before has counted.
    if let Some(counts) = memory.counted().filter(|_| turn.is_some()) {
        return Ok(counts);
    }
    let counts = count.await?;
    memory.keep(counts.clone());
    Ok(counts)
}

/// How many devices there are of each status.
pub(super) type Counts = Vec<(String, u64)>;

/// What the public takes of the server, and gets from memory.
#[derive(Debug)]
pub(crate) struct Public {
    turns: Arc<Semaphore>,
    devices: Lately<Counts>,
    nodes: Lately<NodeCounts>,
}

impl Default for Public {
    fn default() -> Self {
        Public { turns: Arc::new(Semaphore::new(1)), devices: Lately::default(), nodes: Lately::default() }
    }
}

/// What was counted last, and when.
#[derive(Debug)]
struct Lately<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Lately(Mutex::new(None))
    }
}

impl<T: Clone> Lately<T> {
    fn counted(&self) -> Option<T> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.as_ref().filter(|(at, _)| at.elapsed() < COUNTS_FOR).map(|(_, counts)| counts.clone())
    }

    fn keep(&self, counts: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), counts));
    }
}

async fn fleet_status(server: &Server, headers: &HeaderMap) -> Result<Map<String, Value>, Refusal> {
    let counts: Map<String, Value> = device_counts(server, headers)
        .await?
        .into_iter()
        .map(|(status, count)| (status, count.into()))
        .collect();
    let in_force = server.policies.current();
    let policy = in_force.plan.assigned(&Selector::default()).ok();
    let policy = policy.map(|assigned| in_force.citation(assigned.revision));
    Ok(Map::from_iter([
        ("trust_domain".to_owned(), server.config.trust_domain.as_str().into()),
        ("devices".to_owned(), counts.into()),
        ("attached".to_owned(), server.registry.attached().into()),
        ("policy".to_owned(), policy.into()),
    ]))
}

async fn identity_status(server: &Server, headers: &HeaderMap, text: &str) -> Result<Value, Refusal> {
    let id = match SpiffeId::parse(text) {
        Ok(id) => id,
        // Names are the operator's, and nobody else's to try.
        Err(_) if has_token(server, headers) => find(server, text).await?.id,
        Err(_) => return Err(Refusal::new(Kind::Malformed, "spiffe-id", "id: not a SPIFFE ID")),
    };
    let now = server.now();
    let carrier = match id.device_hex() {
        Some(_) => Some(id.to_string()),
        None => server.store.carrier_of(id.as_str(), now).await?,
    };
    let unknown = || Refusal::new(Kind::NotFound, "unknown-id", "nothing of this id was ever issued");
    let device = carrier.and_then(|carrier| SpiffeId::parse(&carrier).ok()).ok_or_else(unknown)?;
    let device = fate::enrolled(&server.store, &device).await.map_err(|error| match error {
        FateError::Unknown => unknown(),
        error => error.into(),
    })?;
    Ok(json!({
        "id": id.as_str(),
        "device": device.id.as_str(),
        "status": device.state.status_at(now).name(),
        "tier": device.state.tier().name(),
        "valid_until": device.state.valid_until(),
    }))
}

/// How often others fetch the bundle: SPIFFE's own default.
const BUNDLE_REFRESH_SECONDS: u64 = 300;
/// Of a list's tag.
const TAG_BYTES: usize = 16;
/// How long anyone waits for their turn.
const TURN_WITHIN: Duration = Duration::from_secs(2);
/// How old the numbers may be that the public gets.
const COUNTS_FOR: Duration = Duration::from_secs(1);
