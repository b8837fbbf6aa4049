//! A task comes, and is forgotten when it is over for long.

use assay_evidence::time::UnixTime;

use super::{NewBlob, TaskRecord};
use crate::audit::{Kind, Line};
use crate::store::blobs;
use crate::store::sql::{Row, query};
use crate::store::{StoreError, Transaction, Unit, loaded, stored};

/// Takes a task in.
#[derive(Clone, Debug)]
pub struct SubmitTask {
    /// The task, as it begins.
    pub task: TaskRecord,
    /// Its measurement, hex, for the trail.
    pub measurement: String,
    /// Its image.
    pub image: NewBlob,
    /// Its input.
    pub input: NewBlob,
    /// Who submits it.
    pub by: String,
}

impl Transaction for SubmitTask {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let SubmitTask { task, measurement, image, input, by } = self;
        let row = query("SELECT COUNT(*) AS tasks FROM tasks WHERE status IN ('waiting', 'placed')")
            .fetch_one(unit.connection())
            .await?;
        if loaded(row.try_get("tasks")?, "count")? >= TASKS_MAX {
            return Err(StoreError::Full { noun: "tasks that are not over", limit: TASKS_MAX });
        }
        blobs::hold(unit, &image).await?;
        blobs::hold(unit, &input).await?;
        query(
            "INSERT INTO tasks (id, name, level, status, reason, definition, demands, image, input, submitted_at, deadline,
                 next_at, attempts, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, 0)",
        )
        .bind(&task.id)
        .bind(&task.name)
        .bind(&task.level)
        .bind(task.status.name())
        .bind(&task.reason)
        .bind(&task.definition)
        .bind(&task.demands)
        .bind(image.hash().to_vec())
        .bind(input.hash().to_vec())
        .bind(stored(task.submitted_at.0))
        .bind(stored(task.deadline.0))
        .bind(stored(task.next_at.0))
        .execute(unit.connection())
        .await?;
        let detail =
            serde_json::json!({ "name": task.name, "level": task.level, "measurement": measurement });
        let (kind, at) = (Kind::TaskSubmitted, task.submitted_at);
        unit.audit(Line { kind, at, actor: by, subject: task.id, detail: detail.to_string() }).await?;
        Ok(())
    }
}

/// Forgets tasks that ended before then, with all that belongs to them; how many.
pub(in crate::store) async fn remove_older(
    unit: &mut Unit,
    before: UnixTime,
    limit: i64,
) -> Result<u64, StoreError> {
    let rows = query(
        "SELECT id, image, input FROM tasks WHERE status IN ('done', 'failed', 'cancelled') AND ended_at < $1
         ORDER BY ended_at LIMIT $2",
    )
    .bind(stored(before.0))
    .bind(limit)
    .fetch_all(unit.connection())
    .await?;
    for row in &rows {
        let id: String = row.try_get("id")?;
        release(unit, row, ["image", "input"]).await?;
        let results = query("SELECT output, messages FROM task_results WHERE task_id = $1")
            .bind(&id)
            .fetch_all(unit.connection())
            .await?;
        for result in &results {
            release(unit, result, ["output", "messages"]).await?;
        }
        for statement in [
            "DELETE FROM task_results WHERE task_id = $1",
            "DELETE FROM task_attempts WHERE task_id = $1",
            "DELETE FROM tasks WHERE id = $1",
        ] {
            query(statement).bind(&id).execute(unit.connection()).await?;
        }
    }
    if !rows.is_empty() {
        blobs::sweep(unit).await?;
    }
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}

async fn release(unit: &mut Unit, row: &Row, columns: [&str; 2]) -> Result<(), StoreError> {
    for column in columns {
        blobs::release(unit, row.try_get(column)?).await?;
    }
    Ok(())
}

/// Each may bring an image of megabytes.
const TASKS_MAX: u64 = 10_000;
