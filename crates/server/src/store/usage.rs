//! What each device takes of the database. A device that sends much makes room with what is its own: nobody else's goes
//! for it.

use assay_evidence::time::UnixTime;

use super::{Store, StoreError, Unit, loaded, stored};
use crate::store::sql::query;
use crate::thread::aside;

/// What one device takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub evidence_bytes: u64,
    pub evidence_rows: u64,
    pub telemetry_bytes: u64,
    pub telemetry_rows: u64,
    pub result_rows: u64,
}

/// By how much it changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub evidence_bytes: i64,
    pub evidence_rows: i64,
    pub telemetry_bytes: i64,
    pub telemetry_rows: i64,
    pub result_rows: i64,
}

/// What all devices take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Kept evidence.
    pub evidence_bytes: u64,
    /// Pieces of it.
    pub evidence_rows: u64,
    /// Accepted telemetry.
    pub telemetry_bytes: u64,
    /// Batches of it.
    pub telemetry_rows: u64,
    /// Results on record.
    pub result_rows: u64,
    /// Leaves of the trail.
    pub leaves: u64,
    /// Certificates that have not ended.
    pub certificates: u64,
}

/// Notes a change, and says what the device takes then.
pub(super) async fn change(unit: &mut Unit, device_id: &str, by: Change) -> Result<Usage, StoreError> {
    let row = query(
        "INSERT INTO device_usage
             (device_id, evidence_bytes, evidence_rows, telemetry_bytes, telemetry_rows, result_rows)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (device_id) DO UPDATE SET evidence_bytes = device_usage.evidence_bytes + $2,
             evidence_rows = device_usage.evidence_rows + $3, telemetry_bytes = device_usage.telemetry_bytes + $4,
             telemetry_rows = device_usage.telemetry_rows + $5, result_rows = device_usage.result_rows + $6
         RETURNING evidence_bytes, evidence_rows, telemetry_bytes, telemetry_rows, result_rows",
    )
    .bind(device_id)
    .bind(by.evidence_bytes)
    .bind(by.evidence_rows)
    .bind(by.telemetry_bytes)
    .bind(by.telemetry_rows)
    .bind(by.result_rows)
    .fetch_one(unit.connection())
    .await?;
    // Rows that are older than the count may make it fall below zero.
    let number =
        |column| -> Result<u64, StoreError> { Ok(u64::try_from(row.try_get::<i64>(column)?).unwrap_or(0)) };
    Ok(Usage {
        evidence_bytes: number("evidence_bytes")?,
        evidence_rows: number("evidence_rows")?,
        telemetry_bytes: number("telemetry_bytes")?,
        telemetry_rows: number("telemetry_rows")?,
        result_rows: number("result_rows")?,
    })
}

/// Bytes as a change has them.
pub(super) fn signed(bytes: u64) -> i64 {
    stored(bytes)
}

impl Store {
    /// What the database takes of its disk.
    pub(crate) async fn bytes(&self) -> Result<u64, StoreError> {
        if let Some(file) = self.file.clone() {
            return Ok(aside(move || std::fs::metadata(file).map_or(0, |file| file.len()))
                .await
                .unwrap_or(0));
        }
        let row =
            query("SELECT pg_database_size(current_database()) AS bytes").fetch_one(&self.readers).await?;
        loaded(row.try_get("bytes")?, "bytes")
    }

    /// What everything takes.
    pub async fn storage(&self, now: UnixTime) -> Result<Storage, StoreError> {
        let row = query(
            "SELECT (SELECT bytes FROM evidence_usage WHERE id = 1) AS evidence_bytes,
                 CAST(COALESCE(SUM(evidence_rows), 0) AS BIGINT) AS evidence_rows,
                 CAST(COALESCE(SUM(telemetry_bytes), 0) AS BIGINT) AS telemetry_bytes,
                 CAST(COALESCE(SUM(telemetry_rows), 0) AS BIGINT) AS telemetry_rows,
                 CAST(COALESCE(SUM(result_rows), 0) AS BIGINT) AS result_rows,
                 (SELECT COALESCE(MAX(leaf) + 1, 0) FROM audit) AS leaves,
                 (SELECT COUNT(*) FROM svids WHERE not_after > $1) AS certificates
             FROM device_usage",
        )
        .bind(stored(now.0))
        .fetch_one(&self.readers)
        .await?;
        let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
        Ok(Storage {
            evidence_bytes: number("evidence_bytes")?,
            evidence_rows: number("evidence_rows")?,
            telemetry_bytes: number("telemetry_bytes")?,
            telemetry_rows: number("telemetry_rows")?,
            result_rows: number("result_rows")?,
            leaves: number("leaves")?,
            certificates: number("certificates")?,
        })
    }
}
