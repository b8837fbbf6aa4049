//! What falls when a trust state falls or an entitlement ends: every kind of grant, in the transaction that ends it.
//!
//! Certificates are withdrawn here and go on the revocation list. Telemetry needs no row of its own: a batch is accepted on
//! the state's version alone, which has moved on. A kind of grant that is stored is withdrawn in [`of_device`].

use assay_evidence::time::UnixTime;

use super::sql::{Row, query};
use super::{StoreError, Transaction, Unit, loaded, secrets, stored, task};
use crate::audit::{Kind, Line};

/// Grants that fell, and the revocation list's number that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Serial number, hex, and until when it has to be listed.
    pub serials: Vec<(String, UnixTime)>,
    /// The list's new number; `None`: nothing fell.
    pub list_number: Option<u64>,
}

/// Gives the revocation list a new number, for a fresh one with the same entries: above the last, and never below what the
/// time gives, so that a database that was set back does not number its lists below those that others have.
#[derive(Clone, Copy, Debug)]
pub struct RenumberRevocationList {
    /// How far above the last one.
    pub step: u64,
    /// When.
    pub at: UnixTime,
}

impl Transaction for RenumberRevocationList {
    type Output = u64;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<u64, StoreError> {
        raise_list_number(unit, number_of(self.at)).await?;
        next_list_number(unit, self.step).await
    }
}

/// The lowest number of a list that is signed then. A server does not sign a million lists a second.
fn number_of(at: UnixTime) -> u64 {
    at.0.saturating_mul(LISTS_A_SECOND)
}

const LISTS_A_SECOND: u64 = 1 << 20;

/// Goes on from a database that was set back: on record, and what the last revocation list names stays withdrawn.
#[derive(Clone, Debug)]
pub struct ResumeLedger {
    /// When.
    pub at: UnixTime,
    /// Leaves of the head that was signed last.
    pub signed: u64,
    /// Serial numbers of the last revocation list, hex.
    pub serials: Vec<String>,
    /// Until when those have to be listed that the database does not know.
    pub until: UnixTime,
    /// The last list's number.
    pub list_number: u64,
}

impl Transaction for ResumeLedger {
    /// How many certificates the database did not know to be withdrawn.
    type Output = u64;

    async fn apply(self, unit: &mut Unit) -> Result<u64, StoreError> {
        let detail = serde_json::json!({ "signed": self.signed, "listed": self.serials.len() });
        let line = Line {
            kind: Kind::LedgerResumed,
            at: self.at,
            actor: "operator".to_owned(),
            subject: "ledger".to_owned(),
            detail: detail.to_string(),
        };
        let leaf = stored(unit.audit(line).await?.index);
        raise_list_number(unit, self.list_number).await?;
        let mut forgotten = 0;
        for serial in &self.serials {
            let done = query(
                "INSERT INTO svids (serial, spiffe_id, device_id, entry_id, spki_sha256, state_version, issued_at, not_after,
                     withdrawn_at, leaf, withdrawn_leaf)
                 VALUES ($1, '', '', '', '', 0, $2, $3, $2, $4, $4)
                 ON CONFLICT (serial) DO UPDATE SET withdrawn_at = $2, withdrawn_leaf = $4 WHERE svids.withdrawn_at = 0",
            )
            .bind(serial)
            .bind(stored(self.at.0))
            .bind(stored(self.until.0))
            .bind(leaf)
            .execute(unit.connection())
            .await?;
            forgotten += done.rows_affected();
        }
        Ok(forgotten)
    }
}

/// Withdraws all that a device holds.
pub(super) async fn of_device(
    unit: &mut Unit,
    device_id: &str,
    at: UnixTime,
) -> Result<Withdrawn, StoreError> {
    task::of_device(unit, device_id, at).await?;
    let rows = query(
        "UPDATE svids SET withdrawn_at = $2, withdrawn_leaf = $3
         WHERE device_id = $1 AND withdrawn_at = 0 AND not_after > $2 RETURNING serial, not_after",
    )
    .bind(device_id)
    .bind(stored(at.0))
    .bind(unit.last_leaf().map_or(-1, stored))
    .fetch_all(unit.connection())
    .await?;
    secrets::withdraw(unit, device_id, at).await?;
    listed(unit, &rows).await
}

/// Withdraws what a node has of its own and leaves its workloads' alone; with a leaf, what is on record before it.
pub(super) async fn of_own(
    unit: &mut Unit,
    id: &str,
    before: Option<u64>,
    at: UnixTime,
) -> Result<Withdrawn, StoreError> {
    let rows = query(
        "UPDATE svids SET withdrawn_at = $2, withdrawn_leaf = $4
         WHERE device_id = $1 AND entry_id = '' AND withdrawn_at = 0 AND not_after > $2 AND leaf < $3
         RETURNING serial, not_after",
    )
    .bind(id)
    .bind(stored(at.0))
    .bind(before.map_or(i64::MAX, stored))
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

    fn uses_reserve(&self) -> bool {
        true
    }

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

/// An entry of which a device no longer fulfils what it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEntry {
    /// The entry.
    pub id: String,
    /// What it entitled to.
    pub spiffe_id: String,
    /// What does not hold any more.
    pub condition: String,
}

/// Withdraws what a device's workloads hold by entries that it lost, each on record.
pub(super) async fn of_lost(
    unit: &mut Unit,
    device_id: &str,
    lost: &[LostEntry],
    at: UnixTime,
) -> Result<Withdrawn, StoreError> {
    let mut all = Withdrawn::default();
    for LostEntry { id, spiffe_id, condition } in lost {
        let detail = serde_json::json!({ "entry": id, "device": device_id, "condition": condition });
        let line = Line {
            kind: Kind::EntryUnmet,
            at,
            actor: "server".to_owned(),
            subject: spiffe_id.clone(),
            detail: detail.to_string(),
        };
        unit.audit(line).await?;
        let rows = query(
            "UPDATE svids SET withdrawn_at = $3, withdrawn_leaf = $4
             WHERE device_id = $1 AND entry_id = $2 AND withdrawn_at = 0 AND not_after > $3
             RETURNING serial, not_after",
        )
        .bind(device_id)
        .bind(id)
        .bind(stored(at.0))
        .bind(unit.last_leaf().map_or(-1, stored))
        .fetch_all(unit.connection())
        .await?;
        let Withdrawn { serials, list_number } = listed(unit, &rows).await?;
        all.serials.extend(serials);
        all.list_number = list_number.or(all.list_number);
    }
    Ok(all)
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

async fn raise_list_number(unit: &mut Unit, to: u64) -> Result<(), StoreError> {
    query("UPDATE revocation_list SET number = $1 WHERE id = 1 AND number < $1")
        .bind(stored(to))
        .execute(unit.connection())
        .await?;
    Ok(())
}

async fn next_list_number(unit: &mut Unit, step: u64) -> Result<u64, StoreError> {
    let row = query("UPDATE revocation_list SET number = number + $1 WHERE id = 1 RETURNING number")
        .bind(stored(step))
        .fetch_one(unit.connection())
        .await?;
    loaded(row.try_get("number")?, "revocation_list.number")
}
