//! Trust for other programs: who is verified, by which certificate, and the operator's word against a node.
//!
//! The answers are supersets of those that programs know from the protocol of old (`docs/howto/trust-api.md`). Off unless the
//! configuration has `[trust_api]`. Nothing here is a second way to trust: what is told is the trust state, and what is changed
//! is changed as everywhere.

use std::str::FromStr as _;
use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_identity::bundle::pem;
use assay_identity::signed_message::NodeId;
use assay_wire::console::Because;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::{has_token, may_view};
use super::devices::{find, read, said};
use super::message::Heard;
use super::parameters::Asked;
use super::public::{device_counts, list, node_counts, turn};
use crate::actor::Actor;
use crate::config::TrustApi;
use crate::device::Device;
use crate::fate;
use crate::keys::{AkAuthority, ClassicAuthority};
use crate::node::Standing;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::Profile;

/// Which kind of certificate is asked for: `profile=classic` for those of RSA, `profile=ak` for those of attestation keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asking {
    #[serde(default)]
    profile: String,
}

impl Asking {
    fn profile(&self) -> Result<Profile, Refusal> {
        match self.profile.as_str() {
            "" => Ok(Profile::Svid),
            "classic" => Ok(Profile::Classic),
            "ak" => Ok(Profile::Ak),
            _ => Err(Refusal::new(Kind::Malformed, "profile", "profile: classic, ak, or nothing")),
        }
    }
}

fn classic(server: &Server) -> Result<&ClassicAuthority, Refusal> {
    let off =
        || Refusal::new(Kind::NotFound, "no-classic", "classic certificates are off: trust_api.classic");
    server.granting.classic.as_deref().ok_or_else(off)
}

fn ak(server: &Server) -> Result<&AkAuthority, Refusal> {
    let off = || Refusal::new(Kind::NotFound, "no-ak", "certificates of AKs are off: [ak_certificates]");
    server.granting.ak.as_ref().map(|(authority, _)| authority.as_ref()).ok_or_else(off)
}

/// The root for certificates of AKs, PEM: what others are to believe that enrol devices by them.
pub(super) async fn ak_authority(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    let certificate = pem("CERTIFICATE", ak(&server)?.certificate());
    Ok(([(CONTENT_TYPE, "application/x-pem-file")], certificate).into_response())
}

/// What that root has withdrawn, DER.
pub(super) async fn ak_list(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    ak(&server)?;
    Ok(list(server.revocations.ak().unwrap_or_default(), &headers))
}

/// The certificates that verify nodes.
pub(super) async fn authority(
    State(server): State<Arc<Server>>,
    Asked(asking): Asked<Asking>,
) -> Result<Json<Value>, Refusal> {
    switched_on(&server)?;
    let certificate = match asking.profile()? {
        Profile::Svid => server.authority.bundle().to_pem(),
        Profile::Classic => classic(&server)?.bundle().to_pem(),
        Profile::Ak => pem("CERTIFICATE", ak(&server)?.certificate()),
    };
    Ok(Json(json!({ "certificate": certificate, "timestamp": timestamp(server.now()) })))
}

/// What the classic root has withdrawn, DER.
pub(super) async fn classic_list(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    classic(&server)?;
    let current = server.revocations.classic().map(|(current, _)| current).unwrap_or_default();
    Ok(list(current, &headers))
}

/// The newest certificate of a node.
pub(super) async fn certificate(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Asked(asking): Asked<Asking>,
) -> Result<Json<Value>, Refusal> {
    switched_on(&server)?;
    let now = server.now();
    let _turn = turn(&server, &headers).await?;
    let device = node(&server, &headers, &id).await?;
    let profile = asking.profile()?;
    let issuing = match profile {
        Profile::Svid => server.authority.issuing_certificate(),
        Profile::Classic => classic(&server)?.bundle().to_der(),
        Profile::Ak => ak(&server)?.certificate().to_vec(),
    };
    let kept = server.store.node_certificate(device.id.as_str(), profile).await?;
    let none = || Refusal::new(Kind::NotFound, "no-certificate", "no certificate of this node is kept");
    let certificate = kept.ok_or_else(none)?;
    Ok(Json(json!({
        "node_id": device.record.node.map(NodeId::get),
        "certificate": pem("CERTIFICATE", &certificate.certificate),
        "issuing_certificate": pem("CERTIFICATE", &issuing),
        "spiffe_id": device.id.as_str(),
        "serial": certificate.serial,
        "timestamp": timestamp(now),
    })))
}

/// What the status says beside the numbers of the fleet.
pub(super) async fn status(
    server: &Server,
    headers: &HeaderMap,
    heard: bool,
    (after, limit): (Option<u32>, Option<usize>),
) -> Result<Map<String, Value>, Refusal> {
    let Some(api) = &server.config.trust_api else { return Ok(Map::new()) };
    let now = server.now();
    let counts = Counts::of(server, headers, now).await?;
    let mut answer = Map::new();
    let mut say = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    say("node_id", api.node_id.into());
    say("timestamp", timestamp(now).into());
    say("ca_certificate", api.ca_certificate.as_str().into());
    say("total_nodes", counts.total.into());
    say("verified_nodes", counts.verified.into());
    say("revoked_certificates", counts.revoked.into());
    say("revoked", counts.revoked.into());
    if api.dangerous_open_status || heard || may_view(server, headers) {
        let first = match after {
            None => NodeId::new(0),
            Some(after) => after.checked_add(1).and_then(NodeId::new),
        };
        let limit = limit.unwrap_or(NODES_DEFAULT).clamp(1, NODES_MAX);
        let _turn = turn(server, headers).await?;
        let (details, next) = details(server, first, limit, now).await?;
        say("node_details", details.into());
        say("next", next.map_or(Value::Null, |next| next.get().into()));
    }
    Ok(answer)
}

/// Whether a node is verified now; also of one that nobody knows.
pub(super) async fn verify(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    switched_on(&server)?;
    let now = server.now();
    let _turn = turn(&server, &headers).await?;
    let device = match node(&server, &headers, &id).await {
        Ok(device) => device,
        Err(refusal) if refusal.kind == Kind::NotFound => {
            let number = NodeId::from_str(&id).ok().map(NodeId::get);
            return Ok(Json(json!({
                "node_id": number, "verified": false, "timestamp": timestamp(now), "reason": refusal.code(),
            })));
        }
        Err(refusal) => return Err(refusal),
    };
    let standing = standing(&server, device, now).await?;
    Ok(Json(json!({
        "node_id": node_number(&standing),
        "verified": standing.is_verified,
        "timestamp": timestamp(now),
        "status": standing.status.name(),
        "tier": standing.device.state.tier().name(),
        "score": standing.score(now),
    })))
}

/// Ends a node; answered once that is on record and the list that says so is signed.
pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    by: Actor,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    switched_on(&server)?;
    // Programs of old send no body.
    let reason = match body.trim_ascii() {
        [] => REASON_DEFAULT.to_owned(),
        body => said(&read::<Because>(body)?.reason)?.to_owned(),
    };
    let device = node(&server, &headers, &id).await?;
    let now = server.now();
    let device = fate::revoke(&server.store, &device.id, &reason, by, now).await?;
    Ok(Json(json!({
        "node_id": device.record.node.map(NodeId::get), "revoked": true, "timestamp": timestamp(now),
    })))
}

/// What programs of old poll: counts of certificates, and the authority's own.
pub(super) async fn summary(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let api = switched_on(&server)?;
    let now = server.now();
    let Counts { total, verified, revoked } = Counts::of(&server, &headers, now).await?;
    let (hits, misses) = server.messages.hits_and_misses();
    let is_valid = server.lives().iter().take(2).all(|(_, life)| life.until().as_secs() > now.0);
    Ok(Json(json!({
        "node_id": api.node_id,
        "timestamp": timestamp(now),
        "certificates": { "total": total, "verified": verified, "revoked": revoked },
        "ca": { "valid": is_valid, "certificate_path": api.ca_certificate },
        "nodes_verified": verified,
        "crl_size": revoked,
        "cache_hits": hits,
        "cache_misses": misses,
    })))
}

/// What anybody said of themselves was counted here once; what is counted now is what this server did.
pub(super) async fn hearsay(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    switched_on(&server)?;
    let body = json!({
        "status": "error",
        "error": "events are no longer taken in: this server counts what it did itself, see /metrics",
    });
    Ok((StatusCode::GONE, Json(body)).into_response())
}

/// A route that says yes to a signed message, for programs to try theirs on.
pub(super) async fn receive(
    State(server): State<Arc<Server>>,
    axum::Extension(Heard { from, data }): axum::Extension<Heard>,
) -> Result<Json<Value>, Refusal> {
    switched_on(&server)?;
    Ok(Json(json!({ "status": "received", "from_node": from.get(), "data": data })))
}

/// Refusals of these routes as the protocol of old has them: its text as `error`, with our code and sentence beside it.
pub(super) async fn in_its_words(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let Some(refusal) = response.extensions().get::<Refusal>().cloned() else { return response };
    let error = match (refusal.kind, refusal.code()) {
        (_, "no-message") => "Missing authentication headers",
        (_, "certificate") => "Certificate verification failed",
        (Kind::Unauthenticated, "token") => "unauthorized",
        (Kind::Unauthenticated, _) => "Invalid signature",
        (Kind::NotFound, "unknown-node" | "no-certificate") => "Certificate not found",
        (Kind::Fault, _) => "Authentication failed",
        _ => refusal.message.as_str(),
    };
    let body = json!({ "error": error, "reason": refusal.code(), "detail": refusal.message });
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let body = serde_json::to_vec(&body).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

/// The section that switches these routes on.
pub(super) fn switched_on(server: &Server) -> Result<&TrustApi, Refusal> {
    let off = || {
        Refusal::new(Kind::NotFound, "no-route", "the trust API is off: the configuration has no [trust_api]")
    };
    server.config.trust_api.as_ref().ok_or_else(off)
}

/// A device by its number or SPIFFE ID; by its name for operators alone, whose names they are.
async fn node(server: &Server, headers: &HeaderMap, id: &str) -> Result<Device, Refusal> {
    let unknown = || Refusal::new(Kind::NotFound, "unknown-node", format!("there is no node {id:?}"));
    let record = if let Ok(number) = NodeId::from_str(id) {
        server.store.device_of_node(number).await?
    } else if let Ok(id) = SpiffeId::parse(id) {
        server.store.device(id.as_str()).await?
    } else if has_token(server, headers) {
        return find(server, id).await;
    } else {
        None
    };
    Ok(Device::of(record.ok_or_else(unknown)?).map_err(|error| error.0)?)
}

async fn standing(server: &Server, device: Device, now: UnixTime) -> Result<Standing, Refusal> {
    Ok(Standing::load(&server.store, device, now).await.map_err(|error| error.0)?)
}

fn node_number(standing: &Standing) -> Option<u32> {
    standing.device.record.node.map(NodeId::get)
}

/// A page of nodes, and the last number of it if more follow.
async fn details(
    server: &Server,
    first: Option<NodeId>,
    limit: usize,
    now: UnixTime,
) -> Result<(Map<String, Value>, Option<NodeId>), Refusal> {
    let Some(first) = first else { return Ok((Map::new(), None)) };
    let mut page = server.store.nodes_from(first, limit.saturating_add(1)).await?;
    let is_more = page.len() > limit;
    page.truncate(limit);
    let last = page.last().and_then(|node| node.device.node).filter(|_| is_more);
    let mut nodes = Map::new();
    for node in page {
        let standing = Standing::read(node, now).map_err(|error| error.0)?;
        let Some(number) = node_number(&standing) else { continue };
        let certificate = standing.certificate.as_ref();
        let detail = json!({
            "verified": standing.is_verified,
            "expires_at": certificate.map(|certificate| timestamp(certificate.not_after)),
            "serial": certificate.map(|certificate| format!("0x{}", certificate.serial)),
            "status": standing.status.name(),
            "spiffe_id": standing.device.id.as_str(),
            "score": standing.score(now),
        });
        nodes.insert(format!("node-{number}"), detail);
    }
    Ok((nodes, last))
}

/// The fleet in the words of the protocol of old.
struct Counts {
    total: u64,
    verified: u64,
    /// Certificates that are on the revocation list and have not ended.
    revoked: u64,
}

impl Counts {
    async fn of(server: &Server, headers: &HeaderMap, now: UnixTime) -> Result<Counts, Refusal> {
        let counts = device_counts(server, headers).await?;
        let verified = node_counts(server, headers).await?.verified;
        let total = counts.iter().map(|(_, count)| count).sum();
        Ok(Counts { total, verified, revoked: server.revocations.standing(now) })
    }
}

/// Without a zone, with microseconds: as the protocol of old writes UTC.
fn timestamp(at: UnixTime) -> String {
    format!("{}.000000", at.to_string().trim_end_matches('Z'))
}

/// The routes of the protocol of old; of the status, that it has grown out of, refusals are as everywhere.
pub(super) const IN_ITS_WORDS: [&str; 7] = [
    "/trust/ca-certificate",
    "/trust/certificate/",
    "/trust/verify/",
    "/trust/revoke/",
    "/secure/",
    "/event/",
    "/metrics/",
];
const REASON_DEFAULT: &str = "revoked through /trust/revoke, no reason given";
const NODES_DEFAULT: usize = 100;
const NODES_MAX: usize = 1000;
