//! Refusals on record: the leaf says it all, and a row names it, so that they are found without reading the trail.

use assay_evidence::time::UnixTime;

use super::audit::leaf;
use super::sql::query;
use super::{Store, StoreError, Transaction, Unit, stored};
use crate::audit::{Kind, Leaf, Line};

/// Puts a refusal on record that says somebody tries what they may not.
#[derive(Clone, Debug)]
pub struct NoteSecurity {
    /// When.
    pub at: UnixTime,
    /// What was tried.
    pub cause: &'static str,
    /// In whose name; empty: in nobody's.
    pub who: String,
    /// From where.
    pub from: String,
    /// What did not hold.
    pub why: String,
    /// How many like it went by without a word since the last.
    pub unsaid: u64,
}

impl Transaction for NoteSecurity {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let NoteSecurity { at, cause, who, from, why, unsaid } = self;
        let detail = serde_json::json!({ "cause": cause, "from": from, "why": why, "unsaid": unsaid });
        let line = Line {
            kind: Kind::SecurityRefused,
            at,
            actor: "server".to_owned(),
            subject: who,
            detail: detail.to_string(),
        };
        let leaf = unit.audit(line).await?;
        query("INSERT INTO security (leaf) VALUES ($1)")
            .bind(stored(leaf.index))
            .execute(unit.connection())
            .await?;
        Ok(())
    }
}

impl Store {
    /// The last refusals on record, newest first.
    pub async fn refusals(&self, limit: u32) -> Result<Vec<Leaf>, StoreError> {
        let rows = query(
            "SELECT audit.* FROM security JOIN audit ON audit.leaf = security.leaf
             ORDER BY security.leaf DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(leaf).collect()
    }
}
