//! A receiver of satellites behind gpsd: connected to for as long as the agent runs, and watched.

use std::io;
use std::time::Duration;

use assay_clock::{Backoff, Clock};
use assay_telemetry::position::gpsd::{self, LINE_BYTES_MAX, Report, ReportError, WATCH};
use assay_telemetry::position::{Fix, Watch};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{GpsdConfig, Heard, Whereabouts};
use crate::telemetry::chain;

/// The task that listens to gpsd.
pub struct Receiver {
    config: GpsdConfig,
    watch: Watch,
    clock: Clock,
    start: Instant,
    /// What its signals were said to be since the last fix.
    signals: (bool, bool),
    heard: watch::Sender<Option<Heard>>,
    /// Whether anything is heard, as was said last.
    was_heard: bool,
}

/// Why gpsd is not heard.
#[derive(Debug, Error)]
enum Unheard {
    #[error("gpsd cannot be reached or does not go on")]
    Io(#[from] io::Error),
    #[error("gpsd says nothing any more")]
    Silent,
    #[error("gpsd ended the connection")]
    Ended,
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl Receiver {
    /// Of what is configured; the other half is what it says.
    pub fn new(
        config: GpsdConfig,
        whereabouts: &Whereabouts,
        clock: Clock,
    ) -> (Self, watch::Receiver<Option<Heard>>) {
        let (heard, listening) = watch::channel(None);
        let watch = Watch::new(config.limits(whereabouts.position.as_ref()));
        let start = clock.instant();
        let receiver =
            Receiver { config, watch, clock, start, signals: (false, false), heard, was_heard: false };
        (receiver, listening)
    }

    /// Listens, and connects again whenever it has to.
    pub async fn run(mut self) {
        let mut backoff = Backoff::between(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let unheard = match self.listen(&mut backoff).await {
                Ok(never) => match never {},
                Err(unheard) => unheard,
            };
            let (address, why) = (self.config.address, chain(&unheard));
            if std::mem::take(&mut self.was_heard) {
                tracing::warn!(%address, "no position from gpsd any more: {why}");
            } else {
                tracing::debug!(%address, "no position from gpsd: {why}");
            }
            self.clock.sleep(backoff.wait()).await;
        }
    }

    async fn listen(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Unheard> {
        let connecting = TcpStream::connect(self.config.address);
        let connected = tokio::time::timeout(ANSWER_WITHIN, connecting).await.map_err(|_| Unheard::Silent)?;
        let (read, mut write) = connected?.into_split();
        write.write_all(WATCH).await?;
        let mut lines = BufReader::with_capacity(LINE_BYTES_MAX, read);
        loop {
            let line = tokio::select! {
                line = line(&mut lines) => line?,
                // gpsd says something each second while a receiver does.
                () = self.clock.sleep(SILENT) => return Err(Unheard::Silent),
            };
            let report = match gpsd::read(&line) {
                Ok(report) => report,
                Err(error @ (ReportError::TooLong | ReportError::Json(_))) => return Err(error.into()),
                // gpsd speaks, and its receiver says what cannot be.
                Err(error) => {
                    tracing::debug!(%error, "what a receiver says is no position");
                    continue;
                }
            };
            if self.take(report) {
                backoff.succeeded();
            }
        }
    }

    /// Whether it was a fix.
    fn take(&mut self, report: Report) -> bool {
        let is_mine = |device: &String| self.config.device.as_ref().is_none_or(|mine| mine == device);
        match report {
            Report::Fix { device, point, accuracy, fixed_at_ms, speed } if is_mine(&device) => {
                let came = self.clock.instant();
                let came_ms = came.saturating_duration_since(self.start).as_millis();
                let (is_spoofed, is_jammed) = std::mem::take(&mut self.signals);
                let fix = Fix {
                    point,
                    accuracy,
                    fixed_at_ms: Some(fixed_at_ms),
                    speed,
                    is_spoofed,
                    is_jammed,
                    came_ms: u64::try_from(came_ms).unwrap_or(u64::MAX),
                };
                let position = self.watch.take(fix);
                self.tell(&position.doubts);
                self.heard.send_replace(Some(Heard { position, came }));
                true
            }
            Report::Lost { device } if is_mine(&device) => {
                self.heard.send_replace(None);
                false
            }
            Report::Signals { is_spoofed, is_jammed } => {
                self.signals.0 |= is_spoofed;
                self.signals.1 |= is_jammed;
                false
            }
            Report::Fix { .. } | Report::Lost { .. } | Report::Other => false,
        }
    }

    /// One line when something changes.
    fn tell(&mut self, doubts: &[assay_telemetry::position::Doubt]) {
        let names = || doubts.iter().map(|doubt| doubt.name()).collect::<Vec<_>>().join(", ");
        let before = self.heard.borrow().as_ref().map(|heard| heard.position.doubts.clone());
        if !std::mem::replace(&mut self.was_heard, true) {
            tracing::info!(address = %self.config.address, doubts = names(), "a receiver says where the device is");
        } else if before.is_some_and(|before| before != doubts) {
            tracing::warn!(doubts = names(), "what speaks against the receiver's position has changed");
        }
    }
}

/// The next line; one that does not end within its bound is none.
async fn line(lines: &mut BufReader<OwnedReadHalf>) -> Result<Vec<u8>, Unheard> {
    let mut line = Vec::new();
    let bound = LINE_BYTES_MAX as u64 + 1;
    let count = lines.take(bound).read_until(b'\n', &mut line).await?;
    if count == 0 { Err(Unheard::Ended) } else { Ok(line) }
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A receiver without a fix is heard too.
const SILENT: Duration = Duration::from_secs(60);
