//! What a device loses of tasks when it falls.

use assay_evidence::time::UnixTime;

use crate::store::sql::query;
use crate::store::{StoreError, Unit, stored};

/// Takes all of its attempts from a device; the tasks wait for others at once.
pub(in crate::store) async fn of_device(
    unit: &mut Unit,
    device_id: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    let rows = query(
        "UPDATE task_attempts SET status = 'withdrawn', reason = $4, ended_at = $2, withdrawn_leaf = $3
         WHERE device_id = $1 AND status = 'standing' RETURNING task_id",
    )
    .bind(device_id)
    .bind(stored(at.0))
    .bind(unit.last_leaf().map_or(-1, stored))
    .bind(FELL)
    .fetch_all(unit.connection())
    .await?;
    for row in rows {
        query("UPDATE tasks SET status = 'waiting', reason = $2, next_at = $3 WHERE id = $1 AND status = 'placed'")
            .bind(row.try_get::<String>("task_id")?)
            .bind(FELL)
            .bind(stored(at.0))
            .execute(unit.connection())
            .await?;
    }
    Ok(())
}

const FELL: &str = "its device is not trusted any more";
