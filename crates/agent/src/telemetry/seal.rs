//! One statement for each batch, signed by the TPM, and where their chain stands.
//!
//! Each statement names the one before, so a batch that is dropped, repeated or reordered shows. Where the chain
//! stands is kept on disk before a batch is sent: a number is never used twice.

use assay_identity::SpiffeId;
use assay_telemetry::{
    BootEpoch, Freshness, Location, LocationMethod, OTLP_METRICS, Sha256, Statement, seal, sha256,
    to_be_signed,
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::TelemetryError;
use super::metrics::Batch;
use crate::VERSION;
use crate::config::LocationConfig;
use crate::link::Link;
use crate::state_dir::{StateDir, StateError};

/// A batch that can be handed in.
pub(super) struct Sealed {
    pub(super) statement: Vec<u8>,
    /// ECDSA P-256, DER, by the device key.
    pub(super) signature: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// States a batch, has the TPM sign the statement, and moves the chain on.
pub(super) async fn sealed(
    batch: Batch,
    link: &Link,
    location: Option<&LocationConfig>,
    policy: String,
    state: &StateDir,
) -> Result<Sealed, TelemetryError> {
    let chain = Chain::load(state)?;
    let clock = link.device.run(|device| device.tpm.read_clock()).await?;
    let key_id = sha256(&link.device.key.spki());
    let (sequence, previous) = chain.next(&key_id);
    let statement = seal(&Statement {
        device_id: SpiffeId::parse(&link.device_id)
            .map_err(|_| TelemetryError::Identity { id: link.device_id.clone() })?,
        key_id,
        boot_epoch: BootEpoch { reset_count: clock.reset_count, restart_count: clock.restart_count },
        sequence,
        previous,
        payload_type: OTLP_METRICS.to_owned(),
        payload_sha256: sha256(&batch.payload),
        items: batch.items,
        first_time_unix_nano: batch.time_unix_nano,
        last_time_unix_nano: batch.time_unix_nano,
        wall_clock_unix_nano: batch.time_unix_nano,
        freshness: Freshness::Chained,
        location: location.map(stated_location),
        policy,
        agent_version: VERSION.to_owned(),
    });
    let body = to_be_signed(&statement);
    let signature = link.device.run(move |device| device.key.sign_message(&body)).await?;
    Chain { key_id: HEXLOWER.encode(&key_id), sequence, statement: HEXLOWER.encode(&sha256(&statement)) }
        .save(state)?;
    Ok(Sealed { statement, signature, payload: batch.payload })
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

fn stated_location(location: &LocationConfig) -> Location {
    Location {
        method: LocationMethod::Configured,
        country: location.country.clone(),
        subdivision: location.subdivision.clone(),
        city: location.city.clone(),
    }
}

const FILE: &str = "telemetry.json";

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
