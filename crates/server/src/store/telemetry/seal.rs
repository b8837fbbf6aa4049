//! Sealing a run that has ended: its batches become one piece, and a leaf names its last statement, which stands for all of them.

use assay_evidence::time::UnixTime;

use super::accept::RUN_SECONDS_MAX;
use super::{ENDED, OPEN, PACKED};
use crate::audit::{Kind, Line};
use crate::store::sql::query;
use crate::store::{Store, StoreError, Transaction, Unit, loaded, stored, usage};

/// Puts a packed run in the place of its batches.
#[derive(Clone, Debug)]
pub struct SealRun {
    /// Where it begins.
    pub leaf: u64,
    /// Whose it is.
    pub device_id: String,
    /// How many batches were packed.
    pub batches: u64,
    /// What they are now.
    pub packed: Vec<u8>,
    /// What is put on record, JSON; names the last statement's hash.
    pub detail: String,
    /// When.
    pub at: UnixTime,
}

impl Transaction for SealRun {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        // Nothing came to it and nobody packed or dropped it meanwhile.
        let row = query("SELECT bytes FROM telemetry_runs WHERE leaf = $1 AND batches = $2 AND stage < $3")
            .bind(stored(self.leaf))
            .bind(stored(self.batches))
            .bind(PACKED)
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Conflict)?;
        let bytes: i64 = row.try_get("bytes")?;
        let packed = i64::try_from(self.packed.len()).unwrap_or(i64::MAX);
        query("UPDATE telemetry_runs SET stage = $2, packed = $3, stored = $4 WHERE leaf = $1")
            .bind(stored(self.leaf))
            .bind(PACKED)
            .bind(&self.packed)
            .bind(packed)
            .execute(unit.connection())
            .await?;
        query("DELETE FROM telemetry_batches WHERE run = $1")
            .bind(stored(self.leaf))
            .execute(unit.connection())
            .await?;
        let less =
            usage::Change { telemetry_bytes: packed.saturating_sub(bytes), ..usage::Change::default() };
        usage::change(unit, &self.device_id, less).await?;
        // The leaf that a run begins with stands for its first batch: of one alone there is no more to say.
        if self.batches > 1 {
            let kind = Kind::TelemetrySealed;
            let (at, actor) = (self.at, "server".to_owned());
            unit.audit(Line { kind, at, actor, subject: self.device_id, detail: self.detail }).await?;
        }
        Ok(())
    }
}

impl Store {
    /// Where runs begin that have ended and are not packed, the oldest first; at most `limit`.
    pub async fn ended_runs(&self, now: UnixTime, limit: u32) -> Result<Vec<u64>, StoreError> {
        let rows = query(
            "SELECT leaf FROM telemetry_runs WHERE stage = $1 OR (stage = $2 AND first_at <= $3)
             ORDER BY leaf LIMIT $4",
        )
        .bind(ENDED)
        .bind(OPEN)
        .bind(stored(now.0.saturating_sub(RUN_SECONDS_MAX)))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| loaded(row.try_get("leaf")?, "telemetry_runs.leaf")).collect()
    }
}
