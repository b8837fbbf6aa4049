//! Which policy is in force for whom, and roll-outs.

use std::sync::Arc;

use assay_trust::assignment::Assignment;
use assay_trust::rollout::Percent;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::devices::read;
use super::parameters::Asked;
use super::policy::{PolicyText, selector_of};
use crate::in_force::policies::PlanInForce;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::policy::{
    Coming, Devices, NewRollout, Planning, PolicyChangeError, devices_by_policy, would_fall,
};

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    let in_force = server.policies.current();
    let (counts, without) = devices_by_policy(&server.store, &in_force).await?;
    let assignments = in_force.plan.assignments().iter().zip(&counts);
    // As people read them: the one for everybody first.
    let assignments: Vec<Value> =
        assignments.rev().map(|(assigned, devices)| assignment_json(&in_force, assigned, devices)).collect();
    Ok(Json(json!({ "assignments": assignments, "devices_without_policy": without })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unassign {
    selector: String,
    /// Whether devices may fall of it.
    #[serde(default)]
    force: bool,
}

pub(super) async fn unassign(State(server): State<Arc<Server>>, body: Bytes) -> Result<Json<Value>, Refusal> {
    let Unassign { selector, force } = read(&body)?;
    let selector = selector_of(&selector)?;
    planning(&server).unassign(&selector, force).await?;
    Ok(Json(json!({ "unassigned": selector.to_string() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    #[serde(default)]
    selector: String,
    #[serde(default = "percent_default")]
    percent: u64,
    #[serde(default)]
    force: bool,
}

pub(super) async fn start(
    State(server): State<Arc<Server>>,
    Asked(start): Asked<Start>,
    PolicyText(text): PolicyText,
) -> Result<Json<Value>, Refusal> {
    let selector = selector_of(&start.selector)?;
    let percent = percent_of(start.percent)?;
    let rollout = NewRollout { text, selector, percent, force: start.force };
    let started = planning(&server).start(rollout).await?;
    progress(&server, &started.new.name).await.map(Json)
}

/// How far it is, and which devices would fall if it were finished now.
pub(super) async fn status(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let mut answer = progress(&server, &name).await?;
    let in_force = server.policies.current();
    let plan = in_force.plan.finish(&name).map_err(PolicyChangeError::from)?;
    let coming = Coming { plan: &plan, published: None };
    let would_fall = would_fall(&server.store, &server.trials, &in_force, coming).await?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("would_fall".to_owned(), json!(would_fall));
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Widen {
    percent: u64,
}

pub(super) async fn widen(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let Widen { percent } = read(&body)?;
    planning(&server).widen_to(&name, percent_of(percent)?).await?;
    progress(&server, &name).await.map(Json)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// Whether devices may fall of it.
    #[serde(default)]
    force: bool,
}

fn end(body: &Bytes) -> Result<End, Refusal> {
    if body.is_empty() { Ok(End::default()) } else { read(body) }
}

pub(super) async fn finish(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let finished = planning(&server).finish(&name, end(&body)?.force).await?;
    Ok(Json(json!({
        "name": name, "version": finished.version, "would_fall": finished.accepted,
    })))
}

pub(super) async fn abort(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let version = planning(&server).abort(&name, end(&body)?.force).await?;
    Ok(Json(json!({ "name": name, "version": version })))
}

/// How far a roll-out is.
async fn progress(server: &Server, name: &str) -> Result<Value, Refusal> {
    let in_force = server.policies.current();
    let (assigned, _) = in_force.plan.rolled_out(name).map_err(PolicyChangeError::from)?;
    let (counts, _) = devices_by_policy(&server.store, &in_force).await?;
    let devices = in_force.plan.assignments().iter().zip(&counts).find(|(one, _)| *one == assigned);
    let devices = devices.map(|(_, devices)| devices.clone()).unwrap_or_default();
    Ok(assignment_json(&in_force, assigned, &devices))
}

fn assignment_json(in_force: &PlanInForce, assigned: &Assignment, devices: &Devices) -> Value {
    let version = |revision| in_force.compiled(revision).map(|policy| policy.version());
    let rollout = assigned.rollout.as_ref().map(|rollout| {
        json!({
            "percent": u64::from(rollout.percent), "devices": devices.on_union,
            "union_version": version(rollout.union), "new_version": version(rollout.new),
        })
    });
    json!({
        "selector": assigned.selector.to_string(), "name": assigned.name, "version": version(assigned.revision),
        "in_force": in_force.compiled(assigned.revision).is_some(),
        "devices": devices.all, "trusted": devices.trusted, "rollout": rollout,
    })
}

fn planning(server: &Server) -> Planning<'_> {
    server.planning("operator", server.now())
}

fn percent_of(number: u64) -> Result<Percent, PolicyChangeError> {
    Ok(Percent::try_from(number)?)
}

fn percent_default() -> u64 {
    10
}
