//! Secrets, as they are sealed at rest, and which devices have which.

use assay_evidence::time::UnixTime;

use super::budget::Spending;
use super::sql::{Row, query};
use super::svid::carried;
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};

/// A secret, without what is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRecord {
    /// What it is called.
    pub name: String,
    /// Counts its contents, from 1. One that is put in again under a name that was revoked goes on counting.
    pub version: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// Whether devices run it.
    pub autorun: bool,
    /// The devices that it is for; `None`: nobody's.
    pub assigned: Option<AssignedTo>,
    /// When it was changed last.
    pub changed_at: UnixTime,
}

/// Which devices a secret is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedTo {
    /// The labels that they have; empty: all devices.
    pub labels: String,
    /// The policy that judges them; empty: any.
    pub policy: String,
}

/// Who says so, and when.
#[derive(Clone, Debug)]
pub struct Said {
    /// Who.
    pub by: String,
    /// When.
    pub at: UnixTime,
}

/// Puts a secret in, or another content of one that is there.
#[derive(Clone, Debug)]
pub struct PutSecret {
    /// As it is to be; its version is the one that it was sealed as.
    pub secret: SecretRecord,
    /// It, sealed.
    pub sealed: Vec<u8>,
    /// Whose word it is.
    pub said: Said,
}

/// Has a secret be for other devices.
#[derive(Clone, Debug)]
pub struct AssignSecret {
    /// Which.
    pub name: String,
    /// For whom.
    pub assigned: Option<AssignedTo>,
    /// Whose word it is.
    pub said: Said,
}

/// Ends a secret.
#[derive(Clone, Debug)]
pub struct RevokeSecret {
    /// Which.
    pub name: String,
    /// Whose word it is.
    pub said: Said,
}

/// Records that a secret is about to be released; refuses if the device's trust state has moved on, or the secret has.
#[derive(Clone, Debug)]
pub struct ReleaseSecret {
    /// To whom.
    pub device_id: String,
    /// The version of its trust state that the decision was made on.
    pub state_version: u64,
    /// Which secret.
    pub name: String,
    /// Which version of it.
    pub version: u64,
    /// When.
    pub at: UnixTime,
}

/// Takes note that a device may have these secrets and no others.
#[derive(Clone, Debug)]
pub struct KeepSecrets {
    /// Which device.
    pub device_id: String,
    /// Their names.
    pub names: Vec<String>,
    /// When.
    pub at: UnixTime,
}

/// A secret that a device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// Which device.
    pub device_id: String,
    /// Which secret.
    pub name: String,
    /// Which version of it.
    pub version: u64,
    /// Since when.
    pub released_at: UnixTime,
}

impl Transaction for PutSecret {
    /// Whether it was: its version is the next one, and there is room.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let PutSecret { secret, sealed, said } = self;
        let before = find(unit, &secret.name).await?;
        let next = match &before {
            Some(before) => before.version,
            None => last_version(unit, &secret.name).await?,
        };
        if next.saturating_add(1) != secret.version {
            return Ok(false);
        }
        if before.is_none() {
            let row = query("SELECT COUNT(*) AS secrets FROM secrets").fetch_one(unit.connection()).await?;
            if loaded(row.try_get("secrets")?, "count")? >= SECRETS_MAX {
                return Err(StoreError::Full { noun: "secrets", limit: SECRETS_MAX });
            }
        }
        let kind = if before.is_some() { Kind::SecretRotated } else { Kind::SecretPut };
        let mut detail = told(secret.assigned.as_ref());
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("version".to_owned(), secret.version.into());
            detail.insert("bytes".to_owned(), secret.bytes.into());
        }
        record(unit, kind, &secret.name, &detail, &said).await?;
        let assigned = secret.assigned.clone().unwrap_or_default();
        query(
            "INSERT INTO secrets (name, version, sealed, bytes, autorun, assigned, labels, policy, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (name) DO UPDATE SET version = $2, sealed = $3, bytes = $4, autorun = $5, assigned = $6,
                 labels = $7, policy = $8, changed_at = $9",
        )
        .bind(&secret.name)
        .bind(stored(secret.version))
        .bind(&sealed)
        .bind(stored(secret.bytes))
        .bind(i64::from(secret.autorun))
        .bind(i64::from(secret.assigned.is_some()))
        .bind(&assigned.labels)
        .bind(&assigned.policy)
        .bind(stored(said.at.0))
        .execute(unit.connection())
        .await?;
        Ok(true)
    }
}

impl Transaction for AssignSecret {
    /// Whether there is one.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let AssignSecret { name, assigned, said } = self;
        if find(unit, &name).await?.is_none() {
            return Ok(false);
        }
        record(unit, Kind::SecretAssigned, &name, &told(assigned.as_ref()), &said).await?;
        let is_assigned = assigned.is_some();
        let AssignedTo { labels, policy } = assigned.unwrap_or_default();
        query("UPDATE secrets SET assigned = $2, labels = $3, policy = $4, changed_at = $5 WHERE name = $1")
            .bind(&name)
            .bind(i64::from(is_assigned))
            .bind(&labels)
            .bind(&policy)
            .bind(stored(said.at.0))
            .execute(unit.connection())
            .await?;
        Ok(true)
    }
}

impl Transaction for RevokeSecret {
    /// From how many devices it is taken; `None`: there is none.
    type Output = Option<u64>;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Option<u64>, StoreError> {
        let RevokeSecret { name, said } = self;
        let Some(before) = find(unit, &name).await? else { return Ok(None) };
        let taken =
            query("UPDATE secret_releases SET withdrawn_at = $2 WHERE name = $1 AND withdrawn_at = 0")
                .bind(&name)
                .bind(stored(said.at.0))
                .execute(unit.connection())
                .await?
                .rows_affected();
        let detail = serde_json::json!({ "version": before.version, "devices": taken });
        record(unit, Kind::SecretRevoked, &name, &detail, &said).await?;
        query("DELETE FROM secrets WHERE name = $1").bind(&name).execute(unit.connection()).await?;
        Ok(Some(taken))
    }
}

impl Transaction for ReleaseSecret {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let ReleaseSecret { device_id, state_version, name, version, at } = self;
        carried(unit, &device_id, state_version, None).await?;
        let secret = find(unit, &name).await?;
        if !secret.is_some_and(|secret| secret.version == version && secret.assigned.is_some()) {
            return Err(StoreError::Conflict);
        }
        unit.spend(&device_id, Spending::Secrets, at)?;
        let detail =
            serde_json::json!({ "secret": name, "version": version, "state_version": state_version });
        let line = Line {
            kind: Kind::SecretReleased,
            at,
            actor: "server".to_owned(),
            subject: device_id.clone(),
            detail: detail.to_string(),
        };
        unit.audit(line).await?;
        query(
            "INSERT INTO secret_releases (device_id, name, version, released_at, withdrawn_at) VALUES ($1, $2, $3, $4, 0)
             ON CONFLICT (device_id, name) DO UPDATE SET version = $3, released_at = $4, withdrawn_at = 0",
        )
        .bind(&device_id)
        .bind(&name)
        .bind(stored(version))
        .bind(stored(at.0))
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

impl Transaction for KeepSecrets {
    /// How many it had that it may not have any more.
    type Output = usize;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<usize, StoreError> {
        let KeepSecrets { device_id, names, at } = self;
        let rows = query("SELECT name FROM secret_releases WHERE device_id = $1 AND withdrawn_at = 0")
            .bind(&device_id)
            .fetch_all(unit.connection())
            .await?;
        let has: Vec<String> = rows.iter().map(|row| row.try_get("name")).collect::<Result<_, _>>()?;
        let lost: Vec<String> = has.into_iter().filter(|name| !names.contains(name)).collect();
        if lost.is_empty() {
            return Ok(0);
        }
        for name in &lost {
            query("UPDATE secret_releases SET withdrawn_at = $3 WHERE device_id = $1 AND name = $2")
                .bind(&device_id)
                .bind(name)
                .bind(stored(at.0))
                .execute(unit.connection())
                .await?;
        }
        let line = Line {
            kind: Kind::SecretWithdrawn,
            at,
            actor: "server".to_owned(),
            subject: device_id,
            detail: serde_json::json!({ "secrets": lost }).to_string(),
        };
        unit.audit(line).await?;
        Ok(lost.len())
    }
}

/// Withdraws all that a device has; the leaf of its fall says it.
pub(super) async fn withdraw(unit: &mut Unit, device_id: &str, at: UnixTime) -> Result<(), StoreError> {
    query("UPDATE secret_releases SET withdrawn_at = $2 WHERE device_id = $1 AND withdrawn_at = 0")
        .bind(device_id)
        .bind(stored(at.0))
        .execute(unit.connection())
        .await?;
    Ok(())
}

impl Store {
    /// Every secret, in the order of their names.
    pub async fn secrets(&self) -> Result<Vec<SecretRecord>, StoreError> {
        let rows = query(SECRETS).fetch_all(&self.readers).await?;
        rows.iter().map(secret).collect()
    }

    /// One of them.
    pub async fn secret(&self, name: &str) -> Result<Option<SecretRecord>, StoreError> {
        let row = query(SECRET).bind(name).fetch_optional(&self.readers).await?;
        row.as_ref().map(secret).transpose()
    }

    /// One of them, sealed as it is, if this is its version.
    pub async fn sealed_secret(&self, name: &str, version: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let row = query("SELECT sealed FROM secrets WHERE name = $1 AND version = $2")
            .bind(name)
            .bind(stored(version))
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| row.try_get("sealed")).transpose()
    }

    /// The version that a new content of this name gets.
    pub async fn next_secret_version(&self, name: &str) -> Result<u64, StoreError> {
        let row = query(
            "SELECT COALESCE(MAX(version), 0) AS version FROM (SELECT version FROM secrets WHERE name = $1
                 UNION ALL SELECT version FROM secret_releases WHERE name = $1) AS known",
        )
        .bind(name)
        .fetch_one(&self.readers)
        .await?;
        Ok(loaded(row.try_get("version")?, "secrets.version")?.saturating_add(1))
    }

    /// Which devices have a secret, newest first.
    pub async fn devices_of_secret(&self, name: &str, limit: u32) -> Result<Vec<ReleaseRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM secret_releases WHERE name = $1 AND withdrawn_at = 0
             ORDER BY released_at DESC, device_id LIMIT $2",
        )
        .bind(name)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(release).collect()
    }

    /// Which secrets a device has.
    pub async fn secrets_of_device(&self, device_id: &str) -> Result<Vec<ReleaseRecord>, StoreError> {
        let rows =
            query("SELECT * FROM secret_releases WHERE device_id = $1 AND withdrawn_at = 0 ORDER BY name")
                .bind(device_id)
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(release).collect()
    }

    /// How many devices have each.
    pub async fn secret_holders(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = query(
            "SELECT name, COUNT(*) AS devices FROM secret_releases WHERE withdrawn_at = 0 GROUP BY name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, loaded(row.try_get("devices")?, "count")?))).collect()
    }
}

async fn find(unit: &mut Unit, name: &str) -> Result<Option<SecretRecord>, StoreError> {
    let row = query(SECRET).bind(name).fetch_optional(unit.connection()).await?;
    row.as_ref().map(secret).transpose()
}

/// The last version that any device had of a secret that is no more: who still has it must not take the next for it.
async fn last_version(unit: &mut Unit, name: &str) -> Result<u64, StoreError> {
    let row = query("SELECT COALESCE(MAX(version), 0) AS version FROM secret_releases WHERE name = $1")
        .bind(name)
        .fetch_one(unit.connection())
        .await?;
    loaded(row.try_get("version")?, "secret_releases.version")
}

async fn record(
    unit: &mut Unit,
    kind: Kind,
    name: &str,
    detail: &serde_json::Value,
    said: &Said,
) -> Result<(), StoreError> {
    let (actor, subject) = (said.by.clone(), name.to_owned());
    unit.audit(Line { kind, at: said.at, actor, subject, detail: detail.to_string() }).await?;
    Ok(())
}

fn told(assigned: Option<&AssignedTo>) -> serde_json::Value {
    match assigned {
        Some(AssignedTo { labels, policy }) => serde_json::json!({ "labels": labels, "policy": policy }),
        None => serde_json::json!({ "nobody": true }),
    }
}

fn secret(row: &Row) -> Result<SecretRecord, StoreError> {
    let is = |column| -> Result<bool, StoreError> { Ok(row.try_get::<i64>(column)? != 0) };
    let assigned = AssignedTo { labels: row.try_get("labels")?, policy: row.try_get("policy")? };
    Ok(SecretRecord {
        name: row.try_get("name")?,
        version: loaded(row.try_get("version")?, "secrets.version")?,
        bytes: loaded(row.try_get("bytes")?, "secrets.bytes")?,
        autorun: is("autorun")?,
        assigned: Some(assigned).filter(|_| is("assigned").unwrap_or(false)),
        changed_at: UnixTime(loaded(row.try_get("changed_at")?, "secrets.changed_at")?),
    })
}

fn release(row: &Row) -> Result<ReleaseRecord, StoreError> {
    Ok(ReleaseRecord {
        device_id: row.try_get("device_id")?,
        name: row.try_get("name")?,
        version: loaded(row.try_get("version")?, "secret_releases.version")?,
        released_at: UnixTime(loaded(row.try_get("released_at")?, "secret_releases.released_at")?),
    })
}

const SECRETS: &str =
    "SELECT name, version, bytes, autorun, assigned, labels, policy, changed_at FROM secrets ORDER BY name";
const SECRET: &str =
    "SELECT name, version, bytes, autorun, assigned, labels, policy, changed_at FROM secrets WHERE name = $1";
/// Each is in every server's memory, without what is secret.
const SECRETS_MAX: u64 = 10_000;
