//! Registration entries: which workload on which device is entitled to which identity.

use assay_evidence::time::UnixTime;
use assay_identity::Selector;
use serde::Serialize;

use super::withdraw::{self, Withdrawn};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};
use crate::store::sql::{Row, query};

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryRecord {
    /// What it is called.
    pub id: String,
    /// The identity.
    pub spiffe_id: String,
    /// The device that may hand it out.
    pub parent: String,
    /// What a workload must match, all of it.
    pub selectors: Vec<Selector>,
    /// How long an SVID lasts.
    pub ttl_seconds: u64,
    /// Names in its SVIDs.
    pub dns_names: Vec<String>,
    /// A word to the workload, to tell its identities apart.
    pub hint: String,
    /// Since when.
    pub created_at: UnixTime,
}

/// Entitles workloads to an identity, unless an entry does so already.
#[derive(Clone, Debug)]
pub struct CreateEntry {
    /// The entry.
    pub entry: EntryRecord,
    /// Who says so.
    pub actor: String,
}

impl Transaction for CreateEntry {
    /// The entry that says the same; nothing was written then.
    type Output = Option<String>;

    async fn apply(self, unit: &mut Unit) -> Result<Option<String>, StoreError> {
        let CreateEntry { entry, actor } = self;
        let same = query("SELECT id FROM entries WHERE spiffe_id = $1 AND parent = $2 AND selectors = $3")
            .bind(&entry.spiffe_id)
            .bind(&entry.parent)
            .bind(json(&entry.selectors))
            .fetch_optional(unit.connection())
            .await?;
        if let Some(same) = same {
            return Ok(Some(same.try_get("id")?));
        }
        let row = query("SELECT COUNT(*) AS entries FROM entries").fetch_one(unit.connection()).await?;
        if loaded(row.try_get("entries")?, "count")? >= ENTRIES_MAX {
            return Err(StoreError::Full { noun: "entries", limit: ENTRIES_MAX });
        }
        query(
            "INSERT INTO entries (id, spiffe_id, parent, selectors, ttl_seconds, dns_names, hint, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&entry.id)
        .bind(&entry.spiffe_id)
        .bind(&entry.parent)
        .bind(json(&entry.selectors))
        .bind(stored(entry.ttl_seconds))
        .bind(json(&entry.dns_names))
        .bind(&entry.hint)
        .bind(stored(entry.created_at.0))
        .execute(unit.connection())
        .await?;
        unit.audit(Line {
            kind: Kind::EntryCreated,
            at: entry.created_at,
            actor,
            subject: entry.spiffe_id.clone(),
            detail: json(&entry),
        })
        .await?;
        Ok(None)
    }
}

/// Ends an entitlement and withdraws what it gave.
#[derive(Clone, Debug)]
pub struct RemoveEntry {
    /// Which.
    pub id: String,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub actor: String,
}

impl Transaction for RemoveEntry {
    type Output = Withdrawn;

    async fn apply(self, unit: &mut Unit) -> Result<Withdrawn, StoreError> {
        let row = query("DELETE FROM entries WHERE id = $1 RETURNING spiffe_id")
            .bind(&self.id)
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Unknown("entry"))?;
        unit.audit(Line {
            kind: Kind::EntryRemoved,
            at: self.at,
            actor: self.actor,
            subject: row.try_get("spiffe_id")?,
            detail: serde_json::json!({ "id": self.id }).to_string(),
        })
        .await?;
        withdraw::of_entry(unit, &self.id, self.at).await
    }
}

impl Store {
    /// Every entry, oldest first.
    pub async fn entries(&self) -> Result<Vec<EntryRecord>, StoreError> {
        let rows = query("SELECT * FROM entries ORDER BY created_at, id").fetch_all(&self.readers).await?;
        rows.iter().map(entry).collect()
    }
}

fn entry(row: &Row) -> Result<EntryRecord, StoreError> {
    let dns_names: &str = row.try_get("dns_names")?;
    Ok(EntryRecord {
        id: row.try_get("id")?,
        spiffe_id: row.try_get("spiffe_id")?,
        parent: row.try_get("parent")?,
        selectors: selectors(row)?,
        ttl_seconds: loaded(row.try_get("ttl_seconds")?, "entries.ttl_seconds")?,
        dns_names: serde_json::from_str(dns_names)
            .map_err(|_| StoreError::Corrupt { column: "entries.dns_names" })?,
        hint: row.try_get("hint")?,
        created_at: UnixTime(loaded(row.try_get("created_at")?, "entries.created_at")?),
    })
}

pub(super) fn selectors(row: &Row) -> Result<Vec<Selector>, StoreError> {
    let selectors: &str = row.try_get("selectors")?;
    serde_json::from_str(selectors).map_err(|_| StoreError::Corrupt { column: "entries.selectors" })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Entries of one server; they are all held in memory, some 300 bytes each.
const ENTRIES_MAX: u64 = 50_000;
