//! Where the audit trail is kept, and the events in it.

use assay_evidence::time::UnixTime;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio_stream::Stream;

use super::{Store, StoreError, loaded, stored};
use crate::audit::{Head, Leaf};

impl Store {
    /// Leaves from index `from` on, at most `limit`.
    pub async fn audit_leaves(&self, from: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit WHERE leaf >= $1 ORDER BY leaf LIMIT $2")
            .bind(stored(from))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(leaf).collect()
    }

    /// What changed a device's fate, newest first.
    pub async fn events(&self, device_id: &str, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = sqlx::query(
            "SELECT audit.* FROM events JOIN audit ON audit.leaf = events.leaf
             WHERE events.device_id = $1 ORDER BY events.leaf DESC LIMIT $2",
        )
        .bind(device_id)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(leaf).collect()
    }

    /// What changed any device's fate, newest first.
    pub async fn recent_events(&self, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = sqlx::query(
            "SELECT audit.* FROM events JOIN audit ON audit.leaf = events.leaf ORDER BY events.leaf DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(leaf).collect()
    }
}

pub(super) async fn insert(connection: &mut SqliteConnection, leaf: &Leaf) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (leaf, at, kind, actor, subject, detail, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(stored(leaf.index))
    .bind(stored(leaf.at.0))
    .bind(&leaf.kind)
    .bind(&leaf.actor)
    .bind(&leaf.subject)
    .bind(&leaf.detail)
    .bind(leaf.hash.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn insert_event(
    connection: &mut SqliteConnection,
    leaf: &Leaf,
    device_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO events (leaf, device_id) VALUES ($1, $2)")
        .bind(stored(leaf.index))
        .bind(device_id)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let row =
        sqlx::query("SELECT * FROM audit ORDER BY leaf DESC LIMIT 1").fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(Head::EMPTY) };
    let last = leaf(&row)?;
    Ok(Head { leaves: last.index.saturating_add(1), hash: last.hash })
}

/// The whole trail in order, row by row.
pub(crate) fn trail(
    connection: &mut SqliteConnection,
) -> impl Stream<Item = Result<SqliteRow, sqlx::Error>> + Unpin + '_ {
    sqlx::query("SELECT * FROM audit ORDER BY leaf").fetch(connection)
}

/// The highest leaf any row names, if any does.
pub(crate) async fn highest_named_leaf(connection: &mut SqliteConnection) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query(
        "SELECT MAX(leaf) AS leaf FROM (SELECT MAX(leaf) AS leaf FROM events
         UNION ALL SELECT MAX(leaf) FROM appraisals UNION ALL SELECT MAX(leaf) FROM svids
         UNION ALL SELECT MAX(leaf) FROM telemetry) AS named",
    )
    .fetch_one(connection)
    .await?;
    row.try_get::<Option<i64>, _>("leaf")?.map(|leaf| loaded(leaf, "leaf")).transpose()
}

pub(crate) fn leaf(row: &SqliteRow) -> Result<Leaf, StoreError> {
    let hash: &[u8] = row.try_get("hash")?;
    Ok(Leaf {
        index: loaded(row.try_get("leaf")?, "audit.leaf")?,
        at: UnixTime(loaded(row.try_get("at")?, "audit.at")?),
        kind: row.try_get("kind")?,
        actor: row.try_get("actor")?,
        subject: row.try_get("subject")?,
        detail: row.try_get("detail")?,
        hash: hash.try_into().map_err(|_| StoreError::Corrupt { column: "audit.hash" })?,
    })
}
