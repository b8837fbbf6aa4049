//! Taking a batch in: the device's chain moves on, and the batch goes into the run that is open or begins one.

use std::sync::Arc;

use assay_evidence::time::UnixTime;

use super::room::{self, Dropped};
use super::{Chain, ENDED, OPEN, outbox};
use crate::audit::{Hash, Kind, Line};
use crate::store::budget::Spending;
use crate::store::sql::query;
use crate::store::{StoreError, Transaction, Unit, loaded, stored, usage};

/// Takes a batch in, moving the device's chain on.
#[derive(Clone, Debug)]
pub struct AcceptTelemetry {
    /// Who signed it.
    pub device_id: String,
    /// Which of its chains moves on.
    pub chain: Chain,
    /// The trust-state version it was accepted on.
    pub state_version: u64,
    /// The revision of the position it was checked against; 0: there was none.
    pub from_revision: u64,
    /// The position after it, JSON.
    pub position: String,
    /// Whether it names the batch taken before it; if not, a run begins.
    pub continues: bool,
    /// When it came in.
    pub received_at: UnixTime,
    /// Its number in the device's chain.
    pub sequence: u64,
    /// Data points in it.
    pub items: u64,
    /// Where the device says it is.
    pub location: String,
    /// What is put on record where a run begins, JSON; names the statement's hash.
    pub detail: String,
    /// The exact bytes that were signed.
    pub statement: Vec<u8>,
    /// The device key's signature over them.
    pub signature: Vec<u8>,
    /// The exact bytes of the payload.
    pub payload: Vec<u8>,
    /// How many bytes of batches may be kept of one device; its oldest make room.
    pub device_bytes_max: u64,
    /// Who is to be given it.
    pub destinations: Arc<[String]>,
}

/// What stands for a batch that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The leaf that its run begins with.
    pub leaf: u64,
    /// That leaf's hash.
    pub hash: Hash,
    /// What had to go for it.
    pub dropped: Dropped,
}

/// The run that a device's batches go into.
struct Run {
    leaf: u64,
    hash: Hash,
    state_version: u64,
    location: String,
    batches: u64,
    bytes: u64,
    first_at: UnixTime,
}

impl Transaction for AcceptTelemetry {
    type Output = Receipt;

    async fn apply(self, unit: &mut Unit) -> Result<Receipt, StoreError> {
        query("SELECT 1 FROM devices WHERE id = $1 AND state_version = $2 AND status = 'trusted'")
            .bind(&self.device_id)
            .bind(stored(self.state_version))
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Conflict)?;
        unit.spend(&self.device_id, Spending::Telemetry, self.received_at)?;
        let open = self.open_run(unit).await?;
        let (leaf, hash) = match open {
            Some(run) if self.fits(&run) => (run.leaf, run.hash),
            other => self.begin_run(unit, other.map(|run| run.leaf)).await?,
        };
        self.move_on(unit, leaf).await?;
        self.insert(unit, leaf).await?;
        outbox::enqueue(unit, &self.destinations, (leaf, self.sequence)).await?;
        let more = usage::Change {
            telemetry_bytes: usage::signed(self.bytes()),
            telemetry_rows: 1,
            ..usage::Change::default()
        };
        let usage = usage::change(unit, &self.device_id, more).await?;
        let dropped =
            room::make(unit, &self.device_id, usage, (leaf, self.device_bytes_max), self.received_at).await?;
        Ok(Receipt { leaf, hash, dropped })
    }
}

impl AcceptTelemetry {
    fn bytes(&self) -> u64 {
        let bytes = [&self.statement, &self.signature, &self.payload].map(Vec::len).iter().sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether the batch goes on with a run: everything that its first leaf says holds of this one as well.
    fn fits(&self, run: &Run) -> bool {
        // So that a device's oldest run is not most of what may be kept of it.
        let bytes_max = RUN_BYTES_MAX.min(self.device_bytes_max / 8);
        self.continues
            && run.state_version == self.state_version
            && run.location == self.location
            && run.batches < RUN_BATCHES_MAX
            && run.bytes.saturating_add(self.bytes()) <= bytes_max
            && (run.first_at..run.first_at.plus(RUN_SECONDS_MAX)).contains(&self.received_at)
    }

    async fn open_run(&self, unit: &mut Unit) -> Result<Option<Run>, StoreError> {
        let row = query(match self.chain {
            Chain::Device => {
                "SELECT runs.leaf, audit.hash, runs.state_version, runs.location, runs.batches, runs.bytes, runs.first_at
                 FROM telemetry_positions AS positions JOIN telemetry_runs AS runs ON runs.leaf = positions.run
                 JOIN audit ON audit.leaf = runs.leaf WHERE positions.device_id = $1 AND runs.stage = $2"
            }
            Chain::Json => {
                "SELECT runs.leaf, audit.hash, runs.state_version, runs.location, runs.batches, runs.bytes, runs.first_at
                 FROM telemetry_json_positions AS positions JOIN telemetry_runs AS runs ON runs.leaf = positions.run
                 JOIN audit ON audit.leaf = runs.leaf WHERE positions.device_id = $1 AND runs.stage = $2"
            }
        })
        .bind(&self.device_id)
        .bind(OPEN)
        .fetch_optional(unit.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
        let hash: &[u8] = row.try_get("hash")?;
        Ok(Some(Run {
            leaf: number("leaf")?,
            hash: hash.try_into().map_err(|_| StoreError::Corrupt { column: "audit.hash" })?,
            state_version: number("state_version")?,
            location: row.try_get("location")?,
            batches: number("batches")?,
            bytes: number("bytes")?,
            first_at: UnixTime(number("first_at")?),
        }))
    }

    /// Begins a run with this batch; what went on until now has ended.
    async fn begin_run(&self, unit: &mut Unit, before: Option<u64>) -> Result<(u64, Hash), StoreError> {
        unit.spend(&self.device_id, Spending::TelemetryRuns, self.received_at)?;
        if let Some(before) = before {
            query("UPDATE telemetry_runs SET stage = $2 WHERE leaf = $1")
                .bind(stored(before))
                .bind(ENDED)
                .execute(unit.connection())
                .await?;
        }
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
            "INSERT INTO telemetry_runs (leaf, device_id, state_version, location, stage, first_sequence, batches, items,
                 first_at, last_at, bytes, stored, packed)
             VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, $7, 0, 0, $8)",
        )
        .bind(stored(leaf.index))
        .bind(&self.device_id)
        .bind(stored(self.state_version))
        .bind(&self.location)
        .bind(OPEN)
        .bind(stored(self.sequence))
        .bind(stored(self.received_at.0))
        .bind(Vec::new())
        .execute(unit.connection())
        .await?;
        Ok((leaf.index, leaf.hash))
    }

    async fn insert(&self, unit: &mut Unit, leaf: u64) -> Result<(), StoreError> {
        query(
            "INSERT INTO telemetry_batches (run, sequence, received_at, items, statement, signature, payload)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(stored(leaf))
        .bind(stored(self.sequence))
        .bind(stored(self.received_at.0))
        .bind(stored(self.items))
        .bind(&self.statement)
        .bind(&self.signature)
        .bind(&self.payload)
        .execute(unit.connection())
        .await?;
        query(
            "UPDATE telemetry_runs SET batches = batches + 1, items = items + $2, last_at = $3, bytes = bytes + $4,
                 stored = stored + $4
             WHERE leaf = $1",
        )
        .bind(stored(leaf))
        .bind(stored(self.items))
        .bind(stored(self.received_at.0))
        .bind(stored(self.bytes()))
        .execute(unit.connection())
        .await?;
        Ok(())
    }

    async fn move_on(&self, unit: &mut Unit, run: u64) -> Result<(), StoreError> {
        let statement = match (self.from_revision, self.chain) {
            (0, Chain::Device) => {
                "INSERT INTO telemetry_positions (device_id, revision, position, run) VALUES ($1, $2 + 1, $3, $4)
                 ON CONFLICT (device_id) DO NOTHING"
            }
            (_, Chain::Device) => {
                "UPDATE telemetry_positions SET revision = revision + 1, position = $3, run = $4
                 WHERE device_id = $1 AND revision = $2"
            }
            (0, Chain::Json) => {
                "INSERT INTO telemetry_json_positions (device_id, revision, position, run) VALUES ($1, $2 + 1, $3, $4)
                 ON CONFLICT (device_id) DO NOTHING"
            }
            (_, Chain::Json) => {
                "UPDATE telemetry_json_positions SET revision = revision + 1, position = $3, run = $4
                 WHERE device_id = $1 AND revision = $2"
            }
        };
        let done = query(statement)
            .bind(&self.device_id)
            .bind(stored(self.from_revision))
            .bind(&self.position)
            .bind(stored(run))
            .execute(unit.connection())
            .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
    }
}

/// Batches of a run: those of an hour, at one a minute.
const RUN_BATCHES_MAX: u64 = 64;
/// How long a run goes on: so long, at most, a batch waits for the leaf that seals it.
pub(super) const RUN_SECONDS_MAX: u64 = 3600;
/// Bytes of a run; more than the longest batch has.
pub(super) const RUN_BYTES_MAX: u64 = 4 << 20;
