//! What can happen to a device's trust.
//!
//! An [`Event`] is made only from what it needs: an appraisal event from an attestation result, an enrollment from
//! a certified key. An [`EventRecord`] is the same as plain data, for the store and the audit trail; a record can be
//! folded into a state again, but it cannot be made an event.

use assay_evidence::HashAlgorithm;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::CertifiedKey;
use assay_identity::Csr;
use serde::{Deserialize, Serialize};

use super::Basis;
use crate::appraisal::AttestationResult;
use crate::condition::Holding;
use crate::finding::Tier;
use crate::policy::Recovery;

/// Something that happened, and was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(EventRecord);

/// Something that happened, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EventRecord {
    /// EK, AK and, where its agent has one, device key were bound.
    Enrolled {
        /// When.
        at: UnixTime,
        /// SHA-256 of the device key's SubjectPublicKeyInfo, in hex; `None`: EK and AK alone were bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_key: Option<String>,
    },
    /// An operator lets a revoked device enroll again.
    Readmitted {
        /// When.
        at: UnixTime,
        /// Who.
        by: String,
    },
    /// Evidence was appraised.
    Appraised(Appraised),
    /// The device did not answer for itself while it was attached: evidence stands no longer than this.
    Unanswered {
        /// When.
        at: UnixTime,
        /// Until when the last evidence carries trust at most.
        until: UnixTime,
        /// What happened, in a sentence.
        reason: String,
    },
    /// Evidence became too old.
    Expired {
        /// When.
        at: UnixTime,
    },
    /// An operator ended it.
    Revoked {
        /// When.
        at: UnixTime,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator takes a suspect device back, given good evidence.
    Approved {
        /// When.
        at: UnixTime,
        /// Who.
        by: String,
    },
    /// A node that cannot quote showed something else.
    Vouched {
        /// When.
        at: UnixTime,
        /// What it showed.
        basis: Basis,
        /// SHA-256 of its key's SubjectPublicKeyInfo, in hex.
        device_key: String,
        /// Until when that carries trust.
        until: UnixTime,
    },
    /// An operator forgets a node that cannot quote.
    Evicted {
        /// When.
        at: UnixTime,
        /// Who.
        by: String,
    },
}

/// What a state remembers of an attestation result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraised {
    /// When.
    pub at: UnixTime,
    /// The verdict.
    pub tier: Tier,
    /// Until when it carries trust.
    pub valid_until: UnixTime,
    /// Name and version of the policy.
    pub policy: Option<String>,
    /// The TPM's reset counter, where a quote verified.
    pub reset_count: Option<u32>,
    /// Its restart counter; results that are older than the field have none.
    #[serde(default)]
    pub restart_count: Option<u32>,
    /// How trust comes back under this policy.
    pub recovery: Recovery,
    /// The worst finding, in a sentence.
    pub reason: String,
    /// What entries ask of the device and its evidence fulfils.
    #[serde(default, skip_serializing_if = "Holding::is_empty")]
    pub holding: Holding,
}

impl Event {
    /// The device's keys were bound by credential activation and certification.
    pub fn enrolled(at: UnixTime, key: &CertifiedKey) -> Self {
        Event(EventRecord::Enrolled { at, device_key: Some(key_fingerprint(key.spki_der())) })
    }

    /// EK and AK alone were bound, by credential activation: what the device says counts, and nothing is granted to a key.
    pub fn enrolled_to_quote(at: UnixTime) -> Self {
        Event(EventRecord::Enrolled { at, device_key: None })
    }

    /// An operator lets a revoked device enroll again.
    pub fn readmitted(at: UnixTime, by: impl Into<String>) -> Self {
        Event(EventRecord::Readmitted { at, by: by.into() })
    }

    /// Evidence was appraised, and fulfils these conditions of entries.
    pub fn appraised(result: &AttestationResult, holding: Holding) -> Self {
        Event(EventRecord::Appraised(Appraised {
            at: result.at(),
            tier: result.tier(),
            valid_until: result.valid_until(),
            policy: result.policy().map(|(name, version)| format!("{name} v{version}")),
            reset_count: result.counters().map(|counters| counters.reset_count),
            restart_count: result.counters().map(|counters| counters.restart_count),
            recovery: result.recovery(),
            reason: result.reason().to_owned(),
            holding,
        }))
    }

    /// The device did not answer for itself while it was attached: what was good before it stands for
    /// `unanswered_max_seconds` more, if it would have stood longer.
    pub fn unanswered(at: UnixTime, unanswered_max_seconds: u64, reason: impl Into<String>) -> Self {
        let until = at.plus(unanswered_max_seconds);
        Event(EventRecord::Unanswered { at, until, reason: reason.into() })
    }

    /// A node that cannot quote showed what `basis` says, and holds the key of this request.
    pub fn vouched(at: UnixTime, basis: Basis, csr: &Csr, until: UnixTime) -> Self {
        Event(EventRecord::Vouched { at, basis, device_key: key_fingerprint(csr.spki_der()), until })
    }

    /// An operator forgets a node that cannot quote.
    pub fn evicted(at: UnixTime, by: impl Into<String>) -> Self {
        Event(EventRecord::Evicted { at, by: by.into() })
    }

    /// The clock says that evidence may be too old; a state with fresh evidence does not move.
    pub fn expired(at: UnixTime) -> Self {
        Event(EventRecord::Expired { at })
    }

    /// An operator ends it.
    pub fn revoked(at: UnixTime, by: impl Into<String>, reason: impl Into<String>) -> Self {
        Event(EventRecord::Revoked { at, by: by.into(), reason: reason.into() })
    }

    /// An operator takes a suspect device back, given good evidence.
    pub fn approved(at: UnixTime, by: impl Into<String>) -> Self {
        Event(EventRecord::Approved { at, by: by.into() })
    }

    /// The plain data to store.
    pub fn record(&self) -> &EventRecord {
        &self.0
    }
}

impl EventRecord {
    /// The word for the kind, as stored and shown.
    pub fn kind(&self) -> &'static str {
        match self {
            EventRecord::Enrolled { .. } => "enrolled",
            EventRecord::Readmitted { .. } => "readmitted",
            EventRecord::Appraised(_) => "appraised",
            EventRecord::Unanswered { .. } => "unanswered",
            EventRecord::Expired { .. } => "expired",
            EventRecord::Revoked { .. } => "revoked",
            EventRecord::Approved { .. } => "approved",
            EventRecord::Vouched { .. } => "vouched",
            EventRecord::Evicted { .. } => "evicted",
        }
    }

    /// When it happened.
    pub fn at(&self) -> UnixTime {
        match self {
            EventRecord::Appraised(appraised) => appraised.at,
            EventRecord::Enrolled { at, .. }
            | EventRecord::Readmitted { at, .. }
            | EventRecord::Unanswered { at, .. }
            | EventRecord::Expired { at }
            | EventRecord::Revoked { at, .. }
            | EventRecord::Approved { at, .. }
            | EventRecord::Vouched { at, .. }
            | EventRecord::Evicted { at, .. } => *at,
        }
    }
}

/// How a device key is remembered.
pub(crate) fn key_fingerprint(spki_der: &[u8]) -> String {
    HashAlgorithm::Sha256.hash(&[spki_der]).to_hex()
}
