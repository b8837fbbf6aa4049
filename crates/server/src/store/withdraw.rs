//! What falls when a trust state falls or an entitlement ends: every kind of grant, in the transaction that ends it.
//!
//! Certificates are withdrawn here and go on the revocation list. Telemetry needs no row of its own: a batch is accepted on
//! the state's version alone, which has moved on. A kind of grant that is stored is withdrawn in [`of_device`].

use assay_evidence::time::UnixTime;

use super::sql::{Row, query};
use super::{StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};

/// Grants that fell, and the revocation list's number that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Serial number, hex, and until when it has to be listed.
    pub serials: Vec<(String, UnixTime)>,
    /// The list's new number; `None`: nothing fell.
    pub list_number: Option<u64>,
}

/// Gives the revocation list a new number, for a fresh one with the same entries.
#[derive(Clone, Copy, Debug)]
pub struct RenumberRevocationList {
    /// How far above the last one.
    pub step: u64,
}

impl Transaction for RenumberRevocationList {
    type Output = u64;

    async fn apply(self, unit: &mut Unit) -> Result<u64, StoreError> {
        next_list_number(unit, self.step).await
    }
}

/// Withdraws all that a device holds.
pub(super) async fn of_device(
    unit: &mut Unit,
    device_id: &str,
    at: UnixTime,
) -> Result<Withdrawn, StoreError> {
    let rows = query(
        "UPDATE svids SET withdrawn_at = $2, withdrawn_leaf = $3
         WHERE device_id = $1 AND withdrawn_at = 0 AND not_after > $2 RETURNING serial, not_after",
    )
    .bind(device_id)
    .bind(stored(at.0))
    .bind(unit.last_leaf().map_or(-1, stored))
    .fetch_all(unit.connection())
    .await?;
    listed(unit, &rows).await
}

/// Withdraws what an earlier run of the server signed for itself: the keys were in its memory, and are nobody's now.
#[derive(Clone, Debug)]
pub struct WithdrawOwn {
    /// Which of its names.
    pub spiffe_ids: Vec<String>,
    /// When.
    pub at: UnixTime,
}

impl Transaction for WithdrawOwn {
    type Output = Withdrawn;

    async fn apply(self, unit: &mut Unit) -> Result<Withdrawn, StoreError> {
        let mut all = Withdrawn::default();
        for spiffe_id in &self.spiffe_ids {
            let standing =
                query("SELECT 1 FROM svids WHERE spiffe_id = $1 AND withdrawn_at = 0 AND not_after > $2")
                    .bind(spiffe_id)
                    .bind(stored(self.at.0))
                    .fetch_optional(unit.connection());
            if standing.await?.is_none() {
                continue;
            }
            let line = Line {
                kind: Kind::SvidWithdrawn,
                at: self.at,
                actor: "server".to_owned(),
                subject: spiffe_id.clone(),
                detail: serde_json::json!({ "reason": "another run of the server" }).to_string(),
            };
            unit.audit(line).await?;
            let Withdrawn { serials, list_number } = of_name(unit, spiffe_id, self.at).await?;
            all.serials.extend(serials);
            all.list_number = list_number.or(all.list_number);
        }
        Ok(all)
    }
}

/// Withdraws all that stands of one name which no device carries.
pub(super) async fn of_name(unit: &mut Unit, spiffe_id: &str, at: UnixTime) -> Result<Withdrawn, StoreError> {
    let rows = query(
        "UPDATE svids SET withdrawn_at = $2, withdrawn_leaf = $3
         WHERE spiffe_id = $1 AND device_id = '' AND withdrawn_at = 0 AND not_after > $2
         RETURNING serial, not_after",
    )
    .bind(spiffe_id)
    .bind(stored(at.0))
    .bind(unit.last_leaf().map_or(-1, stored))
    .fetch_all(unit.connection())
    .await?;
    listed(unit, &rows).await
}

/// Withdraws what an entry entitled to.
pub(super) async fn of_entry(unit: &mut Unit, entry_id: &str, at: UnixTime) -> Result<Withdrawn, StoreError> {
    let rows = query(
        "UPDATE svids SET withdrawn_at = $2, withdrawn_leaf = $3
         WHERE entry_id = $1 AND withdrawn_at = 0 AND not_after > $2 RETURNING serial, not_after",
    )
    .bind(entry_id)
    .bind(stored(at.0))
    .bind(unit.last_leaf().map_or(-1, stored))
    .fetch_all(unit.connection())
    .await?;
    listed(unit, &rows).await
}

/// Withdraws all certificates of an entry on a device but the newest ones; without an entry, the device's own.
pub(super) async fn superseded(
    unit: &mut Unit,
    device_id: &str,
    entry_id: &str,
    at: UnixTime,
) -> Result<Withdrawn, StoreError> {
    let rows = query(
        "UPDATE svids SET withdrawn_at = $3, withdrawn_leaf = $5
         WHERE device_id = $1 AND entry_id = $2 AND withdrawn_at = 0 AND not_after > $3 AND leaf NOT IN
             (SELECT leaf FROM svids WHERE device_id = $1 AND entry_id = $2 AND withdrawn_at = 0
              ORDER BY leaf DESC LIMIT $4)
         RETURNING serial, not_after",
    )
    .bind(device_id)
    .bind(entry_id)
    .bind(stored(at.0))
    .bind(stored(STANDING_MAX))
    .bind(unit.last_leaf().map_or(-1, stored))
    .fetch_all(unit.connection())
    .await?;
    listed(unit, &rows).await
}

/// Certificates of one entry on one device that stand at a time: the one in use, and the one before it.
const STANDING_MAX: u64 = 2;

async fn listed(unit: &mut Unit, rows: &[Row]) -> Result<Withdrawn, StoreError> {
    if rows.is_empty() {
        return Ok(Withdrawn::default());
    }
    let serials = rows
        .iter()
        .map(|row| {
            Ok((row.try_get("serial")?, UnixTime(loaded(row.try_get("not_after")?, "svids.not_after")?)))
        })
        .collect::<Result<_, StoreError>>()?;
    let withdrawn = Withdrawn { serials, list_number: Some(next_list_number(unit, 1).await?) };
    unit.withdrew(&withdrawn);
    Ok(withdrawn)
}

async fn next_list_number(unit: &mut Unit, step: u64) -> Result<u64, StoreError> {
    let row = query("UPDATE revocation_list SET number = number + $1 WHERE id = 1 RETURNING number")
        .bind(stored(step))
        .fetch_one(unit.connection())
        .await?;
    loaded(row.try_get("number")?, "revocation_list.number")
}
