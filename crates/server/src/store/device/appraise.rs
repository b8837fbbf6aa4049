//! Results of attestation: what they change, and times alone.

use std::collections::HashSet;

use assay_evidence::time::UnixTime;

use super::fate::{Change, Moved, change};
use super::record::{TrustColumns, update_trust};
use crate::audit::Kind;
use crate::store::appraisals::{self, AppraisalRecord};
use crate::store::budget::Spending;
use crate::store::evidence::{self, Kept, NewEvidence};
use crate::store::sql::query_of;
use crate::store::withdraw::{self, LostEntry};
use crate::store::{Fall, StoreError, Transaction, Unit, stored};

/// Records an attestation result that changed something, and all that follows from it.
#[derive(Clone, Debug)]
pub struct RecordAppraisal {
    /// The device's new fate.
    pub change: Change,
    /// The result.
    pub appraisal: AppraisalRecord,
    /// What it was made of, where that can be kept.
    pub evidence: Option<NewEvidence>,
    /// Entries of a device that stays trusted, and does not fulfil any more what they ask.
    pub lost: Vec<LostEntry>,
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

    fn uses_reserve(&self) -> bool {
        self.change.withdraw || !self.lost.is_empty()
    }

    fn fall(&self) -> Option<Fall> {
        self.change.withdraw.then(|| Fall::Appraised(Box::new(self.clone().lean())))
    }

    fn lean(self) -> Self {
        RecordAppraisal { evidence: None, ..self }
    }

    async fn apply(self, unit: &mut Unit) -> Result<Recorded, StoreError> {
        let device_id = self.change.device_id.clone();
        withdraw::of_lost(unit, &device_id, &self.lost, self.change.at).await?;
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

/// Extends what stands, without entries of which the fresh evidence says that they no longer hold.
#[derive(Clone, Debug)]
pub struct LoseEntries {
    /// The device's new times.
    pub renew: RenewTrust,
    /// The entries.
    pub lost: Vec<LostEntry>,
    /// When.
    pub at: UnixTime,
    /// What says so, where it can be kept.
    pub evidence: Option<NewEvidence>,
}

impl Transaction for LoseEntries {
    type Output = Option<Kept>;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Option<Kept>, StoreError> {
        let LoseEntries { renew: RenewTrust { device_id, trust }, lost, at, evidence } = self;
        update_trust(unit, &device_id, trust.version, &trust).await?;
        withdraw::of_lost(unit, &device_id, &lost, at).await?;
        match evidence {
            Some(evidence) => evidence::insert(unit, &device_id, None, evidence).await,
            None => Ok(None),
        }
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

/// Extends what stands for all of these in one statement; answers whose it did. The state of the others has moved on.
///
/// Nearly every attestation ends here, and a statement of its own for each costs more than what it does. A state of the same
/// version has the same status, which is left alone: it is in an index.
pub(in crate::store) async fn renew_all(
    unit: &mut Unit,
    renewals: &[RenewTrust],
) -> Result<HashSet<String>, StoreError> {
    let rows: Vec<_> = renewals.iter().map(RenewTrust::row).collect();
    let rows = serde_json::to_string(&rows).map_err(|_| StoreError::Unwritable)?;
    let renewed = query_of(
        "UPDATE devices SET tier = new.tier, valid_until = new.valid_until,
             evidence_at = new.evidence_at, trust = new.trust,
             reset_count = CASE WHEN devices.reset_count > new.reset_count THEN devices.reset_count ELSE new.reset_count END
         FROM (SELECT value ->> 0 AS id, value ->> 1 AS version, value ->> 2 AS tier, value ->> 3 AS valid_until,
                   value ->> 4 AS evidence_at, value ->> 5 AS reset_count, value ->> 6 AS trust
               FROM json_each($1)) AS new
         WHERE devices.id = new.id AND devices.state_version = new.version
         RETURNING devices.id",
        "UPDATE devices SET tier = new.tier, valid_until = new.valid_until,
             evidence_at = new.evidence_at, trust = new.trust,
             reset_count = GREATEST(devices.reset_count, new.reset_count)
         FROM (SELECT value ->> 0 AS id, CAST(value ->> 1 AS BIGINT) AS version, value ->> 2 AS tier,
                   CAST(value ->> 3 AS BIGINT) AS valid_until, CAST(value ->> 4 AS BIGINT) AS evidence_at,
                   CAST(value ->> 5 AS BIGINT) AS reset_count, value ->> 6 AS trust
               FROM jsonb_array_elements(CAST($1 AS JSONB)) AS value) AS new
         WHERE devices.id = new.id AND devices.state_version = new.version
         RETURNING devices.id",
    )
    .bind(&rows)
    .fetch_all(unit.connection())
    .await?;
    renewed.iter().map(|row| row.try_get("id")).collect()
}

impl RenewTrust {
    /// As the statement reads it.
    fn row(&self) -> (&str, i64, &str, i64, i64, i64, &str) {
        let TrustColumns { status: _, tier, valid_until, evidence_at, reset_count, version, record } =
            &self.trust;
        (
            &self.device_id,
            stored(*version),
            tier,
            stored(valid_until.0),
            stored(evidence_at.0),
            reset_count.map_or(-1, i64::from),
            record,
        )
    }
}
