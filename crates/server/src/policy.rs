//! The policy in force: compiled once, shared by every appraisal, and word of every change.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_trust::{CompiledPolicy, Policy, PolicyError};
use thiserror::Error;
use tokio::sync::watch;

use crate::store::{NewPolicy, PolicyRecord, SetPolicy, Store, StoreError};

/// What devices are appraised under now.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyInForce {
    /// Counts the policies set; 0: none was ever.
    pub revision: u64,
    /// The policy; without one nothing is judged, and nothing granted.
    pub compiled: Option<Arc<CompiledPolicy>>,
}

/// The door to the policy in force.
#[derive(Debug)]
pub(crate) struct Policies {
    current: watch::Sender<PolicyInForce>,
}

impl Policies {
    /// Loads the policy in force from the store.
    pub(crate) async fn open(store: &Store) -> Result<Policies, PolicyChangeError> {
        let current = match store.policy().await? {
            Some(record) => in_force(record.revision, Policy::from_toml(&record.text)?)?,
            None => PolicyInForce::default(),
        };
        Ok(Policies { current: watch::Sender::new(current) })
    }

    /// What is in force now.
    pub(crate) fn current(&self) -> PolicyInForce {
        self.current.borrow().clone()
    }

    /// The same, and word of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<PolicyInForce> {
        self.current.subscribe()
    }

    /// Puts a text in force as the next version of its name; every attached device is challenged under it.
    pub(crate) async fn set(
        &self,
        store: &Store,
        text: &str,
        by: &str,
        now: UnixTime,
    ) -> Result<PolicyRecord, PolicyChangeError> {
        let next = Next::of(store, Policy::from_text(text)?, by, now).await?;
        store.commit(SetPolicy(next.record.clone())).await?;
        Ok(self.announce(next))
    }

    /// Lets everyone know of a policy that is committed. Two set at once may arrive in either order.
    pub(crate) fn announce(&self, next: Next) -> PolicyRecord {
        let Next { record, in_force } = next;
        tracing::info!(policy = record.name, version = record.version, by = record.set_by, "policy in force");
        self.current.send_if_modified(|current| {
            let newer = current.revision < in_force.revision;
            if newer {
                *current = in_force;
            }
            newer
        });
        record
    }
}

/// A policy about to come into force, known to be usable.
#[derive(Debug)]
pub(crate) struct Next {
    /// What will be stored.
    pub record: NewPolicy,
    in_force: PolicyInForce,
}

impl Next {
    /// Gives a policy its place after the one in force.
    pub(crate) async fn of(
        store: &Store,
        mut policy: Policy,
        by: &str,
        now: UnixTime,
    ) -> Result<Next, PolicyChangeError> {
        let revision = store.policy().await?.map_or(0, |record| record.revision).saturating_add(1);
        let last = store.last_policy_version(&policy.name).await?;
        policy.version = policy.version.max(last.saturating_add(1));
        let record = NewPolicy {
            revision,
            name: policy.name.clone(),
            version: policy.version,
            text: policy.to_toml(),
            digest: policy.digest().to_hex(),
            set_at: now,
            set_by: by.to_owned(),
        };
        Ok(Next { record, in_force: in_force(revision, policy)? })
    }
}

fn in_force(revision: u64, policy: Policy) -> Result<PolicyInForce, PolicyError> {
    Ok(PolicyInForce { revision, compiled: Some(Arc::new(CompiledPolicy::new(policy)?)) })
}

/// Why a policy did not come into force.
#[derive(Debug, Error)]
pub enum PolicyChangeError {
    /// The text is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// It could not be stored, or another came first.
    #[error(transparent)]
    Store(#[from] StoreError),
}
