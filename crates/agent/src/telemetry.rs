//! Telemetry: host metrics in a batch, one statement about it, one signature of the TPM.
//!
//! Each statement names the one before, so a batch that is dropped, repeated or reordered shows. Where the chain
//! stands is kept on disk before a batch is sent: a number is never used twice.

mod host;
mod metrics;

use std::time::{Duration, SystemTime};

use assay_identity::SpiffeId;
use assay_telemetry::{
    BootEpoch, Freshness, Location, LocationMethod, OTLP_METRICS, Sha256, Statement, seal, sha256,
    to_be_signed,
};
use assay_wire::edge::{SubmitRequest, SubmitResponse};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Status;

use crate::VERSION;
use crate::config::LocationConfig;
use crate::holding::Holding;
use crate::run::Link;
use crate::state_dir::{StateDir, StateError};
use crate::tpm::TpmError;

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
    /// The last outcome, so that only a change is logged.
    said: String,
}

impl Telemetry {
    /// A batch every `interval`.
    pub fn new(interval: Duration, location: Option<LocationConfig>, state: StateDir) -> Self {
        Telemetry { interval, location, state, said: String::new() }
    }

    /// Runs while the agent does. Without a connection nothing is measured.
    pub async fn run(mut self, link: watch::Receiver<Option<Link>>, holding: watch::Receiver<Holding>) {
        let mut tick = interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(link) = link.borrow().clone() else { continue };
            let policy = holding.borrow().policy.clone();
            match self.submit(link, policy).await {
                Ok(answer) => self.log_answer(&answer),
                Err(error) => tracing::warn!("telemetry not submitted: {error}"),
            }
        }
    }

    async fn submit(&self, mut link: Link, policy: String) -> Result<SubmitResponse, TelemetryError> {
        let batch = host::measure(SystemTime::now());
        let chain = Chain::load(&self.state)?;
        let clock = link.device.run(|device| device.tpm.read_clock()).await?;
        let epoch = BootEpoch { reset_count: clock.reset_count, restart_count: clock.restart_count };
        let key_id = sha256(&link.device.key.spki());
        let (sequence, previous) = chain.next(&key_id);
        let statement = Statement {
            device_id: SpiffeId::parse(&link.device_id)
                .map_err(|_| TelemetryError::Identity { id: link.device_id.clone() })?,
            key_id,
            boot_epoch: epoch,
            sequence,
            previous,
            payload_type: OTLP_METRICS.to_owned(),
            payload_sha256: sha256(&batch.payload),
            items: batch.items,
            first_time_unix_nano: batch.time_unix_nano,
            last_time_unix_nano: batch.time_unix_nano,
            wall_clock_unix_nano: batch.time_unix_nano,
            freshness: Freshness::Chained,
            location: self.location.as_ref().map(location),
            policy,
            agent_version: VERSION.to_owned(),
        };
        let statement = seal(&statement);
        let body = to_be_signed(&statement);
        let signature = link.device.run(move |device| device.key.sign_message(&body)).await?;
        Chain { key_id: HEXLOWER.encode(&key_id), sequence, statement: HEXLOWER.encode(&sha256(&statement)) }
            .save(&self.state)?;
        let request = SubmitRequest {
            statement: statement.into(),
            signature: signature.into(),
            payload: batch.payload.into(),
        };
        let answer = timeout(SUBMIT_WITHIN, link.client.submit(request)).await;
        Ok(answer.map_err(|_| TelemetryError::Silent)??.into_inner())
    }

    fn log_answer(&mut self, answer: &SubmitResponse) {
        let says = if answer.accepted { "accepted" } else { &answer.reason };
        if says == self.said {
            tracing::debug!(
                accepted = answer.accepted,
                ledger = answer.ledger_sequence,
                "telemetry submitted"
            );
            return;
        }
        self.said = says.to_owned();
        match answer.accepted {
            true => tracing::info!(ledger = answer.ledger_sequence, "telemetry accepted"),
            false => tracing::warn!(reason = %answer.reason, "telemetry refused"),
        }
    }
}

/// Where the chain of statements stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    key_id: String,
    sequence: u64,
    statement: String,
}

impl Chain {
    fn load(state: &StateDir) -> Result<Self, StateError> {
        let Some(bytes) = state.read(FILE)? else { return Ok(Chain::default()) };
        serde_json::from_slice(&bytes).map_err(|_| StateError::Damaged { path: state.path(FILE) })
    }

    fn save(&self, state: &StateDir) -> Result<(), StateError> {
        let text = serde_json::to_vec(self).map_err(|_| StateError::Damaged { path: state.path(FILE) })?;
        state.write(FILE, &text)
    }

    /// Number and predecessor of the next statement; another key starts another chain.
    fn next(&self, key_id: &Sha256) -> (u64, Sha256) {
        let previous =
            HEXLOWER.decode(self.statement.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        match previous {
            Some(previous) if self.key_id == HEXLOWER.encode(key_id) => {
                (self.sequence.saturating_add(1), previous)
            }
            _ => (1, Sha256::default()),
        }
    }
}

fn location(location: &LocationConfig) -> Location {
    Location {
        method: LocationMethod::Configured,
        country: location.country.clone(),
        subdivision: location.subdivision.clone(),
        city: location.city.clone(),
    }
}

const FILE: &str = "telemetry.json";
const SUBMIT_WITHIN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_goes_on_with_its_key_and_starts_anew_with_another() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(Chain::load(&state).unwrap().next(&[1; 32]), (1, [0; 32]));
        let chain =
            Chain { key_id: HEXLOWER.encode(&[1; 32]), sequence: 41, statement: HEXLOWER.encode(&[7; 32]) };
        chain.save(&state).unwrap();
        let loaded = Chain::load(&state).unwrap();
        assert_eq!(loaded, chain);
        assert_eq!(loaded.next(&[1; 32]), (42, [7; 32]));
        assert_eq!(loaded.next(&[2; 32]), (1, [0; 32]));
        state.write(FILE, b"{").unwrap();
        assert!(matches!(Chain::load(&state), Err(StateError::Damaged { .. })));
    }
}
