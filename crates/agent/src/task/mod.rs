//! Tasks that the server placed on the device: fetched, measured, run, and their results handed in.
//!
//! What is in the holding is run, and what is not in it any more is stopped and forgotten; nothing of a task is on the disk but its
//! measurement in the log ([`journal`]). Each attempt is a future of its own ([`attempt`]); dropping it stops what it runs. How the
//! server is spoken with is `upstream`'s: here there is a [`Line`] to it.

mod attempt;
mod journal;
mod line;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use assay_enclave::{Engine, EngineError};
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::TaskConfig;
use crate::holding::{Holding, PlacedTask};
use crate::link::Linked;
use crate::state_dir::StateDir;
use attempt::Attempt;
use journal::Journal;
pub(crate) use line::{Hear, Heard, Line, Say, Spoken};
pub use line::{Wire, line};

/// What there is for tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Tasks at a time.
    pub tasks: u32,
}

/// Tasks cannot be run.
#[derive(Debug, Error)]
pub enum TasksError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What runs tasks for as long as the agent does.
pub struct Tasks {
    shared: Arc<Shared>,
    heard: mpsc::Receiver<Heard>,
    clock: Clock,
    running: HashMap<(String, u32), Running>,
}

/// What all attempts share.
struct Shared {
    engine: Engine,
    /// SHA-256 of this program; zero: it cannot be read.
    runtime: [u8; 32],
    /// The log, and the register's turn: what is measured and certified goes one after the other.
    journal: Mutex<Journal>,
    linked: Linked,
    say: mpsc::Sender<Say>,
    /// As many as there is room for.
    places: Arc<Semaphore>,
    clock: Clock,
}

/// An attempt that runs.
struct Running {
    hear: mpsc::Sender<Heard>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tasks {
    /// Opens what running needs.
    pub fn open(
        config: &TaskConfig,
        state: StateDir,
        linked: Linked,
        line: Line,
        clock: Clock,
    ) -> Result<Tasks, TasksError> {
        let Line { say, heard } = line;
        let shared = Shared {
            engine: Engine::new()?,
            runtime: runtime(),
            journal: Mutex::new(Journal::new(state)),
            linked,
            say,
            places: Arc::new(Semaphore::new(usize::from(config.tasks_max))),
            clock: clock.clone(),
        };
        Ok(Tasks { shared: Arc::new(shared), heard, clock, running: HashMap::new() })
    }

    /// Runs what is placed, until it is dropped.
    pub async fn run(mut self, mut holding: watch::Receiver<Holding>) {
        let mut ticks = self.clock.ticks(TICK);
        let mut there_at = self.clock.instant();
        loop {
            let placed = holding.borrow_and_update().tasks.clone();
            self.settle(&placed);
            tokio::select! {
                changed = holding.changed() => if changed.is_err() { return },
                Some(heard) = self.heard.recv() => self.hear(heard).await,
                _ = ticks.tick() => self.look_at_link(&mut there_at),
            }
        }
    }

    /// Stops what is not placed any more, and begins what is new.
    fn settle(&mut self, placed: &[Arc<PlacedTask>]) {
        let key = |one: &PlacedTask| (one.occasion.task.clone(), one.occasion.attempt);
        self.running.retain(|(task, attempt), _| {
            let stays =
                placed.iter().any(|one| one.occasion.task == *task && one.occasion.attempt == *attempt);
            if !stays {
                tracing::info!(task, attempt, "task taken back, and forgotten");
            }
            stays
        });
        for one in placed {
            self.running.entry(key(one)).or_insert_with(|| {
                let (hear, heard) = mpsc::channel(HEARD_MAX);
                let attempt = Attempt::new(self.shared.clone(), one.clone(), heard);
                Running { hear, task: tokio::spawn(attempt.run()) }
            });
        }
    }

    async fn hear(&mut self, heard: Heard) {
        if let Some(running) = self.running.get(&(heard.task.clone(), heard.attempt)) {
            // Whoever has heard enough does not listen any more.
            let _ = running.hear.send(heard).await;
        }
    }

    /// Nobody can take anything back from a device that is away: it stops by itself.
    fn look_at_link(&mut self, there_at: &mut Instant) {
        let now = self.clock.instant();
        if self.shared.linked.borrow().is_some() {
            *there_at = now;
        } else if now - *there_at > AWAY_MAX && self.running.values().any(|one| !one.task.is_finished()) {
            tracing::warn!("tasks are stopped: no server was heard for {AWAY_MAX:?}");
            self.running.values().for_each(|one| one.task.abort());
        }
    }
}

/// SHA-256 of the program that runs.
fn runtime() -> [u8; 32] {
    let mut hash = [0; 32];
    match std::fs::read("/proc/self/exe") {
        Ok(program) => {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &program);
            hash.copy_from_slice(digest.as_ref());
        }
        Err(error) => {
            tracing::warn!(%error, "this program cannot read itself: results will not say what runs them")
        }
    }
    hash
}

const TICK: Duration = Duration::from_secs(1);
/// As long as the server lets a device be away with a task.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// Pieces and answers that wait for an attempt.
const HEARD_MAX: usize = 8;
