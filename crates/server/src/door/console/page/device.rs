//! One device: why it stands as it does, and what to do about it.

use std::sync::Arc;

use askama::Template;
use assay_evidence::time::UnixTime;
use assay_trust::policy::Acceptable;
use assay_wire::console::device::{Change, Device as Told, Endorsement, Explanation, Finding};
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::devices::{hash, labels};
use super::{Frame, moment, mood, render, wants_json, word};
use crate::access::session::Session;
use crate::device::Device;
use crate::door::console::access::Confirmed;
use crate::door::console::devices::{explained, find, said, sentence};
use crate::door::console::parameters::Asked;
use crate::fate::{self, AcceptedFile, IMA_POLICY, NewApproval};
use crate::label::{self, NewLabels};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::{Principal, Role};

#[derive(Template)]
#[template(path = "device.html")]
struct Page {
    frame: Frame,
    told: Told,
    hash: String,
    sentence: String,
    since: String,
    evidence: String,
    has_evidence: bool,
    policy: String,
    labels: String,
    enrolled: String,
    is_fallen: bool,
    is_revoked: bool,
    findings: Vec<Finding>,
    /// How many findings are not shown.
    more: usize,
    cure: Option<Cure>,
    changes: Vec<Change>,
    events: Vec<EventRow>,
    grants: Vec<GrantRow>,
    secrets: Vec<SecretRow>,
    endorsement: Endorsement,
    /// What the last form of this page did.
    done: Option<&'static str>,
    may_operate: bool,
    may_label: bool,
    word: String,
}

/// What would accept a device as it is.
struct Cure {
    result: u64,
    files: usize,
    boot: usize,
    sentence: String,
}

struct EventRow {
    at: String,
    kind: String,
    actor: String,
    detail: String,
    leaf: u64,
    mood: &'static str,
}

struct GrantRow {
    what: String,
    serial: String,
    since: String,
    until: String,
    withdrawn: String,
}

struct SecretRow {
    name: String,
    version: u64,
    released_at: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::door::console) struct After {
    done: String,
}

pub(in crate::door::console) const PARAMETERS: &[&str] = &["done"];

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    session: Option<Extension<Session>>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Asked(After { done }): Asked<After>,
) -> Result<Response, Refusal> {
    let device = find(&server, &name).await?;
    let explanation = explained(&server, &device).await?;
    if wants_json(&headers) {
        return Ok(Json(explanation).into_response());
    }
    let now = server.now();
    let secrets = server.store.secrets_of_device(device.id.as_str()).await?;
    let secrets = secrets.into_iter().map(|secret| SecretRow {
        released_at: moment(secret.released_at, now),
        name: secret.name,
        version: secret.version,
    });
    let page = Page {
        done: DONE.iter().find(|(word, _)| *word == done).map(|(_, sentence)| *sentence),
        word: word(session.as_deref()),
        secrets: secrets.collect(),
        ..Page::of(&server, &principal, explanation, now)
    };
    Ok(Html(render(&page)?).into_response())
}

impl Page {
    fn of(server: &Server, principal: &Principal, explanation: Explanation, now: UnixTime) -> Page {
        let Explanation { device: told, endorsement, result, mut findings, grants, events, changes } =
            explanation;
        let is_fallen = told.status == "suspect";
        let at =
            |at: Option<UnixTime>, never: &str| at.map_or_else(|| never.to_owned(), |at| moment(at, now));
        let cure = result.filter(|_| is_fallen).and_then(|result| Cure::of(result, &findings));
        let more = findings.len().saturating_sub(FINDINGS_SHOWN_MAX);
        findings.truncate(FINDINGS_SHOWN_MAX);
        let may_operate = principal.role.covers(Role::Operator);
        Page {
            frame: Frame::of(server, principal, "/devices"),
            hash: hash(&told.id),
            sentence: standing(&told),
            since: at(told.since, "never"),
            evidence: at(told.evidence_at, "never"),
            has_evidence: result.is_some(),
            policy: policy(&told),
            labels: labels(&told),
            enrolled: at(told.enrolled_at, "not yet"),
            is_revoked: told.status == "revoked",
            is_fallen,
            findings,
            more,
            cure: cure.filter(|_| principal.scope.is_empty()),
            changes: changes.unwrap_or_default(),
            events: events.into_iter().map(|event| event_row(event, now)).collect(),
            grants: grants.into_iter().map(|grant| grant_row(grant, now)).collect(),
            secrets: Vec::new(),
            endorsement,
            done: None,
            may_label: may_operate && principal.scope.is_empty(),
            may_operate,
            word: String::new(),
            told,
        }
    }
}

/// Why it stands as it does, as a sentence.
fn standing(told: &Told) -> String {
    let why = if told.reason.is_empty() { told.status.clone() } else { told.reason.clone() };
    let waits = told.awaiting_approval.then(|| "it rises only once an operator approves".to_owned());
    [Some(why), waits, told.clock.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Which policy judged it, and which would now.
fn policy(told: &Told) -> String {
    match (&told.policy, &told.policy_in_force) {
        (Some(judged), Some(now)) if judged != now => format!("{judged}; {now} is in force now"),
        (Some(judged), _) => judged.clone(),
        (None, Some(now)) => format!("{now}, not judged by it yet"),
        (None, None) => "none is in force for it: nothing of it is trusted".to_owned(),
    }
}

fn event_row(event: assay_wire::console::device::Event, now: UnixTime) -> EventRow {
    EventRow {
        at: moment(event.at, now),
        mood: mood(&event.kind, &event.event),
        kind: event.kind.strip_prefix("device.").unwrap_or(&event.kind).to_owned(),
        actor: event.actor,
        detail: if event.detail.is_empty() { sentence(&event.event) } else { event.detail },
        leaf: event.leaf,
    }
}

fn grant_row(grant: assay_wire::console::device::Grant, now: UnixTime) -> GrantRow {
    GrantRow {
        what: grant.spiffe_id,
        serial: grant.serial,
        since: moment(grant.issued_at, now),
        until: moment(grant.not_after, now),
        withdrawn: grant.withdrawn_at.map(|at| moment(at, now)).unwrap_or_default(),
    }
}

impl Cure {
    /// `None`: no policy could list what was refused.
    fn of(result: u64, findings: &[Finding]) -> Option<Cure> {
        let files = refused_files(findings).count();
        let boot = acceptable(findings).len();
        let sentence = match (files, boot) {
            (0, 0) => return None,
            (_, 0) => {
                "The policy would list these files as they were measured, for every device that it judges."
            }
            (0, _) => "The policy would list this boot as it was measured, for every device that it judges.",
            _ => "The policy would list what was measured, for every device that it judges.",
        };
        Some(Cure { result, files, boot, sentence: sentence.to_owned() })
    }
}

fn refused_files(findings: &[Finding]) -> impl Iterator<Item = AcceptedFile> {
    let refused = findings.iter().filter(|finding| finding.check == IMA_POLICY);
    refused.map(|finding| AcceptedFile { path: finding.claim.clone(), digest: finding.found.clone() })
}

/// What findings offer of the boot, each once.
fn acceptable(findings: &[Finding]) -> Vec<&Value> {
    let mut rules = Vec::new();
    for accept in findings.iter().filter_map(|finding| finding.accept.as_ref()) {
        if !rules.contains(&accept) {
            rules.push(accept);
        }
    }
    rules
}

pub(in crate::door::console) async fn revoke(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, fields, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    let reason = said(fields.get("reason").map_or("", String::as_str))?.to_owned();
    let device = find(&server, &name).await?;
    fate::revoke(&server.store, &device.id, &reason, principal.actor, server.now()).await?;
    Ok(back(&device, "revoked"))
}

pub(in crate::door::console) async fn readmit(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    let device = find(&server, &name).await?;
    fate::readmit(&server.store, &device.id, principal.actor, server.now()).await?;
    Ok(back(&device, "readmitted"))
}

/// What the page showed, and nothing that came after it.
pub(in crate::door::console) async fn approve(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, fields, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    let device = find(&server, &name).await?;
    let malformed = |message: &str| Refusal::new(Kind::Malformed, "form", message);
    let result = fields.get("result").and_then(|text| text.parse().ok());
    let result: u64 = result.ok_or_else(|| malformed("result: a number of the trail"))?;
    let shown = explained(&server, &device).await?;
    if shown.result != Some(result) {
        let message = "another result came in between: look at what it found";
        return Err(Refusal::new(Kind::Overtaken, "other-result", message));
    }
    let rules = match fields.get("what").map(String::as_str) {
        Some("files") => Vec::new(),
        Some("boot") => acceptable(&shown.findings),
        _ => return Err(malformed("what: files or boot")),
    };
    let rules = rules
        .into_iter()
        .map(|rule| Acceptable::deserialize(rule).map_err(|error| malformed(&error.to_string())));
    let approval = NewApproval {
        result,
        files: refused_files(&shown.findings).collect(),
        boot: rules.collect::<Result<_, _>>()?,
    };
    fate::approve(server.planning(principal.actor, server.now()), &device.id, &approval).await?;
    Ok(back(&device, "approved"))
}

/// As the field says they are to be: what is not in it is taken away.
pub(in crate::door::console) async fn relabel(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, fields, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    let device = find(&server, &name).await?;
    let wanted: assay_trust::labels::Labels =
        fields.get("labels").map_or("", String::as_str).parse().map_err(
            |error: assay_trust::labels::LabelError| {
                Refusal::new(Kind::Malformed, "labels", error.to_string())
            },
        )?;
    let set = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let gone = device.labels.iter().filter(|(key, _)| !wanted.iter().any(|(wanted, _)| wanted == *key));
    let labels = NewLabels { set, remove: gone.map(|(key, _)| key.to_owned()).collect(), force: false };
    label::label(server.planning(principal.actor, server.now()), &device.id, &labels).await?;
    Ok(back(&device, "labelled"))
}

fn back(device: &Device, done: &str) -> Redirect {
    Redirect::to(&format!("/devices/{}?done={done}", device.id.device_hex().unwrap_or_default()))
}

const DONE: [(&str, &str); 4] = [
    ("revoked", "Revoked: what it held is withdrawn and on the list."),
    ("readmitted", "Readmitted: it may enroll again."),
    ("approved", "Approved: it is trusted with its next good evidence."),
    ("labelled", "Its labels are set."),
];
const FINDINGS_SHOWN_MAX: usize = 100;
