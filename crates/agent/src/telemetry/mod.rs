//! Telemetry: host metrics in a batch (`measure`), one statement about it with one signature of the TPM (`seal`), handed
//! in (`send`).

mod measure;
mod metrics;
mod seal;
mod send;

use std::time::Duration;

use assay_clock::Clock;
use assay_wire::edge::SubmitResponse;
use thiserror::Error;
use tokio::sync::watch;
use tonic::Status;

use crate::config::LocationConfig;
use crate::holding::Holding;
use crate::link::{Link, Linked};
use crate::state_dir::{StateDir, StateError};
use crate::tpm::TpmError;
use send::{SUBMIT_WITHIN, Said};

/// A batch could not be handed in.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The TPM did not sign it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The chain cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
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

/// The task that measures the host, signs and submits.
pub struct Telemetry {
    interval: Duration,
    location: Option<LocationConfig>,
    state: StateDir,
    clock: Clock,
    said: Said,
}

impl Telemetry {
    /// A batch every `interval`.
    pub fn new(interval: Duration, location: Option<LocationConfig>, state: StateDir, clock: Clock) -> Self {
        Telemetry { interval, location, state, clock, said: Said::default() }
    }

    /// Runs while the agent does. Without a connection nothing is measured.
    pub async fn run(mut self, link: Linked, holding: watch::Receiver<Holding>) {
        let mut tick = self.clock.ticks(self.interval);
        loop {
            tick.tick().await;
            let Some(link) = link.borrow().clone() else { continue };
            let policy = holding.borrow().policy.clone();
            match self.submit(link, policy).await {
                Ok(answer) => self.said.log(&answer),
                Err(error) => tracing::warn!("telemetry not submitted: {error}"),
            }
        }
    }

    async fn submit(&self, mut link: Link, policy: String) -> Result<SubmitResponse, TelemetryError> {
        let batch = measure::measure(self.clock.now());
        let sealed = seal::sealed(batch, &link, self.location.as_ref(), policy, &self.state).await?;
        send::send(&mut link.client, sealed).await
    }
}
