//! Attestation results: the device's history of verdicts, each where the audit trail has it.

use assay_evidence::time::UnixTime;

use super::{Store, StoreError, Unit, loaded, stored, usage};
use crate::store::sql::{Connection, Row, query};

/// An attestation result as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppraisalRecord {
    /// When.
    pub at: UnixTime,
    /// none, affirming, warning, contraindicated.
    pub tier: String,
    /// Name and version of the policy; empty if there was none.
    pub policy: String,
    /// Every finding, JSON.
    pub findings: String,
    /// The trustworthiness vector, JSON; empty in results that are older than the column.
    pub vector: String,
}

impl AppraisalRecord {
    /// Whether it is the same result, whenever it was made.
    pub fn says_the_same_as(&self, other: &AppraisalRecord) -> bool {
        let AppraisalRecord { at: _, tier, policy, findings, vector } = self;
        (tier, policy, findings, vector) == (&other.tier, &other.policy, &other.findings, &other.vector)
    }
}

impl Store {
    /// The last recorded result of a device, and its leaf.
    pub async fn last_appraisal(
        &self,
        device_id: &str,
    ) -> Result<Option<(u64, AppraisalRecord)>, StoreError> {
        let row = query("SELECT * FROM appraisals WHERE device_id = $1 ORDER BY leaf DESC LIMIT 1")
            .bind(device_id)
            .fetch_optional(&self.readers)
            .await?;
        let result = |row: &Row| Ok((loaded(row.try_get("leaf")?, "appraisals.leaf")?, appraisal(row)?));
        row.as_ref().map(result).transpose()
    }

    /// A recorded result and whose it is.
    pub async fn appraisal(&self, leaf: u64) -> Result<Option<(String, AppraisalRecord)>, StoreError> {
        let row = query("SELECT * FROM appraisals WHERE leaf = $1")
            .bind(stored(leaf))
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(|row| Ok((row.try_get("device_id")?, appraisal(row)?))).transpose()
    }

    /// The recorded results of a device, newest first: the leaf, the result, and whether its evidence is kept.
    pub async fn appraisals(
        &self,
        device_id: &str,
        limit: u32,
    ) -> Result<Vec<(u64, AppraisalRecord, bool)>, StoreError> {
        let rows = query(
            "SELECT appraisals.*, CASE WHEN evidence.id IS NULL THEN 0 ELSE CAST(1 AS BIGINT) END AS has_evidence FROM appraisals
             LEFT JOIN evidence ON evidence.leaf = appraisals.leaf AND evidence.leaf >= 0
             WHERE appraisals.device_id = $1 ORDER BY appraisals.leaf DESC LIMIT $2",
        )
        .bind(device_id)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        let result = |row: &Row| -> Result<_, StoreError> {
            let leaf = loaded(row.try_get("leaf")?, "appraisals.leaf")?;
            Ok((leaf, appraisal(row)?, row.try_get::<i64>("has_evidence")? != 0))
        };
        rows.iter().map(result).collect()
    }
}

pub(super) async fn insert(
    connection: &mut Connection,
    device_id: &str,
    leaf: u64,
    appraisal: &AppraisalRecord,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO appraisals (leaf, device_id, at, tier, policy, findings, vector)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(stored(leaf))
    .bind(device_id)
    .bind(stored(appraisal.at.0))
    .bind(&appraisal.tier)
    .bind(&appraisal.policy)
    .bind(&appraisal.findings)
    .bind(&appraisal.vector)
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts a result that was inserted, and lets the device's oldest go where it has more than are kept. Their leaves stay.
pub(super) async fn bound(unit: &mut Unit, device_id: &str) -> Result<(), StoreError> {
    let more = usage::Change { result_rows: 1, ..usage::Change::default() };
    if usage::change(unit, device_id, more).await?.result_rows <= RESULTS_PER_DEVICE_MAX {
        return Ok(());
    }
    let gone = query(
        "DELETE FROM appraisals WHERE leaf IN
             (SELECT leaf FROM appraisals WHERE device_id = $1 ORDER BY leaf LIMIT $2)",
    )
    .bind(device_id)
    .bind(RESULTS_AT_ONCE)
    .execute(unit.connection())
    .await?;
    let gone = i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX);
    usage::change(unit, device_id, usage::Change { result_rows: -gone, ..usage::Change::default() }).await?;
    Ok(())
}

/// Results kept of one device: a year of one that changes every hour.
const RESULTS_PER_DEVICE_MAX: u64 = 10_000;
const RESULTS_AT_ONCE: i64 = 100;

/// Refuses unless this is the device's last result still.
pub(super) async fn is_last(unit: &mut Unit, device_id: &str, leaf: u64) -> Result<(), StoreError> {
    let row = query("SELECT MAX(leaf) AS leaf FROM appraisals WHERE device_id = $1")
        .bind(device_id)
        .fetch_one(unit.connection())
        .await?;
    match row.try_get::<Option<i64>>("leaf")? {
        Some(last) if last == stored(leaf) => Ok(()),
        _ => Err(StoreError::Conflict),
    }
}

fn appraisal(row: &Row) -> Result<AppraisalRecord, StoreError> {
    Ok(AppraisalRecord {
        at: UnixTime(loaded(row.try_get("at")?, "appraisals.at")?),
        tier: row.try_get("tier")?,
        policy: row.try_get("policy")?,
        findings: row.try_get("findings")?,
        vector: row.try_get("vector")?,
    })
}
