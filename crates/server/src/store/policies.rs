//! Policies: every version that was ever in force, the highest being the one that is.

use assay_evidence::time::UnixTime;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};

/// A policy as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Counts up with every policy set.
    pub version: u64,
    /// Its name.
    pub name: String,
    /// The text in force, TOML.
    pub text: String,
    /// SHA-256 of its canonical form, hex.
    pub digest: String,
    /// Since when.
    pub set_at: UnixTime,
    /// Who set it.
    pub set_by: String,
}

/// A policy about to come into force; it must be the next version.
pub type NewPolicy = PolicyRecord;

/// Puts a policy in force.
#[derive(Clone, Debug)]
pub struct SetPolicy(pub NewPolicy);

impl Transaction for SetPolicy {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        insert(unit, self.0).await
    }
}

impl Store {
    /// The policy in force, if one was ever set.
    pub async fn policy(&self) -> Result<Option<PolicyRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM policies ORDER BY version DESC LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(policy).transpose()
    }
}

/// Two operators may decide at once: the version is the compare of the compare-and-set.
pub(super) async fn insert(unit: &mut Unit, policy: NewPolicy) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM policies")
        .fetch_one(unit.connection())
        .await?;
    if loaded(row.try_get("version")?, "policies.version")?.saturating_add(1) != policy.version {
        return Err(StoreError::Conflict);
    }
    sqlx::query(
        "INSERT INTO policies (version, name, text, digest, set_at, set_by) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(stored(policy.version))
    .bind(&policy.name)
    .bind(&policy.text)
    .bind(&policy.digest)
    .bind(stored(policy.set_at.0))
    .bind(&policy.set_by)
    .execute(unit.connection())
    .await?;
    let detail = serde_json::json!({ "version": policy.version, "digest": policy.digest });
    unit.audit(Line {
        kind: Kind::PolicySet,
        at: policy.set_at,
        actor: policy.set_by,
        subject: policy.name,
        detail: detail.to_string(),
    })
    .await?;
    Ok(())
}

fn policy(row: &SqliteRow) -> Result<PolicyRecord, StoreError> {
    Ok(PolicyRecord {
        version: loaded(row.try_get("version")?, "policies.version")?,
        name: row.try_get("name")?,
        text: row.try_get("text")?,
        digest: row.try_get("digest")?,
        set_at: UnixTime(loaded(row.try_get("set_at")?, "policies.set_at")?),
        set_by: row.try_get("set_by")?,
    })
}
