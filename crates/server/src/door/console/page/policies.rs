//! Policies: who is judged by what, what the next version would change, and what keeps a roll-out from its end.

use std::sync::Arc;

use askama::Template;
use assay_trust::policy::{Policy, diff};
use assay_wire::console::policy::{Assignment, Fall};
use assay_wire::console::trial::Covered;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use http::HeaderMap;
use serde::Deserialize;

use super::devices::hash;
use super::{Frame, moment, render, wants_json, word};
use crate::access::session::Session;
use crate::door::console::access::Confirmed;
use crate::door::console::parameters::Asked;
use crate::door::console::policies::{percent_of, plan, rollout};
use crate::door::console::policy::{shown, version_of};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::{Principal, Role};
use crate::store::PolicyRecord;

#[derive(Template)]
#[template(path = "policies.html")]
struct Policies {
    frame: Frame,
    rows: Vec<Row>,
    without: u64,
}

struct Row {
    whom: String,
    name: String,
    version: String,
    devices: u64,
    trusted: u64,
    rollout: String,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct One {
    frame: Frame,
    name: String,
    version: u64,
    set: String,
    digest: String,
    signed: bool,
    coverage: Vec<Covered>,
    /// Against the version before it.
    changes: Changes,
    before: u64,
    rollout: Option<RolloutRow>,
    text: Option<String>,
    may_author: bool,
    done: Option<&'static str>,
    word: String,
}

/// What a version changes for devices.
enum Changes {
    /// There is no version before it on record.
    First,
    /// Too much to compare for a page.
    Long,
    /// What, its effect, and the value.
    Are(Vec<(String, String, String)>),
}

struct RolloutRow {
    percent: u64,
    devices: u64,
    all: u64,
    new_version: String,
    would_fall: Vec<FallRow>,
    more: usize,
}

struct FallRow {
    hash: String,
    name: String,
    reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::door::console) struct Which {
    version: Option<u64>,
    done: String,
}

pub(in crate::door::console) const PARAMETERS: &[&str] = &["version", "done"];

pub(in crate::door::console) async fn list(
    State(server): State<Arc<Server>>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let plan = plan(&server).await?;
    if wants_json(&headers) {
        return Ok(Json(plan).into_response());
    }
    let rows = plan.assignments.into_iter().map(row).collect();
    let frame = Frame::of(&server, &principal, "/policies");
    Ok(Html(render(&Policies { frame, rows, without: plan.devices_without_policy })?).into_response())
}

fn row(assigned: Assignment) -> Row {
    let number =
        |version: Option<u64>| version.map_or_else(|| "none".to_owned(), |version| format!("v{version}"));
    let rollout = assigned.rollout.as_ref().map(|rollout| {
        format!("to {}: {} of {} devices", number(rollout.new_version), rollout.devices, assigned.devices)
    });
    Row {
        whom: if assigned.selector.is_empty() { "every device".to_owned() } else { assigned.selector },
        name: assigned.name,
        version: match assigned.in_force {
            true => number(assigned.version),
            false => "not in force: nobody signed it who may".to_owned(),
        },
        devices: assigned.devices,
        trusted: assigned.trusted,
        rollout: rollout.unwrap_or_default(),
    }
}

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    session: Option<Extension<Session>>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Asked(Which { version, done }): Asked<Which>,
) -> Result<Response, Refusal> {
    let record = version_of(&server, &name, version).await?;
    if wants_json(&headers) {
        return Ok(Json(shown(Some(record))).into_response());
    }
    let is_rolled_out =
        plan(&server).await?.assignments.iter().any(|one| one.name == name && one.rollout.is_some());
    let rollout = if is_rolled_out { rollout_row(rollout(&server, &name).await?) } else { None };
    let before = record.version.saturating_sub(1);
    let one = One {
        frame: Frame::of(&server, &principal, "/policies"),
        changes: changes(&server, &record, before).await?,
        set: format!("{} by {}", moment(record.set_at, server.now()), record.set_by),
        signed: record.envelope.is_some(),
        text: Some(record.text.to_string()).filter(|text| text.len() <= TEXT_BYTES_SHOWN),
        coverage: shown(Some(record.clone())).coverage.unwrap_or_default(),
        may_author: principal.role.covers(Role::PolicyAuthor),
        done: DONE.iter().find(|(word, _)| *word == done).map(|(_, sentence)| *sentence),
        word: word(session.as_deref()),
        version: record.version,
        digest: record.digest,
        name,
        before,
        rollout,
    };
    Ok(Html(render(&one)?).into_response())
}

fn rollout_row(assigned: Assignment) -> Option<RolloutRow> {
    let rollout = assigned.rollout?;
    let falls = assigned.would_fall.unwrap_or_default();
    let fall = |Fall { device, name, reason }: Fall| FallRow { hash: hash(&device), name, reason };
    Some(RolloutRow {
        percent: rollout.percent,
        devices: rollout.devices,
        all: assigned.devices,
        new_version: rollout.new_version.map(|version| version.to_string()).unwrap_or_default(),
        more: falls.len().saturating_sub(FALLS_SHOWN_MAX),
        would_fall: falls.into_iter().take(FALLS_SHOWN_MAX).map(fall).collect(),
    })
}

/// What a version says differently from the one before it. Reading one takes some milliseconds a megabyte.
async fn changes(server: &Server, record: &PolicyRecord, before: u64) -> Result<Changes, Refusal> {
    let before = match server.store.policy_version(&record.name, before).await {
        Ok(before) => before,
        Err(_) => return Ok(Changes::First),
    };
    if before.text.len().max(record.text.len()) > TEXT_BYTES_COMPARED {
        return Ok(Changes::Long);
    }
    let to = record.text.clone();
    let compared = tokio::task::spawn_blocking(move || {
        let (from, to) = (Policy::from_text(&before.text).ok()?, Policy::from_text(&to).ok()?);
        let said = |change: assay_trust::policy::Change| {
            (change.field.to_string(), change.effect.to_string(), change.value)
        };
        Some(diff(&from, &to).into_iter().take(CHANGES_SHOWN_MAX).map(said).collect())
    });
    let fault = |_| Refusal::new(Kind::Fault, "policy", "the versions could not be compared");
    Ok(compared.await.map_err(fault)?.map_or(Changes::Long, Changes::Are))
}

pub(in crate::door::console) async fn widen(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, fields, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    let percent = fields.get("percent").and_then(|text| text.parse().ok()).unwrap_or(0);
    let by = server.planning(principal.actor, server.now());
    by.widen_to(&name, percent_of(percent)?).await?;
    Ok(back(&name, "widened"))
}

/// Whoever would fall of it keeps it from being finished here; the command line can accept that.
pub(in crate::door::console) async fn finish(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    server.planning(principal.actor, server.now()).finish(&name, false).await?;
    Ok(back(&name, "finished"))
}

pub(in crate::door::console) async fn abort(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    server.planning(principal.actor, server.now()).abort(&name, false).await?;
    Ok(back(&name, "aborted"))
}

fn back(name: &str, done: &str) -> Redirect {
    let name = serde_urlencoded::to_string([(name, "")]).unwrap_or_default();
    Redirect::to(&format!("/policies/{}?done={done}", name.trim_end_matches('=')))
}

const DONE: [(&str, &str); 3] = [
    ("widened", "Widened: more devices are judged by both versions."),
    ("finished", "Finished: the new version alone is in force."),
    ("aborted", "Aborted: the old version alone is in force again."),
];
const TEXT_BYTES_SHOWN: usize = 64 << 10;
const TEXT_BYTES_COMPARED: usize = 2 << 20;
const CHANGES_SHOWN_MAX: usize = 200;
const FALLS_SHOWN_MAX: usize = 50;
