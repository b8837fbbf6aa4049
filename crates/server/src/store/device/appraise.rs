//! Results of attestation: what they change, and times alone.

use super::fate::{Change, Moved, change};
use super::record::{TrustColumns, update_trust};
use crate::audit::Kind;
use crate::store::appraisals::{self, AppraisalRecord};
use crate::store::budget::Spending;
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

/// A result that was taken in.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it brought; `None`: the device's results differ too often, and this one has no place of its own on record.
    pub moved: Option<Moved>,
    /// Where its evidence was put; `None`: it is not kept.
    pub evidence: Option<Kept>,
}

impl Transaction for RecordAppraisal {
    type Output = Recorded;

    async fn apply(self, unit: &mut Unit) -> Result<Recorded, StoreError> {
        let device_id = self.change.device_id.clone();
        match self.worth(unit) {
            Worth::Leaf => {}
            Worth::Times => {
                update_trust(unit, &device_id, self.change.from_version, &self.change.trust).await?;
                return Ok(Recorded { moved: None, evidence: None });
            }
            Worth::Nothing(error) => return Err(error),
        }
        let moved = change(unit, Kind::DeviceAppraised, self.change).await?;
        let leaf = moved.leaf.index;
        appraisals::insert(unit.connection(), &device_id, leaf, &self.appraisal).await?;
        appraisals::bound(unit, &device_id).await?;
        let evidence = match self.evidence {
            Some(evidence) => evidence::insert(unit, &device_id, Some(leaf), evidence).await?,
            None => None,
        };
        Ok(Recorded { moved: Some(moved), evidence })
    }
}

/// What a result is worth.
enum Worth {
    Leaf,
    /// The new times of what stands.
    Times,
    /// It is not taken.
    Nothing(StoreError),
}

impl RecordAppraisal {
    /// What falls always has its leaf. It cannot fall again before it rose, so that it is enough to let what rises wait; and
    /// of what moves nothing only the last counts.
    fn worth(&self, unit: &mut Unit) -> Worth {
        let Change { device_id, from_version, trust, withdraw, at, .. } = &self.change;
        let moves = trust.version != *from_version;
        match unit.spend(device_id, Spending::Fate, *at) {
            Ok(()) => Worth::Leaf,
            Err(error) if moves && trust.status == TRUSTED => Worth::Nothing(error),
            Err(_) if moves || *withdraw => Worth::Leaf,
            Err(_) => Worth::Times,
        }
    }
}

const TRUSTED: &str = "trusted";

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
