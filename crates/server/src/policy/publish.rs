//! Publishing: a policy gets its place among all that ever were, and is compiled.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_trust::{CompiledPolicy, Policy};

use super::{PolicyChangeError, aside};
use crate::store::{NewPolicy, Store, StoreError};

/// Numbers policies that are published together.
#[derive(Debug)]
pub(crate) struct Publisher {
    revision: u64,
    version: u64,
    now: UnixTime,
    by: String,
}

/// A policy about to be stored, known to be usable.
#[derive(Debug)]
pub(crate) struct Published {
    /// What will be stored.
    pub record: NewPolicy,
    /// What will judge.
    pub compiled: Arc<CompiledPolicy>,
}

/// Reads the policy that an operator sent: the one way in for what is to be published.
pub(super) async fn read(text: String) -> Result<Policy, PolicyChangeError> {
    Ok(aside(move || Policy::from_text(&text)).await??)
}

impl Publisher {
    /// Counts on from what the store has of this name. That nobody else does is for the commit to see.
    pub(crate) async fn of(
        store: &Store,
        name: &str,
        by: &str,
        now: UnixTime,
    ) -> Result<Publisher, StoreError> {
        let revision = store.last_policy_revision().await?;
        let version = store.last_policy_version(name).await?;
        Ok(Publisher { revision, version, now, by: by.to_owned() })
    }

    /// Gives a policy of the name its numbers; its own version counts where it is higher.
    pub(crate) async fn publish(&mut self, mut policy: Policy) -> Result<Published, PolicyChangeError> {
        self.revision = self.revision.saturating_add(1);
        self.version = policy.version.max(self.version.saturating_add(1));
        policy.version = self.version;
        let (revision, set_at, set_by) = (self.revision, self.now, self.by.clone());
        aside(move || {
            let record = NewPolicy {
                revision,
                name: policy.name.clone(),
                version: policy.version,
                text: policy.to_toml(),
                digest: policy.digest().to_hex(),
                set_at,
                set_by,
            };
            Ok(Published { record, compiled: Arc::new(CompiledPolicy::new(policy)?) })
        })
        .await?
    }
}
