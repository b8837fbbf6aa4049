//! Tasks: what was submitted, where it is, and what came of it.
//!
//! A device that falls loses its attempts in the transaction that says so ([`withdraw`]). An attempt that does not stand any more has no
//! result: of each there is at most one.

mod attempt;
mod result;
mod submit;
mod withdraw;

use assay_evidence::task::log::{Point, VALUE_BYTES};
use assay_evidence::time::UnixTime;

pub use attempt::{EndAttempt, EndTask, ExtendLeases, PlaceTask, TakeBack};
pub use result::{AcceptResult, ResultRecord, Then};
pub use submit::SubmitTask;
pub(super) use submit::remove_older;
pub(super) use withdraw::of_device;

use super::blobs::{BlobHash, NewBlob};
use super::{Store, StoreError, loaded, stored};
use crate::store::sql::{Row, query};

/// A task as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// What it is called by programs.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// public, confidential or secret.
    pub level: String,
    /// Where it is.
    pub status: TaskStatus,
    /// Why it is there.
    pub reason: String,
    /// The encoding of its definition.
    pub definition: Vec<u8>,
    /// What it asks of a device, and of its attempts, JSON.
    pub demands: String,
    /// The image's name.
    pub image: BlobHash,
    /// The input's name.
    pub input: BlobHash,
    /// When it was submitted.
    pub submitted_at: UnixTime,
    /// When it has to have ended; 0: whenever it does.
    pub deadline: UnixTime,
    /// It is not placed before.
    pub next_at: UnixTime,
    /// How often it was placed.
    pub attempts: u32,
    /// When it ended; 0: it has not.
    pub ended_at: UnixTime,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// It waits for a device.
    Waiting,
    /// A device has it.
    Placed,
    /// A result was accepted that is what was wanted.
    Done,
    /// It was given up.
    Failed,
    /// An operator ended it.
    Cancelled,
}

impl TaskStatus {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            TaskStatus::Waiting => "waiting",
            TaskStatus::Placed => "placed",
            TaskStatus::Done => "done",
            TaskStatus::Failed => "failed",
            TaskStatus::Cancelled => "cancelled",
        }
    }

    /// Whether nothing comes of it any more.
    pub fn is_over(self) -> bool {
        matches!(self, TaskStatus::Done | TaskStatus::Failed | TaskStatus::Cancelled)
    }

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<TaskStatus> {
        let all = [
            TaskStatus::Waiting,
            TaskStatus::Placed,
            TaskStatus::Done,
            TaskStatus::Failed,
            TaskStatus::Cancelled,
        ];
        all.into_iter().find(|status| status.name() == name)
    }
}

/// An attempt as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Of which task.
    pub task_id: String,
    /// Which, from 1.
    pub number: u32,
    /// Where.
    pub device_id: String,
    /// What was drawn for it.
    pub nonce: [u8; 32],
    /// The version of the trust state that carries it.
    pub state_version: u64,
    /// Bytes of memory that it takes.
    pub memory_bytes: u64,
    /// Thousandths of a processor that it takes.
    pub cpu_millis: u64,
    /// `standing`, `ended` or `withdrawn`.
    pub status: String,
    /// Why it does not stand.
    pub reason: String,
    /// When it was placed.
    pub placed_at: UnixTime,
    /// Until when its device may be away.
    pub lease_until: UnixTime,
    /// When it ended; 0: it has not.
    pub ended_at: UnixTime,
}

impl AttemptRecord {
    /// Whether its device may still run it.
    pub fn stands(&self) -> bool {
        self.status == STANDING
    }
}

/// How far a device's log was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenLog {
    /// In which boot.
    pub reset_count: u32,
    /// Up to where.
    pub point: Point,
}

impl Store {
    /// A task.
    pub async fn task(&self, id: &str) -> Result<Option<TaskRecord>, StoreError> {
        let row = query("SELECT * FROM tasks WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        row.as_ref().map(task).transpose()
    }

    /// Tasks, the newest first, of a status or of all.
    pub async fn tasks(&self, status: Option<TaskStatus>, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        let rows =
            query("SELECT * FROM tasks WHERE $1 = '' OR status = $1 ORDER BY submitted_at DESC, id LIMIT $2")
                .bind(status.map_or("", TaskStatus::name))
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(task).collect()
    }

    /// Those that can be placed now, the oldest first.
    pub async fn tasks_to_place(&self, now: UnixTime, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM tasks WHERE status = 'waiting' AND next_at <= $1 ORDER BY submitted_at, id LIMIT $2",
        )
        .bind(stored(now.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(task).collect()
    }

    /// Those whose time is over.
    pub async fn tasks_too_late(&self, now: UnixTime, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM tasks WHERE status IN ('waiting', 'placed') AND deadline > 0 AND deadline <= $1 LIMIT $2",
        )
        .bind(stored(now.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(task).collect()
    }

    /// The attempts of a task, the first first.
    pub async fn attempts(&self, task_id: &str) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = query("SELECT * FROM task_attempts WHERE task_id = $1 ORDER BY number")
            .bind(task_id)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(attempt).collect()
    }

    /// One of them.
    pub async fn attempt(&self, task_id: &str, number: u32) -> Result<Option<AttemptRecord>, StoreError> {
        let row = query("SELECT * FROM task_attempts WHERE task_id = $1 AND number = $2")
            .bind(task_id)
            .bind(i64::from(number))
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(attempt).transpose()
    }

    /// The attempts that stand, of a device or of all.
    pub async fn standing_attempts(&self, device_id: Option<&str>) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM task_attempts WHERE status = 'standing' AND ($1 = '' OR device_id = $1)
             ORDER BY device_id, placed_at, task_id",
        )
        .bind(device_id.unwrap_or(""))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(attempt).collect()
    }

    /// How far a device's log of tasks was seen.
    pub async fn seen_log(&self, device_id: &str) -> Result<Option<SeenLog>, StoreError> {
        let row = query("SELECT * FROM task_logs WHERE device_id = $1")
            .bind(device_id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(seen).transpose()
    }
}

fn task(row: &Row) -> Result<TaskRecord, StoreError> {
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    let status: String = row.try_get("status")?;
    Ok(TaskRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        level: row.try_get("level")?,
        status: TaskStatus::from_name(&status).ok_or(StoreError::Corrupt { column: "tasks.status" })?,
        reason: row.try_get("reason")?,
        definition: row.try_get("definition")?,
        demands: row.try_get("demands")?,
        image: array(row, "image")?,
        input: array(row, "input")?,
        submitted_at: time("submitted_at")?,
        deadline: time("deadline")?,
        next_at: time("next_at")?,
        attempts: number(row, "attempts")?,
        ended_at: time("ended_at")?,
    })
}

fn attempt(row: &Row) -> Result<AttemptRecord, StoreError> {
    let count = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
    Ok(AttemptRecord {
        task_id: row.try_get("task_id")?,
        number: number(row, "number")?,
        device_id: row.try_get("device_id")?,
        nonce: array(row, "nonce")?,
        state_version: count("state_version")?,
        memory_bytes: count("memory_bytes")?,
        cpu_millis: count("cpu_millis")?,
        status: row.try_get("status")?,
        reason: row.try_get("reason")?,
        placed_at: UnixTime(count("placed_at")?),
        lease_until: UnixTime(count("lease_until")?),
        ended_at: UnixTime(count("ended_at")?),
    })
}

fn seen(row: &Row) -> Result<SeenLog, StoreError> {
    Ok(SeenLog {
        reset_count: number(row, "reset_count")?,
        point: Point {
            entries: loaded(row.try_get("entries")?, "task_logs.entries")?,
            head: array(row, "head")?,
            value: array::<VALUE_BYTES>(row, "value")?,
        },
    })
}

fn number(row: &Row, column: &'static str) -> Result<u32, StoreError> {
    u32::try_from(row.try_get::<i64>(column)?).map_err(|_| StoreError::Corrupt { column })
}

fn array<const N: usize>(row: &Row, column: &'static str) -> Result<[u8; N], StoreError> {
    row.try_get::<&[u8]>(column)?.try_into().map_err(|_| StoreError::Corrupt { column })
}

const STANDING: &str = "standing";
