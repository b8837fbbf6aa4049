//! Attestation of one attached device: challenge, verify, appraise, record, answer.
//!
//! `attester.rs` decides in steps (`step.rs`), without store or stream; `judge.rs` verifies and appraises, and `binding.rs` says whose word
//! evidence is. Here is what they ask for done:
//! kept evidence is read, work goes to threads, results go on record. `table.rs` knows who is attached.

mod attester;
mod binding;
pub(crate) mod judge;
mod step;
pub(crate) mod table;
mod told;

use std::sync::Arc;

use assay_evidence::Check;
use assay_evidence::request::{Challenge, Evidence, NONCE_BYTES};
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::{Finding, Tier};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use self::attester::Attester;
pub(crate) use self::binding::Binding;
use self::judge::Verifier;
pub(crate) use self::step::Verdict;
use self::step::{Asked, Attempt, Finished, StateChange, Step, Taken};
use self::table::Registry;
use crate::archive::keeper::Keeper;
use crate::device::{Device, DeviceError};
use crate::fate::{self, FateError};
use crate::in_force::boot_logs::BootLogs;
use crate::in_force::endorsers::EndorsersInForce;
use crate::in_force::entries::Entries;
use crate::in_force::policies::Policies;
use crate::keys::{KeysError, random};
use crate::metrics::Metrics;
use crate::outcome::{Kind, Outcome};
use crate::store::{
    KeepEvidence, LoseEntries, LostEntry, NewEvidence, RecordAppraisal, Recorded, Store, StoreError,
};
use crate::thread::Panicked;

/// What attestation needs.
#[derive(Clone, Debug)]
pub(crate) struct Attesting {
    pub store: Store,
    pub policies: Arc<Policies>,
    pub endorsers: Arc<EndorsersInForce>,
    pub entries: Arc<Entries>,
    pub registry: Arc<Registry>,
    pub verifier: Arc<Verifier>,
    pub boot_logs: Arc<BootLogs>,
    pub metrics: Arc<Metrics>,
    /// How many bytes of evidence may be kept, of all devices and of one.
    pub evidence_bytes_max: (u64, u64),
}

/// A challenge that went out.
#[derive(Debug)]
pub(crate) struct Open {
    pub asked: Asked,
    /// When.
    pub at: UnixTime,
    /// Held while whole logs may be on their way or in memory.
    _logs: Option<OwnedSemaphorePermit>,
}

/// Why a device is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It was asked and did not answer for itself, and this is how.
    Unanswered(&'static str),
    /// Its connection ended, and nothing was asked.
    Offline,
}

/// What evidence led to.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// A verdict, which is on record.
    Verdict(Verdict),
    /// Nothing was judged: challenge again at once.
    AskAgain,
}

impl Open {
    /// What an answer has to bear.
    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.asked.nonce()
    }
}

impl Attesting {
    /// Takes up a device, with what is kept of its last boot and its last result.
    pub(crate) async fn take_up(&self, id: &SpiffeId, now: UnixTime) -> Result<Attester, AttestError> {
        let device = Device::load(&self.store, id).await?.ok_or(AttestError::Unknown)?;
        let endorsing = self.endorsers.current();
        let recorded = self.store.last_appraisal(id.as_str()).await?.map(|(_, recorded)| recorded);
        let keeper = Keeper::of(&self.store, &device, &endorsing.kept).await;
        Attester::new(device, recorded, keeper, &endorsing, now)
    }

    /// Asks for fresh evidence. `None`: too many devices were asked for whole logs just now. Who has not proven to be the
    /// device takes no turn of those who have.
    pub(crate) fn challenge(
        &self,
        attester: &Attester,
        is_proven: bool,
        now: UnixTime,
    ) -> Result<Option<(Open, Challenge)>, AttestError> {
        let policy = self.policies.of(&attester.device);
        let conditions = self.entries.conditions(&attester.device.id);
        let logs = match is_proven && attester.needs_logs(&policy, &conditions) {
            false => None,
            true => match self.registry.full_challenge() {
                Some(permit) => Some(permit),
                None => return Ok(None),
            },
        };
        let (asked, challenge) = attester.ask(&policy, conditions, random()?);
        Ok(Some((Open { asked, at: now, _logs: logs }, challenge)))
    }

    /// Judges evidence and records what follows.
    pub(crate) async fn judge(
        &self,
        attester: &mut Attester,
        open: Open,
        evidence: Evidence,
        now: UnixTime,
    ) -> Result<Judgement, AttestError> {
        let timer = self.metrics.judging();
        let in_force = (self.policies.of(&attester.device), &self.endorsers.current());
        let mut step = attester.evidence(open.asked, evidence, in_force, &self.boot_logs, now)?;
        loop {
            step = match step {
                Step::AskAgain => return Ok(Judgement::AskAgain),
                Step::Complete(pending, evidence) => {
                    let completed = match pending.progress() {
                        Some(progress) => progress.complete(&self.store, evidence).await,
                        None => Ok(Some((evidence, None))),
                    };
                    let completed = completed.unwrap_or_else(|error| {
                        tracing::warn!(device = %attester.device.id, %error, "kept evidence cannot be read");
                        None
                    });
                    attester.completed(pending, completed, &self.boot_logs)
                }
                Step::Judge(pending, job) => {
                    let judged = self.verifier.run(job).await?;
                    attester.judged(pending, judged)?
                }
                Step::Record(finished) => {
                    let result = finished.result.clone();
                    self.record(attester, finished).await?;
                    self.metrics.attested(result.tier());
                    let took = timer.done();
                    if let Some((trust, node)) = self.metrics.trust.as_ref().zip(attester.device.record.node)
                    {
                        trust.nodes.attested(node, result.tier() == Tier::Affirming, took);
                    }
                    return Ok(Judgement::Verdict(attester.verdict(&result, now)));
                }
            };
        }
    }

    /// Verifies the endorsement again if the endorsers changed; whether that made it another.
    pub(crate) async fn endorse_again(
        &self,
        attester: &mut Attester,
        now: UnixTime,
    ) -> Result<bool, AttestError> {
        let policy = self.policies.of(&attester.device).compiled;
        let endorsing = self.endorsers.current();
        let (is_other, result) = attester.endorse_again(&endorsing, policy.as_deref(), now)?;
        if let Some(finished) = result {
            self.record(attester, finished).await?;
        }
        Ok(is_other)
    }

    /// Notes that the device is not heard any more on a stream that has proven to be its own.
    pub(crate) async fn unheard(
        &self,
        attester: &Attester,
        silence: Silence,
        now: UnixTime,
    ) -> Result<(), FateError> {
        // Without a policy nothing stands that could be shortened.
        let Some(policy) = self.policies.of(&attester.device).compiled else { return Ok(()) };
        let (seconds, reason) = match silence {
            Silence::Unanswered(reason) => (policy.unanswered_max_seconds(), reason),
            Silence::Offline => (policy.offline_max_seconds(), "the connection ended"),
        };
        fate::unanswered(&self.store, &attester.device.id, seconds, reason, now).await
    }

    /// Looks at the device again.
    pub(crate) async fn look_again(&self, attester: &mut Attester) -> Result<(), AttestError> {
        let device = Device::load(&self.store, &attester.device.id).await?.ok_or(AttestError::Unknown)?;
        attester.look_at(device)
    }

    /// One transaction, decided anew while others come first. That evidence cannot be kept does not keep the result from
    /// being recorded.
    async fn record(&self, attester: &mut Attester, finished: Finished) -> Result<(), AttestError> {
        let mut keeps = true;
        for number in 1..=ATTEMPTS_MAX {
            let entries = self.entries.of(&attester.device.id);
            let attempt = attester.attempt(&finished, keeps && number < ATTEMPTS_MAX, &entries);
            let evidence = match &attempt.draft {
                Some(draft) => draft.pack(&self.store, self.evidence_bytes_max).await.ok(),
                None => None,
            };
            let has_evidence = evidence.is_some();
            match self.commit(&attempt, evidence).await {
                Ok(taken) => {
                    attester.recorded(finished, attempt, taken);
                    return Ok(());
                }
                Err(StoreError::Conflict) => self.look_again(attester).await?,
                Err(error @ (StoreError::TooOften { .. } | StoreError::Unrecorded)) => {
                    return Err(error.into());
                }
                Err(error) if has_evidence => {
                    tracing::warn!(device = %attester.device.id, %error, "evidence cannot be kept");
                    keeps = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Whoever hears of a fall hears of the list with what fell.
    async fn commit(&self, attempt: &Attempt, evidence: Option<NewEvidence>) -> Result<Taken, StoreError> {
        match (&attempt.change, evidence) {
            (StateChange::Moves(change), evidence) => {
                let (change, appraisal) = (**change).clone();
                let lost = attempt.lost.clone();
                let falls = change.withdraw || !lost.is_empty();
                let record = RecordAppraisal { change, appraisal, evidence, lost };
                let Recorded { moved, evidence } = match falls {
                    true => self.store.commit_and_follow(record).await?,
                    false => self.store.commit(record).await?,
                };
                let Some(moved) = moved else {
                    self.metrics.coalesced();
                    return Ok(Taken { on_record: false, kept: None });
                };
                tracing::info!(
                    device = moved.leaf.subject,
                    leaf = moved.leaf.index,
                    detail = moved.leaf.detail,
                    svids_withdrawn = moved.withdrawn.serials.len(),
                    "device appraised"
                );
                Ok(Taken { on_record: true, kept: evidence })
            }
            (StateChange::Renews(renew), evidence) if !attempt.lost.is_empty() => {
                let (renew, lost) = (renew.clone(), attempt.lost.clone());
                for LostEntry { id, spiffe_id, condition } in &lost {
                    tracing::info!(device = renew.device_id, entry = id, spiffe_id, condition, "entry lost");
                }
                let at = renew.trust.evidence_at;
                let kept = self.store.commit_and_follow(LoseEntries { renew, lost, at, evidence }).await?;
                Ok(Taken { on_record: true, kept })
            }
            (StateChange::Renews(renew), None) => {
                self.store.renew(renew.clone()).await?;
                Ok(Taken { on_record: true, kept: None })
            }
            (StateChange::Renews(renew), Some(evidence)) => {
                let kept = self.store.commit(KeepEvidence { renew: renew.clone(), evidence }).await?;
                Ok(Taken { on_record: true, kept })
            }
        }
    }
}

/// Why evidence was not judged, or its verdict not recorded.
#[derive(Debug, Error)]
pub(crate) enum AttestError {
    /// No such device is enrolled.
    #[error("the device is not enrolled")]
    Unknown,
    /// An operator ended it.
    #[error("the device is revoked")]
    Revoked,
    /// Its keys were bound anew since this stream began.
    #[error("the device was enrolled again: attach again")]
    Rebound,
    /// Evidence for a challenge that is not open: late, repeated, or of another stream.
    #[error("the evidence does not answer the open challenge")]
    NotAnAnswer,
    /// Evidence that is not the device's.
    #[error("the evidence is not signed by the device's AK for this challenge")]
    NotTheDevice(Vec<Finding>),
    /// Logs that may be anybody's.
    #[error("the logs do not replay to what the device's AK signed: {0}")]
    LogsUnbound(Check),
    /// The server stops.
    #[error("the server stops verifying evidence")]
    Stopping,
    /// The server's own fault.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl AttestError {
    /// What the device, or whoever speaks for it, left undone; `None`: it is not its doing.
    pub(crate) fn unanswered(&self) -> Option<&'static str> {
        match self {
            AttestError::NotAnAnswer | AttestError::NotTheDevice(_) | AttestError::LogsUnbound(_) => {
                Some(NOT_ITS_EVIDENCE)
            }
            AttestError::Panicked(_) => Some("what came in the device's name could not be judged"),
            AttestError::Unknown
            | AttestError::Revoked
            | AttestError::Rebound
            | AttestError::Stopping
            | AttestError::Store(_)
            | AttestError::Keys(_) => None,
        }
    }
}

impl Outcome for AttestError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            AttestError::Unknown => (Kind::NotFound, "not-enrolled"),
            AttestError::Revoked => (Kind::Forbidden, "revoked"),
            AttestError::Rebound => (Kind::Overtaken, "enrolled-again"),
            AttestError::NotAnAnswer => (Kind::Unauthenticated, "quote-nonce"),
            AttestError::NotTheDevice(findings) => {
                let code = findings.first().map_or("quote-signature", |finding| finding.check.name());
                (Kind::Unauthenticated, code)
            }
            AttestError::LogsUnbound(check) => (Kind::Unauthenticated, check.name()),
            AttestError::Stopping => (Kind::Unavailable, "shutting-down"),
            AttestError::Panicked(error) => error.told(),
            AttestError::Store(error) => error.told(),
            AttestError::Keys(error) => error.told(),
        }
    }
}

impl From<DeviceError> for AttestError {
    fn from(error: DeviceError) -> Self {
        AttestError::Store(error.0)
    }
}

/// A log that was stripped, a quote of another, something that is no evidence at all.
pub(crate) const NOT_ITS_EVIDENCE: &str = "what came in the device's name was not its evidence";

/// How often a result is recorded anew when the device moves on meanwhile.
const ATTEMPTS_MAX: usize = 3;
