//! One attempt at a task: fetch, measure, run, hand in.

use std::sync::Arc;
use std::time::Duration;

use assay_enclave::{Image, Job, Limits, NotAnImage, Ran, Stop};
use assay_evidence::task::log::Entry;
use assay_evidence::task::outcome::TYPE;
use assay_evidence::task::{Capability, Definition, End, Exhausted, Outcome, sha384};
use assay_telemetry::pae;
use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;
use tokio::sync::mpsc;

use super::journal::JournalError;
use super::{Hear, Heard, Say, Shared, Spoken};
use crate::device::Device;
use crate::holding::PlacedTask;
use crate::tpm::{RegisterStatement, TpmError};

/// It.
pub(super) struct Attempt {
    shared: Arc<Shared>,
    placed: Arc<PlacedTask>,
    heard: mpsc::Receiver<Heard>,
}

/// Why an attempt comes to nothing. The server sees that when the device's lease ends, or its time.
#[derive(Debug, Error)]
enum AttemptError {
    /// What came is not what the server signed for.
    #[error("{0} is not what was granted: somebody on the way changes it")]
    Content(&'static str),
    /// The server has nothing for it any more.
    #[error("the server does not hand {0} out any more")]
    Gone(&'static str),
    /// It could not be measured.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The TPM did not sign.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
}

/// What comes of a run.
struct Finished {
    ran: Ran,
    is_measured: bool,
}

/// Stops what runs once nobody waits for it.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Attempt {
    pub(super) fn new(shared: Arc<Shared>, placed: Arc<PlacedTask>, heard: mpsc::Receiver<Heard>) -> Attempt {
        Attempt { shared, placed, heard }
    }

    pub(super) async fn run(mut self) {
        let (task, attempt) = (self.placed.occasion.task.clone(), self.placed.occasion.attempt);
        let places = self.shared.places.clone();
        let Ok(_place) = places.acquire().await else { return };
        tracing::info!(task, attempt, "task begun");
        match self.reach_its_end().await {
            Ok(end) => tracing::info!(task, attempt, %end, "task handed in"),
            Err(error) => tracing::warn!(task, attempt, %error, "task comes to nothing here"),
        }
    }

    async fn reach_its_end(&mut self) -> Result<End, AttemptError> {
        let image = self.fetch(false).await?;
        let input = self.fetch(true).await?;
        let finished = self.execute(image, input).await?;
        self.hand_in(finished).await
    }

    /// Fetches image or input, piece by piece, and again where what came is something else.
    async fn fetch(&mut self, is_input: bool) -> Result<Vec<u8>, AttemptError> {
        let placed = self.placed.clone();
        let (what, bytes, expected) = match is_input {
            false => ("its image", placed.image_bytes, placed.definition.image),
            true => ("its input", placed.input_bytes, placed.input),
        };
        for _ in 0..FETCHES_MAX {
            let content = self.fetch_once(is_input, what, bytes).await?;
            if sha384(&content) == expected {
                return Ok(content);
            }
        }
        Err(AttemptError::Content(what))
    }

    async fn fetch_once(
        &mut self,
        is_input: bool,
        what: &'static str,
        bytes: u64,
    ) -> Result<Vec<u8>, AttemptError> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= CONTENT_BYTES_MAX);
        let bytes = bytes.ok_or(AttemptError::Content(what))?;
        let mut content = Vec::with_capacity(bytes);
        while content.len() < bytes {
            let offset = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let piece = self.piece(is_input, offset).await?;
            if piece.is_empty() {
                return Err(AttemptError::Gone(what));
            }
            content.extend_from_slice(&piece);
        }
        content.truncate(bytes);
        Ok(content)
    }

    /// One piece, asked for until it comes: streams end, and what was asked on one is not answered on the next.
    async fn piece(&mut self, is_input: bool, offset: u64) -> Result<Vec<u8>, AttemptError> {
        loop {
            self.say(Spoken::Fetch { is_input, offset }).await?;
            while let Some(heard) = self.hear().await? {
                match heard {
                    Hear::Piece { is_input: of, offset: from, bytes } if (of, from) == (is_input, offset) => {
                        return Ok(bytes);
                    }
                    // Of a question that was asked twice.
                    Hear::Piece { .. } | Hear::Answer(_) => {}
                }
            }
        }
    }

    /// Measures it and runs it; what cannot be run is measured as well, so that it is on record what was tried.
    async fn execute(&self, image: Vec<u8>, input: Vec<u8>) -> Result<Finished, AttemptError> {
        let is_measured = self.measure().await?;
        let (engine, definition) = (self.shared.engine.clone(), self.placed.definition.clone());
        let stop = StopOnDrop(Stop::default());
        let stopped = stop.0.clone();
        let work = move || {
            let compiled: Result<Image, NotAnImage> = engine.image(definition.image, &image);
            match compiled {
                Ok(compiled) => engine.run(&compiled, job(&definition, input), &stopped),
                Err(error) => refused(&error),
            }
        };
        let ran = tokio::task::spawn_blocking(work).await.map_err(|_| AttemptError::Stopping)?;
        drop(stop);
        Ok(Finished { ran, is_measured })
    }

    /// Appends it to the log, if the device has a register; whether it did. A task that has to be attested does not run without.
    async fn measure(&self) -> Result<bool, AttemptError> {
        let entry = Entry {
            occasion: self.placed.occasion.digest(),
            measurement: self.placed.definition.measurement(),
            runtime: self.shared.runtime,
            input: self.placed.input,
        };
        let device = self.device().await?;
        let shared = self.shared.clone();
        let appended = blocking(move || shared.journal.blocking_lock().append(&device, entry)).await?;
        match appended {
            Ok(()) => Ok(true),
            Err(error) if self.placed.is_attested => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the task is not in the log: its result will not show that it was measured");
                Ok(false)
            }
        }
    }

    /// Signs what came of it and hands it in until there is an answer. It is certified anew each time, since others may be measured
    /// meanwhile.
    async fn hand_in(&mut self, finished: Finished) -> Result<End, AttemptError> {
        let finished = Arc::new(finished);
        loop {
            let device = self.device().await?;
            let (shared, placed, signing) = (self.shared.clone(), self.placed.clone(), finished.clone());
            let (end, result) = blocking(move || sign(&shared, &placed, &signing, &device)).await??;
            self.say(result).await?;
            while let Some(heard) = self.hear().await? {
                match heard {
                    Hear::Answer(Ok(())) => return Ok(end),
                    Hear::Answer(Err(reason)) => {
                        tracing::warn!(
                            task = self.placed.occasion.task,
                            reason,
                            "the server refuses the result"
                        );
                        return Ok(end);
                    }
                    Hear::Piece { .. } => {}
                }
            }
        }
    }

    /// The TPM, once the device is attached.
    async fn device(&self) -> Result<Device, AttemptError> {
        let mut linked = self.shared.linked.clone();
        let link = linked.wait_for(Option::is_some).await.map_err(|_| AttemptError::Stopping)?;
        link.as_ref().map(|link| link.device.clone()).ok_or(AttemptError::Stopping)
    }

    async fn say(&self, what: Spoken) -> Result<(), AttemptError> {
        let (task, attempt) = (self.placed.occasion.task.clone(), self.placed.occasion.attempt);
        self.shared.say.send(Say { task, attempt, what }).await.map_err(|_| AttemptError::Stopping)
    }

    /// The next word; `None`: none came in time, so that it is asked again.
    async fn hear(&mut self) -> Result<Option<Hear>, AttemptError> {
        tokio::select! {
            heard = self.heard.recv() => match heard {
                Some(heard) => Ok(Some(heard.what)),
                None => Err(AttemptError::Stopping),
            },
            () = self.shared.clock.sleep(ANSWER_WITHIN) => Ok(None),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AttemptError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AttemptError::Stopping)
}

/// The outcome, signed by the device key, with the register's word.
fn sign(
    shared: &Shared,
    placed: &PlacedTask,
    finished: &Finished,
    device: &Device,
) -> Result<(End, Spoken), AttemptError> {
    let Finished { ran, is_measured } = finished;
    let occasion = placed.occasion.digest();
    let register: Option<(RegisterStatement, Vec<u8>)> = match is_measured {
        true => Some(shared.journal.blocking_lock().certify(device, &occasion)?),
        false => None,
    };
    let end = end(ran.end);
    let outcome = Outcome {
        occasion: placed.occasion.clone(),
        measurement: placed.definition.measurement(),
        runtime: shared.runtime,
        input: placed.input,
        output: sha384(&ran.output),
        messages: sha384(&ran.messages),
        end,
        milliseconds: ran.milliseconds,
        memory_bytes: ran.memory_bytes,
        register: register.as_ref().map_or([0; 32], |(statement, _)| sha256(&statement.message)),
    }
    .encode();
    let signature = device.key.sign_message(&pae(TYPE, &outcome))?;
    let (output, messages) = (ran.output.clone(), ran.messages.clone());
    Ok((end, Spoken::Result { outcome, signature, output, messages, register }))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn job(definition: &Definition, input: Vec<u8>) -> Job {
    let Definition { entry, arguments, environment, capabilities, limits, .. } = definition;
    Job {
        entry: entry.clone(),
        // Programs of common compilers want a name before their arguments.
        arguments: std::iter::once("task".to_owned()).chain(arguments.iter().cloned()).collect(),
        environment: environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        may_read_clock: capabilities.contains(&Capability::Clock),
        may_draw_random: capabilities.contains(&Capability::Random),
        input,
        limits: Limits {
            memory_bytes: limits.memory_bytes,
            fuel: limits.fuel,
            milliseconds: limits.milliseconds,
            output_bytes: limits.output_bytes,
        },
    }
}

fn refused(error: &NotAnImage) -> Ran {
    let (end, messages) = (assay_enclave::End::Refused, format!("task: {error}\n").into_bytes());
    Ran { end, output: Vec::new(), messages, milliseconds: 0, memory_bytes: 0 }
}

fn end(end: assay_enclave::End) -> End {
    match end {
        assay_enclave::End::Exited(code) => End::Exited(code),
        // Nobody waits for what was stopped.
        assay_enclave::End::Failed | assay_enclave::End::Stopped => End::Failed,
        assay_enclave::End::Refused => End::Refused,
        assay_enclave::End::Exhausted(what) => End::Exhausted(match what {
            assay_enclave::Exhausted::Memory => Exhausted::Memory,
            assay_enclave::Exhausted::Fuel => Exhausted::Fuel,
            assay_enclave::Exhausted::Time => Exhausted::Time,
            assay_enclave::Exhausted::Output => Exhausted::Output,
        }),
    }
}

/// How long an answer may take before it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often something else may come than what was granted.
const FETCHES_MAX: usize = 3;
/// More than the server hands out.
const CONTENT_BYTES_MAX: usize = 8 << 20;
