//! Attempts: begun, kept, taken back and ended.

use assay_evidence::time::UnixTime;

use super::AttemptRecord;
use crate::audit::{Kind, Line};
use crate::store::sql::{query, query_of};
use crate::store::{StoreError, Transaction, Unit, stored};

/// Gives a task to a device.
#[derive(Clone, Debug)]
pub struct PlaceTask {
    /// The attempt.
    pub attempt: AttemptRecord,
    /// Why there, in words and numbers.
    pub why: String,
}

impl Transaction for PlaceTask {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let PlaceTask { attempt, why } = self;
        let AttemptRecord { task_id, number, device_id, state_version, .. } = &attempt;
        // What it was decided on: the task waits, and the device stands as it stood.
        let placed = query(
            "UPDATE tasks SET status = 'placed', reason = $4, attempts = $2
             WHERE id = $1 AND status = 'waiting' AND attempts = $2 - 1 AND EXISTS
                 (SELECT 1 FROM devices WHERE id = $3 AND status = 'trusted' AND state_version = $5)",
        )
        .bind(task_id)
        .bind(i64::from(*number))
        .bind(device_id)
        .bind(&why)
        .bind(stored(*state_version))
        .execute(unit.connection())
        .await?;
        if placed.rows_affected() != 1 {
            return Err(StoreError::Conflict);
        }
        let detail = serde_json::json!({ "task": task_id, "attempt": number, "why": why });
        let line = Line {
            kind: Kind::TaskPlaced,
            at: attempt.placed_at,
            actor: "server".to_owned(),
            subject: device_id.clone(),
            detail: detail.to_string(),
        };
        let leaf = unit.audit(line).await?.index;
        query(
            "INSERT INTO task_attempts (task_id, number, device_id, nonce, state_version, memory_bytes, cpu_millis, status,
                 reason, placed_at, lease_until, ended_at, leaf, withdrawn_leaf)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'standing', '', $8, $9, 0, $10, -1)",
        )
        .bind(task_id)
        .bind(i64::from(*number))
        .bind(device_id)
        .bind(attempt.nonce.to_vec())
        .bind(stored(*state_version))
        .bind(stored(attempt.memory_bytes))
        .bind(stored(attempt.cpu_millis))
        .bind(stored(attempt.placed_at.0))
        .bind(stored(attempt.lease_until.0))
        .bind(stored(leaf))
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

/// Lets the attempts of these devices, which are there, go on.
#[derive(Clone, Debug)]
pub struct ExtendLeases {
    /// The devices.
    pub devices: Vec<String>,
    /// Until when they may be away now.
    pub until: UnixTime,
}

impl Transaction for ExtendLeases {
    type Output = ();
    const SINGLE_STATEMENT: bool = true;

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let devices = serde_json::to_string(&self.devices).map_err(|_| StoreError::Unwritable)?;
        query_of(
            "UPDATE task_attempts SET lease_until = $2 WHERE status = 'standing' AND device_id IN
                 (SELECT value FROM json_each($1))",
            "UPDATE task_attempts SET lease_until = $2 WHERE status = 'standing' AND device_id = ANY
                 (ARRAY(SELECT jsonb_array_elements_text(CAST($1 AS JSONB))))",
        )
        .bind(devices)
        .bind(stored(self.until.0))
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

/// Which attempt ends, and why.
#[derive(Clone, Debug)]
pub struct EndAttempt {
    /// Of which task.
    pub task_id: String,
    /// Which.
    pub number: u32,
    /// Why, in a sentence.
    pub reason: String,
    /// When.
    pub at: UnixTime,
    /// Who ends it.
    pub by: String,
}

impl EndAttempt {
    /// Ends it if it stands; whether it did.
    async fn apply(&self, unit: &mut Unit) -> Result<bool, StoreError> {
        let row = query(
            "UPDATE task_attempts SET status = 'withdrawn', reason = $3, ended_at = $4
             WHERE task_id = $1 AND number = $2 AND status = 'standing' RETURNING device_id",
        )
        .bind(&self.task_id)
        .bind(i64::from(self.number))
        .bind(&self.reason)
        .bind(stored(self.at.0))
        .fetch_optional(unit.connection())
        .await?;
        let Some(row) = row else { return Ok(false) };
        let detail =
            serde_json::json!({ "task": self.task_id, "attempt": self.number, "reason": self.reason });
        let line = Line {
            kind: Kind::TaskWithdrawn,
            at: self.at,
            actor: self.by.clone(),
            subject: row.try_get("device_id")?,
            detail: detail.to_string(),
        };
        let leaf = unit.audit(line).await?.index;
        query("UPDATE task_attempts SET withdrawn_leaf = $3 WHERE task_id = $1 AND number = $2")
            .bind(&self.task_id)
            .bind(i64::from(self.number))
            .bind(stored(leaf))
            .execute(unit.connection())
            .await?;
        Ok(true)
    }
}

/// Takes a task from its device, to be placed again.
#[derive(Clone, Debug)]
pub struct TakeBack {
    /// The attempt that ends.
    pub end: EndAttempt,
    /// When it may be placed again.
    pub next_at: UnixTime,
}

impl Transaction for TakeBack {
    type Output = ();

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        if !self.end.apply(unit).await? {
            return Err(StoreError::Conflict);
        }
        query("UPDATE tasks SET status = 'waiting', reason = $2, next_at = $3 WHERE id = $1 AND status = 'placed'")
            .bind(&self.end.task_id)
            .bind(&self.end.reason)
            .bind(stored(self.next_at.0))
            .execute(unit.connection())
            .await?;
        Ok(())
    }
}

/// Ends a task, wherever it is.
#[derive(Clone, Debug)]
pub struct EndTask {
    /// The task, and why it ends; its attempt that stands ends with it.
    pub end: EndAttempt,
    /// Whether an operator wants it so; else it is given up.
    pub is_cancelled: bool,
}

impl Transaction for EndTask {
    /// Whether it was not over yet.
    type Output = bool;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let EndTask { end, is_cancelled } = self;
        let status = if is_cancelled { "cancelled" } else { "failed" };
        let ended = query(
            "UPDATE tasks SET status = $2, reason = $3, ended_at = $4 WHERE id = $1 AND status IN ('waiting', 'placed')",
        )
        .bind(&end.task_id)
        .bind(status)
        .bind(&end.reason)
        .bind(stored(end.at.0))
        .execute(unit.connection())
        .await?;
        if ended.rows_affected() == 0 {
            return Ok(false);
        }
        // Whichever stands now: it may have been placed since whoever ends it has looked.
        let standing = query("SELECT number FROM task_attempts WHERE task_id = $1 AND status = 'standing'")
            .bind(&end.task_id)
            .fetch_optional(unit.connection())
            .await?;
        if let Some(row) = standing {
            EndAttempt { number: super::number(&row, "number")?, ..end.clone() }.apply(unit).await?;
        }
        let detail = serde_json::json!({ "status": status, "reason": end.reason });
        let (kind, at) = (Kind::TaskEnded, end.at);
        let line = Line { kind, at, actor: end.by, subject: end.task_id, detail: detail.to_string() };
        unit.audit(line).await?;
        Ok(true)
    }
}
