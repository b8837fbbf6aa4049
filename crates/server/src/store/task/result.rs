//! Results: at most one of each attempt, and only while it stands.

use assay_evidence::time::UnixTime;

use super::{NewBlob, SeenLog, array, number};
use crate::audit::{Kind, Line};
use crate::store::blobs::{self, BlobHash};
use crate::store::sql::{Row, query};
use crate::store::{Store, StoreError, Transaction, Unit, loaded, stored};

/// A result as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRecord {
    /// Of which task.
    pub task_id: String,
    /// Of which attempt.
    pub attempt: u32,
    /// When it was accepted.
    pub at: UnixTime,
    /// The bytes that the device signed.
    pub outcome: Vec<u8>,
    /// The device key's signature.
    pub signature: Vec<u8>,
    /// What was shown beside it, JSON.
    pub shown: String,
    /// The output's name.
    pub output: BlobHash,
    /// The messages' name.
    pub messages: BlobHash,
}

/// Accepts a result.
#[derive(Clone, Debug)]
pub struct AcceptResult {
    /// It.
    pub result: ResultRecord,
    /// Whose.
    pub device_id: String,
    /// The version of the trust state that the attempt stands on.
    pub state_version: u64,
    /// Its output.
    pub output: NewBlob,
    /// Its messages.
    pub messages: NewBlob,
    /// How it ended, in words.
    pub end: String,
    /// What becomes of the task.
    pub then: Then,
    /// How far the device's log was seen with it.
    pub seen: Option<SeenLog>,
}

/// What becomes of a task after a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is what was wanted.
    Done,
    /// It is tried again from then on.
    Again(UnixTime),
    /// It is given up.
    Failed,
}

impl Transaction for AcceptResult {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let AcceptResult { result, device_id, state_version, output, messages, end, then, seen } = self;
        let ended = query(
            "UPDATE task_attempts SET status = 'ended', reason = $5, ended_at = $6
             WHERE task_id = $1 AND number = $2 AND device_id = $3 AND status = 'standing' AND state_version = $4 AND EXISTS
                 (SELECT 1 FROM devices WHERE id = $3 AND status = 'trusted' AND state_version = $4)",
        )
        .bind(&result.task_id)
        .bind(i64::from(result.attempt))
        .bind(&device_id)
        .bind(stored(state_version))
        .bind(&end)
        .bind(stored(result.at.0))
        .execute(unit.connection())
        .await?;
        if ended.rows_affected() != 1 {
            return Err(StoreError::Conflict);
        }
        let (status, next_at, ended_at) = match then {
            Then::Done => ("done", UnixTime(0), result.at),
            Then::Again(at) => ("waiting", at, UnixTime(0)),
            Then::Failed => ("failed", UnixTime(0), result.at),
        };
        query(
            "UPDATE tasks SET status = $2, reason = $3, next_at = $4, ended_at = $5 WHERE id = $1 AND status = 'placed'",
        )
        .bind(&result.task_id)
        .bind(status)
        .bind(&end)
        .bind(stored(next_at.0))
        .bind(stored(ended_at.0))
        .execute(unit.connection())
        .await?;
        let detail = serde_json::json!({
            "task": result.task_id, "attempt": result.attempt, "end": end, "status": status,
            "outcome_sha256": data_encoding::HEXLOWER.encode(&blobs::blob_hash(&result.outcome)),
        });
        let line = Line {
            kind: Kind::TaskResult,
            at: result.at,
            actor: device_id.clone(),
            subject: device_id.clone(),
            detail: detail.to_string(),
        };
        let leaf = unit.audit(line).await?.index;
        blobs::hold(unit, &output).await?;
        blobs::hold(unit, &messages).await?;
        query(
            "INSERT INTO task_results (task_id, attempt, at, outcome, signature, shown, output, messages, leaf)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&result.task_id)
        .bind(i64::from(result.attempt))
        .bind(stored(result.at.0))
        .bind(&result.outcome)
        .bind(&result.signature)
        .bind(&result.shown)
        .bind(output.hash().to_vec())
        .bind(messages.hash().to_vec())
        .bind(stored(leaf))
        .execute(unit.connection())
        .await?;
        match seen {
            Some(seen) => note_log(unit, &device_id, &seen).await,
            None => Ok(()),
        }
    }
}

/// Of the same boot a log only grows, whichever result is accepted first.
async fn note_log(unit: &mut Unit, device_id: &str, seen: &SeenLog) -> Result<(), StoreError> {
    query(
        "INSERT INTO task_logs (device_id, reset_count, entries, head, value) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (device_id) DO UPDATE SET reset_count = $2, entries = $3, head = $4, value = $5
         WHERE task_logs.reset_count <> $2 OR task_logs.entries < $3",
    )
    .bind(device_id)
    .bind(i64::from(seen.reset_count))
    .bind(stored(seen.point.entries))
    .bind(seen.point.head.to_vec())
    .bind(seen.point.value.to_vec())
    .execute(unit.connection())
    .await?;
    Ok(())
}

impl Store {
    /// What was accepted of a task, the last first.
    pub async fn task_results(&self, task_id: &str) -> Result<Vec<ResultRecord>, StoreError> {
        let rows = query("SELECT * FROM task_results WHERE task_id = $1 ORDER BY attempt DESC")
            .bind(task_id)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(result).collect()
    }
}

fn result(row: &Row) -> Result<ResultRecord, StoreError> {
    Ok(ResultRecord {
        task_id: row.try_get("task_id")?,
        attempt: number(row, "attempt")?,
        at: UnixTime(loaded(row.try_get("at")?, "task_results.at")?),
        outcome: row.try_get("outcome")?,
        signature: row.try_get("signature")?,
        shown: row.try_get("shown")?,
        output: array(row, "output")?,
        messages: array(row, "messages")?,
    })
}
