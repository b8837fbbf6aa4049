//! What operators say about a device, and the plan goes by.

use assay_evidence::time::UnixTime;

use crate::audit::{Kind, Line};
use crate::store::sql::{query, query_of};
use crate::store::{Store, StoreError, Transaction, Unit, assignments};

/// What the plan goes by of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledDevice {
    /// Its SPIFFE ID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// As labels are written.
    pub labels: String,
    /// pending, enrolled, trusted, suspect, revoked, expired.
    pub status: String,
}

/// Gives a device other labels.
#[derive(Clone, Debug)]
pub struct LabelDevice {
    /// Whose.
    pub device_id: String,
    /// Those it was decided on.
    pub from: String,
    /// Those it has from now on.
    pub to: String,
    /// The plan that it was decided under.
    pub plan_version: u64,
    /// Whether it was accepted that the device may fall.
    pub forced: bool,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub by: String,
}

impl Transaction for LabelDevice {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        assignments::is_of(unit, self.plan_version).await?;
        relabel(unit, &self.device_id, &self.from, &self.to).await?;
        let mut detail = serde_json::json!({ "from": self.from, "to": self.to });
        if let Some(detail) = detail.as_object_mut().filter(|_| self.forced) {
            detail.insert("forced".to_owned(), true.into());
        }
        unit.audit(Line {
            kind: Kind::DeviceLabelled,
            at: self.at,
            actor: self.by,
            subject: self.device_id,
            detail: detail.to_string(),
        })
        .await?;
        Ok(())
    }
}

/// Gives a device other labels than those it has, and has it found by them and no others.
pub(super) async fn relabel(
    unit: &mut Unit,
    device_id: &str,
    from: &str,
    to: &str,
) -> Result<(), StoreError> {
    let done = query("UPDATE devices SET labels = $3 WHERE id = $1 AND labels = $2")
        .bind(device_id)
        .bind(from)
        .bind(to)
        .execute(unit.connection())
        .await?;
    if done.rows_affected() != 1 {
        return Err(StoreError::Conflict);
    }
    query("DELETE FROM device_labels WHERE name = (SELECT name FROM devices WHERE id = $1)")
        .bind(device_id)
        .execute(unit.connection())
        .await?;
    let labels: Vec<&str> = to.split(',').filter(|label| !label.is_empty()).collect();
    let labels = serde_json::to_string(&labels).map_err(|_| StoreError::Unwritable)?;
    query_of(
        "INSERT INTO device_labels (label, name)
         SELECT label.value, devices.name FROM devices, json_each($2) AS label WHERE devices.id = $1",
        "INSERT INTO device_labels (label, name)
         SELECT label, devices.name FROM devices, jsonb_array_elements_text(CAST($2 AS JSONB)) AS label
         WHERE devices.id = $1",
    )
    .bind(device_id)
    .bind(&labels)
    .execute(unit.connection())
    .await?;
    Ok(())
}

impl Store {
    /// Every device that can be judged, in order of its name, with what the plan goes by.
    pub async fn labelled_devices(&self) -> Result<Vec<LabelledDevice>, StoreError> {
        let rows =
            query("SELECT id, name, labels, status FROM devices WHERE status <> 'revoked' ORDER BY name, id")
                .fetch_all(&self.readers)
                .await?;
        rows.iter()
            .map(|row| {
                Ok(LabelledDevice {
                    id: row.try_get("id")?,
                    name: row.try_get("name")?,
                    labels: row.try_get("labels")?,
                    status: row.try_get("status")?,
                })
            })
            .collect()
    }
}
