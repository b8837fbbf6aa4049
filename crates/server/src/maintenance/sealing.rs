//! Runs of telemetry that have ended are packed and sealed, aside from the writer and from who hands batches in.

use assay_evidence::time::UnixTime;
use data_encoding::HEXLOWER;

use crate::outcome::fault;
use crate::store::{KeptBatch, SealRun, Store, StoreError, pack};
use crate::thread::aside;

/// Seals what has ended, some at a time.
pub(super) async fn seal_runs(store: &Store, now: UnixTime) -> Result<(), StoreError> {
    // One after the other: a run of what programs send may have megabytes.
    for leaf in store.ended_runs(now, RUNS_AT_ONCE_MAX).await? {
        let Some((device_id, batches)) = store.telemetry_run(leaf).await? else { continue };
        let sealed = match aside(move || sealed(leaf, device_id, &batches, now)).await {
            Ok(sealed) => sealed,
            Err(panicked) => {
                fault("panic", &panicked);
                continue;
            }
        };
        match store.commit(sealed).await {
            // Another batch came, or it had to make room: it is looked at again.
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sealed(leaf: u64, device_id: String, batches: &[KeptBatch], at: UnixTime) -> SealRun {
    let last = batches.last();
    let statement = last.map(|batch| HEXLOWER.encode(&assay_telemetry::sha256(&batch.statement)));
    let detail = serde_json::json!({
        "run": leaf, "batches": batches.len(), "sequence": last.map(|batch| batch.sequence),
        "statement_sha256": statement,
    });
    SealRun {
        leaf,
        device_id,
        batches: u64::try_from(batches.len()).unwrap_or(u64::MAX),
        packed: pack(batches),
        detail: detail.to_string(),
        at,
    }
}

/// A server of ten thousand devices that send once a minute ends three a second.
const RUNS_AT_ONCE_MAX: u32 = 32;
