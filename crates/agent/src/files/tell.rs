//! Whoever uses the files is told of a change: by a signal, a command, or both.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use assay_clock::{Backoff, Clock};
use rustix::process::kill_process;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::plan::{Plan, process_of};

/// What became of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Changed,
    Removed,
}

/// Whoever was to be told was not.
#[derive(Debug, Error)]
pub(super) enum TellError {
    #[error("{file}: names no process that runs")]
    NoProcess { file: PathBuf },
    #[error("the process of {file} cannot be signalled")]
    Signal { file: PathBuf, source: io::Error },
    #[error("the command cannot be run")]
    Run(#[source] io::Error),
    #[error("the command ended with {0}")]
    Failed(ExitStatus),
    #[error("the command did not end within {WITHIN:?}, and was killed")]
    Endless,
}

/// Tells of one change after the other, of the newest alone, and again until it is heard.
pub(super) struct Teller {
    plan: Arc<Plan>,
    clock: Clock,
    /// What nobody was told of yet.
    due: Option<Change>,
    not_before: Instant,
    telling: Option<(Change, Telling)>,
    again: Backoff,
}

type Telling = Pin<Box<dyn Future<Output = Result<(), TellError>> + Send>>;

impl Teller {
    pub(super) fn new(plan: Arc<Plan>, clock: Clock) -> Self {
        let not_before = clock.instant();
        Teller { plan, clock, due: None, not_before, telling: None, again: AGAIN }
    }

    /// Has it told.
    pub(super) fn changed(&mut self, change: Change) {
        self.due = Some(change);
    }

    /// Waits until there is something to tell, and tells it. May be dropped at any time: a command goes on meanwhile.
    pub(super) async fn tell(&mut self) {
        let (change, telling) = match &mut self.telling {
            Some(telling) => telling,
            none => {
                let Some(change) = self.due else { return std::future::pending().await };
                self.clock.sleep_until(self.not_before).await;
                self.due = None;
                let plan = self.plan.clone();
                none.insert((change, Box::pin(async move { plan.tell(change).await })))
            }
        };
        let (change, told) = (*change, telling.await);
        self.telling = None;
        let wait = match &told {
            Ok(()) => {
                self.again.succeeded();
                APART
            }
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = error;
                tracing::error!(error, "who uses the files was not told of their change");
                self.due.get_or_insert(change);
                self.again.wait()
            }
        };
        self.not_before = self.clock.instant() + wait;
    }
}

impl Plan {
    /// Tells of a change. Whoever is told by both ways is told by both before either is told again.
    async fn tell(&self, change: Change) -> Result<(), TellError> {
        if let Some(file) = &self.pid_file {
            let no_process = || TellError::NoProcess { file: file.clone() };
            let process = process_of(file).ok_or_else(no_process)?;
            kill_process(process, self.signal).map_err(|error| match error {
                rustix::io::Errno::SRCH => no_process(),
                error => TellError::Signal { file: file.clone(), source: error.into() },
            })?;
        }
        let [program, arguments @ ..] = self.command.as_slice() else { return Ok(()) };
        let word = match change {
            Change::Changed => "changed",
            Change::Removed => "removed",
        };
        let mut command = Command::new(program);
        command.args(arguments).env("ASSAY_FILES", word).stdin(Stdio::null()).kill_on_drop(true);
        match timeout(WITHIN, command.status()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(TellError::Failed(status)),
            Ok(Err(error)) => Err(TellError::Run(error)),
            Err(_) => Err(TellError::Endless),
        }
    }
}

/// Revocations may come one after the other, and a service reads its files anew in one go.
const APART: Duration = Duration::from_secs(1);
const AGAIN: Backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(60));
/// A service that is told to read its certificate anew does so in seconds.
const WITHIN: Duration = Duration::from_secs(60);
