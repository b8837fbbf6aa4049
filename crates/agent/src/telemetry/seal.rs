//! One statement for each batch, signed by the TPM, and where their chain stands.
//!
//! Each statement names the one before, so a batch that is dropped, repeated or reordered shows. A batch that was signed is on disk
//! before it is sent, with where the chain stands then: a number is never used twice, and what a crash or a lost answer leaves
//! behind is sent again as it was.

use assay_identity::SpiffeId;
use assay_telemetry::otlp::{OTLP_BATCH, OtlpBatch, Part};
use assay_telemetry::{BootEpoch, Freshness, Location, Sha256, Statement, seal, sha256, to_be_signed};
use data_encoding::HEXLOWER;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::TelemetryError;
use crate::VERSION;
use crate::link::Link;
use crate::state_dir::{StateDir, StateError};

/// A batch that can be handed in.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Sealed {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) statement: bytes::Bytes,
    /// ECDSA P-256, DER, by the device key.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) signature: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) payload: bytes::Bytes,
    /// The number of the spool's first record that is not in it.
    #[prost(uint64, tag = "4")]
    pub(super) taken_through: u64,
    /// Its number in the chain, and the key of that.
    #[prost(uint64, tag = "5")]
    sequence: u64,
    #[prost(string, tag = "6")]
    key_id: String,
}

impl Sealed {
    /// Whether the key of this SubjectPublicKeyInfo signed it.
    pub(super) fn is_by(&self, spki: &[u8]) -> bool {
        self.key_id == HEXLOWER.encode(&sha256(spki))
    }
}

/// What is said of every batch.
pub(super) struct Stating {
    pub(super) location: Option<Location>,
    /// The policy that the device was last judged by.
    pub(super) policy: String,
    pub(super) now_unix_nano: u64,
}

/// States a batch, has the TPM sign the statement, and moves the chain on.
pub(super) async fn sealed(
    (parts, taken_through): (Vec<Part>, u64),
    link: &Link,
    stating: Stating,
    state: &StateDir,
) -> Result<Sealed, TelemetryError> {
    let mut chain = Chain::load(state)?;
    let clock = link.device.run(|device| device.tpm.read_clock()).await?;
    let key_id = sha256(&link.device.key.spki());
    let (sequence, previous) = chain.next(&key_id);
    let times = || parts.iter().map(|part| part.received_unix_nano).filter(|time| *time > 0);
    let (first, last) = (times().min(), times().max());
    let batch = OtlpBatch { parts };
    let payload = batch.encode_to_vec();
    let statement = seal(&Statement {
        device_id: SpiffeId::parse(&link.device_id)
            .map_err(|_| TelemetryError::Identity { id: link.device_id.clone() })?,
        key_id,
        boot_epoch: BootEpoch { reset_count: clock.reset_count, restart_count: clock.restart_count },
        sequence,
        previous,
        payload_type: OTLP_BATCH.to_owned(),
        payload_sha256: sha256(&payload),
        items: batch.items(),
        first_time_unix_nano: first.unwrap_or(stating.now_unix_nano),
        last_time_unix_nano: last.unwrap_or(stating.now_unix_nano),
        wall_clock_unix_nano: stating.now_unix_nano,
        freshness: Freshness::Chained,
        location: stating.location,
        policy: stating.policy,
        agent_version: VERSION.to_owned(),
    });
    let body = to_be_signed(&statement);
    let signature = link.device.run(move |device| device.key.sign_message(&body)).await?;
    let key_id = HEXLOWER.encode(&key_id);
    let sealed = Sealed {
        statement: statement.into(),
        signature: signature.into(),
        payload: payload.into(),
        taken_through,
        sequence,
        key_id,
    };
    state.write(PENDING, &sealed.encode_to_vec())?;
    chain.goes_on_with(&sealed);
    chain.save(state)?;
    Ok(sealed)
}

/// What was signed and not taken in yet, and from which record of the spool on nothing was.
pub(super) fn pending(state: &StateDir) -> Result<(Option<Sealed>, u64), StateError> {
    let mut chain = Chain::load(state)?;
    let Some(bytes) = state.read_up_to(PENDING, PENDING_BYTES_MAX)? else { return Ok((None, chain.taken)) };
    let Ok(sealed) = Sealed::decode(bytes.as_slice()) else {
        let aside = state.set_aside(PENDING)?;
        tracing::warn!(file = %aside.display(), "a batch that was to be sent does not read; it is signed anew");
        return Ok((None, chain.taken));
    };
    if sealed.taken_through <= chain.taken {
        state.remove(PENDING)?;
        return Ok((None, chain.taken));
    }
    // A crash may have come between the two files.
    chain.goes_on_with(&sealed);
    chain.save(state)?;
    Ok((Some(sealed), chain.taken))
}

/// The batch was taken in.
pub(super) fn taken(sealed: &Sealed, state: &StateDir) -> Result<(), StateError> {
    let mut chain = Chain::load(state)?;
    chain.taken = chain.taken.max(sealed.taken_through);
    chain.save(state)?;
    state.remove(PENDING)
}

/// The batch will never be taken in; what is in it is signed again under another number.
pub(super) fn given_up(state: &StateDir) -> Result<(), StateError> {
    state.remove(PENDING)
}

/// Where the chain of statements stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    key_id: String,
    sequence: u64,
    statement: String,
    /// Records of the spool before this one were taken in.
    #[serde(default)]
    taken: u64,
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

    fn goes_on_with(&mut self, sealed: &Sealed) {
        if self.key_id != sealed.key_id || self.sequence < sealed.sequence {
            self.key_id.clone_from(&sealed.key_id);
            self.sequence = sealed.sequence;
            self.statement = HEXLOWER.encode(&sha256(&sealed.statement));
        }
    }
}

const FILE: &str = "telemetry.json";
const PENDING: &str = "telemetry.pending";
/// A batch with what is around it.
const PENDING_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        (folder, state)
    }

    #[test]
    fn a_chain_goes_on_with_its_key_and_starts_anew_with_another() {
        let (_folder, state) = state();
        assert_eq!(Chain::load(&state).unwrap().next(&[1; 32]), (1, [0; 32]));
        let statement = HEXLOWER.encode(&[7; 32]);
        let chain = Chain { key_id: HEXLOWER.encode(&[1; 32]), sequence: 41, statement, taken: 9 };
        chain.save(&state).unwrap();
        let loaded = Chain::load(&state).unwrap();
        assert_eq!(loaded, chain);
        assert_eq!(loaded.next(&[1; 32]), (42, [7; 32]));
        assert_eq!(loaded.next(&[2; 32]), (1, [0; 32]));
        state.write(FILE, b"{").unwrap();
        assert!(matches!(Chain::load(&state), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_batch_that_was_signed_and_not_sent_keeps_its_number() {
        let (_folder, state) = state();
        let key_id = HEXLOWER.encode(&[1; 32]);
        let sealed = Sealed { sequence: 7, key_id, taken_through: 20, ..Sealed::default() };
        // Killed between the two files.
        state.write(PENDING, &sealed.encode_to_vec()).unwrap();
        assert_eq!(pending(&state).unwrap(), (Some(sealed.clone()), 0));
        assert_eq!(Chain::load(&state).unwrap().next(&[1; 32]).0, 8);
        taken(&sealed, &state).unwrap();
        assert_eq!(pending(&state).unwrap(), (None, 20));
        // Killed between writing down that it was taken in and removing it.
        state.write(PENDING, &sealed.encode_to_vec()).unwrap();
        assert_eq!(pending(&state).unwrap(), (None, 20));
        state.write(PENDING, b"\xff").unwrap();
        assert_eq!(pending(&state).unwrap(), (None, 20));
    }
}
