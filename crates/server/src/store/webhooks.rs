//! How far each receiver of notices is. The trail itself is the queue: what is on record is on its way, from the transaction on
//! that recorded it.

use assay_evidence::time::UnixTime;

use super::audit::leaf;
use super::sql::{Row, query};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::Leaf;

/// A notice that a receiver was not given: a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The leaf that it is about.
    pub leaf: Leaf,
    /// When it was given up.
    pub at: UnixTime,
    /// Why.
    pub reason: String,
    /// Whether it is about to be sent again.
    pub again: bool,
}

/// How far a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first leaf that it was not offered yet.
    pub next_leaf: u64,
    /// How many leaves the trail has.
    pub leaves: u64,
    /// How many notices were given up.
    pub dead_letters: u64,
}

/// Where receivers begin that are new, and the end of those that are no longer configured.
#[derive(Clone, Debug)]
pub struct KeepWebhooks(pub Vec<String>);

/// How far a receiver came.
#[derive(Clone, Debug, Default)]
pub struct Notified {
    /// Its name.
    pub webhook: String,
    /// The first leaf that it was not offered yet.
    pub next_leaf: u64,
    /// Leaves that were given up, when and why.
    pub dead: Vec<(u64, UnixTime, String)>,
    /// Dead letters that it has after all.
    pub delivered: Vec<u64>,
}

/// Has dead letters sent again.
#[derive(Clone, Debug)]
pub struct SendAgain {
    /// To whom.
    pub webhook: String,
    /// Of these leaves; none: all.
    pub leaves: Vec<u64>,
}

impl Transaction for KeepWebhooks {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        for name in &self.0 {
            query(
                "INSERT INTO webhooks (name, next_leaf) VALUES ($1, (SELECT COALESCE(MAX(leaf) + 1, 0) FROM audit))
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(name)
            .execute(unit.connection())
            .await?;
        }
        let rows = query("SELECT name FROM webhooks").fetch_all(unit.connection()).await?;
        for row in rows {
            let name: String = row.try_get("name")?;
            if !self.0.contains(&name) {
                for statement in
                    ["DELETE FROM webhook_letters WHERE webhook = $1", "DELETE FROM webhooks WHERE name = $1"]
                {
                    query(statement).bind(&name).execute(unit.connection()).await?;
                }
            }
        }
        Ok(())
    }
}

impl Transaction for Notified {
    type Output = ();

    /// How far a receiver came takes no room, and on a full disk it would be told the same again and again.
    fn uses_reserve(&self) -> bool {
        self.dead.is_empty()
    }

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let is_more = !self.dead.is_empty();
        for leaf in self.delivered {
            query("DELETE FROM webhook_letters WHERE webhook = $1 AND leaf = $2")
                .bind(&self.webhook)
                .bind(stored(leaf))
                .execute(unit.connection())
                .await?;
        }
        for (leaf, at, reason) in self.dead {
            query(
                "INSERT INTO webhook_letters (webhook, leaf, at, reason) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (webhook, leaf) DO UPDATE SET at = $3, reason = $4, again = 0",
            )
            .bind(&self.webhook)
            .bind(stored(leaf))
            .bind(stored(at.0))
            .bind(reason)
            .execute(unit.connection())
            .await?;
        }
        if is_more {
            // The trail has them still; what is forgotten is that they were not sent.
            query(
                "DELETE FROM webhook_letters WHERE webhook = $1 AND leaf NOT IN
                 (SELECT leaf FROM webhook_letters WHERE webhook = $1 ORDER BY leaf DESC LIMIT $2)",
            )
            .bind(&self.webhook)
            .bind(LETTERS_MAX)
            .execute(unit.connection())
            .await?;
        }
        query("UPDATE webhooks SET next_leaf = $2 WHERE name = $1")
            .bind(&self.webhook)
            .bind(stored(self.next_leaf))
            .execute(unit.connection())
            .await?;
        Ok(())
    }
}

impl Transaction for SendAgain {
    type Output = u64;

    async fn apply(self, unit: &mut Unit) -> Result<u64, StoreError> {
        if self.leaves.is_empty() {
            let all = query("UPDATE webhook_letters SET again = 1 WHERE webhook = $1")
                .bind(&self.webhook)
                .execute(unit.connection())
                .await?;
            return Ok(all.rows_affected());
        }
        let mut found = 0_u64;
        for leaf in self.leaves {
            let one = query("UPDATE webhook_letters SET again = 1 WHERE webhook = $1 AND leaf = $2")
                .bind(&self.webhook)
                .bind(stored(leaf))
                .execute(unit.connection())
                .await?;
            found = found.saturating_add(one.rows_affected());
        }
        Ok(found)
    }
}

impl Store {
    /// How far a receiver is.
    pub async fn webhook(&self, name: &str) -> Result<Progress, StoreError> {
        let row = query(
            "SELECT next_leaf, (SELECT COALESCE(MAX(leaf) + 1, 0) FROM audit) AS leaves,
             (SELECT COUNT(*) FROM webhook_letters WHERE webhook = $1) AS letters FROM webhooks WHERE name = $1",
        )
        .bind(name)
        .fetch_one(&self.readers)
        .await?;
        let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
        Ok(Progress {
            next_leaf: number("next_leaf")?,
            leaves: number("leaves")?,
            dead_letters: number("letters")?,
        })
    }

    /// The dead letters of a receiver, oldest first: all, or those that are to be sent again.
    pub async fn letters(
        &self,
        webhook: &str,
        again_only: bool,
        limit: u32,
    ) -> Result<Vec<Letter>, StoreError> {
        let rows = query(
            "SELECT audit.*, letters.at AS given_up_at, letters.reason, letters.again
             FROM webhook_letters AS letters JOIN audit ON audit.leaf = letters.leaf
             WHERE letters.webhook = $1 AND letters.again >= $2 ORDER BY letters.leaf LIMIT $3",
        )
        .bind(webhook)
        .bind(i64::from(again_only))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(letter).collect()
    }
}

fn letter(row: &Row) -> Result<Letter, StoreError> {
    Ok(Letter {
        leaf: leaf(row)?,
        at: UnixTime(loaded(row.try_get("given_up_at")?, "webhook_letters.at")?),
        reason: row.try_get("reason")?,
        again: row.try_get::<i64>("again")? != 0,
    })
}

/// Of one receiver.
const LETTERS_MAX: i64 = 10_000;
