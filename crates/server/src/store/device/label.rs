//! What operators say about a device, and the plan goes by.

use assay_evidence::time::UnixTime;

use crate::audit::{Kind, Line};
use crate::store::sql::query;
use crate::store::{Store, StoreError, Transaction, Unit};

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
    /// When.
    pub at: UnixTime,
    /// Who.
    pub by: String,
}

impl Transaction for LabelDevice {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let done = query("UPDATE devices SET labels = $3 WHERE id = $1 AND labels = $2")
            .bind(&self.device_id)
            .bind(&self.from)
            .bind(&self.to)
            .execute(unit.connection())
            .await?;
        if done.rows_affected() != 1 {
            return Err(StoreError::Conflict);
        }
        unit.audit(Line {
            kind: Kind::DeviceLabelled,
            at: self.at,
            actor: self.by,
            subject: self.device_id,
            detail: serde_json::json!({ "from": self.from, "to": self.to }).to_string(),
        })
        .await?;
        Ok(())
    }
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
