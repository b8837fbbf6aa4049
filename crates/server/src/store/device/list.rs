//! Devices in the order of their names, along one index, so that a page costs the same however many there are.

use std::ops::RangeInclusive;

use assay_evidence::time::UnixTime;

use super::record::{DeviceRecord, device};
use crate::store::sql::{Row, query, query_of};
use crate::store::{Store, StoreError, loaded, stored};

/// What is looked at of a device before it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its SPIFFE ID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// As labels are written.
    pub labels: String,
    /// As last recorded.
    pub status: String,
    /// Until when a trusted one stands; 0: it never did.
    pub valid_until: UnixTime,
}

/// Which devices are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along<'a> {
    /// All.
    Names,
    /// Those with this status on record.
    Status(&'a str),
    /// Those with this label, `key=value`.
    Label(&'a str),
}

impl Store {
    /// The first devices of a range of names.
    pub async fn devices_along(
        &self,
        along: Along<'_>,
        names: &RangeInclusive<String>,
        limit: usize,
    ) -> Result<Vec<Candidate>, StoreError> {
        let statement = match along {
            Along::Names => query(ALONG_NAMES),
            Along::Status(_) => query(ALONG_STATUS),
            Along::Label(_) => query(ALONG_LABEL),
        };
        let statement =
            statement.bind(names.start()).bind(names.end()).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let statement = match along {
            Along::Names => statement,
            Along::Status(word) | Along::Label(word) => statement.bind(word),
        };
        statement.fetch_all(&self.readers).await?.iter().map(candidate).collect()
    }

    /// Devices whose SPIFFE IDs begin like this, at most `limit`.
    pub async fn devices_beginning(&self, id: &str, limit: u32) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = query("SELECT * FROM devices WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3")
            .bind(id)
            .bind(format!("{id}{}", char::MAX))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(self.owed.over(device(row)?))).collect()
    }

    /// These devices, in the order of their names.
    pub async fn devices_of(&self, ids: &[&str]) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = query_of(
            "SELECT * FROM devices WHERE id IN (SELECT value FROM json_each($1)) ORDER BY name",
            "SELECT * FROM devices WHERE id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS JSONB))))
             ORDER BY name",
        )
            .bind(json(ids)?)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(self.owed.over(device(row)?))).collect()
    }

    /// How many certificates each of these devices holds now.
    pub async fn standing_svids(
        &self,
        ids: &[&str],
        now: UnixTime,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = query_of(OF_SVIDS, OF_SVIDS_POSTGRES)
            .bind(json(ids)?)
            .bind(stored(now.0))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("device_id")?, loaded(row.try_get("standing")?, "count")?)))
            .collect()
    }
}

const ALONG_NAMES: &str = "SELECT id, name, labels, status, valid_until FROM devices
     WHERE name >= $1 AND name <= $2 ORDER BY name LIMIT $3";
const ALONG_STATUS: &str = "SELECT id, name, labels, status, valid_until FROM devices
     WHERE name >= $1 AND name <= $2 AND status = $4 ORDER BY name LIMIT $3";
const ALONG_LABEL: &str = "SELECT id, devices.name AS name, labels, status, valid_until
     FROM device_labels JOIN devices ON devices.name = device_labels.name
     WHERE device_labels.name >= $1 AND device_labels.name <= $2 AND label = $4
     ORDER BY device_labels.name LIMIT $3";
const OF_SVIDS: &str = "SELECT device_id, COUNT(*) AS standing FROM svids
     WHERE device_id IN (SELECT value FROM json_each($1)) AND withdrawn_at = 0 AND not_after > $2
     GROUP BY device_id";
const OF_SVIDS_POSTGRES: &str = "SELECT device_id, COUNT(*) AS standing FROM svids
     WHERE device_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS JSONB))))
         AND withdrawn_at = 0 AND not_after > $2
     GROUP BY device_id";

fn candidate(row: &Row) -> Result<Candidate, StoreError> {
    Ok(Candidate {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        labels: row.try_get("labels")?,
        status: row.try_get("status")?,
        valid_until: UnixTime(loaded(row.try_get("valid_until")?, "valid_until")?),
    })
}

fn json(ids: &[&str]) -> Result<String, StoreError> {
    serde_json::to_string(ids).map_err(|_| StoreError::Unwritable)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::store::Database;

    /// What a page costs is what its rows cost: nothing is read through or sorted for it.
    #[tokio::test]
    async fn year_9_pages_are_read_along_an_index() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&Database::File(folder.path().join(crate::store::FILE_NAME))).await.unwrap();
        for (statement, index) in [
            (ALONG_NAMES, "devices_by_name"),
            (ALONG_STATUS, "devices_by_status"),
            (ALONG_LABEL, "device_labels"),
            (OF_SVIDS, "svids_by_device"),
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let rows = query(Box::leak(explain.into_boxed_str())).fetch_all(&store.readers).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{statement}: {plan:?}");
            let reads_through = |step: &String| step.starts_with("SCAN") && !step.contains("json_each");
            assert!(!plan.iter().any(|step| reads_through(step) || step.contains("TEMP B-TREE")), "{plan:?}");
        }
    }
}
