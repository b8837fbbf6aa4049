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
use assay_trust::assignment::Plan;
use assay_trust::labels::{Labels, Selector};
use assay_trust::{AttestationResult, CompiledPolicy, Policy, PolicyError};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::in_force::boot_logs::BootLogs;
use crate::in_force::policies::Policies;
use crate::outcome::{Kind, Outcome, chain, fault};
use crate::store::{Store, StoreError};
use crate::thread::{Panicked, aside};
use batch::{Loader, Tried};
use report::Tally;

pub(crate) use report::{Cause, Change, Devices, Report};

/// What is told of a trial: how far it is, and at the end the report or what went wrong.
#[derive(Debug)]
pub(crate) enum Line {
    /// So many pieces of evidence were judged, of so many.
    Progress { done: u64, of: u64 },
    /// It is done.
    Report(Box<Report>),
    /// It could not go on, and why.
    Failed(String),
}

/// What a policy is tried on.
#[derive(Debug)]
pub(crate) struct Scope {
    /// From when on recorded results are judged; `None`: each device's last evidence alone.
    pub since: Option<UnixTime>,
    /// The devices that the policy would judge, were it assigned to these labels.
    pub selector: Selector,
}

/// What a trial reads, and its turn among them.
#[derive(Clone, Debug)]
pub(crate) struct Trying {
    pub store: Store,
    pub policies: Arc<Policies>,
    /// One policy is tried at a time.
    pub turns: Arc<Semaphore>,
    pub shutdown: watch::Receiver<bool>,
}

/// Starts a trial of a policy.
pub(crate) async fn start(
    trying: Trying,
    text: String,
    scope: Scope,
) -> Result<mpsc::Receiver<Line>, TrialError> {
    let turn = trying.turns.clone().try_acquire_owned().map_err(|_| TrialError::Busy)?;
    let mut policy = aside(move || Policy::from_text(&text)).await??;
    // It is cited as the version it would be, not as one that may be in force.
    let next = trying.store.last_policy_version(&policy.name).await?.saturating_add(1);
    policy.version = policy.version.max(next);
    let policy = Arc::new(aside(move || CompiledPolicy::new(policy)).await??);
    let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(run(trying, policy, scope, lines, turn));
    Ok(receiver)
}

async fn run(
    trying: Trying,
    policy: Arc<CompiledPolicy>,
    scope: Scope,
    lines: mpsc::Sender<Line>,
    _turn: OwnedSemaphorePermit,
) {
    let last = match judge_all(&trying, &policy, &scope, &lines).await {
        Ok(Some(tally)) => Line::Report(Box::new(tally.report(&policy, &scope))),
        // Whoever asked is gone, or the server is going.
        Ok(None) => return,
        Err(error) => {
            fault("trial", &error);
            Line::Failed(chain(&error))
        }
    };
    lines.send(last).await.ok();
}

async fn judge_all(
    trying: &Trying,
    policy: &Arc<CompiledPolicy>,
    scope: &Scope,
    lines: &mpsc::Sender<Line>,
) -> Result<Option<Tally>, TrialError> {
    let since = scope.since.unwrap_or(NO_RESULT_SINCE);
    let concerned = scope.concerned(&trying.policies.current().plan, policy);
    let of = trying.store.count_to_try(since).await?;
    let untried = trying.store.labels_of_untried().await?;
    let mut tally = Tally::new(untried.iter().filter(|labels| concerned(labels)).count());
    let boot_logs = Arc::<BootLogs>::default();
    let mut loader = Loader::new(&trying.store, since);
    let mut running: JoinSet<Vec<Tried>> = JoinSet::new();
    let (mut done, mut told) = (0, Instant::now());
    lines.send(Line::Progress { done, of }).await.ok();
    loop {
        let batch = loader.next(|tried| concerned(&tried.device_labels)).await?;
        let is_end = batch.is_none();
        if let Some(batch) = batch {
            done += batch.seen;
            let (policy, boot_logs) = (policy.clone(), boot_logs.clone());
            running.spawn_blocking(move || batch.judge(&policy, &boot_logs));
        }
        while running.len() >= threads() || (is_end && !running.is_empty()) {
            let Some(outcomes) = running.join_next().await else { break };
            // A report that leaves out what the server failed at would be a wrong one.
            let outcomes = outcomes.map_err(|_| Panicked)?;
            outcomes.into_iter().for_each(|outcome| tally.add(outcome));
        }
        if is_end {
            return Ok(Some(tally));
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            lines.send(Line::Progress { done, of }).await.ok();
        }
        if lines.is_closed() || *trying.shutdown.borrow() {
            return Ok(None);
        }
    }
}

/// What a policy says of the last evidence that is kept of each device of these; `None` of what cannot be judged again.
pub(crate) async fn of_last_evidence(
    store: &Store,
    policy: &Arc<CompiledPolicy>,
    of: impl Fn(&str) -> bool,
    mut see: impl FnMut(&str, Option<&AttestationResult>),
) -> Result<(), TrialError> {
    let boot_logs = Arc::<BootLogs>::default();
    let mut loader = Loader::new(store, NO_RESULT_SINCE);
    while let Some(batch) = loader.next(|tried| of(&tried.record.device_id)).await? {
        let (policy, boot_logs) = (policy.clone(), boot_logs.clone());
        for Tried { tried, result } in aside(move || batch.judge(&policy, &boot_logs)).await? {
            see(&tried.record.device_id, result.as_ref());
        }
    }
    Ok(())
}

impl Scope {
    /// Whether a device with these labels would be judged by the policy: another that is assigned to more of its labels
    /// goes before it. One that is being rolled out to the same labels already has the same devices.
    fn concerned(&self, plan: &Plan, policy: &CompiledPolicy) -> impl Fn(&str) -> bool + use<> {
        let plan = plan.assign(&self.selector, policy.name(), 0).unwrap_or_else(|_| plan.clone());
        let selector = self.selector.clone();
        move |labels| {
            let labels = labels.parse::<Labels>().ok();
            let assigned = labels.as_ref().and_then(|labels| plan.of(labels));
            assigned.is_some_and(|assigned| assigned.selector == selector)
        }
    }
}

/// All cores but one, which is for the devices.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1)
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
    /// The server's own fault.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// One trial at a time.
    #[error("another policy is being tried: wait until that is done")]
    Busy,
}

impl Outcome for TrialError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            TrialError::Policy(_) => (Kind::Malformed, "policy"),
            TrialError::Store(error) => error.told(),
            TrialError::Panicked(error) => error.told(),
            TrialError::Busy => (Kind::Exhausted, "busy"),
        }
    }
}

/// Later than any, so that only what is last is tried on.
const NO_RESULT_SINCE: UnixTime = UnixTime(u64::MAX);
const LINES_WAITING_MAX: usize = 4;
const TOLD_EVERY: Duration = Duration::from_millis(100);
