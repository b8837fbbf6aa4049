//! Acceptance of telemetry: signature, order, trust state and place; then it is stored, and the receipt
//! names the leaf that its run begins with.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_telemetry::otlp::{OTLP_BATCH, OtlpBatch, OtlpError};
use assay_telemetry::{BootEpoch, OpenError, SequenceError, SequenceState, Statement, StatementError};
use assay_trust::grant::telemetry::{TelemetryRequest, decide};
use assay_trust::grant::{Denied, telemetry::TelemetryGrant};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::{Device, DeviceError};
use crate::in_force::policies::Policies;
use crate::outcome::{Kind, Outcome};
use crate::store::{AcceptTelemetry, Chain, Dropped, Receipt, RefuseTelemetry, Store, StoreError};

/// What taking batches in needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Collecting<'a> {
    pub store: &'a Store,
    pub policies: &'a Policies,
    /// How many bytes of batches are kept of one device.
    pub device_bytes_max: u64,
    /// Who is given what is accepted.
    pub destinations: &'a Arc<[String]>,
}

/// A batch as a device hands it in.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The exact bytes that were signed.
    pub statement: Bytes,
    /// The device key's signature.
    pub signature: Bytes,
    /// The exact bytes of the payload.
    pub payload: Bytes,
}

/// What became of a batch that is the device's.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is stored; the receipt names the leaf that its run begins with.
    Accepted(Receipt),
    /// The device's state or place do not allow it.
    Denied(Denied),
}

/// Takes a batch in, or says why not. A denial is an answer; what is broken or forged is an error.
pub(crate) async fn submit(
    collecting: Collecting<'_>,
    batch: &Batch,
    now: UnixTime,
) -> Result<Answer, SubmitError> {
    for _ in 0..ATTEMPTS_MAX {
        match attempt(collecting, batch, now).await {
            Err(SubmitError::Store(StoreError::Conflict)) => {}
            outcome => return outcome,
        }
    }
    Err(StoreError::Conflict.into())
}

async fn attempt(collecting: Collecting<'_>, sent: &Batch, now: UnixTime) -> Result<Answer, SubmitError> {
    let Collecting { store, policies, device_bytes_max, destinations } = collecting;
    // Whose key to verify with is all that is read before the signature holds.
    let stated = assay_telemetry::stated_device(&sent.statement)?;
    let device = Device::load(store, &stated).await?.ok_or(SubmitError::UnknownDevice)?;
    let spki = &device.record.device_key_spki;
    let batch = assay_telemetry::open(&sent.statement, &sent.signature, &sent.payload, spki)?;
    check_requests(batch.statement(), &sent.payload)?;
    let Next { from_revision, position, missing_from, continues } =
        next_position(store, &device, &batch).await?;
    let policy = policies.of(&device).compiled;
    let location = policy.as_ref().and_then(|policy| policy.location());
    let statement = batch.statement();
    match decide(&device.state, TelemetryRequest { batch: &batch, location }, now) {
        Ok(grant) => {
            let accept = AcceptTelemetry {
                device_id: device.id.to_string(),
                chain: Chain::Device,
                state_version: grant.state_version(),
                from_revision,
                position: write_position(&position)?,
                continues,
                received_at: now,
                sequence: grant.sequence(),
                items: statement.items,
                location: grant.place().unwrap_or_default().to_owned(),
                detail: detail(statement, &batch.statement_sha256(), &grant, missing_from),
                statement: sent.statement.to_vec(),
                signature: sent.signature.to_vec(),
                payload: sent.payload.to_vec(),
                device_bytes_max,
                destinations: destinations.clone(),
            };
            let receipt = store.commit(accept).await?;
            let Dropped { runs, batches, bytes } = receipt.dropped;
            if runs > 0 {
                tracing::warn!(
                    device = %device.id, runs, batches, bytes,
                    "the device's oldest telemetry made room and is no longer kept"
                );
            }
            Ok(Answer::Accepted(receipt))
        }
        Err(denied) => Ok(refuse(store, &device, (Chain::Device, statement.sequence), denied, now).await?),
    }
}

/// What is forwarded later is what it says it is.
fn check_requests(statement: &Statement, payload: &Bytes) -> Result<(), SubmitError> {
    if statement.payload_type != OTLP_BATCH {
        return Ok(());
    }
    let items = OtlpBatch::read(payload.clone())?.items();
    if items == statement.items {
        Ok(())
    } else {
        Err(SubmitError::Items { stated: statement.items, found: items })
    }
}

/// Where the device's chain stands after a batch.
struct Next {
    /// What it was checked against.
    from_revision: u64,
    position: SequenceState,
    /// From where on batches are missing.
    missing_from: Option<u64>,
    /// Whether the statement names the one that was taken before it.
    continues: bool,
}

async fn next_position(
    store: &Store,
    device: &Device,
    batch: &assay_telemetry::Opened,
) -> Result<Next, SubmitError> {
    let stored = store.telemetry_position(device.id.as_str(), Chain::Device).await?;
    let from_revision = stored.as_ref().map_or(0, |stored| stored.revision);
    let last = match stored {
        Some(stored) => read_position(&stored.position)?,
        None => SequenceState::default(),
    };
    let (position, missing_from) = match last.check(batch) {
        Ok(position) => (position, None),
        // What a device dropped is gone; the gap goes on record with the batch after it.
        Err(SequenceError::Gap { expected, resume, .. }) => (resume, Some(expected)),
        Err(error) => return Err(error.into()),
    };
    let continues = batch.statement().previous == last.statement_sha256;
    Ok(Next { from_revision, position, missing_from, continues })
}

/// Puts on record what was denied to a device on one of its chains.
pub(super) async fn refuse(
    store: &Store,
    device: &Device,
    (chain, sequence): (Chain, u64),
    denied: Denied,
    now: UnixTime,
) -> Result<Answer, StoreError> {
    let refusal = RefuseTelemetry {
        device_id: device.id.to_string(),
        chain,
        sequence,
        at: now,
        code: denied.code().to_owned(),
        reason: denied.to_string(),
    };
    store.commit(refusal).await?;
    tracing::info!(device = %device.id, sequence, code = denied.code(), reason = %denied, "telemetry refused");
    Ok(Answer::Denied(denied))
}

fn detail(statement: &Statement, sha256: &[u8], grant: &TelemetryGrant, missing_from: Option<u64>) -> String {
    serde_json::json!({
        "sequence": statement.sequence, "statement_sha256": HEXLOWER.encode(sha256), "place": grant.place(),
        "state_version": grant.state_version(), "missing_from": missing_from,
    })
    .to_string()
}

/// A [`SequenceState`] as stored.
#[derive(Serialize, Deserialize)]
struct Position {
    key_id: String,
    reset_count: u32,
    restart_count: u32,
    sequence: u64,
    statement_sha256: String,
}

pub(super) fn write_position(state: &SequenceState) -> Result<String, StoreError> {
    let position = Position {
        key_id: HEXLOWER.encode(&state.key_id),
        reset_count: state.boot_epoch.reset_count,
        restart_count: state.boot_epoch.restart_count,
        sequence: state.sequence,
        statement_sha256: HEXLOWER.encode(&state.statement_sha256),
    };
    serde_json::to_string(&position).map_err(|_| StoreError::Unwritable)
}

pub(super) fn read_position(text: &str) -> Result<SequenceState, StoreError> {
    let corrupt = || StoreError::Corrupt { column: "telemetry_positions.position" };
    let sha256 = |hex: &str| {
        HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(corrupt)
    };
    let position: Position = serde_json::from_str(text).map_err(|_| corrupt())?;
    Ok(SequenceState {
        key_id: sha256(&position.key_id)?,
        boot_epoch: BootEpoch { reset_count: position.reset_count, restart_count: position.restart_count },
        sequence: position.sequence,
        statement_sha256: sha256(&position.statement_sha256)?,
    })
}

/// Why a batch is not even denied.
#[derive(Debug, Error)]
pub(crate) enum SubmitError {
    /// The statement does not read.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Nobody of that name is enrolled.
    #[error("the device is not enrolled")]
    UnknownDevice,
    /// Signature or content.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The payload is not what it says it is.
    #[error(transparent)]
    Requests(#[from] OtlpError),
    /// The payload counts otherwise than the statement.
    #[error("a batch of {found} items says that it has {stated}")]
    Items {
        /// What it says.
        stated: u64,
        /// What is in it.
        found: u64,
    },
    /// Not the next of its device.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for SubmitError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            SubmitError::Statement(_) | SubmitError::Open(OpenError::Statement(_)) => {
                (Kind::Malformed, "statement")
            }
            SubmitError::Open(OpenError::PayloadTooLong { .. })
            | SubmitError::Requests(_)
            | SubmitError::Items { .. } => (Kind::Malformed, "payload"),
            SubmitError::UnknownDevice => (Kind::NotFound, "not-enrolled"),
            SubmitError::Open(OpenError::Signature(_)) => (Kind::Unauthenticated, "device-signature"),
            SubmitError::Open(OpenError::KeyId) => (Kind::Unauthenticated, "device-key"),
            SubmitError::Open(OpenError::Payload) => (Kind::Unauthenticated, "payload-hash"),
            SubmitError::Sequence(SequenceError::Replay { .. }) => (Kind::Duplicate, "sequence-replay"),
            SubmitError::Sequence(SequenceError::Fork { .. }) => (Kind::OutOfTurn, "sequence-fork"),
            SubmitError::Sequence(SequenceError::EarlierBoot { .. }) => (Kind::OutOfTurn, "earlier-boot"),
            SubmitError::Sequence(SequenceError::Gap { .. }) => (Kind::OutOfTurn, "sequence-gap"),
            SubmitError::Store(error) => error.told(),
        }
    }
}

impl From<DeviceError> for SubmitError {
    fn from(error: DeviceError) -> Self {
        SubmitError::Store(error.0)
    }
}

/// Batches of one device that come in at once are taken one after the other.
const ATTEMPTS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back() {
        let state = SequenceState {
            key_id: [1; 32],
            boot_epoch: BootEpoch { reset_count: 7, restart_count: 1 },
            sequence: 41,
            statement_sha256: [9; 32],
        };
        assert_eq!(read_position(&write_position(&state).unwrap()).unwrap(), state);
        assert!(read_position("{}").is_err());
    }
}
