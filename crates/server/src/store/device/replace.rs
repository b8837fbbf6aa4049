//! A new TPM in a device's place.

use assay_evidence::time::UnixTime;

use super::fate::{Change, Moved, change};
use super::label::relabel;
use super::name;
use crate::audit::{Kind, Line};
use crate::store::sql::query;
use crate::store::{StoreError, Transaction, Unit, assignments, audit};

/// Gives a device the name, the labels and the entries of another, which is ended.
#[derive(Clone, Debug)]
pub struct ReplaceDevice {
    /// The end of the one that is replaced; `None`: it was ended before.
    pub end: Option<Change>,
    /// The one that is replaced.
    pub old: StandingDevice,
    /// The one in its place.
    pub new: StandingDevice,
    /// The plan that it was decided under.
    pub plan_version: u64,
    /// Whether it was accepted that the new device may fall.
    pub forced: bool,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub by: String,
}

/// What a device is called and labelled when this is decided.
#[derive(Clone, Debug)]
pub struct StandingDevice {
    /// Its SPIFFE ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// As labels are written.
    pub labels: String,
}

/// What a replacement brought.
#[derive(Clone, Debug)]
pub struct ReplacedDevice {
    /// What the old device is called from now on.
    pub old_name: String,
    /// How many entries went over.
    pub entries: u64,
}

impl Transaction for ReplaceDevice {
    type Output = ReplacedDevice;

    async fn apply(self, unit: &mut Unit) -> Result<ReplacedDevice, StoreError> {
        let ReplaceDevice { end, old, new, plan_version, forced, at, by } = self;
        assignments::is_of(unit, plan_version).await?;
        if let Some(end) = end {
            let Moved { .. } = change(unit, Kind::DeviceRevoked, end).await?;
        }
        let old_name = name::behind(unit, &old.id, &old.name).await?;
        name::rename(unit, &old.id, &old.name, &old_name).await?;
        name::rename(unit, &new.id, &new.name, &old.name).await?;
        relabel(unit, &old.id, &old.labels, "").await?;
        relabel(unit, &new.id, &new.labels, &old.labels).await?;
        let moved = query("UPDATE entries SET parent = $2, revision = revision + 1 WHERE parent = $1")
            .bind(&old.id)
            .bind(&new.id)
            .execute(unit.connection())
            .await?;
        let entries = moved.rows_affected();
        let detail = serde_json::json!({
            "kind": "replaced", "device": old.id, "name": old.name, "labels": old.labels, "entries": entries,
            "forced": forced,
        });
        let subject = new.id.clone();
        let line = Line { kind: Kind::DeviceReplaced, at, actor: by, subject, detail: detail.to_string() };
        let leaf = unit.audit(line).await?;
        audit::insert_event(unit.connection(), &leaf, &new.id).await?;
        Ok(ReplacedDevice { old_name, entries })
    }
}
