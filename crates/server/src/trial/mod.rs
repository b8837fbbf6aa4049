//! A policy tried on the evidence that is kept, before anyone is judged by it: what would change, and why.
//!
//! Nothing is written and nobody is told. Evidence is loaded in batches of bounded size, judged on threads of its own,
//! and added up in a [`report`].

mod batch;
mod report;

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_evidence::time::UnixTime;
use assay_trust::{AttestationResult, CompiledPolicy, Policy, PolicyError};
use axum::body::Bytes;
use serde_json::json;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;

use crate::boot_logs::BootLogs;
use crate::maintenance::chain;
use crate::server::Server;
use crate::store::StoreError;
use batch::{Loader, Outcome};
use report::Tally;

/// Lines of JSON, each with its newline: the progress, and at the end the report or what went wrong.
pub(crate) type Lines = mpsc::Receiver<Bytes>;

/// Starts a trial of a policy on what was recorded since some time.
pub(crate) async fn start(server: Arc<Server>, text: String, since: UnixTime) -> Result<Lines, TrialError> {
    let turn = server.trials.clone().try_acquire_owned().map_err(|_| TrialError::Busy)?;
    let policy = tokio::task::spawn_blocking(move || Policy::from_text(&text));
    let mut policy = policy.await.map_err(|_| TrialError::Busy)??;
    // It is cited as the version it would be, not as one that may be in force.
    let next = server.store.last_policy_version(&policy.name).await?.saturating_add(1);
    policy.version = policy.version.max(next);
    let compiled = tokio::task::spawn_blocking(move || CompiledPolicy::new(policy));
    let policy = Arc::new(compiled.await.map_err(|_| TrialError::Busy)??);
    let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(run(server, policy, since, lines, turn));
    Ok(receiver)
}

async fn run(
    server: Arc<Server>,
    policy: Arc<CompiledPolicy>,
    since: UnixTime,
    lines: mpsc::Sender<Bytes>,
    _turn: OwnedSemaphorePermit,
) {
    let last = match judge_all(&server, &policy, since, &lines).await {
        Ok(Some(tally)) => json!({ "report": tally.report(&policy, since) }),
        // Whoever asked is gone, or the server is going.
        Ok(None) => return,
        Err(error) => {
            tracing::error!(error = %chain(&error), "a policy could not be tried");
            json!({ "error": chain(&error) })
        }
    };
    lines.send(line(&last)).await.ok();
}

async fn judge_all(
    server: &Server,
    policy: &Arc<CompiledPolicy>,
    since: UnixTime,
    lines: &mpsc::Sender<Bytes>,
) -> Result<Option<Tally>, StoreError> {
    let of = server.store.count_to_try(since).await?;
    let mut tally = Tally::new(server.store.count_untried().await?);
    let boot_logs = Arc::<BootLogs>::default();
    let mut loader = Loader::new(&server.store, since);
    let mut running: JoinSet<Vec<Outcome>> = JoinSet::new();
    let (mut done, mut told) = (0, Instant::now());
    lines.send(line(&json!({ "progress": { "done": done, "of": of } }))).await.ok();
    loop {
        let batch = loader.next().await?;
        let is_end = batch.is_none();
        if let Some(batch) = batch {
            let (policy, boot_logs) = (policy.clone(), boot_logs.clone());
            running.spawn_blocking(move || batch.judge(&policy, &boot_logs));
        }
        while running.len() >= threads() || (is_end && !running.is_empty()) {
            let Some(Ok(outcomes)) = running.join_next().await else { break };
            done += outcomes.len();
            outcomes.into_iter().for_each(|outcome| tally.add(outcome));
        }
        if is_end {
            return Ok(Some(tally));
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            lines.send(line(&json!({ "progress": { "done": done, "of": of } }))).await.ok();
        }
        if lines.is_closed() || *server.shutdown.borrow() {
            return Ok(None);
        }
    }
}

/// What a policy says of the last evidence that is kept of each device; `None` of what cannot be judged again.
pub(crate) async fn of_last_evidence(
    server: &Server,
    policy: &Arc<CompiledPolicy>,
    mut see: impl FnMut(&str, Option<&AttestationResult>),
) -> Result<(), StoreError> {
    // The semaphore is never closed.
    let _turn = server.trials.acquire().await.ok();
    let boot_logs = Arc::<BootLogs>::default();
    let mut loader = Loader::new(&server.store, NO_RESULT_SINCE);
    while let Some(batch) = loader.next().await? {
        let (policy, boot_logs) = (policy.clone(), boot_logs.clone());
        let judged = tokio::task::spawn_blocking(move || batch.judge(&policy, &boot_logs)).await;
        for Outcome { tried, result } in judged.unwrap_or_default() {
            see(&tried.record.device_id, result.as_ref());
        }
    }
    Ok(())
}

/// All cores but one, which is for the devices.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1)
}

fn line(value: &serde_json::Value) -> Bytes {
    let mut line = value.to_string();
    line.push('\n');
    line.into()
}

/// Why a policy is not tried.
#[derive(Debug, Error)]
pub(crate) enum TrialError {
    /// It is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Versions could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One trial at a time.
    #[error("another policy is being tried: wait until that is done")]
    Busy,
}

/// Later than any, so that only what is last is tried on.
const NO_RESULT_SINCE: UnixTime = UnixTime(u64::MAX);
const LINES_WAITING_MAX: usize = 4;
const TOLD_EVERY: Duration = Duration::from_millis(100);
