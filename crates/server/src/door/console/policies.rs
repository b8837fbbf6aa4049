//! Which policy is in force for whom, and roll-outs.

use std::sync::Arc;

use assay_trust::assignment::Assignment;
use assay_trust::rollout::Percent;
use assay_wire::console::policy::{
    Assignment as Told, End, Ended, Fall, Plan, Rollout, Unassign, Unassigned, Widen,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::devices::read;
use super::parameters::Asked;
use super::policy::{PolicyText, selector_of};
use crate::actor::Actor;
use crate::in_force::policies::PlanInForce;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::policy::{
    self, Coming, Devices, NewRollout, Planning, PolicyChangeError, devices_by_policy, would_fall,
};

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Plan>, Refusal> {
    plan(&server).await.map(Json)
}

/// Who is judged by what.
pub(super) async fn plan(server: &Server) -> Result<Plan, Refusal> {
    let in_force = server.policies.current();
    let (counts, without) = devices_by_policy(&server.store, &in_force).await?;
    let assignments = in_force.plan.assignments().iter().zip(&counts);
    // As people read them: the one for everybody first.
    let assignments = assignments.rev().map(|(assigned, devices)| told(&in_force, assigned, devices));
    Ok(Plan { assignments: assignments.collect(), devices_without_policy: without })
}

pub(super) async fn unassign(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<Unassigned>, Refusal> {
    let Unassign { selector, force } = read(&body)?;
    let selector = selector_of(&selector)?;
    planning(&server, by).unassign(&selector, force).await?;
    Ok(Json(Unassigned { unassigned: selector.to_string() }))
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
    by: Actor,
    Asked(start): Asked<Start>,
    PolicyText(text): PolicyText,
) -> Result<Json<Told>, Refusal> {
    let selector = selector_of(&start.selector)?;
    let percent = percent_of(start.percent)?;
    let rollout = NewRollout { text, selector, percent, force: start.force };
    let started = planning(&server, by).start(rollout).await?;
    progress(&server, &started.new.name).await.map(Json)
}

pub(super) async fn status(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Told>, Refusal> {
    rollout(&server, &name).await.map(Json)
}

/// How far it is, and which devices would fall if it were finished now.
pub(super) async fn rollout(server: &Server, name: &str) -> Result<Told, Refusal> {
    let answer = progress(server, name).await?;
    let in_force = server.policies.current();
    let plan = in_force.plan.finish(name).map_err(PolicyChangeError::from)?;
    let coming = Coming { plan: &plan, published: None };
    let would_fall = would_fall(&server.store, &server.trials, &in_force, coming).await?;
    Ok(Told { would_fall: Some(falls(would_fall)), ..answer })
}

pub(super) async fn widen(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Told>, Refusal> {
    let Widen { percent } = read(&body)?;
    planning(&server, by).widen_to(&name, percent_of(percent)?).await?;
    progress(&server, &name).await.map(Json)
}

fn end(body: &Bytes) -> Result<End, Refusal> {
    if body.is_empty() { Ok(End::default()) } else { read(body) }
}

pub(super) async fn finish(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Ended>, Refusal> {
    let finished = planning(&server, by).finish(&name, end(&body)?.force).await?;
    Ok(Json(Ended { name, version: finished.version, would_fall: Some(falls(finished.accepted)) }))
}

pub(super) async fn abort(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Ended>, Refusal> {
    let version = planning(&server, by).abort(&name, end(&body)?.force).await?;
    Ok(Json(Ended { name, version, would_fall: None }))
}

/// How far a roll-out is.
async fn progress(server: &Server, name: &str) -> Result<Told, Refusal> {
    let in_force = server.policies.current();
    let (assigned, _) = in_force.plan.rolled_out(name).map_err(PolicyChangeError::from)?;
    let (counts, _) = devices_by_policy(&server.store, &in_force).await?;
    let devices = in_force.plan.assignments().iter().zip(&counts).find(|(one, _)| *one == assigned);
    let devices = devices.map(|(_, devices)| devices.clone()).unwrap_or_default();
    Ok(told(&in_force, assigned, &devices))
}

fn told(in_force: &PlanInForce, assigned: &Assignment, devices: &Devices) -> Told {
    let version = |revision| in_force.compiled(revision).map(|policy| policy.version());
    let rollout = assigned.rollout.as_ref().map(|rollout| Rollout {
        percent: u64::from(rollout.percent),
        devices: devices.on_union,
        union_version: version(rollout.union),
        new_version: version(rollout.new),
    });
    Told {
        selector: assigned.selector.to_string(),
        name: assigned.name.clone(),
        version: version(assigned.revision),
        in_force: in_force.compiled(assigned.revision).is_some(),
        devices: devices.all,
        trusted: devices.trusted,
        rollout,
        would_fall: None,
    }
}

fn falls(falls: Vec<policy::Fall>) -> Vec<Fall> {
    let fall = |policy::Fall { device, name, reason }| Fall { device, name, reason };
    falls.into_iter().map(fall).collect()
}

fn planning(server: &Server, by: Actor) -> Planning<'_> {
    server.planning(by, server.now())
}

pub(super) fn percent_of(number: u64) -> Result<Percent, PolicyChangeError> {
    Ok(Percent::try_from(number)?)
}

fn percent_default() -> u64 {
    10
}
