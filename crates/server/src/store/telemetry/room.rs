//! Letting runs go: when they are old, and when a device, or all together, take more than they may. What goes is on record.

use std::collections::HashMap;

use assay_evidence::time::UnixTime;
use serde_json::json;

use crate::audit::{Kind, Line};
use crate::store::sql::{Row, query};
use crate::store::{StoreError, Unit, loaded, stored, usage};

/// What went, and is no longer kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Runs.
    pub runs: u64,
    /// Batches in them.
    pub batches: u64,
    /// Bytes that they took.
    pub bytes: u64,
}

/// Why runs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They are older than telemetry is kept.
    Age,
    /// Their device takes more than one may.
    Device,
    /// All together take more than they may, and their device takes most.
    All,
}

impl Why {
    /// All of them.
    pub const ALL: [Why; 3] = [Why::Age, Why::Device, Why::All];

    /// The name on record and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Why::Age => "age",
            Why::Device => "device-bytes",
            Why::All => "all-bytes",
        }
    }
}

/// A run that goes.
struct Going {
    leaf: i64,
    device_id: String,
    batches: u64,
    bytes: u64,
}

/// Makes room for what a device brought, with its own oldest runs and never with the one it is in.
pub(super) async fn make(
    unit: &mut Unit,
    device_id: &str,
    usage: usage::Usage,
    (own, bytes_max): (u64, u64),
    now: UnixTime,
) -> Result<Dropped, StoreError> {
    let is_over = |bytes: u64, rows: u64| bytes > bytes_max || rows > BATCHES_PER_DEVICE_MAX;
    if !is_over(usage.telemetry_bytes, usage.telemetry_rows) {
        return Ok(Dropped::default());
    }
    let oldest = oldest_of(unit, device_id, own).await?;
    let (mut bytes, mut rows, mut going) = (usage.telemetry_bytes, usage.telemetry_rows, Vec::new());
    for run in oldest {
        if !is_over(bytes, rows) {
            break;
        }
        (bytes, rows) = (bytes.saturating_sub(run.bytes), rows.saturating_sub(run.batches));
        going.push(run);
    }
    let is_of = json!({ "why": Why::Device.name() });
    remove(unit, &going, device_id, is_of, now).await
}

/// Lets runs go whose last batch came before a time; the oldest first, and so many at once.
pub(in crate::store) async fn drop_older(
    unit: &mut Unit,
    before: UnixTime,
    now: UnixTime,
) -> Result<Dropped, StoreError> {
    let rows = query(
        "SELECT leaf, device_id, batches, stored FROM telemetry_runs WHERE last_at < $1 ORDER BY last_at LIMIT $2",
    )
    .bind(stored(before.0))
    .bind(RUNS_AT_ONCE_MAX)
    .fetch_all(unit.connection())
    .await?;
    let going = rows.iter().map(going).collect::<Result<Vec<_>, _>>()?;
    remove(unit, &going, "server", json!({ "why": Why::Age.name(), "before": before }), now).await
}

/// If all together take more than they may, lets the oldest runs of the device go that takes most.
pub(in crate::store) async fn drop_largest(
    unit: &mut Unit,
    bytes_max: u64,
    now: UnixTime,
) -> Result<Dropped, StoreError> {
    let row = query("SELECT CAST(COALESCE(SUM(telemetry_bytes), 0) AS BIGINT) AS bytes FROM device_usage")
        .fetch_one(unit.connection())
        .await?;
    let mut over = loaded(row.try_get("bytes")?, "device_usage.telemetry_bytes")?.saturating_sub(bytes_max);
    if over == 0 {
        return Ok(Dropped::default());
    }
    let largest = query("SELECT device_id FROM device_usage ORDER BY telemetry_bytes DESC LIMIT 1")
        .fetch_one(unit.connection())
        .await?;
    let largest: String = largest.try_get("device_id")?;
    let mut going = Vec::new();
    for run in oldest_of(unit, &largest, u64::MAX).await? {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(run.bytes);
        going.push(run);
    }
    remove(unit, &going, &largest, json!({ "why": Why::All.name() }), now).await
}

/// The oldest runs of a device that begin before a leaf.
async fn oldest_of(unit: &mut Unit, device_id: &str, before: u64) -> Result<Vec<Going>, StoreError> {
    let rows = query(
        "SELECT leaf, device_id, batches, stored FROM telemetry_runs WHERE device_id = $1 AND leaf < $2
         ORDER BY leaf LIMIT $3",
    )
    .bind(device_id)
    .bind(stored(before))
    .bind(RUNS_AT_ONCE_MAX)
    .fetch_all(unit.connection())
    .await?;
    rows.iter().map(going).collect()
}

fn going(row: &Row) -> Result<Going, StoreError> {
    Ok(Going {
        leaf: row.try_get("leaf")?,
        device_id: row.try_get("device_id")?,
        batches: loaded(row.try_get("batches")?, "telemetry_runs.batches")?,
        bytes: loaded(row.try_get("stored")?, "telemetry_runs.stored")?,
    })
}

/// Removes runs, and puts on record that and why they went.
async fn remove(
    unit: &mut Unit,
    going: &[Going],
    subject: &str,
    mut detail: serde_json::Value,
    now: UnixTime,
) -> Result<Dropped, StoreError> {
    let Some(newest) = going.iter().map(|run| run.leaf).max() else { return Ok(Dropped::default()) };
    let mut freed: HashMap<&str, usage::Change> = HashMap::new();
    let mut dropped = Dropped::default();
    for run in going {
        for statement in
            ["DELETE FROM telemetry_batches WHERE run = $1", "DELETE FROM telemetry_runs WHERE leaf = $1"]
        {
            query(statement).bind(run.leaf).execute(unit.connection()).await?;
        }
        let less = freed.entry(&run.device_id).or_default();
        less.telemetry_bytes -= usage::signed(run.bytes);
        less.telemetry_rows -= usage::signed(run.batches);
        dropped.runs += 1;
        dropped.batches += run.batches;
        dropped.bytes += run.bytes;
    }
    let devices = freed.len();
    for (device_id, less) in freed {
        usage::change(unit, device_id, less).await?;
    }
    if let Some(detail) = detail.as_object_mut() {
        detail.insert("through_leaf".to_owned(), newest.into());
        for (name, number) in [("runs", dropped.runs), ("batches", dropped.batches), ("bytes", dropped.bytes)]
        {
            detail.insert(name.to_owned(), number.into());
        }
        detail.insert("devices".to_owned(), devices.into());
    }
    let kind = Kind::TelemetryDropped;
    let (actor, subject) = ("server".to_owned(), subject.to_owned());
    unit.audit(Line { kind, at: now, actor, subject, detail: detail.to_string() }).await?;
    Ok(dropped)
}

/// Batches kept of one device, whatever they take.
const BATCHES_PER_DEVICE_MAX: u64 = 100_000;
/// Runs that go at once, so that the writer is not held up for long.
const RUNS_AT_ONCE_MAX: i64 = 256;
