//! Room for evidence: what all of it takes, and how it goes, the oldest first.

use assay_evidence::time::UnixTime;

use super::super::blobs::{self, NewBlob};
use super::super::{StoreError, Unit, loaded, stored, usage};
use super::{EvidenceColumns, NewEvidence, ToldBoot};
use crate::store::sql::{Row, query};

/// What all evidence takes, and where the next one goes.
pub(super) struct Usage {
    pub(super) next_id: u64,
    pub(super) bytes: u64,
}

impl Usage {
    async fn read(unit: &mut Unit) -> Result<Usage, StoreError> {
        let row = query("SELECT next_id, bytes FROM evidence_usage WHERE id = 1")
            .fetch_one(unit.connection())
            .await?;
        Ok(Usage {
            next_id: loaded(row.try_get("next_id")?, "evidence_usage.next_id")?,
            bytes: loaded(row.try_get("bytes")?, "evidence_usage.bytes")?,
        })
    }

    pub(super) async fn write(&self, unit: &mut Unit) -> Result<(), StoreError> {
        query("UPDATE evidence_usage SET next_id = $1, bytes = $2 WHERE id = 1")
            .bind(stored(self.next_id))
            .bind(stored(self.bytes))
            .execute(unit.connection())
            .await?;
        Ok(())
    }
}

/// Lets the oldest evidence go until there is room for `new`, or it would take too long.
pub(super) async fn make_room(
    unit: &mut Unit,
    device_id: &str,
    new: &NewEvidence,
) -> Result<Option<Usage>, StoreError> {
    let boot = match &new.boot {
        ToldBoot::New(boot) => boot.endorsement.stored().saturating_add(boot.anchors.stored()),
        ToldBoot::Known { .. } => 0,
    };
    let part = new.part.as_ref().map(|part| &part.blob);
    let blobs = [new.boot_log.as_ref(), new.ima_rest.as_ref(), part].into_iter().flatten();
    let wanted = blobs.map(NewBlob::stored).fold(boot, u64::saturating_add);
    let wanted = wanted.saturating_add(row_bytes(&new.judged));
    if wanted > new.bytes_max.min(new.device_bytes_max) {
        return Ok(None);
    }
    // First of its own.
    let own = usage::change(unit, device_id, usage::Change::default()).await?;
    let has_room = |own: &usage::Usage| {
        own.evidence_bytes.saturating_add(wanted) <= new.device_bytes_max
            && own.evidence_rows < ROWS_PER_DEVICE_MAX
    };
    if !has_room(&own) {
        remove_oldest_of(unit, device_id).await?;
        if !has_room(&usage::change(unit, device_id, usage::Change::default()).await?) {
            return Ok(None);
        }
    }
    let mut usage = Usage::read(unit).await?;
    if usage.bytes.saturating_add(wanted) > new.bytes_max {
        remove_oldest(unit, ROOM_ROWS_MAX).await?;
        usage = Usage::read(unit).await?;
    }
    Ok(Some(usage).filter(|usage| usage.bytes.saturating_add(wanted) <= new.bytes_max))
}

/// Removes the oldest evidence; returns how many pieces went.
pub(in crate::store) async fn remove_oldest(unit: &mut Unit, limit: i64) -> Result<u64, StoreError> {
    let rows = query(
        "SELECT id, device_id, boot, boot_log, ima_rest, quote, bytes FROM evidence ORDER BY id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(unit.connection())
    .await?;
    remove(unit, &rows).await
}

/// Removes the oldest evidence of a device.
async fn remove_oldest_of(unit: &mut Unit, device_id: &str) -> Result<u64, StoreError> {
    let rows = query(
        "SELECT id, device_id, boot, boot_log, ima_rest, quote, bytes FROM evidence
         WHERE device_id = $1 ORDER BY id LIMIT $2",
    )
    .bind(device_id)
    .bind(ROOM_ROWS_MAX)
    .fetch_all(unit.connection())
    .await?;
    remove(unit, &rows).await
}

/// Removes evidence from before `before`, but not what a device's progress or other evidence builds on: the last
/// evidence of a device that stays as it is gets old.
pub(in crate::store) async fn remove_older(
    unit: &mut Unit,
    before: UnixTime,
    limit: i64,
) -> Result<u64, StoreError> {
    let rows = query(
        "SELECT id, device_id, boot, boot_log, ima_rest, quote, bytes FROM evidence AS old WHERE at < $1
             AND EXISTS (SELECT 1 FROM evidence AS newer WHERE newer.device_id = old.device_id
                 AND newer.id > old.id AND (newer.attested >= 0 OR old.attested < 0))
             AND NOT EXISTS (SELECT 1 FROM evidence AS other WHERE other.basis = old.id AND other.basis > 0)
         ORDER BY id LIMIT $2",
    )
    .bind(stored(before.0))
    .bind(limit)
    .fetch_all(unit.connection())
    .await?;
    remove(unit, &rows).await
}

/// Removes what of a device did not verify, but for the last of it: a device that lies all day does not push out what
/// others said.
pub(super) async fn remove_failed(unit: &mut Unit, device_id: &str) -> Result<(), StoreError> {
    let rows = query(
        "SELECT id, device_id, boot, boot_log, ima_rest, quote, bytes FROM evidence WHERE device_id = $1 AND attested < 0
         ORDER BY id DESC LIMIT $2 OFFSET $3",
    )
    .bind(device_id)
    .bind(ROOM_ROWS_MAX)
    .bind(FAILED_PER_DEVICE_MAX)
    .fetch_all(unit.connection())
    .await?;
    if !rows.is_empty() {
        remove(unit, &rows).await?;
    }
    Ok(())
}

/// Whether all evidence takes more than it may.
pub(in crate::store) async fn is_over(unit: &mut Unit, bytes_max: u64) -> Result<bool, StoreError> {
    Ok(Usage::read(unit).await?.bytes > bytes_max)
}

async fn remove(unit: &mut Unit, rows: &[Row]) -> Result<u64, StoreError> {
    let mut freed = 0_u64;
    for row in rows {
        for column in ["boot_log", "ima_rest"] {
            blobs::release(unit, row.try_get(column)?).await?;
        }
        let quote: &[u8] = row.try_get("quote")?;
        freed = freed.saturating_add(ROW_BYTES).saturating_add(u64::try_from(quote.len()).unwrap_or(0));
        let id: i64 = row.try_get("id")?;
        query("DELETE FROM evidence WHERE id = $1").bind(id).execute(unit.connection()).await?;
        let bytes: i64 = row.try_get("bytes")?;
        let less = usage::Change { evidence_bytes: -bytes, evidence_rows: -1, ..usage::Change::default() };
        usage::change(unit, row.try_get("device_id")?, less).await?;
        remove_boot_if_unused(unit, row.try_get("boot")?).await?;
    }
    freed = freed.saturating_add(blobs::sweep(unit).await?);
    let usage = Usage::read(unit).await?;
    Usage { bytes: usage.bytes.saturating_sub(freed), ..usage }.write(unit).await?;
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}

async fn remove_boot_if_unused(unit: &mut Unit, boot: i64) -> Result<(), StoreError> {
    let row = query(
        "SELECT endorsement, anchors FROM boots WHERE id = $1
             AND NOT EXISTS (SELECT 1 FROM evidence WHERE boot = $1)",
    )
    .bind(boot)
    .fetch_optional(unit.connection())
    .await?;
    let Some(row) = row else { return Ok(()) };
    for column in ["endorsement", "anchors"] {
        blobs::release(unit, row.try_get(column)?).await?;
    }
    for statement in [
        "UPDATE blobs SET users = users - (SELECT COUNT(*) FROM ima_parts WHERE boot = $1 AND blob = blobs.hash)
         WHERE hash IN (SELECT blob FROM ima_parts WHERE boot = $1)",
        "DELETE FROM ima_parts WHERE boot = $1",
        "DELETE FROM boots WHERE id = $1",
    ] {
        query(statement).bind(boot).execute(unit.connection()).await?;
    }
    Ok(())
}

/// What a piece of evidence takes beside its blobs.
pub(super) fn row_bytes(judged: &EvidenceColumns) -> u64 {
    ROW_BYTES.saturating_add(u64::try_from(judged.quote.len()).unwrap_or(u64::MAX))
}

/// A row with its nonce and its places in the indexes, some of a boot's row, all about.
const ROW_BYTES: u64 = 512;
/// Pieces that go at once to make room for one.
const ROOM_ROWS_MAX: i64 = 16;
/// Pieces of a device that did not verify; each may be as long as a device likes.
const FAILED_PER_DEVICE_MAX: i64 = 32;
/// Pieces kept of one device.
const ROWS_PER_DEVICE_MAX: u64 = 10_000;
