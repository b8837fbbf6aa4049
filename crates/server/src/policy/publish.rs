//! Publishing: a policy gets its place among all that ever were, and is compiled.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_trust::policy::{Envelope, PolicySigners, payload};
use assay_trust::{CompiledPolicy, Policy};

use super::PolicyChangeError;
use crate::in_force::policies::Published;
use crate::store::{NewPolicy, PolicyRecord, Store, StoreError};
use crate::thread::aside;

/// Numbers policies that are published together.
#[derive(Debug)]
pub(crate) struct Publisher {
    revision: u64,
    version: u64,
    /// Whether what was signed has to stay as it is, with its version.
    keeps_versions: bool,
    /// The digest of the last version, where that may matter.
    last_digest: Option<String>,
    now: UnixTime,
    by: String,
}

/// A policy as somebody wants it in force.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    /// What it says.
    pub policy: Policy,
    /// What it came in, where it was signed.
    pub envelope: Option<Arc<str>>,
}

impl Submitted {
    /// Reads a text: a signed one where there are signers, and else either.
    pub(crate) fn read(text: String, signers: &PolicySigners) -> Result<Submitted, PolicyChangeError> {
        if !signers.is_empty() {
            return Ok(Submitted { policy: signers.open(&text)?, envelope: Some(text.into()) });
        }
        let is_signed = Envelope::parse(&text).is_ok();
        let policy = Policy::from_text(&payload(&text)?)?;
        Ok(Submitted { policy, envelope: is_signed.then(|| text.into()) })
    }

    /// The policy of a record that could not be stored, once more.
    pub(crate) fn again(record: &PolicyRecord) -> Result<Submitted, PolicyChangeError> {
        Ok(Submitted { policy: Policy::from_toml(&record.text)?, envelope: record.envelope.clone() })
    }

    /// What the server made of policies that are in force.
    pub(crate) fn of_server(policy: Policy) -> Submitted {
        Submitted { policy, envelope: None }
    }
}

/// Reads the policy that an operator sent, signed where it has to be: the one way in for what is to be published.
pub(super) async fn read(text: String, signers: &PolicySigners) -> Result<Submitted, PolicyChangeError> {
    let signers = signers.clone();
    aside(move || Submitted::read(text, &signers)).await?
}

impl Publisher {
    /// Counts on from what the store has of this name. That nobody else does is for the commit to see.
    pub(crate) async fn of(
        store: &Store,
        name: &str,
        keeps_versions: bool,
        by: &str,
        now: UnixTime,
    ) -> Result<Publisher, StoreError> {
        let revision = store.last_policy_revision().await?;
        let version = store.last_policy_version(name).await?;
        let last_digest = match version {
            0 => None,
            _ if !keeps_versions => None,
            last => Some(store.policy_version(name, last).await?.digest),
        };
        Ok(Publisher { revision, version, keeps_versions, last_digest, now, by: by.to_owned() })
    }

    /// Gives a policy of the name its numbers; its own version counts where it is higher, and has to be where it is
    /// signed: an older policy, signed once, must not come back.
    pub(crate) async fn publish(&mut self, submitted: Submitted) -> Result<Published, PolicyChangeError> {
        let Submitted { mut policy, envelope } = submitted;
        let next = self.version.saturating_add(1);
        let is_again = || self.last_digest.as_ref() == Some(&policy.digest().to_hex());
        self.version = match (self.keeps_versions, &envelope) {
            (false, _) => policy.version.max(next),
            // What the server makes takes the first number that is free, and leaves the rest to what is signed.
            (true, None) => next,
            (true, Some(_)) if policy.version >= next || is_again() => policy.version,
            (true, Some(_)) => {
                return Err(PolicyChangeError::VersionSpent { policy: policy.citation(), next });
            }
        };
        self.revision = self.revision.saturating_add(1);
        policy.version = self.version;
        let (revision, set_at, set_by) = (self.revision, self.now, self.by.clone());
        aside(move || {
            let record = NewPolicy {
                revision,
                name: policy.name.clone(),
                version: policy.version,
                text: policy.to_toml().into(),
                digest: policy.digest().to_hex(),
                set_at,
                set_by,
                envelope,
            };
            Ok(Published { record, compiled: Arc::new(CompiledPolicy::new(policy)?) })
        })
        .await?
    }
}
