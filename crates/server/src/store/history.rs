//! Forgetting: what is old enough goes, the audit trail stays.

use assay_evidence::time::UnixTime;

use super::telemetry::{Dropped, drop_largest, drop_older};
use super::{StoreError, Transaction, Unit, evidence, stored, task};
use crate::store::sql::query;

/// Removes telemetry, ended certificates and evidence from before the given times, and of telemetry and evidence what there
/// is no room for.
#[derive(Clone, Copy, Debug)]
pub struct PruneHistory {
    /// When.
    pub now: UnixTime,
    /// Telemetry received before this goes.
    pub telemetry_before: UnixTime,
    /// How many bytes of the database telemetry may take; the oldest of whichever device has most goes first.
    pub telemetry_bytes_max: u64,
    /// Certificates that ended before this go.
    pub svids_before: UnixTime,
    /// Evidence from before this goes, unless something builds on it.
    pub evidence_before: UnixTime,
    /// How many bytes evidence may take; the oldest goes first.
    pub evidence_bytes_max: u64,
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Telemetry that was old.
    pub old: Dropped,
    /// Telemetry there was no room for.
    pub over: Dropped,
    /// Rows of whatever else.
    pub rows: u64,
}

impl Pruned {
    /// Whether there was nothing to forget.
    pub fn is_nothing(&self) -> bool {
        *self == Pruned::default()
    }
}

impl Transaction for PruneHistory {
    type Output = Pruned;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Pruned, StoreError> {
        let old = drop_older(unit, self.telemetry_before, self.now).await?;
        let over = drop_largest(unit, self.telemetry_bytes_max, self.now).await?;
        let svids = query(
            "DELETE FROM svids WHERE serial IN
                 (SELECT serial FROM svids WHERE not_after < $1 ORDER BY not_after LIMIT $2)",
        )
        .bind(stored(self.svids_before.0))
        .bind(ROWS_MAX)
        .execute(unit.connection())
        .await?;
        let mut rows = svids.rows_affected();
        rows = rows.saturating_add(evidence::remove_older(unit, self.evidence_before, PIECES_MAX).await?);
        if evidence::is_over(unit, self.evidence_bytes_max).await? {
            rows = rows.saturating_add(evidence::remove_oldest(unit, PIECES_MAX).await?);
        }
        rows = rows.saturating_add(task::remove_older(unit, self.evidence_before, PIECES_MAX).await?);
        Ok(Pruned { old, over, rows })
    }
}

/// Rows that go at once, so that the writer is not held up for long.
const ROWS_MAX: i64 = 2000;

/// The same of evidence, each of which has several rows.
const PIECES_MAX: i64 = 200;
