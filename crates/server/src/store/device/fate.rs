//! What changes a device's fate besides evidence, and what every change of it has.

use assay_evidence::time::UnixTime;

use super::record::{TrustColumns, update_trust};
use crate::audit::{Kind, Leaf, Line};
use crate::store::assignments::RevisePolicies;
use crate::store::budget::Spending;
use crate::store::sql::query;
use crate::store::{Fall, StoreError, Transaction, Unit, Withdrawn, appraisals, audit, withdraw};

/// A change of a device's fate, common to every transaction that makes one.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub device_id: String,
    /// The version it was decided on.
    pub from_version: u64,
    /// What the trust becomes.
    pub trust: TrustColumns,
    /// Whether the grants fall.
    pub withdraw: bool,
    /// When.
    pub at: UnixTime,
    /// Who: `server`, `operator`, or the device.
    pub actor: String,
    /// What happened, JSON.
    pub detail: String,
}

/// What a change of fate brought.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Its place in the audit trail.
    pub leaf: Leaf,
    /// The grants that fell with it.
    pub withdrawn: Withdrawn,
}

/// Notes that a device did not answer for itself, which shortens what stands.
#[derive(Clone, Debug)]
pub struct NoteUnanswered(pub Change);

impl Transaction for NoteUnanswered {
    /// `None`: it is done, and not worth a leaf.
    type Output = Option<Moved>;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Option<Moved>, StoreError> {
        let Change { device_id, from_version, trust, at, .. } = &self.0;
        // A leaf more or less: what stands is shortened.
        match unit.spend(device_id, Spending::Fate, *at) {
            Ok(()) => change(unit, Kind::DeviceUnanswered, self.0).await.map(Some),
            Err(_) => update_trust(unit, device_id, *from_version, trust).await.map(|()| None),
        }
    }
}

/// Notes that evidence grew stale.
#[derive(Clone, Debug)]
pub struct ExpireDevice(pub Change);

impl Transaction for ExpireDevice {
    type Output = Moved;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        change(unit, Kind::DeviceExpired, self.0).await
    }
}

/// Ends what a device holds whose trust record does not read. The record stays as it is, to be looked at.
#[derive(Clone, Debug)]
pub struct ExpireUnreadable {
    /// Which.
    pub device_id: String,
    /// When.
    pub at: UnixTime,
}

impl Transaction for ExpireUnreadable {
    type Output = Moved;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        query("UPDATE devices SET status = 'expired', state_version = state_version + 1 WHERE id = $1")
            .bind(&self.device_id)
            .execute(unit.connection())
            .await?;
        let line = Line {
            kind: Kind::DeviceExpired,
            at: self.at,
            actor: "server".to_owned(),
            subject: self.device_id.clone(),
            detail: serde_json::json!({ "kind": "unreadable" }).to_string(),
        };
        let leaf = unit.audit(line).await?;
        audit::insert_event(unit.connection(), &leaf, &self.device_id).await?;
        let withdrawn = withdraw::of_device(unit, &self.device_id, self.at).await?;
        Ok(Moved { leaf, withdrawn })
    }
}

/// Ends a device for good.
#[derive(Clone, Debug)]
pub struct RevokeDevice(pub Change);

impl Transaction for RevokeDevice {
    type Output = Moved;

    fn uses_reserve(&self) -> bool {
        true
    }

    fn fall(&self) -> Option<Fall> {
        Some(Fall::Revoked(self.clone()))
    }

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        change(unit, Kind::DeviceRevoked, self.0).await
    }
}

/// Lets a revoked device enroll again.
#[derive(Clone, Debug)]
pub struct ReadmitDevice(pub Change);

impl Transaction for ReadmitDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        let device_id = self.0.device_id.clone();
        let moved = change(unit, Kind::DeviceReadmitted, self.0).await?;
        // Nothing that was known of its TPM holds any more.
        query("UPDATE devices SET reset_count = -1 WHERE id = $1")
            .bind(&device_id)
            .execute(unit.connection())
            .await?;
        Ok(moved)
    }
}

/// Lets a device recover, with the policy that accepts what it runs.
#[derive(Clone, Debug)]
pub struct ApproveDevice {
    /// The device's new fate.
    pub change: Change,
    /// The result that the operator saw; it has to be the last still.
    pub result: u64,
    /// The policies that come into force with it, if they had to change.
    pub policies: Option<RevisePolicies>,
}

impl Transaction for ApproveDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        appraisals::is_last(unit, &self.change.device_id, self.result).await?;
        if let Some(policies) = self.policies {
            policies.apply(unit).await?;
        }
        change(unit, Kind::DeviceApproved, self.change).await
    }
}

pub(super) async fn change(unit: &mut Unit, kind: Kind, change: Change) -> Result<Moved, StoreError> {
    update_trust(unit, &change.device_id, change.from_version, &change.trust).await?;
    let leaf = unit
        .audit(Line {
            kind,
            at: change.at,
            actor: change.actor,
            subject: change.device_id.clone(),
            detail: change.detail,
        })
        .await?;
    audit::insert_event(unit.connection(), &leaf, &change.device_id).await?;
    let withdrawn = match change.withdraw {
        true => withdraw::of_device(unit, &change.device_id, change.at).await?,
        false => Withdrawn::default(),
    };
    Ok(Moved { leaf, withdrawn })
}
