//! The trust state as plain data, for the store. A record is not a proof: reading one back checks that it is one
//! that a fold of events could have left.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Basis, Status};
use crate::condition::Holding;
use crate::finding::Tier;

/// A trust state as data. Its fields are read, never written, outside the fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRecord {
    pub(super) status: Status,
    pub(super) version: u64,
    pub(super) since: UnixTime,
    pub(super) tier: Tier,
    pub(super) policy: Option<String>,
    pub(super) evidence_at: Option<UnixTime>,
    pub(super) valid_until: Option<UnixTime>,
    pub(super) reset_count: Option<u32>,
    #[serde(default)]
    pub(super) restart_count: Option<u32>,
    pub(super) device_key: Option<String>,
    /// Whether EK and AK were bound without a device key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ak_alone: bool,
    pub(super) needs_approval: bool,
    pub(super) awaiting_approval: bool,
    pub(super) approved: bool,
    pub(super) reason: String,
    /// What it stands on.
    #[serde(default, skip_serializing_if = "Basis::is_quote")]
    pub(super) basis: Basis,
    /// What entries ask of the device, as of the last affirming evidence.
    #[serde(default, skip_serializing_if = "Holding::is_empty")]
    pub(super) holding: Holding,
}

impl Default for TrustRecord {
    fn default() -> Self {
        TrustRecord {
            status: Status::Pending,
            version: 0,
            since: UnixTime(0),
            tier: Tier::None,
            policy: None,
            evidence_at: None,
            valid_until: None,
            reset_count: None,
            restart_count: None,
            device_key: None,
            ak_alone: false,
            needs_approval: false,
            awaiting_approval: false,
            approved: false,
            reason: "nothing is known of it yet".to_owned(),
            basis: Basis::default(),
            holding: Holding::default(),
        }
    }
}

/// Why a record is none that a fold could have left.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Trusted, but without the affirming evidence for it.
    #[error("the record says trusted, but has no affirming evidence with an end")]
    TrustedWithoutEvidence,
    /// Past pending, but without a key.
    #[error("the record says {status}, but no key was bound")]
    Unbound {
        /// What it says.
        status: Status,
    },
}

impl TrustRecord {
    /// Whether keys were bound that a device speaks with.
    pub(super) fn is_bound(&self) -> bool {
        self.device_key.is_some() || self.ak_alone
    }

    pub(super) fn check(&self) -> Result<(), RecordError> {
        if !matches!(self.status, Status::Pending | Status::Revoked) && !self.is_bound() {
            return Err(RecordError::Unbound { status: self.status });
        }
        let is_good = self.tier == Tier::Affirming || !self.basis.is_quote();
        if self.status == Status::Trusted && (!is_good || self.valid_until.is_none()) {
            return Err(RecordError::TrustedWithoutEvidence);
        }
        Ok(())
    }
}
