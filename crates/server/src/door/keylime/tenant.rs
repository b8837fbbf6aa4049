//! What operators ask with Keylime's tenant: which agents there are, how they stand, and what judges them.

use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::public_key::{PublicKey, SignatureScheme};
use assay_trust::Status as TrustStatus;
use assay_wire::keylime::tenant::{Enrolment, Registered, Standing, Status, read_runtime_policy};
use assay_wire::keylime::{AgentId, Envelope, is_version};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::header::HOST;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::operator::Operator;
use super::status::{V2, envelope};
use super::{At, body, peer};
use crate::actor::Actor;
use crate::fate::{self, NewApproval};
use crate::keylime::policy::{self, Parts, keylime_name, policy_name};
use crate::keylime::{KeylimeAgent, KeylimeError};
use crate::outcome::{Kind, Refusal};
use crate::store::{AddKeylimeAgent, KeylimeAgentRecord, RemoveKeylimeAgent, StoreError};

/// Every agent that is registered.
pub(super) async fn registered(
    State(at): State<At>,
    _: Operator,
    Path(version): Path<String>,
) -> Result<Response, V2> {
    spoken(&version)?;
    let ids: Vec<String> = all(&at).await?.into_iter().map(|agent| agent.id).collect();
    Ok(success(json!({ "uuids": ids })))
}

/// What one showed when it registered.
pub(super) async fn registration(
    State(at): State<At>,
    _: Operator,
    Path((version, id)): Path<(String, String)>,
) -> Result<Response, V2> {
    let KeylimeAgent { record, device } = find(&at, &version, &id).await?;
    let told = Registered {
        id: &record.id,
        ek_public: &device.record.ek_public,
        ek_certificate: &device.record.ek_certificate,
        ak_public: &record.ak_public,
        certificate: &record.certificate,
        address: &record.address,
        port: record.port,
        registrations: record.registrations,
    };
    Ok(success(told.told()))
}

/// Takes an agent's name away: it has to register again. Its device stays.
pub(super) async fn unregister(
    State(at): State<At>,
    Operator(by): Operator,
    Path((version, id)): Path<(String, String)>,
) -> Result<Response, V2> {
    let agent = find(&at, &version, &id).await?;
    let remove = RemoveKeylimeAgent { id, at: at.server.now(), by: by.name().to_owned() };
    if !at.server.store.commit(remove).await? {
        return Err(KeylimeError::Unknown.into());
    }
    at.doors.desks.close(&agent.device.id);
    Ok(success(Value::Object(Map::new())))
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    bulk: Option<String>,
}

/// Every agent that was added: their names, or with `bulk` how each stands.
pub(super) async fn added(
    State(at): State<At>,
    _: Operator,
    Path(version): Path<String>,
    Query(Asked { bulk }): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, V2> {
    spoken(&version)?;
    let added = all(&at).await?.into_iter().filter(|agent| agent.added_at.is_some());
    if !bulk.is_some_and(|bulk| bulk.eq_ignore_ascii_case("true")) {
        let ids: Vec<[String; 1]> = added.map(|agent| [agent.id]).collect();
        return Ok(success(json!({ "uuids": ids })));
    }
    let mut told = Map::new();
    for agent in added {
        let agent = KeylimeAgent::load(&at.server.store, &agent.id).await?;
        told.insert(agent.record.id.clone(), standing(&at, &agent, &headers).await?);
    }
    Ok(success(Value::Object(told)))
}

/// How one stands that was added.
pub(super) async fn status(
    State(at): State<At>,
    _: Operator,
    Path((version, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, V2> {
    let agent = find_added(&at, &version, &id).await?;
    Ok(success(standing(&at, &agent, &headers).await?))
}

/// Adds an agent, with what judges it if that is said; else it is judged by the policy that is in force for it.
pub(super) async fn add(
    State(at): State<At>,
    Operator(by): Operator,
    Path((version, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, V2> {
    let agent = find(&at, &version, &id).await?;
    let body = body::read(&at, peer(request.extensions()), request.into_body(), POLICY_BYTES_MAX).await?;
    let enrolment = Enrolment::read(&body)?;
    if agent.record.added_at.is_some() {
        return Err(Refusal::new(
            Kind::Duplicate,
            "added",
            "the agent was added before: update or delete it",
        )
        .into());
    }
    if enrolment.ak_public != agent.record.ak_public {
        let message = "ak_tpm is not the AK that the agent has registered with";
        return Err(Refusal::new(Kind::Malformed, "ak-public", message).into());
    }
    if agent.record.certificate != DISABLED {
        return Err(unsupported("agents that are polled are not served: have it push its evidence").into());
    }
    if enrolment.has_payload {
        return Err(unsupported("an agent that pushes takes no payload").into());
    }
    judge(&at, by, &agent, &enrolment).await?;
    let add = AddKeylimeAgent { id, added: true, at: at.server.now(), by: by.name().to_owned() };
    at.server.store.commit(add).await?;
    Ok(success(Value::Object(Map::new())))
}

/// Has an agent's device judged by what its enrolment says.
async fn judge(at: &At, by: Actor, agent: &KeylimeAgent, enrolment: &Enrolment) -> Result<(), Refusal> {
    let planning = at.server.planning(by, at.server.now());
    let Enrolment { runtime_policy, tpm_policy, mb_policy, .. } = enrolment;
    let parts =
        Parts { runtime: runtime_policy.as_deref(), tpm: tpm_policy.as_deref(), boot: mb_policy.as_deref() };
    if enrolment.mb_policy_name.is_some() && parts.boot.is_none() {
        return Err(unsupported("name a runtime policy, and give what judges the boot with the agent"));
    }
    let name = match (&enrolment.runtime_policy_name, parts.is_empty()) {
        (Some(name), true) => name.clone(),
        (Some(_), false) => {
            return Err(unsupported("a policy with a name has no further parts: put them into one policy"));
        }
        (None, true) => return Ok(()),
        (None, false) => {
            policy::set(planning, &agent.record.id, parts).await?;
            agent.record.id.clone()
        }
    };
    if revision(at, &name).is_none() {
        return Err(unknown_policy(&name));
    }
    Ok(policy::judge_by(planning, &agent.device.id, &name).await?)
}

/// Takes an agent off the list of those that were added. Its device is judged as before; to end it is another thing.
pub(super) async fn delete(
    State(at): State<At>,
    Operator(by): Operator,
    Path((version, id)): Path<(String, String)>,
) -> Result<Response, V2> {
    find_added(&at, &version, &id).await?;
    let delete = AddKeylimeAgent { id, added: false, at: at.server.now(), by: by.name().to_owned() };
    at.server.store.commit(delete).await?;
    Ok(success(Value::Object(Map::new())))
}

/// Lets a device recover that its policy lets recover by an operator's word alone.
pub(super) async fn reactivate(
    State(at): State<At>,
    Operator(by): Operator,
    Path((version, id)): Path<(String, String)>,
) -> Result<Response, V2> {
    let agent = find_added(&at, &version, &id).await?;
    if agent.device.state.status() == TrustStatus::Suspect {
        let last = at.server.store.last_appraisal(agent.device.id.as_str()).await?;
        let result = last.map_or(0, |(result, _)| result);
        let approval = NewApproval { result, files: Vec::new(), boot: Vec::new() };
        fate::approve(at.server.planning(by, at.server.now()), &agent.device.id, &approval).await?;
    }
    Ok(success(Value::Object(Map::new())))
}

/// The runtime policies that have a name.
pub(super) async fn policies(
    State(at): State<At>,
    _: Operator,
    Path(version): Path<String>,
) -> Result<Response, V2> {
    spoken(&version)?;
    let current = at.server.policies.current();
    let names = current.plan.assignments().iter().filter_map(|one| keylime_name(&one.name));
    let names: Vec<&str> = names.collect();
    Ok(success(json!({ "runtimepolicy names": names })))
}

/// One of them, as it is in force: a policy of ours.
pub(super) async fn policy(
    State(at): State<At>,
    _: Operator,
    Path((version, name)): Path<(String, String)>,
) -> Result<Response, V2> {
    spoken(&version)?;
    let revision = revision(&at, &name).ok_or_else(|| unknown_policy(&name))?;
    let record = at.server.store.policy(revision).await?;
    let text: &str = &record.text;
    Ok(success(json!({ "name": name, "tpm_policy": null, "runtime_policy": text })))
}

/// Puts one in force for whoever is added with its name.
pub(super) async fn set_policy(
    State(at): State<At>,
    Operator(by): Operator,
    Path((version, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, V2> {
    spoken(&version)?;
    let is_new = request.method() == Method::POST;
    match (revision(&at, &name), is_new) {
        (Some(_), true) => {
            let message = format!("a runtime policy is called {name}");
            return Err(Refusal::new(Kind::Duplicate, "policy-exists", message).into());
        }
        (None, false) => return Err(unknown_policy(&name).into()),
        _ => {}
    }
    let body = body::read(&at, peer(request.extensions()), request.into_body(), POLICY_BYTES_MAX).await?;
    let policy = read_runtime_policy(&body)?;
    let parts = Parts { runtime: Some(&policy), ..Parts::default() };
    policy::set(at.server.planning(by, at.server.now()), &name, parts).await?;
    Ok(envelope(&Envelope { code: 201, ..Envelope::success(Value::Object(Map::new())) }))
}

/// Takes one back.
pub(super) async fn unset_policy(
    State(at): State<At>,
    Operator(by): Operator,
    Path((version, name)): Path<(String, String)>,
) -> Result<Response, V2> {
    spoken(&version)?;
    revision(&at, &name).ok_or_else(|| unknown_policy(&name))?;
    policy::unset(at.server.planning(by, at.server.now()), &name).await?;
    Ok(envelope(&Envelope { code: 204, ..Envelope::success(Value::Object(Map::new())) }))
}

/// What of a policy with this name is in force.
fn revision(at: &At, name: &str) -> Option<u64> {
    let current = at.server.policies.current();
    let named = policy_name(name);
    current.plan.assignments().iter().find(|one| one.name == named).map(|one| one.revision)
}

/// How an agent stands, as a verifier of Keylime's would say it.
async fn standing(at: &At, agent: &KeylimeAgent, headers: &HeaderMap) -> Result<Value, Refusal> {
    let (state, server) = (&agent.device.state, &at.server);
    let last = server.store.last_appraisal(agent.device.id.as_str()).await?;
    let findings: Vec<Finding> =
        last.map(|(_, last)| serde_json::from_str(&last.findings).unwrap_or_default()).unwrap_or_default();
    let standing = match state.status_at(server.now()) {
        TrustStatus::Trusted => Standing::Pass,
        TrustStatus::Pending | TrustStatus::Enrolled => Standing::Pending,
        TrustStatus::Expired => Standing::Timeout,
        TrustStatus::Suspect | TrustStatus::Revoked => Standing::Fail,
    };
    let is_bad = standing == Standing::Fail;
    let ak = PublicArea::parse_tpm2b(&agent.record.ak_public)
        .map_err(|_| StoreError::Corrupt { column: "keylime_agents.ak_public" })?;
    let policy = server.policies.of(&agent.device).compiled;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let told = Status {
        standing,
        contact: None,
        judged: (policy.is_some(), policy.is_some()),
        algorithms: algorithms(&ak),
        verifier: reached(host, at.settings().verifier.port()),
        event: findings.first().filter(|_| is_bad).map(|finding| finding.check.as_str()),
        evidence_at: state.evidence_at(),
        interval_seconds: at.interval_seconds(),
    };
    Ok(told.told())
}

#[derive(Debug, Deserialize)]
struct Finding {
    check: String,
}

/// Where a tenant reaches this door, by its own word: it comes there again.
fn reached(host: &str, port: u16) -> (&str, u16) {
    match host.rsplit_once(':') {
        Some((name, of_host)) if !of_host.ends_with(']') => {
            (name.trim_matches(['[', ']']), of_host.parse().unwrap_or(port))
        }
        _ => (host, port),
    }
}

/// Hash, key and signature of an AK in Keylime's words.
fn algorithms(ak: &PublicArea) -> (&'static str, &'static str, &'static str) {
    let key = match ak.key() {
        PublicKey::Rsa { .. } => "rsa",
        PublicKey::EcP256 { .. } | PublicKey::EcP384 { .. } => "ecc",
    };
    let Some(algorithm) = ak.scheme() else { return ("", key, "") };
    let sign = match algorithm.scheme {
        SignatureScheme::RsaSsa => "rsassa",
        SignatureScheme::RsaPss => "rsapss",
        SignatureScheme::EcDsa => "ecdsa",
    };
    (algorithm.hash.name(), key, sign)
}

async fn all(at: &At) -> Result<Vec<KeylimeAgentRecord>, Refusal> {
    let mut agents: Vec<KeylimeAgentRecord> = Vec::new();
    loop {
        let after = agents.last().map(|agent| agent.id.clone()).unwrap_or_default();
        let page = at.server.store.keylime_agents(&after, PAGE).await?;
        let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        agents.extend(page);
        if is_last {
            return Ok(agents);
        }
    }
}

async fn find(at: &At, version: &str, id: &str) -> Result<KeylimeAgent, Refusal> {
    spoken(version)?;
    Ok(KeylimeAgent::load(&at.server.store, AgentId::parse(id)?.as_str()).await?)
}

async fn find_added(at: &At, version: &str, id: &str) -> Result<KeylimeAgent, Refusal> {
    let agent = find(at, version, id).await?;
    match agent.record.added_at {
        Some(_) => Ok(agent),
        None => Err(Refusal::new(Kind::NotFound, "not-added", "agent id not found")),
    }
}

fn spoken(version: &str) -> Result<(), Refusal> {
    match is_version(version) {
        true => Ok(()),
        false => {
            let message = format!("API version not supported: {version}");
            Err(Refusal::new(Kind::Malformed, "version", message))
        }
    }
}

fn unsupported(message: &str) -> Refusal {
    Refusal::new(Kind::Malformed, "unsupported", message)
}

fn unknown_policy(name: &str) -> Refusal {
    Refusal::new(Kind::NotFound, "unknown-policy", format!("no runtime policy is called {name}"))
}

fn success(results: Value) -> Response {
    envelope(&Envelope::success(results))
}

/// What an agent says that is not polled.
const DISABLED: &str = "disabled";
/// The longest policy, in base64 and JSON.
const POLICY_BYTES_MAX: usize = 32 << 20;
const PAGE: u32 = 1000;
