//! Attestation of one attached device: challenge, verify, appraise, record, answer.
//!
//! What the verifier remembers of a boot ([`Baseline`]) is kept in memory only: after a restart of the server, a new
//! boot of the device or a change of policy, everything is asked for again.

use std::sync::Arc;

use assay_evidence::HashAlgorithm;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::Attest;
use assay_evidence::tpm::ek_certificate::{Endorsement, verify_ek_certificate};
use assay_evidence::verify::Baseline;
use assay_identity::SpiffeId;
use assay_trust::{AttestationResult, Event, Finding, Status};
use assay_wire::edge;
use assay_wire::pcr::{PcrError, selection_to_wire, values_from_wire};
use axum::body::Bytes;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::device::{Device, DeviceError, columns};
use crate::fate::{change, findings_json, vector_json};
use crate::keys::{KeysError, random};
use crate::policy::PolicyInForce;
use crate::server::Server;
use crate::store::{AppraisalRecord, RecordAppraisal, RenewTrust, Store, StoreError};
use crate::verifier::{Job, Judged, quoted_pcrs};

/// The verifier's memory of one attached device.
#[derive(Debug)]
pub(crate) struct Attester {
    /// The device, its state as of the last look.
    pub device: Device,
    endorsement: Option<Arc<Endorsement>>,
    /// What need not be judged again, and the policy it was judged under.
    baseline: Option<(u64, Baseline)>,
    /// The result on record, so that the same one is not recorded twice.
    recorded: Option<AppraisalRecord>,
    restarts: u32,
}

/// A challenge that waits for its evidence.
#[derive(Debug)]
pub(crate) struct Challenge {
    nonce: [u8; NONCE_BYTES],
    /// Until when.
    pub expires_at: Instant,
    baseline: Option<Baseline>,
    /// The policy it was made under.
    revision: u64,
    /// Held while whole logs may be on their way.
    _full: Option<OwnedSemaphorePermit>,
}

/// What evidence led to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A verdict, which is on record.
    Judged(edge::Verdict),
    /// Nothing was judged: what was asked for is no longer enough. Challenge again, in full.
    AskAgain,
}

impl Attester {
    /// Takes up a device: its endorsement is verified again, its last result read back.
    pub(crate) async fn new(server: &Server, id: &SpiffeId, now: UnixTime) -> Result<Attester, AttestError> {
        let device = Device::load(&server.store, id).await?.ok_or(AttestError::Unknown)?;
        if device.state.status() == Status::Revoked {
            return Err(AttestError::Revoked);
        }
        let record = &device.record;
        let intermediates = device.ek_intermediates();
        let endorsement =
            verify_ek_certificate(&record.ek_certificate, &intermediates, server.ek_anchors(), now);
        let recorded = server.store.last_appraisal(id.as_str()).await?;
        let endorsement = endorsement.ok().map(Arc::new);
        Ok(Attester { device, endorsement, baseline: None, recorded, restarts: 0 })
    }

    /// Asks for fresh evidence, and of the logs only for what is new. `None`: too many devices were asked for
    /// everything just now.
    pub(crate) fn challenge(
        &self,
        server: &Server,
    ) -> Result<Option<(Challenge, edge::Challenge)>, AttestError> {
        let policy = server.policies.of(&self.device);
        let known = self.baseline.as_ref().filter(|(revision, _)| *revision == policy.revision);
        let baseline = known.map(|(_, baseline)| baseline.clone());
        let full = match &baseline {
            Some(_) => None,
            None => match server.registry.full_challenge() {
                Some(permit) => Some(permit),
                None => return Ok(None),
            },
        };
        let nonce = random()?;
        let message = edge::Challenge {
            nonce: nonce.to_vec().into(),
            expires_in_seconds: u32::try_from(server.config.challenge_ttl_seconds).unwrap_or(u32::MAX),
            selection: selection_to_wire(&[(HashAlgorithm::Sha256, quoted_pcrs().collect())]),
            boot_log_wanted: !baseline.as_ref().is_some_and(Baseline::has_boot_log),
            ima_from_entry: baseline.as_ref().map_or(0, Baseline::ima_entries),
        };
        let expires_at = Instant::now() + server.config.challenge_ttl();
        Ok(Some((Challenge { nonce, expires_at, baseline, revision: policy.revision, _full: full }, message)))
    }

    /// Judges evidence and records what follows. The challenge is spent, whatever comes of it.
    ///
    /// Until a stream is `proven`, evidence that the bound AK did not sign for this challenge says nothing about the
    /// device, only about whoever sent it: an impostor cannot make a device fall.
    pub(crate) async fn judge(
        &mut self,
        server: &Server,
        challenge: Challenge,
        evidence: edge::Evidence,
        proven: bool,
        now: UnixTime,
    ) -> Result<Outcome, AttestError> {
        if evidence.nonce != challenge.nonce.as_slice() {
            return Err(AttestError::NotAnAnswer);
        }
        let quote = evidence.quote.clone().ok_or(AttestError::NoQuote)?;
        let PolicyInForce { revision, compiled: policy } = server.policies.of(&self.device);
        if challenge.baseline.is_some()
            && (challenge.revision != revision || self.is_new_boot(&challenge, &quote))
        {
            self.baseline = None;
            return Ok(Outcome::AskAgain);
        }
        let job = Job {
            pcrs: values_from_wire(&quote.pcrs)?,
            ak_public: Bytes::copy_from_slice(&self.device.record.ak_public),
            last_reset_count: self.device.record.trust.reset_count,
            policy,
            endorsement: self.endorsement.clone().filter(|endorsement| now <= endorsement.valid_until()),
            nonce: challenge.nonce,
            baseline: challenge.baseline,
            boot_logs: server.boot_logs.clone(),
            evidence,
            quote,
            now,
        };
        let Judged { result, baseline, authentic } = server.verifier.run(job).await?;
        if !authentic && !proven {
            return Err(AttestError::NotTheDevice(result.findings().to_vec()));
        }
        self.record(server, &result, now).await?;
        self.baseline = baseline.map(|baseline| (revision, baseline));
        self.restarts = 0;
        server.metrics.attested(result.tier());
        Ok(Outcome::Judged(self.verdict(&result, now)))
    }

    /// A new boot makes what was left out of the logs necessary. It is only claimed yet, so a device that claims one
    /// each time is judged by what it sent.
    fn is_new_boot(&mut self, challenge: &Challenge, quote: &edge::Quote) -> bool {
        let known = challenge.baseline.as_ref().map(|known| (known.reset_count(), known.restart_count()));
        let stated = Attest::parse(&quote.message).ok().map(|attest| attest.clock_info);
        if known == stated.map(|clock| (clock.reset_count, clock.restart_count)) {
            return false;
        }
        self.restarts = self.restarts.saturating_add(1);
        self.restarts <= RESTARTS_MAX
    }

    /// One transaction: a step of the state if the result changes anything, else its new times.
    async fn record(
        &mut self,
        server: &Server,
        result: &AttestationResult,
        now: UnixTime,
    ) -> Result<(), AttestError> {
        let appraisal = AppraisalRecord {
            at: now,
            tier: result.tier().name().to_owned(),
            policy: result.policy().map(|(name, version)| format!("{name} v{version}")).unwrap_or_default(),
            findings: findings_json(result.findings()),
            vector: vector_json(result.vector()),
        };
        let same_result = self
            .recorded
            .as_ref()
            .is_some_and(|recorded| AppraisalRecord { at: now, ..recorded.clone() } == appraisal);
        let event = Event::appraised(result);
        for _ in 0..ATTEMPTS_MAX {
            let next = self.device.state.apply(&event);
            let outcome = if same_result && next.version() == self.device.state.version() {
                let renew = RenewTrust { device_id: self.device.id.to_string(), trust: columns(&next) };
                server.store.commit(renew).await
            } else {
                let change = change(&self.device, &next, &event, "server", now);
                let record = RecordAppraisal { change, appraisal: appraisal.clone() };
                match server.store.commit(record).await {
                    Ok(moved) => {
                        server.metrics.withdrawn(moved.withdrawn.serials.len());
                        server.revocations.publish(&moved.withdrawn, now)?;
                        self.log(result, next.status(), moved.withdrawn.serials.len());
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            };
            match outcome {
                Ok(()) => {
                    self.device.record.trust = columns(&next);
                    self.device.state = next;
                    self.recorded = Some(appraisal);
                    return Ok(());
                }
                Err(StoreError::Conflict) => self.reload(&server.store).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Looks at the device again. Keys that were bound anew are not the ones this stream has proven to hold.
    pub(crate) async fn reload(&mut self, store: &Store) -> Result<(), AttestError> {
        let device = Device::load(store, &self.device.id).await?.ok_or(AttestError::Unknown)?;
        if device.state.status() == Status::Revoked {
            self.device = device;
            return Err(AttestError::Revoked);
        }
        if device.record.ak_public != self.device.record.ak_public {
            return Err(AttestError::Rebound);
        }
        self.device = device;
        Ok(())
    }

    fn verdict(&self, result: &AttestationResult, now: UnixTime) -> edge::Verdict {
        let state = &self.device.state;
        let valid_for = state.valid_until().map_or(0, |until| until.0.saturating_sub(now.0));
        edge::Verdict {
            tier: result.tier().name().to_owned(),
            state: state.status_at(now).name().to_owned(),
            findings: result.findings().iter().take(FINDINGS_TOLD_MAX).map(finding_to_wire).collect(),
            valid_for_seconds: u32::try_from(valid_for).unwrap_or(u32::MAX),
            policy: result.policy().map(|(name, version)| format!("{name} v{version}")).unwrap_or_default(),
        }
    }

    fn log(&self, result: &AttestationResult, status: Status, svids: usize) {
        let (device, name) = (&self.device.id, self.device.record.name.as_str());
        let (tier, reason) = (result.tier().name(), result.reason());
        tracing::info!(%device, name, %status, tier, reason, svids_withdrawn = svids, "device appraised");
    }
}

/// A finding as the device is told.
pub(crate) fn finding_to_wire(finding: &Finding) -> edge::Finding {
    edge::Finding {
        check: finding.check.name().to_owned(),
        tier: finding.tier.name().to_owned(),
        claim: finding.claim.clone(),
        expected: finding.expected.clone(),
        found: finding.found.clone(),
        message: finding.message.clone(),
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
    /// Evidence without a quote.
    #[error("evidence without a quote")]
    NoQuote,
    /// PCR values that cannot be.
    #[error(transparent)]
    Pcr(#[from] PcrError),
    /// Evidence for a challenge that is not open: late, repeated, or of another stream.
    #[error("the evidence does not answer the open challenge")]
    NotAnAnswer,
    /// The first evidence of a stream is not the device's.
    #[error("the evidence is not signed by the device's AK for this challenge")]
    NotTheDevice(Vec<Finding>),
    /// More evidence waits than may.
    #[error("too much evidence is being verified")]
    Busy,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<DeviceError> for AttestError {
    fn from(error: DeviceError) -> Self {
        AttestError::Store(error.0)
    }
}

pub(crate) const NONCE_BYTES: usize = 32;
/// Findings sent to the device; the operator sees all of them.
const FINDINGS_TOLD_MAX: usize = 64;
/// Challenges in a row that a claimed new boot may ask for.
const RESTARTS_MAX: u32 = 3;
/// How often a result is recorded anew when the device moves on meanwhile.
const ATTEMPTS_MAX: usize = 3;
