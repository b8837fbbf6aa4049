//! Telemetry that was accepted: the exact bytes that were signed, and where each device's chain of batches stands.
//!
//! Batches of a device that follow each other are a *run* (`accept`): one leaf of the trail begins it, one seals it, and what
//! lies between is bound to both by the chain of statements, each of which names the one before. A run that has ended is packed
//! (`seal`, `packed`), and goes as a whole when it is old or there is no room (`room`).

mod accept;
mod key;
mod outbox;
mod packed;
mod refusal;
mod room;
mod seal;

use assay_evidence::time::UnixTime;

use super::{Store, StoreError, loaded, stored};
use crate::store::sql::{Connection, Row, query};

pub use accept::{AcceptTelemetry, Receipt};
pub use key::{AddTelemetryKey, KeyAdded, RemoveTelemetryKey, TelemetryKey};
pub use outbox::{Forwarded, KeepDestinations};
pub use packed::KeptBatch;
pub(crate) use packed::pack;
pub use refusal::RefuseTelemetry;
pub use room::{Dropped, Why};
pub(super) use room::{drop_largest, drop_older};
pub use seal::SealRun;

/// A chain of batches of a device, each of which names the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The device's own.
    Device,
    /// What came from it by the JSON protocol, in a chain that the server makes.
    Json,
}

impl Chain {
    fn number(self) -> i64 {
        match self {
            Chain::Device => 0,
            Chain::Json => 1,
        }
    }
}

/// A batch as stored, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryRecord {
    /// Its receipt: the place in the audit trail where its run begins.
    pub leaf: u64,
    /// Who signed it.
    pub device_id: String,
    /// When it came in.
    pub received_at: UnixTime,
    /// Its number in the device's chain.
    pub sequence: u64,
    /// Data points in it.
    pub items: u64,
    /// Where the device says it is: country, subdivision, city.
    pub location: String,
    /// Bytes of its payload.
    pub payload_bytes: u64,
}

/// Where a device's chain of batches stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionRecord {
    /// Counts acceptances.
    pub revision: u64,
    /// The position, JSON.
    pub position: String,
}

impl Store {
    /// Where a chain of a device stands; `None` before its first batch.
    pub async fn telemetry_position(
        &self,
        device_id: &str,
        chain: Chain,
    ) -> Result<Option<PositionRecord>, StoreError> {
        let statement = match chain {
            Chain::Device => "SELECT revision, position FROM telemetry_positions WHERE device_id = $1",
            Chain::Json => "SELECT revision, position FROM telemetry_json_positions WHERE device_id = $1",
        };
        let row = query(statement).bind(device_id).fetch_optional(&self.readers).await?;
        row.map(|row| {
            Ok(PositionRecord {
                revision: loaded(row.try_get("revision")?, "telemetry_positions.revision")?,
                position: row.try_get("position")?,
            })
        })
        .transpose()
    }

    /// The last batches, of one device or of all, newest first.
    pub async fn telemetry(
        &self,
        device_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TelemetryRecord>, StoreError> {
        let mut reading = self.readers.begin().await?;
        // So many batches are in so many runs at the most.
        let runs = match device_id {
            Some(device_id) => query(
                "SELECT leaf, device_id, location, last_at, stage FROM telemetry_runs WHERE device_id = $1
                 ORDER BY leaf DESC LIMIT $2",
            )
            .bind(device_id),
            None => query(
                "SELECT leaf, device_id, location, last_at, stage FROM telemetry_runs WHERE $1 = ''
                 ORDER BY last_at DESC, leaf DESC LIMIT $2",
            )
            .bind(""),
        };
        let runs = runs.bind(i64::from(limit)).fetch_all(&mut reading).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut records: Vec<TelemetryRecord> = Vec::new();
        for run in &runs {
            let last_at = UnixTime(loaded(run.try_get("last_at")?, "telemetry_runs.last_at")?);
            // Runs come with the latest end first: what is in this one and those after it is older than all of these.
            if records.get(limit.saturating_sub(1)).is_some_and(|record| record.received_at > last_at) {
                break;
            }
            records.append(&mut records_of(&mut reading, run).await?);
            records
                .sort_by_key(|record| std::cmp::Reverse((record.received_at, record.leaf, record.sequence)));
            records.truncate(limit);
        }
        Ok(records)
    }

    /// A batch with its exact bytes, by where its run begins and its number; `None`: it is not kept.
    pub async fn telemetry_batch(
        &self,
        leaf: u64,
        sequence: u64,
    ) -> Result<Option<(TelemetryRecord, KeptBatch)>, StoreError> {
        let mut reading = self.readers.begin().await?;
        let run =
            query("SELECT leaf, device_id, location, last_at, stage FROM telemetry_runs WHERE leaf = $1")
                .bind(stored(leaf))
                .fetch_optional(&mut reading)
                .await?;
        let Some(run) = run else { return Ok(None) };
        let batches = batches_of(&mut reading, leaf).await?;
        let Some(batch) = batches.into_iter().find(|batch| batch.sequence == sequence) else {
            return Ok(None);
        };
        let payload_bytes = u64::try_from(batch.payload.len()).unwrap_or(u64::MAX);
        Ok(Some((
            record(&run, batch.sequence, UnixTime(batch.received_at), batch.items, payload_bytes)?,
            batch,
        )))
    }
}

/// What is in a run, without the bytes.
async fn records_of(reading: &mut Connection, run: &Row) -> Result<Vec<TelemetryRecord>, StoreError> {
    let leaf = loaded(run.try_get("leaf")?, "telemetry_runs.leaf")?;
    if run.try_get::<i64>("stage")? == PACKED {
        let batches = batches_of(reading, leaf).await?;
        let record = |batch: &KeptBatch| {
            let payload_bytes = u64::try_from(batch.payload.len()).unwrap_or(u64::MAX);
            record(run, batch.sequence, UnixTime(batch.received_at), batch.items, payload_bytes)
        };
        return batches.iter().map(record).collect();
    }
    let rows = query(
        "SELECT sequence, received_at, items, CAST(LENGTH(payload) AS BIGINT) AS payload_bytes FROM telemetry_batches WHERE run = $1",
    )
    .bind(stored(leaf))
    .fetch_all(reading)
    .await?;
    let record = |row: &Row| {
        let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
        record(
            run,
            number("sequence")?,
            UnixTime(number("received_at")?),
            number("items")?,
            number("payload_bytes")?,
        )
    };
    rows.iter().map(record).collect()
}

/// The batches of a run, wherever they are.
async fn batches_of(reading: &mut Connection, leaf: u64) -> Result<Vec<KeptBatch>, StoreError> {
    let run = query("SELECT stage, packed FROM telemetry_runs WHERE leaf = $1")
        .bind(stored(leaf))
        .fetch_optional(&mut *reading)
        .await?;
    let Some(run) = run else { return Ok(Vec::new()) };
    if run.try_get::<i64>("stage")? == PACKED {
        return packed::unpack(run.try_get("packed")?);
    }
    let rows = query("SELECT * FROM telemetry_batches WHERE run = $1 ORDER BY sequence")
        .bind(stored(leaf))
        .fetch_all(reading)
        .await?;
    rows.iter().map(batch).collect()
}

fn batch(row: &Row) -> Result<KeptBatch, StoreError> {
    let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
    Ok(KeptBatch {
        sequence: number("sequence")?,
        received_at: number("received_at")?,
        items: number("items")?,
        statement: row.try_get("statement")?,
        signature: row.try_get("signature")?,
        payload: row.try_get("payload")?,
    })
}

fn record(
    run: &Row,
    sequence: u64,
    received_at: UnixTime,
    items: u64,
    payload_bytes: u64,
) -> Result<TelemetryRecord, StoreError> {
    Ok(TelemetryRecord {
        leaf: loaded(run.try_get("leaf")?, "telemetry_runs.leaf")?,
        device_id: run.try_get("device_id")?,
        received_at,
        sequence,
        items,
        location: run.try_get("location")?,
        payload_bytes,
    })
}

/// Stages of a run: more may come.
const OPEN: i64 = 0;
/// It has ended.
const ENDED: i64 = 1;
/// Its batches are in one piece.
const PACKED: i64 = 2;
