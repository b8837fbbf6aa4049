//! Telemetry: what the host says of itself (`measure`) and what programs of the device hand in (`door/otlp`) waits on disk
//! (`spool`), is stated with one signature of the TPM for many requests (`seal`), and handed in (`send`).

mod measure;
mod metrics;
mod seal;
mod send;
mod spool;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use assay_clock::{Backoff, Clock};
use assay_telemetry::otlp::{Encoding, OtlpError, Part, Signal};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tonic::Status;

use crate::holding::Holding;
use crate::link::{Link, Linked};
use crate::place::Place;
use crate::state_dir::{StateDir, StateError};
use crate::tpm::TpmError;
use seal::{Sealed, Stating};
use send::{Answer, SUBMIT_WITHIN, Said};
use spool::Spool;

/// A batch could not be handed in.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The TPM did not sign it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The chain cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// What waits cannot be read or written.
    #[error("the spool")]
    Spool(#[from] io::Error),
    /// The server did not take it, for a reason that is no verdict.
    #[error("{}: {}", .0.code(), .0.message())]
    Server(#[from] Status),
    /// The server does not answer.
    #[error("no answer within {SUBMIT_WITHIN:?}")]
    Silent,
    /// The device has no identity that could be stated.
    #[error("{id:?} is no SPIFFE ID")]
    Identity {
        /// What there is.
        id: String,
    },
}

/// Where what is to be handed in is put down.
#[derive(Clone, Debug)]
pub struct Intake {
    spool: Arc<Mutex<Spool>>,
    came: Arc<Notify>,
    clock: Clock,
}

/// Why a request is not taken.
#[derive(Debug, Error)]
pub enum IntakeError {
    /// It is none.
    #[error(transparent)]
    Request(#[from] OtlpError),
    /// There is no room on the disk, or it fails.
    #[error("the request cannot be written down")]
    Spool(#[from] io::Error),
}

impl Intake {
    /// Takes a request of a program; it is on disk when this returns.
    pub async fn take(&self, signal: Signal, encoding: Encoding, body: Bytes) -> Result<(), IntakeError> {
        let part = Part::request(signal, encoding, body, self.now_unix_nano())?;
        // Nothing in it, nothing to sign.
        if part.items > 0 {
            self.append(part).await?;
        }
        Ok(())
    }

    /// What time it is.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn append(&self, part: Part) -> io::Result<()> {
        self.with(move |spool| spool.append(&part)).await?;
        self.came.notify_one();
        Ok(())
    }

    /// Works on the spool, off the async threads: disks take their time.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || work(&mut lock(&spool))).await.map_err(io::Error::other)?
    }

    fn waits(&self) -> u64 {
        let spool = lock(&self.spool);
        if spool.is_empty() { 0 } else { spool.bytes().max(1) }
    }

    fn now_unix_nano(&self) -> u64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A spool whose task panicked is what is on disk and in its fields, which are changed after the disk is.
fn lock(spool: &Mutex<Spool>) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What telemetry is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two looks at the host; `None`: it is not looked at.
    pub interval: Option<Duration>,
    /// How long what came waits for more, so that one signature is for all of it.
    pub flush: Duration,
    /// Bytes that may wait.
    pub spool_bytes_max: u64,
    /// Where the device is.
    pub place: Place,
}

/// The task that measures the host, signs and submits.
pub struct Telemetry {
    settings: Settings,
    state: StateDir,
    clock: Clock,
    intake: Intake,
    /// What was signed and not answered; it may have been sent before the agent started.
    pending: Option<Sealed>,
    was_sent: bool,
    said: Said,
}

impl Telemetry {
    /// Opens what waits from before.
    pub fn open(settings: Settings, state: StateDir, clock: Clock) -> Result<Self, TelemetryError> {
        let (pending, taken) = seal::pending(&state)?;
        let spool = Spool::open(&state.path("spool"), taken, settings.spool_bytes_max)?;
        let intake =
            Intake { spool: Arc::new(Mutex::new(spool)), came: Arc::default(), clock: clock.clone() };
        Ok(Telemetry {
            settings,
            state,
            clock,
            intake,
            was_sent: pending.is_some(),
            pending,
            said: Said::default(),
        })
    }

    /// Where requests of programs go.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Runs while the agent does. What comes while nobody can be reached waits.
    pub async fn run(self, link: Linked, holding: watch::Receiver<Holding>) {
        let measuring = measure(self.settings.interval, self.intake.clone(), self.clock.clone());
        tokio::join!(measuring, self.hand_in(link, holding));
    }

    async fn hand_in(mut self, mut link: Linked, mut holding: watch::Receiver<Holding>) {
        let mut backoff = Backoff::between(RETRY_FIRST, RETRY_LONGEST);
        loop {
            self.something_waits().await;
            let Ok(linked) = link.wait_for(Option::is_some).await.map(|link| link.clone()) else { return };
            let Some(linked) = linked else { continue };
            let policy = holding.borrow_and_update().policy.clone();
            match self.submit(linked, policy).await {
                Ok(true) => backoff.succeeded(),
                outcome => {
                    if let Err(error) = outcome {
                        tracing::warn!("telemetry not submitted: {}", chain(&error));
                    }
                    let wait = backoff.wait();
                    tokio::select! {
                        () = self.clock.sleep(wait) => {}
                        // A device that is trusted again need not wait.
                        _ = holding.changed() => {}
                    }
                }
            }
        }
    }

    /// Until there is something to sign, and what came has waited for more or is enough.
    async fn something_waits(&self) {
        if self.pending.is_some() {
            return;
        }
        while self.intake.waits() == 0 {
            self.intake.came.notified().await;
        }
        let flush = self.clock.sleep(self.settings.flush);
        tokio::pin!(flush);
        while self.intake.waits() < BATCH_BYTES as u64 {
            tokio::select! {
                () = flush.as_mut() => return,
                () = self.intake.came.notified() => {}
            }
        }
    }

    /// Hands in what was signed last, or else signs what waits; `true`: it was taken in.
    async fn submit(&mut self, mut link: Link, policy: String) -> Result<bool, TelemetryError> {
        // Another key than the one of the moment signs nothing that the server takes.
        let pending = self.pending.take_if(|sealed| sealed.is_by(&link.device.key.spki()));
        if self.pending.take().is_some() {
            seal::given_up(&self.state)?;
        }
        let sealed = match pending {
            Some(sealed) => sealed,
            None => {
                let oldest = self.intake.with(|spool| spool.oldest(BATCH_BYTES)).await?;
                if oldest.0.is_empty() {
                    // All of it was damaged, which is told already.
                    self.intake.with(move |spool| spool.handed_in(oldest.1)).await?;
                    return Ok(true);
                }
                let now_unix_nano = self.intake.now_unix_nano();
                let location = self.settings.place.stated(self.clock.instant());
                let stating = Stating { location, policy, now_unix_nano };
                self.was_sent = false;
                seal::sealed(oldest, &link, stating, &self.state).await?
            }
        };
        let answer = send::send(&mut link.client, &sealed).await;
        let answer = answer.inspect_err(|_| self.pending = Some(sealed.clone()));
        let was_sent = std::mem::replace(&mut self.was_sent, true);
        match answer? {
            Answer::Taken { ledger } => self.said.taken(ledger),
            // The answer to an earlier attempt was lost.
            Answer::HadBefore if was_sent => self.said.taken(0),
            answer => {
                self.said.refused(&answer);
                seal::given_up(&self.state)?;
                return Ok(false);
            }
        }
        seal::taken(&sealed, &self.state)?;
        self.intake.with(move |spool| spool.handed_in(sealed.taken_through)).await?;
        Ok(true)
    }
}

/// Puts down what the host says of itself.
async fn measure(interval: Option<Duration>, intake: Intake, clock: Clock) {
    let Some(interval) = interval else { return };
    let mut tick = clock.ticks(interval);
    loop {
        tick.tick().await;
        let batch = measure::measure(clock.now());
        let part =
            Part::request(Signal::Metrics, Encoding::Protobuf, batch.payload.into(), batch.time_unix_nano);
        let Ok(part) = part else { continue };
        if let Err(error) = intake.append(part).await {
            tracing::warn!(%error, "host metrics could not be written down");
        }
    }
}

/// An error and what is behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// One signature for so much; what a program sends at once may be more.
const BATCH_BYTES: usize = 1 << 20;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(120);
