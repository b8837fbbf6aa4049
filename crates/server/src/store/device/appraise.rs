//! Results of attestation: what they change, and times alone.

use super::fate::{Change, Moved, change};
use super::record::{TrustColumns, update_trust};
use crate::audit::Kind;
use crate::store::appraisals::{self, AppraisalRecord};
use crate::store::evidence::{self, Kept, NewEvidence};
use crate::store::{StoreError, Transaction, Unit};

/// Records an attestation result that changed something, and all that follows from it.
#[derive(Clone, Debug)]
pub struct RecordAppraisal {
    /// The device's new fate.
    pub change: Change,
    /// The result.
    pub appraisal: AppraisalRecord,
    /// What it was made of, where that can be kept.
    pub evidence: Option<NewEvidence>,
}

/// A result on record.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it brought.
    pub moved: Moved,
    /// Where its evidence was put; `None`: it is not kept.
    pub evidence: Option<Kept>,
}

impl Transaction for RecordAppraisal {
    type Output = Recorded;

    async fn apply(self, unit: &mut Unit) -> Result<Recorded, StoreError> {
        let device_id = self.change.device_id.clone();
        let moved = change(unit, Kind::DeviceAppraised, self.change).await?;
        let leaf = moved.leaf.index;
        appraisals::insert(unit.connection(), &device_id, leaf, &self.appraisal).await?;
        appraisals::bound(unit, &device_id).await?;
        let evidence = match self.evidence {
            Some(evidence) => evidence::insert(unit, &device_id, Some(leaf), evidence).await?,
            None => None,
        };
        Ok(Recorded { moved, evidence })
    }
}

/// Extends what stands: fresh evidence with the same result.
#[derive(Clone, Debug)]
pub struct RenewTrust {
    /// Whose.
    pub device_id: String,
    /// The trust with its new times; the version is the one it was decided on.
    pub trust: TrustColumns,
}

impl Transaction for RenewTrust {
    type Output = ();

    const SINGLE_STATEMENT: bool = true;

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let version = self.trust.version;
        update_trust(unit, &self.device_id, version, &self.trust).await
    }
}
