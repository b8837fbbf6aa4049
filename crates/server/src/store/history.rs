//! Forgetting: what is old enough goes, the audit trail stays.

use std::collections::HashMap;

use assay_evidence::time::UnixTime;

use super::{StoreError, Transaction, Unit, evidence, stored, usage};
use crate::store::sql::query;

/// Removes telemetry, ended certificates and evidence from before the given times, and evidence for which there is no
/// room.
#[derive(Clone, Copy, Debug)]
pub struct PruneHistory {
    /// Telemetry received before this goes.
    pub telemetry_before: UnixTime,
    /// Certificates that ended before this go.
    pub svids_before: UnixTime,
    /// Evidence from before this goes, unless something builds on it.
    pub evidence_before: UnixTime,
    /// How many bytes evidence may take; the oldest goes first.
    pub evidence_bytes_max: u64,
}

impl Transaction for PruneHistory {
    type Output = u64;

    async fn apply(self, unit: &mut Unit) -> Result<u64, StoreError> {
        let telemetry = self.prune_telemetry(unit).await?;
        let svids = query(
            "DELETE FROM svids WHERE serial IN
                 (SELECT serial FROM svids WHERE not_after < $1 ORDER BY not_after LIMIT $2)",
        )
        .bind(stored(self.svids_before.0))
        .bind(ROWS_MAX)
        .execute(unit.connection())
        .await?;
        let mut gone = telemetry.saturating_add(svids.rows_affected());
        gone = gone.saturating_add(evidence::remove_older(unit, self.evidence_before, PIECES_MAX).await?);
        if evidence::is_over(unit, self.evidence_bytes_max).await? {
            gone = gone.saturating_add(evidence::remove_oldest(unit, PIECES_MAX).await?);
        }
        Ok(gone)
    }
}

impl PruneHistory {
    async fn prune_telemetry(&self, unit: &mut Unit) -> Result<u64, StoreError> {
        let rows = query(
            "DELETE FROM telemetry WHERE leaf IN
                 (SELECT leaf FROM telemetry WHERE received_at < $1 ORDER BY received_at LIMIT $2)
             RETURNING device_id, LENGTH(statement) + LENGTH(signature) + LENGTH(payload) AS bytes",
        )
        .bind(stored(self.telemetry_before.0))
        .bind(ROWS_MAX)
        .fetch_all(unit.connection())
        .await?;
        let mut freed: HashMap<String, usage::Change> = HashMap::new();
        for row in &rows {
            let less = freed.entry(row.try_get("device_id")?).or_default();
            less.telemetry_bytes -= row.try_get::<i64>("bytes")?;
            less.telemetry_rows -= 1;
        }
        for (device_id, less) in freed {
            usage::change(unit, &device_id, less).await?;
        }
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }
}

/// Rows that go at once, so that the writer is not held up for long.
const ROWS_MAX: i64 = 2000;

/// The same of evidence, each of which has several rows.
const PIECES_MAX: i64 = 200;
