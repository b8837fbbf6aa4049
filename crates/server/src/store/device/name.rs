//! What a device is called: by a name that no other device has.

use assay_evidence::time::UnixTime;

use crate::audit::{Kind, Line};
use crate::store::sql::query;
use crate::store::{StoreError, Transaction, Unit};

/// Calls a device something else.
#[derive(Clone, Debug)]
pub struct RenameDevice {
    /// Which.
    pub device_id: String,
    /// What it is called when this is decided.
    pub from: String,
    /// What it is called from now on.
    pub to: String,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub by: String,
}

impl Transaction for RenameDevice {
    /// Whether nobody else has the name; if somebody does, nothing changed.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        if is_taken(unit, &self.device_id, &self.to).await? {
            return Ok(false);
        }
        rename(unit, &self.device_id, &self.from, &self.to).await?;
        unit.audit(Line {
            kind: Kind::DeviceRenamed,
            at: self.at,
            actor: self.by,
            subject: self.device_id,
            detail: serde_json::json!({ "from": self.from, "to": self.to }).to_string(),
        })
        .await?;
        Ok(true)
    }
}

/// What a device that calls itself `name` is called: that, or where another device has it, with the start of the hash behind
/// it, or all of it where somebody took care to have that name as well.
pub(super) async fn own(unit: &mut Unit, id: &str, name: String) -> Result<String, StoreError> {
    match is_taken(unit, id, &name).await? {
        true => behind(unit, id, &name).await,
        false => Ok(name),
    }
}

/// What a device is called that comes second to the one of this name.
pub(super) async fn behind(unit: &mut Unit, id: &str, name: &str) -> Result<String, StoreError> {
    let hash = id.rsplit('/').next().unwrap_or(id);
    let start = hash.get(..NAME_HASH_DIGITS).unwrap_or(hash);
    let short = format!("{name}-{start}");
    Ok(if is_taken(unit, id, &short).await? { format!("{name}-{hash}") } else { short })
}

pub(super) async fn rename(unit: &mut Unit, id: &str, from: &str, to: &str) -> Result<(), StoreError> {
    let done = query("UPDATE devices SET name = $3 WHERE id = $1 AND name = $2")
        .bind(id)
        .bind(from)
        .bind(to)
        .execute(unit.connection())
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

async fn is_taken(unit: &mut Unit, id: &str, name: &str) -> Result<bool, StoreError> {
    let taken = query("SELECT 1 FROM devices WHERE name = $1 AND id <> $2")
        .bind(name)
        .bind(id)
        .fetch_optional(unit.connection())
        .await?;
    Ok(taken.is_some())
}

/// Two devices of one name that begin alike take some 2^24 of them.
const NAME_HASH_DIGITS: usize = 12;
