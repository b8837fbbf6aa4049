//! Policies: every version that was ever published. Which of them are in force is in `assignments.rs`.

use std::sync::Arc;

use assay_evidence::time::UnixTime;

use super::{Store, StoreError, Unit, loaded, stored};
use crate::store::sql::{Row, query};

/// A policy as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Counts the policies published, whatever their names.
    pub revision: u64,
    /// Its name.
    pub name: String,
    /// Counts up within the name.
    pub version: u64,
    /// The text, TOML. Shared, as it may have tens of megabytes.
    pub text: Arc<str>,
    /// SHA-256 of its canonical form, hex.
    pub digest: String,
    /// Since when.
    pub set_at: UnixTime,
    /// Who set it.
    pub set_by: String,
    /// The signed envelope that it came in, if it came in one.
    pub envelope: Option<Arc<str>>,
}

/// What tells a policy from every other, as another may have taken the revision that it was to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyKey {
    /// Counts the policies published, whatever their names.
    pub revision: u64,
    /// Its name.
    pub name: String,
    /// Counts up within the name.
    pub version: u64,
    /// SHA-256 of its canonical form, hex.
    pub digest: String,
}

impl PolicyRecord {
    /// What tells it from every other.
    pub fn key(&self) -> PolicyKey {
        let PolicyRecord { revision, name, version, digest, .. } = self;
        PolicyKey { revision: *revision, name: name.clone(), version: *version, digest: digest.clone() }
    }
}

/// A policy about to be published; it must be the next revision.
pub type NewPolicy = PolicyRecord;

impl Store {
    /// The policy of a revision.
    pub async fn policy(&self, revision: u64) -> Result<PolicyRecord, StoreError> {
        let row = query("SELECT * FROM policies WHERE revision = $1")
            .bind(stored(revision))
            .fetch_optional(&self.readers)
            .await?;
        policy(&row.ok_or(StoreError::Unknown("policy"))?)
    }

    /// The same without its texts, which may be long.
    pub async fn policy_key(&self, revision: u64) -> Result<PolicyKey, StoreError> {
        let row = query("SELECT name, version, digest FROM policies WHERE revision = $1")
            .bind(stored(revision))
            .fetch_optional(&self.readers)
            .await?
            .ok_or(StoreError::Unknown("policy"))?;
        Ok(PolicyKey {
            revision,
            name: row.try_get("name")?,
            version: loaded(row.try_get("version")?, "policies.version")?,
            digest: row.try_get("digest")?,
        })
    }

    /// A version of a name, the latest if there are several.
    pub async fn policy_version(&self, name: &str, version: u64) -> Result<PolicyRecord, StoreError> {
        let row =
            query("SELECT * FROM policies WHERE name = $1 AND version = $2 ORDER BY revision DESC LIMIT 1")
                .bind(name)
                .bind(stored(version))
                .fetch_optional(&self.readers)
                .await?;
        policy(&row.ok_or(StoreError::Unknown("policy"))?)
    }

    /// The highest revision there is; 0 if there is none.
    pub async fn last_policy_revision(&self) -> Result<u64, StoreError> {
        let row = query("SELECT COALESCE(MAX(revision), 0) AS revision FROM policies")
            .fetch_one(&self.readers)
            .await?;
        loaded(row.try_get("revision")?, "policies.revision")
    }

    /// The highest version that a policy of this name had; 0 if there was none.
    pub async fn last_policy_version(&self, name: &str) -> Result<u64, StoreError> {
        let row = query("SELECT COALESCE(MAX(version), 0) AS version FROM policies WHERE name = $1")
            .bind(name)
            .fetch_one(&self.readers)
            .await?;
        loaded(row.try_get("version")?, "policies.version")
    }
}

/// Two operators may decide at once: the revision is the compare of the compare-and-set.
pub(super) async fn insert(unit: &mut Unit, policy: &NewPolicy) -> Result<(), StoreError> {
    let row = query("SELECT COALESCE(MAX(revision), 0) AS revision FROM policies")
        .fetch_one(unit.connection())
        .await?;
    if loaded(row.try_get("revision")?, "policies.revision")?.saturating_add(1) != policy.revision {
        return Err(StoreError::Conflict);
    }
    query(
        "INSERT INTO policies (revision, name, version, text, digest, set_at, set_by, envelope)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(stored(policy.revision))
    .bind(&policy.name)
    .bind(stored(policy.version))
    .bind(&*policy.text)
    .bind(&policy.digest)
    .bind(stored(policy.set_at.0))
    .bind(&policy.set_by)
    .bind(policy.envelope.as_deref())
    .once()
    .execute(unit.connection())
    .await?;
    Ok(())
}

fn policy(row: &Row) -> Result<PolicyRecord, StoreError> {
    Ok(PolicyRecord {
        revision: loaded(row.try_get("revision")?, "policies.revision")?,
        name: row.try_get("name")?,
        version: loaded(row.try_get("version")?, "policies.version")?,
        text: row.try_get::<&str>("text")?.into(),
        digest: row.try_get("digest")?,
        set_at: UnixTime(loaded(row.try_get("set_at")?, "policies.set_at")?),
        set_by: row.try_get("set_by")?,
        envelope: row.try_get::<Option<&str>>("envelope")?.map(Arc::from),
    })
}
