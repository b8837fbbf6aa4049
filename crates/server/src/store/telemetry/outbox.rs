//! What each destination has not been given yet: a row from the transaction that takes a batch in until it was delivered. The
//! bytes are where they are kept anyway.

use crate::store::sql::query;
use crate::store::telemetry::KeptBatch;
use crate::store::{Store, StoreError, Transaction, Unit, loaded, stored};

/// A batch that waits, by where its run begins and its number.
pub type Waiting = (u64, u64);

/// Batches that a destination was given, or that cannot be given to it any more.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// The destination.
    pub destination: String,
    /// The batches.
    pub batches: Vec<Waiting>,
}

/// Forgets what waits for destinations that are no longer configured.
#[derive(Clone, Debug)]
pub struct KeepDestinations(pub Vec<String>);

/// Notes that a batch is to be forwarded.
pub(super) async fn enqueue(
    unit: &mut Unit,
    destinations: &[String],
    (run, sequence): Waiting,
) -> Result<(), StoreError> {
    for destination in destinations {
        query("INSERT INTO telemetry_outbox (destination, run, sequence) VALUES ($1, $2, $3)")
            .bind(destination)
            .bind(stored(run))
            .bind(stored(sequence))
            .execute(unit.connection())
            .await?;
    }
    Ok(())
}

impl Transaction for Forwarded {
    type Output = ();

    /// What went on makes room, on a full disk too.
    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        for (run, sequence) in self.batches {
            query("DELETE FROM telemetry_outbox WHERE destination = $1 AND run = $2 AND sequence = $3")
                .bind(&self.destination)
                .bind(stored(run))
                .bind(stored(sequence))
                .execute(unit.connection())
                .await?;
        }
        Ok(())
    }
}

impl Transaction for KeepDestinations {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let rows =
            query("SELECT DISTINCT destination FROM telemetry_outbox").fetch_all(unit.connection()).await?;
        for row in rows {
            let destination: String = row.try_get("destination")?;
            if !self.0.contains(&destination) {
                query("DELETE FROM telemetry_outbox WHERE destination = $1")
                    .bind(&destination)
                    .execute(unit.connection())
                    .await?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// What waits for a destination, each device's in its order; at most `limit`.
    pub async fn outbox(&self, destination: &str, limit: u32) -> Result<Vec<Waiting>, StoreError> {
        let rows = query(
            "SELECT run, sequence FROM telemetry_outbox WHERE destination = $1 ORDER BY run, sequence LIMIT $2",
        )
        .bind(destination)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let waiting = rows.iter().map(|row| {
            let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
            Ok((number("run")?, number("sequence")?))
        });
        waiting.collect()
    }

    /// How many batches wait for a destination.
    pub async fn outbox_length(&self, destination: &str) -> Result<u64, StoreError> {
        let row = query("SELECT COUNT(*) AS waiting FROM telemetry_outbox WHERE destination = $1")
            .bind(destination)
            .fetch_one(&self.readers)
            .await?;
        loaded(row.try_get("waiting")?, "telemetry_outbox")
    }

    /// Whose run this is, and its batches; `None`: it is not kept.
    pub async fn telemetry_run(&self, leaf: u64) -> Result<Option<(String, Vec<KeptBatch>)>, StoreError> {
        let mut reading = self.readers.begin().await?;
        let row = query("SELECT device_id FROM telemetry_runs WHERE leaf = $1")
            .bind(stored(leaf))
            .fetch_optional(&mut reading)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((row.try_get("device_id")?, super::batches_of(&mut reading, leaf).await?)))
    }
}
