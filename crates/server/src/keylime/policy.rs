//! Policies of Keylime's: each becomes a policy of ours, in force for the devices that are labelled with its name.

use assay_identity::SpiffeId;
use assay_trust::labels::Selector;
use assay_trust::policy::{Demand, Import, ImportError, Severity};
use assay_trust::{Policy, PolicyError};
use thiserror::Error;

use crate::enroll::EnrollError;
use crate::label::{self, NewLabels, NotLabelled};
use crate::outcome::{Kind, Outcome};
use crate::policy::{Planning, PolicyChangeError};
use crate::store::PolicyRecord;

/// What Keylime judges by, as JSON each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts<'a> {
    /// Files.
    pub runtime: Option<&'a str>,
    /// PCRs.
    pub tpm: Option<&'a str>,
    /// The boot.
    pub boot: Option<&'a str>,
}

impl Parts<'_> {
    /// Whether there is nothing to judge by.
    pub(crate) fn is_empty(&self) -> bool {
        self.runtime.is_none() && self.tpm.is_none() && self.boot.is_none()
    }

    /// As one policy of ours. What cannot be taken over as it is meant makes it none.
    pub(super) fn policy(self, name: &str) -> Result<Policy, NotSet> {
        let mut import = Import::new(&policy_name(name));
        self.runtime.map(|json| import.runtime_policy(json)).transpose()?;
        self.tpm.map(|json| import.tpm_policy(json)).transpose()?;
        self.boot.map(|json| import.reference_state(json)).transpose()?;
        let (policy, remarks) = import.finish();
        if let Some(remark) = remarks.into_iter().find(|remark| remark.severity == Severity::Error) {
            return Err(NotSet::LeftOut { field: remark.field.to_string(), message: remark.message });
        }
        let mut policy = policy?;
        if self.boot.is_none() {
            // What Keylime was given no policy for it does not judge: its agents need have no boot log then.
            policy.boot.event_log = Demand::Optional;
            policy.boot.secure_boot = Demand::Optional;
        }
        Ok(policy)
    }
}

/// Puts a policy in force for whoever is labelled with its name. As with Keylime, it is in force at once, and devices fall that it
/// refuses.
pub(crate) async fn set(
    planning: Planning<'_>,
    name: &str,
    parts: Parts<'_>,
) -> Result<PolicyRecord, NotSet> {
    let text = parts.policy(name)?.to_toml();
    Ok(planning.set(text, &selector(name)?, true).await?)
}

/// Takes it back.
pub(crate) async fn unset(planning: Planning<'_>, name: &str) -> Result<(), NotSet> {
    Ok(planning.unassign(&selector(name)?, true).await?)
}

/// Has a device judged by the policy of this name.
pub(crate) async fn judge_by(planning: Planning<'_>, device: &SpiffeId, name: &str) -> Result<(), NotSet> {
    let labels = NewLabels { set: vec![format!("{LABEL}={name}")], remove: Vec::new(), force: true };
    label::label(planning, device, &labels).await?;
    Ok(())
}

/// What a policy of Keylime's is called here.
pub(crate) fn policy_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// And the other way.
pub(crate) fn keylime_name(policy: &str) -> Option<&str> {
    policy.strip_prefix(PREFIX)
}

fn selector(name: &str) -> Result<Selector, NotSet> {
    format!("{LABEL}={name}").parse().map_err(|error| NotSet::Change(PolicyChangeError::Label(error)))
}

/// Why a policy of Keylime's is not in force.
#[derive(Debug, Error)]
pub(crate) enum NotSet {
    /// It does not read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It says something that would not be judged.
    #[error("{field}: {message}")]
    LeftOut {
        /// Where.
        field: String,
        /// What.
        message: String,
    },
    /// What comes of it is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The EK of evidence that is judged once.
    #[error(transparent)]
    Ek(Box<EnrollError>),
    /// It cannot be put in force.
    #[error(transparent)]
    Change(#[from] PolicyChangeError),
    /// A device cannot be labelled.
    #[error(transparent)]
    Label(#[from] NotLabelled),
}

impl Outcome for NotSet {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotSet::Import(_) => (Kind::Malformed, "policy"),
            NotSet::LeftOut { .. } => (Kind::Malformed, "policy-left-out"),
            NotSet::Policy(_) => (Kind::Malformed, "policy"),
            NotSet::Ek(error) => error.told(),
            NotSet::Change(error) => error.told(),
            NotSet::Label(error) => error.told(),
        }
    }
}

const PREFIX: &str = "keylime-";
const LABEL: &str = "keylime";
