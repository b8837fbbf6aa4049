//! Keys that sign for a device by the JSON protocol, as an operator says.

use assay_evidence::time::UnixTime;

use crate::audit::{Kind, Line};
use crate::store::sql::{Row, query};
use crate::store::{Store, StoreError, Transaction, Unit, loaded, stored};

/// A key, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryKey {
    /// The hash that the protocol names it by.
    pub hash: String,
    /// Whose telemetry it signs.
    pub device_id: String,
    /// The key, a SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// Since when.
    pub added_at: UnixTime,
}

/// Has a key sign for a device.
#[derive(Clone, Debug)]
pub struct AddTelemetryKey {
    /// The key.
    pub key: TelemetryKey,
    /// Who says so.
    pub by: String,
}

/// Has a key sign for nobody any more.
#[derive(Clone, Debug)]
pub struct RemoveTelemetryKey {
    /// Its hash.
    pub hash: String,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub by: String,
}

/// What there is to adding a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAdded {
    /// It is there, now or already.
    There,
    /// It signs for another device.
    Another,
    /// As many keys sign for this device as may.
    TooMany,
}

impl Transaction for AddTelemetryKey {
    type Output = KeyAdded;

    async fn apply(self, unit: &mut Unit) -> Result<KeyAdded, StoreError> {
        let TelemetryKey { hash, device_id, spki, added_at } = self.key;
        let row = query("SELECT device_id FROM telemetry_keys WHERE hash = $1")
            .bind(&hash)
            .fetch_optional(unit.connection())
            .await?;
        if let Some(row) = row {
            let is_its = row.try_get::<String>("device_id")? == device_id;
            return Ok(if is_its { KeyAdded::There } else { KeyAdded::Another });
        }
        let row = query("SELECT COUNT(*) AS keys FROM telemetry_keys WHERE device_id = $1")
            .bind(&device_id)
            .fetch_one(unit.connection())
            .await?;
        if row.try_get::<i64>("keys")? >= KEYS_PER_DEVICE_MAX {
            return Ok(KeyAdded::TooMany);
        }
        query("INSERT INTO telemetry_keys (hash, device_id, spki, added_at) VALUES ($1, $2, $3, $4)")
            .bind(&hash)
            .bind(&device_id)
            .bind(&spki)
            .bind(stored(added_at.0))
            .execute(unit.connection())
            .await?;
        let detail = serde_json::json!({ "key_hash": hash }).to_string();
        let kind = Kind::TelemetryKeyAdded;
        unit.audit(Line { kind, at: added_at, actor: self.by, subject: device_id, detail }).await?;
        Ok(KeyAdded::There)
    }
}

impl Transaction for RemoveTelemetryKey {
    /// Whether it was there.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let row = query("SELECT device_id FROM telemetry_keys WHERE hash = $1")
            .bind(&self.hash)
            .fetch_optional(unit.connection())
            .await?;
        let Some(row) = row else { return Ok(false) };
        let subject: String = row.try_get("device_id")?;
        query("DELETE FROM telemetry_keys WHERE hash = $1")
            .bind(&self.hash)
            .execute(unit.connection())
            .await?;
        let detail = serde_json::json!({ "key_hash": self.hash }).to_string();
        let kind = Kind::TelemetryKeyRemoved;
        unit.audit(Line { kind, at: self.at, actor: self.by, subject, detail }).await?;
        Ok(true)
    }
}

impl Store {
    /// The key of a hash.
    pub async fn telemetry_key(&self, hash: &str) -> Result<Option<TelemetryKey>, StoreError> {
        let row = query("SELECT * FROM telemetry_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(key).transpose()
    }

    /// Keys, of one device or of all, at most so many.
    pub async fn telemetry_keys(
        &self,
        device_id: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TelemetryKey>, StoreError> {
        let rows = query(
            "SELECT * FROM telemetry_keys WHERE $1 = '' OR device_id = $1 ORDER BY device_id, hash LIMIT $2",
        )
        .bind(device_id.unwrap_or(""))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(key).collect()
    }
}

fn key(row: &Row) -> Result<TelemetryKey, StoreError> {
    Ok(TelemetryKey {
        hash: row.try_get("hash")?,
        device_id: row.try_get("device_id")?,
        spki: row.try_get("spki")?,
        added_at: UnixTime(loaded(row.try_get("added_at")?, "telemetry_keys.added_at")?),
    })
}

/// A new one beside the old, and some for services that have one each.
const KEYS_PER_DEVICE_MAX: i64 = 16;
