//! Telemetry that was accepted: the exact bytes that were signed, and where each device's chain of batches stands.

use assay_evidence::time::UnixTime;

use super::budget::Spending;
use super::{Store, StoreError, Transaction, Unit, loaded, stored, usage};
use crate::audit::{Kind, Leaf, Line};
use crate::store::sql::{Row, query};

/// A batch as stored, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryRecord {
    /// Its receipt: its place in the audit trail.
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

/// Takes a batch in, moving the device's chain on.
#[derive(Clone, Debug)]
pub struct AcceptTelemetry {
    /// Who signed it.
    pub device_id: String,
    /// The trust-state version it was accepted on.
    pub state_version: u64,
    /// The revision of the position it was checked against; 0: there was none.
    pub from_revision: u64,
    /// The position after it, JSON.
    pub position: String,
    /// When it came in.
    pub received_at: UnixTime,
    /// Its number in the device's chain.
    pub sequence: u64,
    /// Data points in it.
    pub items: u64,
    /// Where the device says it is.
    pub location: String,
    /// What is put on record, JSON; names the statement's hash.
    pub detail: String,
    /// The exact bytes that were signed.
    pub statement: Vec<u8>,
    /// The device key's signature over them.
    pub signature: Vec<u8>,
    /// The exact bytes of the payload.
    pub payload: Vec<u8>,
    /// How many bytes of batches may be kept of one device; its oldest make room.
    pub device_bytes_max: u64,
}

impl Transaction for AcceptTelemetry {
    type Output = Leaf;

    async fn apply(self, unit: &mut Unit) -> Result<Leaf, StoreError> {
        query("SELECT 1 FROM devices WHERE id = $1 AND state_version = $2 AND status = 'trusted'")
            .bind(&self.device_id)
            .bind(stored(self.state_version))
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Conflict)?;
        unit.spend(&self.device_id, Spending::Telemetry, self.received_at)?;
        self.move_on(unit).await?;
        let leaf = unit
            .audit(Line {
                kind: Kind::TelemetryAccepted,
                at: self.received_at,
                actor: self.device_id.clone(),
                subject: self.device_id.clone(),
                detail: self.detail.clone(),
            })
            .await?;
        query(
            "INSERT INTO telemetry (leaf, device_id, received_at, sequence, items, location, statement, signature,
                 payload)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(stored(leaf.index))
        .bind(&self.device_id)
        .bind(stored(self.received_at.0))
        .bind(stored(self.sequence))
        .bind(stored(self.items))
        .bind(&self.location)
        .bind(&self.statement)
        .bind(&self.signature)
        .bind(&self.payload)
        .execute(unit.connection())
        .await?;
        let bytes = [&self.statement, &self.signature, &self.payload].map(Vec::len).iter().sum::<usize>();
        let more = usage::Change {
            telemetry_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            telemetry_rows: 1,
            ..usage::Change::default()
        };
        let usage = usage::change(unit, &self.device_id, more).await?;
        let is_full = |bytes: u64, rows: u64| bytes > self.device_bytes_max || rows > BATCHES_PER_DEVICE_MAX;
        if is_full(usage.telemetry_bytes, usage.telemetry_rows) {
            self.make_room(unit, usage, leaf.index).await?;
        }
        Ok(leaf)
    }
}

impl AcceptTelemetry {
    /// Lets the oldest batches of the device go until it takes what it may, or it would take too long; never this one.
    async fn make_room(&self, unit: &mut Unit, usage: usage::Usage, own: u64) -> Result<(), StoreError> {
        let rows = query(
            "SELECT leaf, LENGTH(statement) + LENGTH(signature) + LENGTH(payload) AS bytes FROM telemetry
             WHERE device_id = $1 AND leaf < $2 ORDER BY leaf LIMIT $3",
        )
        .bind(&self.device_id)
        .bind(stored(own))
        .bind(ROOM_ROWS_MAX)
        .fetch_all(unit.connection())
        .await?;
        let (mut bytes, mut count, mut last) = (0_u64, 0_u64, None);
        for row in &rows {
            let left =
                (usage.telemetry_bytes.saturating_sub(bytes), usage.telemetry_rows.saturating_sub(count));
            if left.0 <= self.device_bytes_max && left.1 <= BATCHES_PER_DEVICE_MAX {
                break;
            }
            bytes = bytes.saturating_add(loaded(row.try_get("bytes")?, "telemetry.payload")?);
            count = count.saturating_add(1);
            last = Some(row.try_get::<i64>("leaf")?);
        }
        let Some(last) = last else { return Ok(()) };
        query("DELETE FROM telemetry WHERE device_id = $1 AND leaf <= $2")
            .bind(&self.device_id)
            .bind(last)
            .execute(unit.connection())
            .await?;
        let less = usage::Change {
            telemetry_bytes: -usage::signed(bytes),
            telemetry_rows: -usage::signed(count),
            ..usage::Change::default()
        };
        usage::change(unit, &self.device_id, less).await?;
        Ok(())
    }

    async fn move_on(&self, unit: &mut Unit) -> Result<(), StoreError> {
        let statement = match self.from_revision {
            0 => {
                "INSERT INTO telemetry_positions (device_id, revision, position) VALUES ($1, $2 + 1, $3)
                 ON CONFLICT (device_id) DO NOTHING"
            }
            _ => {
                "UPDATE telemetry_positions SET revision = revision + 1, position = $3
                 WHERE device_id = $1 AND revision = $2"
            }
        };
        let done = query(statement)
            .bind(&self.device_id)
            .bind(stored(self.from_revision))
            .bind(&self.position)
            .execute(unit.connection())
            .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
    }
}

/// Remembers that a batch was refused, for the operator; the last few of each device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefuseTelemetry {
    /// Who signed it.
    pub device_id: String,
    /// Its number in the device's chain.
    pub sequence: u64,
    /// When it came in.
    pub at: UnixTime,
    /// The reason's code.
    pub code: String,
    /// The reason in a sentence.
    pub reason: String,
}

impl Transaction for RefuseTelemetry {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        query(
            "INSERT INTO telemetry_refusals (device_id, sequence, at, code, reason) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (device_id, sequence)
             DO UPDATE SET at = excluded.at, code = excluded.code, reason = excluded.reason",
        )
        .bind(&self.device_id)
        .bind(stored(self.sequence))
        .bind(stored(self.at.0))
        .bind(&self.code)
        .bind(&self.reason)
        .execute(unit.connection())
        .await?;
        query("DELETE FROM telemetry_refusals WHERE device_id = $1 AND sequence <= $2")
            .bind(&self.device_id)
            .bind(stored(self.sequence.saturating_sub(REFUSALS_PER_DEVICE_MAX)))
            .execute(unit.connection())
            .await?;
        Ok(())
    }
}

impl Store {
    /// The last refusals, of one device or of all, newest first.
    pub async fn telemetry_refusals(
        &self,
        device_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RefuseTelemetry>, StoreError> {
        let rows = query(
            "SELECT * FROM telemetry_refusals WHERE $1 = '' OR device_id = $1 ORDER BY at DESC, sequence DESC LIMIT $2",
        )
        .bind(device_id.unwrap_or(""))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(refusal).collect()
    }

    /// Where a device's chain stands; `None` before its first batch.
    pub async fn telemetry_position(&self, device_id: &str) -> Result<Option<PositionRecord>, StoreError> {
        let row = query("SELECT revision, position FROM telemetry_positions WHERE device_id = $1")
            .bind(device_id)
            .fetch_optional(&self.readers)
            .await?;
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
        let rows = query(
            "SELECT leaf, device_id, received_at, sequence, items, location, LENGTH(payload) AS payload_bytes
             FROM telemetry WHERE $1 = '' OR device_id = $1 ORDER BY leaf DESC LIMIT $2",
        )
        .bind(device_id.unwrap_or(""))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(record).collect()
    }
}

fn refusal(row: &Row) -> Result<RefuseTelemetry, StoreError> {
    Ok(RefuseTelemetry {
        device_id: row.try_get("device_id")?,
        sequence: loaded(row.try_get("sequence")?, "telemetry_refusals.sequence")?,
        at: UnixTime(loaded(row.try_get("at")?, "telemetry_refusals.at")?),
        code: row.try_get("code")?,
        reason: row.try_get("reason")?,
    })
}

fn record(row: &Row) -> Result<TelemetryRecord, StoreError> {
    let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
    Ok(TelemetryRecord {
        leaf: number("leaf")?,
        device_id: row.try_get("device_id")?,
        received_at: UnixTime(number("received_at")?),
        sequence: number("sequence")?,
        items: number("items")?,
        location: row.try_get("location")?,
        payload_bytes: number("payload_bytes")?,
    })
}

/// Refusals kept of each device.
const REFUSALS_PER_DEVICE_MAX: u64 = 100;
/// Batches kept of one device, whatever they take.
const BATCHES_PER_DEVICE_MAX: u64 = 100_000;
/// Batches that go at once to make room for one.
const ROOM_ROWS_MAX: i64 = 64;
