//! Where the audit trail is kept, and the events in it.

use assay_evidence::time::UnixTime;
use tokio_stream::Stream;

use super::{Committed, Store, StoreError, Withdrawn, loaded, stored};
use crate::audit::{Head, Kind, Leaf};
use crate::store::sql::{Connection, Row, query};

/// What memory is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Leaves in the trail.
    pub leaves: u64,
    /// The plan's version.
    pub plan: u64,
    /// Registration entries.
    pub entries: u64,
    /// Other trust domains.
    pub foreign_domains: u64,
    /// Secrets.
    pub secrets: u64,
    /// Access tokens on record, and how many of them were revoked.
    pub access_tokens: (u64, u64),
    /// Certificates that a revocation list has to name.
    pub withdrawn: u64,
}

impl Store {
    /// Leaves from index `from` on, at most `limit`.
    pub async fn audit_leaves(&self, from: u64, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = query("SELECT * FROM audit WHERE leaf >= $1 ORDER BY leaf LIMIT $2")
            .bind(stored(from))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(leaf).collect()
    }

    /// Leaves from index `from` on and before `end`, with what fell with each.
    pub(crate) async fn committed(
        &self,
        from: u64,
        end: u64,
        limit: u32,
    ) -> Result<Vec<Committed>, StoreError> {
        let mut reading = self.readers.begin().await?;
        let leaves = query(
            "SELECT leaf, kind, subject FROM audit WHERE leaf >= $1 AND leaf < $2 ORDER BY leaf LIMIT $3",
        )
        .bind(stored(from))
        .bind(stored(end))
        .bind(i64::from(limit))
        .fetch_all(&mut reading)
        .await?;
        let fallen = query(
            "SELECT serial, not_after, withdrawn_leaf FROM svids WHERE withdrawn_leaf >= $1 AND withdrawn_leaf < $2",
        )
        .bind(stored(from))
        .bind(stored(end))
        .fetch_all(&mut reading)
        .await?;
        let mut committed = Vec::with_capacity(leaves.len());
        for row in &leaves {
            let kind: &str = row.try_get("kind")?;
            committed.push(Committed {
                leaf: loaded(row.try_get("leaf")?, "audit.leaf")?,
                kind: Kind::from_name(kind),
                subject: row.try_get("subject")?,
                withdrawn: Withdrawn::default(),
            });
        }
        for row in &fallen {
            let leaf = loaded(row.try_get("withdrawn_leaf")?, "svids.withdrawn_leaf")?;
            if let Some(one) = committed.iter_mut().find(|one| one.leaf == leaf) {
                let not_after = UnixTime(loaded(row.try_get("not_after")?, "svids.not_after")?);
                one.withdrawn.serials.push((row.try_get("serial")?, not_after));
            }
        }
        Ok(committed)
    }

    /// How the store stands, to compare with what is held in memory; all of one moment.
    pub(crate) async fn standing(&self, now: UnixTime) -> Result<Standing, StoreError> {
        let row = query(
            "SELECT (SELECT COALESCE(MAX(leaf) + 1, 0) FROM audit) AS leaves,
                 (SELECT version FROM plan WHERE id = 1) AS plan,
                 (SELECT COUNT(*) FROM entries) AS entries,
                 (SELECT COUNT(*) FROM foreign_domains) AS foreign_domains,
                 (SELECT COUNT(*) FROM secrets) AS secrets,
                 (SELECT COUNT(*) FROM access_tokens) AS access_tokens,
                 (SELECT COUNT(*) FROM access_tokens WHERE revoked_at > 0) AS access_tokens_revoked,
                 (SELECT COUNT(*) FROM svids WHERE withdrawn_at > 0 AND not_after > $1) AS withdrawn",
        )
        .bind(stored(now.0))
        .fetch_one(&self.readers)
        .await?;
        let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
        Ok(Standing {
            leaves: number("leaves")?,
            plan: number("plan")?,
            entries: number("entries")?,
            foreign_domains: number("foreign_domains")?,
            secrets: number("secrets")?,
            access_tokens: (number("access_tokens")?, number("access_tokens_revoked")?),
            withdrawn: number("withdrawn")?,
        })
    }

    /// What changed a device's fate, newest first.
    pub async fn events(&self, device_id: &str, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = query(
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
        let rows = query(
            "SELECT audit.* FROM events JOIN audit ON audit.leaf = events.leaf ORDER BY events.leaf DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(leaf).collect()
    }
}

pub(super) async fn insert(connection: &mut Connection, leaf: &Leaf) -> Result<(), StoreError> {
    query(
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
    connection: &mut Connection,
    leaf: &Leaf,
    device_id: &str,
) -> Result<(), StoreError> {
    query("INSERT INTO events (leaf, device_id) VALUES ($1, $2)")
        .bind(stored(leaf.index))
        .bind(device_id)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn head(connection: &mut Connection) -> Result<Head, StoreError> {
    let row = query("SELECT * FROM audit ORDER BY leaf DESC LIMIT 1").fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(Head::EMPTY) };
    let last = leaf(&row)?;
    Ok(Head { leaves: last.index.saturating_add(1), hash: last.hash })
}

/// The whole trail in order, row by row.
pub(crate) fn trail(connection: &mut Connection) -> impl Stream<Item = Result<Row, StoreError>> + Unpin + '_ {
    query("SELECT * FROM audit ORDER BY leaf").fetch(connection)
}

/// The highest leaf any row names, if any does.
pub(crate) async fn highest_named_leaf(connection: &mut Connection) -> Result<Option<u64>, StoreError> {
    let row = query(
        "SELECT MAX(leaf) AS leaf FROM (SELECT MAX(leaf) AS leaf FROM events
         UNION ALL SELECT MAX(leaf) FROM appraisals UNION ALL SELECT MAX(leaf) FROM svids
         UNION ALL SELECT MAX(leaf) FROM telemetry_runs) AS named",
    )
    .fetch_one(connection)
    .await?;
    row.try_get::<Option<i64>>("leaf")?.map(|leaf| loaded(leaf, "leaf")).transpose()
}

pub(crate) fn leaf(row: &Row) -> Result<Leaf, StoreError> {
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
