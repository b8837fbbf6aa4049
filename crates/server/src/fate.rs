//! What changes a device's fate besides evidence: an operator's word, and the clock.
//!
//! Load, apply, commit, announce. A device that moved on meanwhile is loaded again.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::vector::TrustVector;
use assay_trust::{CompiledPolicy, Event, Finding, Policy, Status, TrustState};
use serde::Deserialize;
use thiserror::Error;

use crate::device::{Device, DeviceError, columns};
use crate::in_force::policies::PolicyLoadError;
use crate::keys::KeysError;
use crate::outcome::{Kind, Outcome};
use crate::parts::Server;
use crate::policy::{PolicyChangeError, RefusedFile};
use crate::store::{ApproveDevice, Change, ExpireDevice, Moved, RevokeDevice, StoreError, Transaction};

/// What an approval did.
#[derive(Debug)]
pub(crate) struct Approval {
    /// The policy in force for the device now, if there is one.
    pub policy: Option<Arc<CompiledPolicy>>,
    /// The files that went into it.
    pub approved: Vec<String>,
}

impl Server {
    /// Ends a device: every grant falls now, and it cannot attest again.
    pub(crate) async fn revoke(
        &self,
        id: &SpiffeId,
        reason: &str,
        now: UnixTime,
    ) -> Result<Device, FateError> {
        let event = Event::revoked(now, OPERATOR, reason);
        let moved = self.change_fate(id, &event, OPERATOR, now, RevokeDevice).await?;
        if let Some(moved) = moved {
            tracing::warn!(device = %id, reason, svids = moved.withdrawn.serials.len(), "device revoked");
        }
        self.enrolled(id).await
    }

    /// Notes that a device's evidence is too old, if it still is.
    pub(crate) async fn expire(&self, id: &SpiffeId, now: UnixTime) -> Result<(), FateError> {
        let moved = self.change_fate(id, &Event::expired(now), "server", now, ExpireDevice).await?;
        if let Some(moved) = moved {
            tracing::warn!(device = %id, svids = moved.withdrawn.serials.len(), "device expired");
        }
        Ok(())
    }

    /// Accepts the files that the last appraisal refused, all or those named, and lets the device recover.
    pub(crate) async fn approve(
        &self,
        id: &SpiffeId,
        paths: Option<&[String]>,
        now: UnixTime,
    ) -> Result<Approval, FateError> {
        for _ in 0..ATTEMPTS_MAX {
            let device = self.enrolled(id).await?;
            let in_force = self.policies.load(&self.store).await?;
            let files = self.refused_files(&device, paths).await?;
            let widened = self.widened(&device, &in_force, &files, OPERATOR, now).await?;
            let next = device.state.apply(&Event::approved(now, OPERATOR));
            let approved = files.into_iter().map(|file| file.claim).collect();
            if widened.is_none() && next == device.state {
                return Ok(Approval { policy: in_force.of(&device).compiled, approved });
            }
            let change = change(&device, &next, &Event::approved(now, OPERATOR), OPERATOR, now);
            let (policies, plan) = widened.unzip();
            match self.store.commit(ApproveDevice { change, policies }).await {
                Ok(moved) => {
                    let policy = plan.as_ref().unwrap_or(&in_force).of(&device).compiled;
                    plan.into_iter().for_each(|plan| self.policies.announce(plan));
                    tracing::info!(device = %id, files = approved.len(), "device approved");
                    self.announce(id, &moved, now)?;
                    return Ok(Approval { policy, approved });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The files that the last appraisal refused, all or those named.
    async fn refused_files(
        &self,
        device: &Device,
        paths: Option<&[String]>,
    ) -> Result<Vec<RefusedFile>, FateError> {
        let last = self.store.last_appraisal(device.id.as_str()).await?;
        let findings: Vec<Refused> =
            last.and_then(|last| serde_json::from_str(&last.findings).ok()).unwrap_or_default();
        let wanted = |finding: &Refused| {
            finding.check == IMA_POLICY && paths.is_none_or(|paths| paths.contains(&finding.claim))
        };
        let files: Vec<RefusedFile> =
            findings.into_iter().filter(wanted).filter_map(Refused::into_file).collect();
        let named = |path: &&String| files.iter().any(|file| file.claim == **path);
        match paths.into_iter().flatten().find(|path| !named(path)) {
            Some(unknown) => Err(FateError::NotRefused { path: unknown.clone() }),
            None => Ok(files),
        }
    }

    /// The device, which has to be there.
    pub(crate) async fn enrolled(&self, id: &SpiffeId) -> Result<Device, FateError> {
        Device::load(&self.store, id).await?.ok_or(FateError::Unknown)
    }

    async fn change_fate<T: Transaction<Output = Moved>>(
        &self,
        id: &SpiffeId,
        event: &Event,
        actor: &str,
        now: UnixTime,
        transaction: impl Fn(Change) -> T,
    ) -> Result<Option<Moved>, FateError> {
        for _ in 0..ATTEMPTS_MAX {
            let device = self.enrolled(id).await?;
            let next = device.state.apply(event);
            if next == device.state {
                return Ok(None);
            }
            match self.store.commit(transaction(change(&device, &next, event, actor, now))).await {
                Ok(moved) => {
                    self.announce(id, &moved, now)?;
                    return Ok(Some(moved));
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// After the commit: the device's stream looks at its state again, and the list is signed with what fell. In that
    /// order, so that no stream tells of a new list beside grants that are none any more.
    pub(crate) fn announce(&self, id: &SpiffeId, moved: &Moved, now: UnixTime) -> Result<(), KeysError> {
        self.metrics.withdrawn(moved.withdrawn.serials.len());
        self.registry.wake(id);
        self.revocations.publish(&moved.withdrawn, now)
    }
}

/// A step of a device's state as one transaction has it.
pub(crate) fn change(
    device: &Device,
    next: &TrustState,
    event: &Event,
    actor: &str,
    now: UnixTime,
) -> Change {
    Change {
        device_id: device.id.to_string(),
        from_version: device.state.version(),
        trust: columns(next),
        withdraw: next.withdraws(&device.state) || next.status() == Status::Revoked,
        at: now,
        actor: actor.to_owned(),
        detail: serde_json::to_string(event.record()).unwrap_or_default(),
    }
}

/// What approval reads of a stored [`Finding`].
#[derive(Deserialize)]
struct Refused {
    check: String,
    claim: String,
    found: String,
}

impl Refused {
    fn into_file(self) -> Option<RefusedFile> {
        let (path, digest) = Policy::reported_file(&self.claim, &self.found)?;
        Some(RefusedFile { claim: self.claim, path, digest })
    }
}

/// Findings as stored and shown, the gravest first; the tail of a list of a thousand says nothing new.
pub(crate) fn findings_json(findings: &[Finding]) -> String {
    let kept = findings.get(..FINDINGS_KEPT_MAX).unwrap_or(findings);
    serde_json::to_string(kept).unwrap_or_default()
}

/// A trustworthiness vector as stored.
pub(crate) fn vector_json(vector: &TrustVector) -> String {
    serde_json::to_string(vector).unwrap_or_default()
}

impl From<PolicyLoadError> for FateError {
    fn from(error: PolicyLoadError) -> Self {
        FateError::Policy(error.into())
    }
}

/// Why a device's fate did not change.
#[derive(Debug, Error)]
pub(crate) enum FateError {
    /// No such device.
    #[error("there is no such device")]
    Unknown,
    /// A file that nothing was said about.
    #[error("{path} is not among the files that the last appraisal refused")]
    NotRefused {
        /// The file.
        path: String,
    },
    /// The policy could not be widened.
    #[error(transparent)]
    Policy(#[from] PolicyChangeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is done and recorded, but the list could not be signed.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for FateError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            FateError::Policy(error) => error.told(),
            FateError::Store(error) => error.told(),
            FateError::Keys(error) => error.told(),
            FateError::Unknown => (Kind::NotFound, "unknown-device"),
            FateError::NotRefused { .. } => (Kind::Malformed, "not-refused"),
        }
    }
}

impl From<DeviceError> for FateError {
    fn from(error: DeviceError) -> Self {
        FateError::Store(error.0)
    }
}

const OPERATOR: &str = "operator";

/// The check whose findings name files.
const IMA_POLICY: &str = "ima-policy";

/// Findings of one result on record.
const FINDINGS_KEPT_MAX: usize = 1000;

/// How often a change is decided anew when the device moves on meanwhile.
const ATTEMPTS_MAX: usize = 5;
