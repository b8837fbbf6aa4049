//! What changes a device's fate besides evidence: an operator's word, and the clock.
//!
//! Load, apply, commit. A device that moved on meanwhile is loaded again.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::policy::Acceptable;
use assay_trust::vector::TrustVector;
use assay_trust::{CompiledPolicy, Event, Finding, Policy, Status, TrustState};
use serde::Deserialize;
use thiserror::Error;

use crate::actor::Actor;
use crate::device::{Device, DeviceError, columns};
use crate::in_force::policies::PolicyLoadError;
use crate::outcome::{Kind, Outcome};
use crate::policy::{Accepted, Planning, PolicyChangeError, RefusedFile};
use crate::store::{
    ApproveDevice, Change, ExpireDevice, NoteUnanswered, ReadmitDevice, RevokeDevice, Store, StoreError,
    Transaction,
};

/// What an operator accepts: files that a result refused and what it refused of the boot, as it named them. Nothing that
/// came after is meant.
#[derive(Clone, Debug)]
pub(crate) struct NewApproval {
    /// The result that was looked at: its place in the trail.
    pub result: u64,
    /// The files; without anything the device alone is taken back.
    pub files: Vec<AcceptedFile>,
    /// Of the boot.
    pub boot: Vec<Acceptable>,
}

/// A file as a finding names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedFile {
    /// What the finding is about.
    pub path: String,
    /// What it says was measured.
    pub digest: String,
}

/// Ends a device: every grant falls now, and it cannot attest again.
pub(crate) async fn revoke(
    store: &Store,
    id: &SpiffeId,
    reason: &str,
    by: Actor,
    now: UnixTime,
) -> Result<Device, FateError> {
    let event = Event::revoked(now, by.name(), reason);
    if let Some(moved) = change_fate(store, id, &event, by, now, RevokeDevice).await? {
        tracing::warn!(device = %id, reason, %by, svids = moved.withdrawn.serials.len(), "device revoked");
    }
    enrolled(store, id).await
}

/// Takes a revoked device back: it has to enroll again, and is judged as if it were new.
pub(crate) async fn readmit(
    store: &Store,
    id: &SpiffeId,
    by: Actor,
    now: UnixTime,
) -> Result<Device, FateError> {
    if enrolled(store, id).await?.state.status() != Status::Revoked {
        return Err(FateError::NotRevoked);
    }
    let event = Event::readmitted(now, by.name());
    if change_fate(store, id, &event, by, now, ReadmitDevice).await?.is_some() {
        tracing::warn!(device = %id, %by, "device readmitted");
    }
    enrolled(store, id).await
}

/// Notes that an attached device did not answer for itself, where that shortens what stands: it is on record, so that
/// neither a restart nor a new connection wins back the time.
pub(crate) async fn unanswered(
    store: &Store,
    id: &SpiffeId,
    unanswered_max_seconds: u64,
    reason: &str,
    now: UnixTime,
) -> Result<(), FateError> {
    let event = Event::unanswered(now, unanswered_max_seconds, reason);
    if change_fate(store, id, &event, Actor::Server, now, NoteUnanswered).await?.flatten().is_some() {
        tracing::warn!(device = %id, reason, "device did not answer for itself");
    }
    Ok(())
}

/// Notes that a device's evidence is too old, if it still is.
pub(crate) async fn expire(store: &Store, id: &SpiffeId, now: UnixTime) -> Result<(), FateError> {
    let moved = change_fate(store, id, &Event::expired(now), Actor::Server, now, ExpireDevice).await?;
    if let Some(moved) = moved {
        tracing::warn!(device = %id, svids = moved.withdrawn.serials.len(), "device expired");
    }
    Ok(())
}

/// Accepts what a result refused of files and of the boot, and lets the device recover. That result has to be the last still: what the
/// operator did not see is not accepted. Returns the policy in force for the device then, if there is one.
pub(crate) async fn approve(
    planning: Planning<'_>,
    id: &SpiffeId,
    new: &NewApproval,
) -> Result<Option<Arc<CompiledPolicy>>, FateError> {
    let Planning { store, policies, by, now, .. } = planning;
    for _ in 0..ATTEMPTS_MAX {
        let device = enrolled(store, id).await?;
        let accepted = accepted(store, &device, new).await?;
        let in_force = policies.load(store).await?;
        let widened = planning.widened(&device, &in_force, &accepted).await?;
        let event = Event::approved(now, by.name());
        let next = device.state.apply(&event);
        if widened.is_some() || next != device.state {
            let change = change(&device, &next, &event, by, now);
            let approve = ApproveDevice { change, result: new.result, policies: widened };
            match store.commit_and_follow(approve).await {
                Ok(_) => {
                    let (files, boot) = (new.files.len(), new.boot.len());
                    tracing::info!(device = %id, files, boot, %by, "device approved");
                }
                Err(StoreError::Conflict) => continue,
                Err(error) => return Err(error.into()),
            }
        } else if new.files.is_empty() && new.boot.is_empty() {
            return Err(FateError::NothingToApprove);
        }
        return Ok(policies.of(&device).compiled);
    }
    Err(StoreError::Conflict.into())
}

/// What an approval is of, all of which the result has to have refused in these words.
async fn accepted(store: &Store, device: &Device, new: &NewApproval) -> Result<Accepted, FateError> {
    let (last, appraisal) = store.last_appraisal(device.id.as_str()).await?.ok_or(FateError::NoResult)?;
    if last != new.result {
        return Err(FateError::OtherResult { named: new.result, last });
    }
    let findings: Vec<Refused> = serde_json::from_str(&appraisal.findings)
        .map_err(|_| StoreError::Corrupt { column: "appraisals.findings" })?;
    let file = |accepted: &AcceptedFile| {
        let finding = findings.iter().find(|finding| finding.names(accepted));
        finding.and_then(Refused::file).ok_or_else(|| FateError::NotRefused { file: accepted.clone() })
    };
    let is_refused =
        |rule: &&Acceptable| findings.iter().any(|finding| finding.accept.as_ref() == Some(*rule));
    if let Some(unknown) = new.boot.iter().find(|rule| !is_refused(rule)) {
        return Err(FateError::BootNotRefused { field: unknown.rule.field() });
    }
    let files = new.files.iter().map(file).collect::<Result<_, _>>()?;
    Ok(Accepted { policy: appraisal.policy, files, boot: new.boot.clone() })
}

/// The device, which has to be there.
pub(crate) async fn enrolled(store: &Store, id: &SpiffeId) -> Result<Device, FateError> {
    Device::load(store, id).await?.ok_or(FateError::Unknown)
}

async fn change_fate<T: Transaction>(
    store: &Store,
    id: &SpiffeId,
    event: &Event,
    by: Actor,
    now: UnixTime,
    transaction: impl Fn(Change) -> T,
) -> Result<Option<T::Output>, FateError> {
    for _ in 0..ATTEMPTS_MAX {
        let device = enrolled(store, id).await?;
        let next = device.state.apply(event);
        if next == device.state {
            return Ok(None);
        }
        match store.commit_and_follow(transaction(change(&device, &next, event, by, now))).await {
            Ok(moved) => return Ok(Some(moved)),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

/// A step of a device's state as one transaction has it.
pub(crate) fn change(device: &Device, next: &TrustState, event: &Event, by: Actor, now: UnixTime) -> Change {
    Change {
        device_id: device.id.to_string(),
        from_version: device.state.version(),
        trust: columns(next),
        withdraw: next.withdraws(&device.state) || next.status() == Status::Revoked,
        at: now,
        actor: by.name().to_owned(),
        detail: serde_json::to_string(event.record()).unwrap_or_default(),
    }
}

/// What approval reads of a stored [`Finding`].
#[derive(Deserialize)]
struct Refused {
    check: String,
    claim: String,
    found: String,
    #[serde(default)]
    accept: Option<Acceptable>,
}

impl Refused {
    fn names(&self, file: &AcceptedFile) -> bool {
        self.check == IMA_POLICY && self.claim == file.path && self.found == file.digest
    }

    fn file(&self) -> Option<RefusedFile> {
        let (path, digest) = Policy::reported_file(&self.claim, &self.found)?;
        Some(RefusedFile { path, digest })
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
    /// Nothing was judged yet.
    #[error("nothing was judged of the device yet, so there is nothing to approve")]
    NoResult,
    /// Nothing was named, and nobody waits.
    #[error(
        "there is nothing to approve: the last result refused no file, and the device waits for no approval. What was refused of \
         its boot is approved with --boot"
    )]
    NothingToApprove,
    /// Another result came since the operator looked.
    #[error(
        "result {named} is not the device's last, which is {last}: look at that one before it is approved"
    )]
    OtherResult {
        /// The one that was looked at.
        named: u64,
        /// The last one.
        last: u64,
    },
    /// A file that the result says nothing of.
    #[error("the result did not refuse {} with {}", file.path, file.digest)]
    NotRefused {
        /// The file.
        file: AcceptedFile,
    },
    /// Something of a boot that the result says nothing of.
    #[error("the result did not refuse in these words what is to go into {field}")]
    BootNotRefused {
        /// Where in the policy it would go.
        field: String,
    },
    /// Only what was revoked is readmitted.
    #[error("the device is not revoked")]
    NotRevoked,
    /// The policy could not be widened.
    #[error(transparent)]
    Policy(#[from] PolicyChangeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for FateError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            FateError::Policy(error) => error.told(),
            FateError::Store(error) => error.told(),
            FateError::Unknown => (Kind::NotFound, "unknown-device"),
            FateError::NoResult => (Kind::OutOfTurn, "no-result"),
            FateError::NothingToApprove => (Kind::OutOfTurn, "nothing-to-approve"),
            FateError::OtherResult { .. } => (Kind::Overtaken, "other-result"),
            FateError::NotRefused { .. } | FateError::BootNotRefused { .. } => {
                (Kind::Malformed, "not-refused")
            }
            FateError::NotRevoked => (Kind::OutOfTurn, "not-revoked"),
        }
    }
}

impl From<DeviceError> for FateError {
    fn from(error: DeviceError) -> Self {
        FateError::Store(error.0)
    }
}

/// The check whose findings name files.
pub(crate) const IMA_POLICY: &str = "ima-policy";

/// Findings of one result on record.
const FINDINGS_KEPT_MAX: usize = 1000;

/// How often a change is decided anew when the device moves on meanwhile.
const ATTEMPTS_MAX: usize = 5;
