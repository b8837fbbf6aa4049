//! Policies: every one that was ever in force, the one with the highest revision being the one that is.

use assay_evidence::time::UnixTime;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};

/// A policy as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Counts the policies set, whatever their names.
    pub revision: u64,
    /// Its name.
    pub name: String,
    /// Counts up within the name.
    pub version: u64,
    /// The text in force, TOML.
    pub text: String,
    /// SHA-256 of its canonical form, hex.
    pub digest: String,
    /// Since when.
    pub set_at: UnixTime,
    /// Who set it.
    pub set_by: String,
}

/// A policy about to come into force; it must be the next revision.
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
    /// The highest version that a policy of this name had; 0 if there was none.
    pub async fn last_policy_version(&self, name: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM policies WHERE name = $1")
            .bind(name)
            .fetch_one(&self.readers)
            .await?;
        loaded(row.try_get("version")?, "policies.version")
    }

    /// The policy in force, if one was ever set.
    pub async fn policy(&self) -> Result<Option<PolicyRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM policies ORDER BY revision DESC LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(policy).transpose()
    }
}

/// Two operators may decide at once: the revision is the compare of the compare-and-set.
pub(super) async fn insert(unit: &mut Unit, policy: NewPolicy) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(revision), 0) AS revision FROM policies")
        .fetch_one(unit.connection())
        .await?;
    if loaded(row.try_get("revision")?, "policies.revision")?.saturating_add(1) != policy.revision {
        return Err(StoreError::Conflict);
    }
    sqlx::query(
        "INSERT INTO policies (revision, name, version, text, digest, set_at, set_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(stored(policy.revision))
    .bind(&policy.name)
    .bind(stored(policy.version))
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
        revision: loaded(row.try_get("revision")?, "policies.revision")?,
        name: row.try_get("name")?,
        version: loaded(row.try_get("version")?, "policies.version")?,
        text: row.try_get("text")?,
        digest: row.try_get("digest")?,
        set_at: UnixTime(loaded(row.try_get("set_at")?, "policies.set_at")?),
        set_by: row.try_get("set_by")?,
    })
}
