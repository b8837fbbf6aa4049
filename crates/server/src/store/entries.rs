//! Registration entries: which workload on which device is entitled to which identity.

use assay_evidence::time::UnixTime;
use assay_identity::Selector;
use serde::Serialize;

use super::withdraw::{self, Withdrawn};
use super::{Said, Store, StoreError, Transaction, Unit, loaded, stored};
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
    /// Whether its workloads may have messages signed in the device's name.
    pub speaks_for_node: bool,
    /// Other trust domains whose bundles its workloads get, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Whether it is for a node that cannot quote, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unquoted: bool,
    /// How long a token lasts; 0: nothing is said.
    #[serde(skip_serializing_if = "is_zero")]
    pub jwt_ttl_seconds: u64,
    /// When it ends by itself; 0: never.
    #[serde(skip_serializing_if = "is_never")]
    pub expires_at: UnixTime,
    /// Since when.
    pub created_at: UnixTime,
    /// Counts its changes, from 1.
    pub revision: u64,
}

impl EntryRecord {
    /// Whether it has ended by itself.
    pub(crate) fn is_over(&self, now: UnixTime) -> bool {
        self.expires_at.0 != 0 && self.expires_at <= now
    }

    /// Whether it gives the same workloads the same name: of two such, one is enough.
    fn is_same(&self, other: &EntryRecord) -> bool {
        (&self.spiffe_id, &self.parent, &self.selectors)
            == (&other.spiffe_id, &other.parent, &other.selectors)
    }

    /// Whether it says the same, all in all.
    fn says_the_same(&self, other: &EntryRecord) -> bool {
        self.is_same(other)
            && (self.ttl_seconds, &self.dns_names, &self.hint, self.speaks_for_node)
                == (other.ttl_seconds, &other.dns_names, &other.hint, other.speaks_for_node)
            && (self.unquoted, self.jwt_ttl_seconds, self.expires_at)
                == (other.unquoted, other.jwt_ttl_seconds, other.expires_at)
            && self.federates_with == other.federates_with
    }

    /// Whether what this one gave may be kept under the other: the same names, for the same workloads.
    fn keeps_what_was_given(&self, other: &EntryRecord) -> bool {
        self.is_same(other) && self.dns_names == other.dns_names && (other.unquoted || !self.unquoted)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_never(at: &UnixTime) -> bool {
    at.0 == 0
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
        match same(unit, &self.entry).await? {
            Some(same) => Ok(Some(same.id)),
            None => {
                Room::of(unit).await?.take()?;
                create(unit, &self.entry, &self.actor).await.map(|()| None)
            }
        }
    }
}

/// Makes entries what a list of them says, all of them or none. Those that are not in the list stay as they are.
#[derive(Clone, Debug)]
pub struct ApplyEntries {
    /// As they are to be. One that gives the same workloads the same name as one that is there is that one.
    pub entries: Vec<EntryRecord>,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub actor: String,
}

/// What became of one of them, with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was not there.
    Created(String),
    /// It said something else.
    Updated(String),
    /// It was there.
    Unchanged(String),
}

impl Transaction for ApplyEntries {
    /// In the order of the list.
    type Output = Vec<Applied>;

    async fn apply(self, unit: &mut Unit) -> Result<Vec<Applied>, StoreError> {
        let (mut applied, mut room) = (Vec::with_capacity(self.entries.len()), Room::of(unit).await?);
        for entry in self.entries {
            applied.push(match same(unit, &entry).await? {
                None => {
                    room.take()?;
                    create(unit, &entry, &self.actor).await?;
                    Applied::Created(entry.id)
                }
                Some(old) if old.says_the_same(&entry) => Applied::Unchanged(old.id),
                Some(old) => {
                    change(unit, &old, entry, self.at, &self.actor).await?;
                    Applied::Updated(old.id)
                }
            });
        }
        Ok(applied)
    }
}

/// Changes an entry. What it gave is withdrawn where another name, or another choice of workloads, takes its place.
#[derive(Clone, Debug)]
pub struct UpdateEntry {
    /// As it is to be: its id says which, its revision which one it follows; 0: whichever there is.
    pub entry: EntryRecord,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub actor: String,
}

/// What became of an entry that was to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It is so now, and what it gave is withdrawn.
    To(Box<EntryRecord>, Withdrawn),
    /// Another entry says that already.
    Exists(String),
}

impl Transaction for UpdateEntry {
    type Output = Updated;

    async fn apply(self, unit: &mut Unit) -> Result<Updated, StoreError> {
        let UpdateEntry { entry: new, at, actor } = self;
        let row = query("SELECT * FROM entries WHERE id = $1")
            .bind(&new.id)
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Unknown("entry"))?;
        let old = entry(&row)?;
        if new.revision != 0 && new.revision != old.revision {
            return Err(StoreError::Conflict);
        }
        if let Some(other) = same(unit, &new).await?.filter(|other| other.id != new.id) {
            return Ok(Updated::Exists(other.id));
        }
        let (now, withdrawn) = change(unit, &old, new, at, &actor).await?;
        Ok(Updated::To(now.into(), withdrawn))
    }
}

/// The entry that gives the same workloads the same name.
async fn same(unit: &mut Unit, wanted: &EntryRecord) -> Result<Option<EntryRecord>, StoreError> {
    let row = query("SELECT * FROM entries WHERE spiffe_id = $1 AND parent = $2 AND selectors = $3")
        .bind(&wanted.spiffe_id)
        .bind(&wanted.parent)
        .bind(json(&wanted.selectors))
        .fetch_optional(unit.connection())
        .await?;
    row.as_ref().map(entry).transpose()
}

/// How many more there may be. Counted once for a list of them.
struct Room(u64);

impl Room {
    async fn of(unit: &mut Unit) -> Result<Room, StoreError> {
        let row = query("SELECT COUNT(*) AS entries FROM entries").fetch_one(unit.connection()).await?;
        Ok(Room(ENTRIES_MAX.saturating_sub(loaded(row.try_get("entries")?, "count")?)))
    }

    fn take(&mut self) -> Result<(), StoreError> {
        self.0 = self.0.checked_sub(1).ok_or(StoreError::Full { noun: "entries", limit: ENTRIES_MAX })?;
        Ok(())
    }
}

/// Makes one beside those that are there; one that says the same is enough.
pub(super) async fn make_room_and_create(
    unit: &mut Unit,
    entry: &EntryRecord,
    actor: &str,
) -> Result<(), StoreError> {
    if same(unit, entry).await?.is_some() {
        return Ok(());
    }
    Room::of(unit).await?.take()?;
    create(unit, entry, actor).await
}

async fn create(unit: &mut Unit, entry: &EntryRecord, actor: &str) -> Result<(), StoreError> {
    query(
        "INSERT INTO entries (id, spiffe_id, parent, selectors, ttl_seconds, dns_names, hint, created_at, revision,
             speaks_for_node, unquoted, jwt_ttl_seconds, expires_at, federates_with)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&entry.id)
    .bind(&entry.spiffe_id)
    .bind(&entry.parent)
    .bind(json(&entry.selectors))
    .bind(stored(entry.ttl_seconds))
    .bind(json(&entry.dns_names))
    .bind(&entry.hint)
    .bind(stored(entry.created_at.0))
    .bind(stored(entry.revision))
    .bind(entry.speaks_for_node)
    .bind(i64::from(entry.unquoted))
    .bind(stored(entry.jwt_ttl_seconds))
    .bind(stored(entry.expires_at.0))
    .bind(json(&entry.federates_with))
    .execute(unit.connection())
    .await?;
    unit.audit(Line {
        kind: Kind::EntryCreated,
        at: entry.created_at,
        actor: actor.to_owned(),
        subject: entry.spiffe_id.clone(),
        detail: json(entry),
    })
    .await?;
    Ok(())
}

/// Puts an entry in another's place, under its id.
async fn change(
    unit: &mut Unit,
    old: &EntryRecord,
    new: EntryRecord,
    at: UnixTime,
    actor: &str,
) -> Result<(EntryRecord, Withdrawn), StoreError> {
    let revision = old.revision.saturating_add(1);
    let new = EntryRecord { id: old.id.clone(), created_at: old.created_at, revision, ..new };
    query(
        "UPDATE entries SET spiffe_id = $2, parent = $3, selectors = $4, ttl_seconds = $5, dns_names = $6, hint = $7,
             revision = $8, speaks_for_node = $9, unquoted = $10, jwt_ttl_seconds = $11, expires_at = $12,
             federates_with = $13
         WHERE id = $1",
    )
    .bind(&new.id)
    .bind(&new.spiffe_id)
    .bind(&new.parent)
    .bind(json(&new.selectors))
    .bind(stored(new.ttl_seconds))
    .bind(json(&new.dns_names))
    .bind(&new.hint)
    .bind(stored(new.revision))
    .bind(new.speaks_for_node)
    .bind(i64::from(new.unquoted))
    .bind(stored(new.jwt_ttl_seconds))
    .bind(stored(new.expires_at.0))
    .bind(json(&new.federates_with))
    .execute(unit.connection())
    .await?;
    unit.audit(Line {
        kind: Kind::EntryUpdated,
        at,
        actor: actor.to_owned(),
        subject: new.spiffe_id.clone(),
        detail: serde_json::json!({ "before": old, "after": new }).to_string(),
    })
    .await?;
    let withdrawn = match old.keeps_what_was_given(&new) {
        true => Withdrawn::default(),
        false => withdraw::of_entry(unit, &new.id, at).await?,
    };
    Ok((new, withdrawn))
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

    fn uses_reserve(&self) -> bool {
        true
    }

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

/// What becomes of the entries that federate with a trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FederatedEntries {
    /// They stay as they are.
    Keep,
    /// Nothing happens if there are any.
    Refuse,
    /// They are removed, and what they gave is withdrawn.
    Remove,
    /// They stay and federate with it no longer.
    Dissociate,
}

/// The entries that federate with a trust domain.
pub(super) async fn federating(unit: &mut Unit, domain: &str) -> Result<Vec<EntryRecord>, StoreError> {
    // A trust domain's name has no quotes in it, and no percent signs.
    let rows = query("SELECT * FROM entries WHERE federates_with LIKE $1 ORDER BY created_at, id")
        .bind(format!("%{}%", json(&domain)))
        .fetch_all(unit.connection())
        .await?;
    let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().filter(|entry| entry.federates_with.iter().any(|other| other == domain)).collect())
}

/// Does to the entries that federate with a trust domain what is to be done to them.
pub(super) async fn end_federating(
    unit: &mut Unit,
    domain: &str,
    what: FederatedEntries,
    said: &Said,
) -> Result<Withdrawn, StoreError> {
    let mut all = Withdrawn::default();
    if matches!(what, FederatedEntries::Keep | FederatedEntries::Refuse) {
        return Ok(all);
    }
    for old in federating(unit, domain).await? {
        let withdrawn = if what == FederatedEntries::Remove {
            let remove = RemoveEntry { id: old.id, at: said.at, actor: said.by.clone() };
            remove.apply(unit).await?
        } else {
            let mut new = old.clone();
            new.federates_with.retain(|other| other != domain);
            change(unit, &old, new, said.at, &said.by).await?.1
        };
        all.serials.extend(withdrawn.serials);
        all.list_number = all.list_number.max(withdrawn.list_number);
    }
    Ok(all)
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
    let federates_with: &str = row.try_get("federates_with")?;
    Ok(EntryRecord {
        id: row.try_get("id")?,
        spiffe_id: row.try_get("spiffe_id")?,
        parent: row.try_get("parent")?,
        selectors: selectors(row)?,
        ttl_seconds: loaded(row.try_get("ttl_seconds")?, "entries.ttl_seconds")?,
        dns_names: serde_json::from_str(dns_names)
            .map_err(|_| StoreError::Corrupt { column: "entries.dns_names" })?,
        hint: row.try_get("hint")?,
        speaks_for_node: row.try_get("speaks_for_node")?,
        federates_with: serde_json::from_str(federates_with)
            .map_err(|_| StoreError::Corrupt { column: "entries.federates_with" })?,
        unquoted: row.try_get::<i64>("unquoted")? != 0,
        jwt_ttl_seconds: loaded(row.try_get("jwt_ttl_seconds")?, "entries.jwt_ttl_seconds")?,
        expires_at: UnixTime(loaded(row.try_get("expires_at")?, "entries.expires_at")?),
        created_at: UnixTime(loaded(row.try_get("created_at")?, "entries.created_at")?),
        revision: loaded(row.try_get("revision")?, "entries.revision")?,
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
