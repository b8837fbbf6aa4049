//! Tasks: submitted, looked at, explained, ended, and their results.

use std::sync::Arc;

use assay_evidence::task::{Definition, Outcome as TaskOutcome, SHA384_BYTES, Sha384};
use assay_evidence::time::UnixTime;
use assay_trust::grant::task::{Level, MeasurementPolicy};
use assay_wire::console::Because;
use assay_wire::console::task::{
    Attempt, Explained, NewTask, Part, Register, Task, TaskResult, Tasks, Weighed,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;

use super::devices::read;
use super::parameters::Asked;
use crate::actor::Actor;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::placement::{self, CONTENT_BYTES_MAX, Demands, ShownBeside};
use crate::store::{AttemptRecord, StoreError, TaskRecord, TaskStatus};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    status: Option<String>,
    limit: Option<u32>,
}

/// The newest tasks.
pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(Which { status, limit }): Asked<Which>,
) -> Result<Json<Tasks>, Refusal> {
    let unknown =
        || Refusal::new(Kind::Malformed, "status", "status: waiting, placed, done, failed or cancelled");
    let status = match status {
        Some(name) => Some(TaskStatus::from_name(&name).ok_or_else(unknown)?),
        None => None,
    };
    let tasks = server.store.tasks(status, limit.unwrap_or(TASKS_SHOWN).min(TASKS_SHOWN_MAX)).await?;
    Ok(Json(Tasks { tasks: tasks.iter().map(|task| told(task, &[])).collect::<Result<_, _>>()? }))
}

pub(super) async fn submit(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<Task>, Refusal> {
    let task = server.placement.submit(new(read(&body)?)?, by, server.now()).await?;
    Ok(Json(told(&task, &[])?))
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<Task>, Refusal> {
    let task = find(&server, &id).await?;
    Ok(Json(told(&task, &server.store.attempts(&task.id).await?)?))
}

pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<Explained>, Refusal> {
    let task = find(&server, &id).await?;
    let weighed = server.placement.explain(&task, server.now()).await?;
    let devices = weighed.into_iter().map(|placement::Weighed { device, name, verdict }| match verdict {
        Ok(score) => {
            let part = |(name, points, most): (&str, u32, u32)| Part { name: name.to_owned(), points, most };
            let parts = score.parts().map(part).to_vec();
            Weighed { device, name, score: Some(score.total()), parts, code: None, why: None }
        }
        Err((code, why)) => {
            let (code, why) = (Some(code.to_owned()), Some(why));
            Weighed { device, name, score: None, parts: Vec::new(), code, why }
        }
    });
    Ok(Json(Explained { devices: devices.collect() }))
}

pub(super) async fn cancel(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Task>, Refusal> {
    let Because { reason } = read(&body)?;
    let task = find(&server, &id).await?;
    server.placement.cancel(&task, &reason, by, server.now()).await?;
    let task = find(&server, &id).await?;
    Ok(Json(told(&task, &server.store.attempts(&task.id).await?)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    attempt: Option<u32>,
}

/// The result of an attempt; of none in particular, of the last that has one.
pub(super) async fn result(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    Asked(Of { attempt }): Asked<Of>,
) -> Result<Json<TaskResult>, Refusal> {
    let task = find(&server, &id).await?;
    let results = server.store.task_results(&task.id).await?;
    let result = results.into_iter().find(|result| attempt.is_none_or(|attempt| result.attempt == attempt));
    let none =
        || Refusal::new(Kind::NotFound, "no-result", format!("no result of task {id} was accepted yet"));
    let result = result.ok_or_else(none)?;
    let corrupt = |column| StoreError::Corrupt { column };
    let beside: ShownBeside =
        serde_json::from_str(&result.shown).map_err(|_| corrupt("task_results.shown"))?;
    let outcome = TaskOutcome::parse(&result.outcome).map_err(|_| corrupt("task_results.outcome"))?;
    let register = match <[String; 4]>::try_from(beside.register) {
        Ok([public, message, signature, log]) => Some(Register { public, message, signature, log }),
        Err(_) => None,
    };
    let content = async |name| server.store.blob(name, CONTENT_BYTES_MAX).await;
    Ok(Json(TaskResult {
        task: task.id,
        attempt: result.attempt,
        at: result.at,
        end: outcome.end.to_string(),
        definition: HEXLOWER.encode(&task.definition),
        outcome: HEXLOWER.encode(&result.outcome),
        signature: HEXLOWER.encode(&result.signature),
        device_svid: beside.device_svid,
        ak_public: beside.ak_public,
        register,
        output: BASE64.encode(&content(&result.output).await?),
        messages: BASE64.encode(&content(&result.messages).await?),
    }))
}

/// A task as it is sent, in the server's own words.
fn new(task: NewTask) -> Result<placement::NewTask, Refusal> {
    let wrong = |field: &str, what: &str| Refusal::new(Kind::Malformed, "task", format!("{field}: {what}"));
    if !task.network_isolation {
        let message =
            "network_isolation: a task has no way to the network, and none can be granted: leave it true";
        return Err(Refusal::new(Kind::Forbidden, "security-violation", message));
    }
    let base64 = |field, text: &str| BASE64.decode(text.as_bytes()).map_err(|_| wrong(field, "not base64"));
    let measurement_policy = match task.measurement_policy.as_str() {
        "strict" => MeasurementPolicy::Strict,
        "permissive" => MeasurementPolicy::Permissive,
        _ => return Err(wrong("measurement_policy", "strict or permissive")),
    };
    let level: Level = task.level.parse().map_err(|error| wrong("level", &format!("{error}")))?;
    if task.expected_measurements.len() > EXPECTED_MAX {
        return Err(wrong("expected_measurements", "at most 1,000"));
    }
    let expected = task.expected_measurements.iter().map(|text| {
        digest(text).ok_or_else(|| wrong("expected_measurements", "96 hexadecimal digits each, of SHA-384"))
    });
    if !(0.0..=1024.0).contains(&task.cpu_cores) {
        return Err(wrong("cpu_cores", "0 to 1,024"));
    }
    let image = base64("image", &task.image)?;
    let definition = task.definition(&image).map_err(|what| Refusal::new(Kind::Malformed, "task", what))?;
    let demands = Demands {
        level,
        require_attestation: task.require_attestation,
        evidence_seconds_max: task.attestation_timeout_seconds,
        allow_debug: task.allow_debug,
        measurement_policy,
        expected: expected.collect::<Result<_, _>>()?,
        cpu_millis: millis(task.cpu_cores),
        selector: task.selector,
        spread: task.spread,
        retries: task.retries.min(RETRIES_MAX),
        input: [0; SHA384_BYTES],
        image_bytes: 0,
        input_bytes: 0,
    };
    Ok(placement::NewTask {
        name: task.name,
        definition,
        demands,
        image,
        input: base64("input", &task.input)?,
        deadline_seconds: task.deadline_seconds,
    })
}

/// Thousandths, rounded up. The caller has seen that it is between 0 and 1,024.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,024,000")]
fn millis(cores: f64) -> u64 {
    (cores * 1000.0).ceil() as u64
}

fn digest(text: &str) -> Option<Sha384> {
    HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?.try_into().ok()
}

fn told(task: &TaskRecord, attempts: &[AttemptRecord]) -> Result<Task, Refusal> {
    let definition = Definition::parse(&task.definition)
        .map_err(|_| StoreError::Corrupt { column: "tasks.definition" })?;
    let time = |at: UnixTime| (at.0 > 0).then_some(at);
    let attempt = |attempt: &AttemptRecord| Attempt {
        number: attempt.number,
        device: attempt.device_id.clone(),
        status: attempt.status.clone(),
        reason: attempt.reason.clone(),
        placed_at: attempt.placed_at,
        ended_at: time(attempt.ended_at),
    };
    Ok(Task {
        id: task.id.clone(),
        name: task.name.clone(),
        level: task.level.clone(),
        status: task.status.name().to_owned(),
        reason: task.reason.clone(),
        measurement: HEXLOWER.encode(&definition.measurement()),
        submitted_at: task.submitted_at,
        deadline: time(task.deadline),
        ended_at: time(task.ended_at),
        attempts: task.attempts,
        history: attempts.iter().map(attempt).collect(),
    })
}

async fn find(server: &Server, id: &str) -> Result<TaskRecord, Refusal> {
    let unknown = || Refusal::new(Kind::NotFound, "unknown-task", format!("there is no task {id}"));
    server.store.task(id).await?.ok_or_else(unknown)
}

const TASKS_SHOWN: u32 = 100;
const TASKS_SHOWN_MAX: u32 = 10_000;
const EXPECTED_MAX: usize = 1000;
const RETRIES_MAX: u32 = 16;
