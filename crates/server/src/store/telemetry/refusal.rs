//! Batches that were refused: the last few of each device.

use assay_evidence::time::UnixTime;

use crate::store::sql::{Row, query};
use crate::store::telemetry::Chain;
use crate::store::{Store, StoreError, Transaction, Unit, loaded, stored};

/// Remembers that a batch was refused, for the operator; the last few of each device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefuseTelemetry {
    /// Who signed it.
    pub device_id: String,
    /// Of which of its chains it is.
    pub chain: Chain,
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
            "INSERT INTO telemetry_refusals (device_id, chain, sequence, at, code, reason) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (device_id, chain, sequence)
             DO UPDATE SET at = excluded.at, code = excluded.code, reason = excluded.reason",
        )
        .bind(&self.device_id)
        .bind(self.chain.number())
        .bind(stored(self.sequence))
        .bind(stored(self.at.0))
        .bind(&self.code)
        .bind(&self.reason)
        .execute(unit.connection())
        .await?;
        query("DELETE FROM telemetry_refusals WHERE device_id = $1 AND chain = $2 AND sequence <= $3")
            .bind(&self.device_id)
            .bind(self.chain.number())
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
}

fn refusal(row: &Row) -> Result<RefuseTelemetry, StoreError> {
    Ok(RefuseTelemetry {
        device_id: row.try_get("device_id")?,
        chain: if row.try_get::<i64>("chain")? == Chain::Json.number() { Chain::Json } else { Chain::Device },
        sequence: loaded(row.try_get("sequence")?, "telemetry_refusals.sequence")?,
        at: UnixTime(loaded(row.try_get("at")?, "telemetry_refusals.at")?),
        code: row.try_get("code")?,
        reason: row.try_get("reason")?,
    })
}

/// Refusals kept of each device.
const REFUSALS_PER_DEVICE_MAX: u64 = 100;
