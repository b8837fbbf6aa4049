//! Attestation of one attached device: challenge, verify, appraise, record, answer.
//!
//! What the verifier remembers of a boot ([`Baseline`]) is kept in memory only. After a restart of the server or a change
//! of policy everything is judged anew, but of what is kept (`archive/keeper.rs`) only the rest is asked for.

pub(crate) mod judge;
pub(crate) mod table;

use std::sync::Arc;

use assay_evidence::HashAlgorithm;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::Baseline;
use assay_identity::SpiffeId;
use assay_trust::{AttestationResult, Event, Finding, Status, reappraise_endorsement};
use assay_wire::edge;
use assay_wire::pcr::{PcrError, selection_to_wire, values_from_wire};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use self::judge::{Job, Judged, quoted_pcrs};
use crate::archive::keeper::{JudgedEvidence, Keeper, Progress, clock};
use crate::device::{Device, DeviceError, columns};
use crate::fate::{change, findings_json, vector_json};
use crate::in_force::endorsers::Endorsing;
use crate::in_force::policies::PolicyInForce;
use crate::keys::{KeysError, random};
use crate::outcome::{Kind, Outcome};
use crate::parts::Server;
use crate::store::{
    AppraisalRecord, KeepEvidence, Kept, NewEvidence, RecordAppraisal, Recorded, RenewTrust, Store,
    StoreError, Withdrawn,
};
use crate::thread::Panicked;

/// The verifier's memory of one attached device.
#[derive(Debug)]
pub(crate) struct Attester {
    /// The device, its state as of the last look.
    pub device: Device,
    endorsement: Arc<Endorsement>,
    /// Whom the endorsement was verified with, and word of changes.
    pub endorsers: watch::Receiver<Endorsing>,
    /// Those it was verified with, as evidence is kept with.
    endorsed_by: Bytes,
    /// Counts their changes.
    endorsed: u64,
    /// What need not be judged again, and the policy it was judged under.
    baseline: Option<(u64, Baseline)>,
    /// What need not be sent again.
    keeper: Keeper,
    /// The result on record, so that the same one is not recorded twice.
    recorded: Option<AppraisalRecord>,
    restarts: u32,
    /// IMA lists in a row that ended before the quote.
    short_lists: u32,
}

/// A challenge that waits for its evidence.
#[derive(Debug)]
pub(crate) struct Challenge {
    nonce: [u8; NONCE_BYTES],
    /// Until when.
    pub expires_at: Instant,
    known: Known,
    /// The policy it was made under.
    revision: u64,
    /// The endorsers it was made under.
    endorsed: u64,
    /// Held while whole logs may be on their way or in memory.
    _full: Option<OwnedSemaphorePermit>,
}

/// What evidence has to add to.
#[derive(Debug)]
enum Known {
    /// Nothing: it has to be whole.
    Nothing,
    /// What is kept, which is judged anew with it.
    Kept(Progress),
    /// What was judged before.
    Judged(Baseline),
}

/// What evidence led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// A verdict, which is on record.
    Verdict(edge::Verdict),
    /// Nothing was judged: what was asked for is no longer enough, or not all of it came. Challenge again at once.
    AskAgain,
}

impl Attester {
    /// Takes up a device: its endorsement is verified again, its last result read back.
    pub(crate) async fn new(server: &Server, id: &SpiffeId, now: UnixTime) -> Result<Attester, AttestError> {
        let device = Device::load(&server.store, id).await?.ok_or(AttestError::Unknown)?;
        if device.state.status() == Status::Revoked {
            return Err(AttestError::Revoked);
        }
        let mut endorsers = server.endorsers.watch();
        let endorsing = endorsers.borrow_and_update().clone();
        let endorsement = device.endorsement(&endorsing, now)?;
        let recorded = server.store.last_appraisal(id.as_str()).await?;
        let endorsement = Arc::new(endorsement);
        let keeper = Keeper::of(server, &device).await;
        Ok(Attester {
            device,
            endorsement,
            endorsers,
            endorsed_by: endorsing.kept,
            endorsed: 0,
            baseline: None,
            keeper,
            recorded,
            restarts: 0,
            short_lists: 0,
        })
    }

    /// Verifies the endorsement again if the endorsers changed; whether that made it another. A device whose
    /// endorsement the policy no longer accepts falls now: its own word is not waited for.
    pub(crate) async fn endorse_again(
        &mut self,
        server: &Server,
        now: UnixTime,
    ) -> Result<bool, AttestError> {
        let before = self.endorsement.clone();
        if self.endorsement(now)? == before {
            return Ok(false);
        }
        if let Some(policy) = server.policies.of(&self.device).compiled
            && let Some(result) = reappraise_endorsement(&policy, &self.endorsement, now)
        {
            self.record(server, &result, None).await?;
        }
        Ok(true)
    }

    /// The endorsement under the endorsers in force, and by certificates that have not expired. Evidence is kept with
    /// the endorsers that it was judged with, so that under others it is kept anew.
    fn endorsement(&mut self, now: UnixTime) -> Result<Arc<Endorsement>, AttestError> {
        let changed = self.endorsers.has_changed().unwrap_or(false);
        if changed {
            self.endorsed += 1;
            self.baseline = None;
            self.keeper.forget();
        }
        if changed || self.endorsement.valid_until().is_some_and(|until| until < now) {
            let endorsers = self.endorsers.borrow_and_update().clone();
            self.endorsement = Arc::new(self.device.endorsement(&endorsers, now)?);
            self.endorsed_by = endorsers.kept;
        }
        Ok(self.endorsement.clone())
    }

    /// Asks for fresh evidence, and of the logs only for what is new. `None`: too many devices were asked for
    /// everything just now.
    pub(crate) fn challenge(
        &self,
        server: &Server,
    ) -> Result<Option<(Challenge, edge::Challenge)>, AttestError> {
        let policy = server.policies.of(&self.device);
        let known = match self.baseline.as_ref().filter(|(revision, _)| *revision == policy.revision) {
            Some((_, baseline)) => Known::Judged(baseline.clone()),
            None => self.keeper.progress().cloned().map_or(Known::Nothing, Known::Kept),
        };
        let full = match &known {
            Known::Judged(_) => None,
            Known::Nothing | Known::Kept(_) => match server.registry.full_challenge() {
                Some(permit) => Some(permit),
                None => return Ok(None),
            },
        };
        let nonce = random()?;
        let message = edge::Challenge {
            nonce: nonce.to_vec().into(),
            expires_in_seconds: u32::try_from(server.config.challenge_ttl_seconds).unwrap_or(u32::MAX),
            selection: selection_to_wire(&[(HashAlgorithm::Sha256, quoted_pcrs().collect())]),
            boot_log_wanted: known.boot_log_wanted(),
            ima_from_entry: known.ima_entries(),
        };
        let expires_at = Instant::now() + server.config.challenge_ttl();
        let (revision, endorsed) = (policy.revision, self.endorsed);
        Ok(Some((Challenge { nonce, expires_at, known, revision, endorsed, _full: full }, message)))
    }

    /// Judges evidence and records what follows. The challenge is spent, whatever comes of it.
    ///
    /// Until a stream is `proven`, evidence that the bound AK did not sign for this challenge says nothing about the
    /// device, only about whoever sent it: an impostor cannot make a device fall.
    pub(crate) async fn judge(
        &mut self,
        server: &Server,
        challenge: Challenge,
        mut evidence: edge::Evidence,
        proven: bool,
        now: UnixTime,
    ) -> Result<Step, AttestError> {
        if evidence.nonce != challenge.nonce.as_slice() {
            return Err(AttestError::NotAnAnswer);
        }
        let quote = evidence.quote.take().ok_or(AttestError::NoQuote)?;
        let PolicyInForce { revision, compiled: policy } = server.policies.of(&self.device);
        let endorsement = self.endorsement(now)?;
        if self.is_overtaken(&challenge, &quote, revision) {
            return Ok(Step::AskAgain);
        }
        let (evidence, kept_bytes) = match &challenge.known {
            Known::Kept(progress) => match complete(progress, server, evidence).await {
                Some(completed) => completed,
                None => return Ok(self.ask_for_everything()),
            },
            Known::Nothing | Known::Judged(_) => (evidence, None),
        };
        let last_counters = self.device.last_counters();
        let job = Job {
            pcrs: values_from_wire(&quote.pcrs)?,
            ak_public: Bytes::copy_from_slice(&self.device.record.ak_public),
            last_counters,
            policy,
            endorsement: Some(endorsement),
            nonce: challenge.nonce,
            baseline: challenge.known.baseline().cloned(),
            boot_logs: server.boot_logs.clone(),
            evidence: evidence.clone(),
            quote: quote.clone(),
            now,
        };
        let Judged { result, baseline, authentic, attested, list_may_be_short } =
            server.verifier.run(job).await?;
        if !authentic && !proven {
            return Err(AttestError::NotTheDevice(result.findings().to_vec()));
        }
        // Read before the last entry was in it: no fault of the device's. Only its word says so yet, so not for ever.
        if list_may_be_short && self.short_lists < SHORT_LISTS_MAX {
            self.short_lists += 1;
            return Ok(Step::AskAgain);
        }
        if matches!(challenge.known, Known::Kept(_)) && attested.is_none() {
            // The store may be at fault as well as the device: let it tell everything itself.
            return Ok(self.ask_for_everything());
        }
        self.short_lists = 0;
        let judged = JudgedEvidence {
            evidence,
            quote,
            endorsers: self.endorsed_by.clone(),
            known_entries: challenge.known.baseline().map(Baseline::ima_entries),
            kept_bytes,
            last_counters,
            policy_revision: revision,
            at: now,
            attested,
            good: result.good_ima_entries(),
        };
        self.record(server, &result, Some(&judged)).await?;
        self.remember(baseline, &judged);
        server.metrics.attested(result.tier());
        Ok(Step::Verdict(self.verdict(&result, now)))
    }

    /// Remembers what need not be judged again, unless it would leave a gap in what is kept.
    fn remember(&mut self, baseline: Option<Baseline>, judged: &JudgedEvidence) {
        self.keeper.expect_again(judged);
        let kept = self.keeper.progress().map(|kept| kept.entries);
        let goes_on = |known: &Baseline| kept.is_none_or(|kept| known.ima_entries() <= kept);
        self.baseline = baseline.filter(goes_on).map(|baseline| (judged.policy_revision, baseline));
        self.restarts = 0;
    }

    /// Whether what was asked for is no longer enough.
    fn is_overtaken(&mut self, challenge: &Challenge, quote: &edge::Quote, revision: u64) -> bool {
        if self.is_new_boot(&challenge.known, quote) {
            self.keeper.forget();
            self.baseline = None;
            return true;
        }
        if challenge.endorsed != self.endorsed && !matches!(challenge.known, Known::Nothing) {
            return true;
        }
        let judged_otherwise = matches!(challenge.known, Known::Judged(_)) && challenge.revision != revision;
        if judged_otherwise {
            self.baseline = None;
        }
        judged_otherwise
    }

    /// A new boot makes what was left out of the logs necessary. It is only claimed yet, so a device that claims one
    /// each time is judged by what it sent.
    fn is_new_boot(&mut self, known: &Known, quote: &edge::Quote) -> bool {
        let known = match known {
            Known::Nothing => return false,
            Known::Kept(progress) => progress.clock,
            Known::Judged(baseline) => (baseline.reset_count(), baseline.restart_count()),
        };
        if Some(known) == clock(quote) {
            return false;
        }
        self.restarts = self.restarts.saturating_add(1);
        self.restarts <= RESTARTS_MAX
    }

    /// What is kept does not go with what was sent.
    fn ask_for_everything(&mut self) -> Step {
        tracing::warn!(device = %self.device.id, "kept evidence does not replay; the device is asked for everything");
        self.keeper.doubt();
        Step::AskAgain
    }

    /// One transaction: a step of the state if the result changes anything, else its new times; and the evidence, if
    /// it says anything new.
    async fn record(
        &mut self,
        server: &Server,
        result: &AttestationResult,
        judged: Option<&JudgedEvidence>,
    ) -> Result<(), AttestError> {
        let now = result.at();
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
        let mut keeps = true;
        for attempt in 1..=ATTEMPTS_MAX {
            let next = self.device.state.apply(&event);
            let changes = !same_result || next.version() != self.device.state.version();
            let new = judged.filter(|judged| changes || self.keeper.wants(judged));
            let draft = new.and_then(|judged| self.keeper.draft(&self.device, judged));
            // What cannot be kept does not keep the result from being recorded.
            let evidence = match &draft {
                Some(draft) if attempt < ATTEMPTS_MAX && keeps => draft.pack(server).await.ok(),
                _ => None,
            };
            let has_evidence = evidence.is_some();
            let outcome = match changes {
                true => {
                    let change = change(&self.device, &next, &event, "server", now);
                    let record = RecordAppraisal { change, appraisal: appraisal.clone(), evidence };
                    let recorded = server.store.commit(record).await;
                    recorded.map(|Recorded { moved, evidence }| (Some(moved.withdrawn), evidence))
                }
                false => {
                    let device_id = self.device.id.to_string();
                    self.renew(server, RenewTrust { device_id, trust: columns(&next) }, evidence).await
                }
            };
            match outcome {
                Ok((withdrawn, kept)) => {
                    if let Some(withdrawn) = withdrawn {
                        server.metrics.withdrawn(withdrawn.serials.len());
                        server.revocations.publish(&withdrawn, now)?;
                        self.log(result, next.status(), withdrawn.serials.len());
                    }
                    if let (Some(draft), Some(judged)) = (&draft, judged) {
                        self.keeper.kept(draft, judged, kept);
                    }
                    self.device.record.trust = columns(&next);
                    self.device.state = next;
                    self.recorded = Some(appraisal);
                    return Ok(());
                }
                Err(StoreError::Conflict) => self.reload(&server.store).await?,
                Err(error) if has_evidence => {
                    tracing::warn!(device = %self.device.id, %error, "evidence cannot be kept");
                    keeps = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Nothing changed but the times.
    async fn renew(
        &self,
        server: &Server,
        renew: RenewTrust,
        evidence: Option<NewEvidence>,
    ) -> Result<(Option<Withdrawn>, Option<Kept>), StoreError> {
        match evidence {
            None => server.store.commit(renew).await.map(|()| (None, None)),
            Some(evidence) => {
                let kept = server.store.commit(KeepEvidence { renew, evidence }).await?;
                Ok((None, kept))
            }
        }
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

impl Known {
    fn baseline(&self) -> Option<&Baseline> {
        match self {
            Known::Judged(baseline) => Some(baseline),
            Known::Nothing | Known::Kept(_) => None,
        }
    }

    fn boot_log_wanted(&self) -> bool {
        match self {
            Known::Nothing => true,
            Known::Kept(progress) => progress.boot_log_wanted(),
            Known::Judged(baseline) => !baseline.has_boot_log(),
        }
    }

    fn ima_entries(&self) -> u64 {
        match self {
            Known::Nothing => 0,
            Known::Kept(progress) => progress.entries,
            Known::Judged(baseline) => baseline.ima_entries(),
        }
    }
}

/// Puts what is kept before what was sent; `None`: that cannot be done.
async fn complete(
    progress: &Progress,
    server: &Server,
    evidence: edge::Evidence,
) -> Option<(edge::Evidence, Option<usize>)> {
    progress.complete(&server.store, evidence).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "kept evidence cannot be read");
        None
    })
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

impl Outcome for AttestError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            AttestError::Unknown => (Kind::NotFound, "not-enrolled"),
            AttestError::Revoked => (Kind::Forbidden, "revoked"),
            AttestError::Rebound => (Kind::Overtaken, "enrolled-again"),
            AttestError::NoQuote => (Kind::Malformed, "quote-parse"),
            AttestError::Pcr(_) => (Kind::Malformed, "pcr-values"),
            AttestError::NotAnAnswer => (Kind::Unauthenticated, "quote-nonce"),
            AttestError::NotTheDevice(findings) => {
                let code = findings.first().map_or("quote-signature", |finding| finding.check.name());
                (Kind::Unauthenticated, code)
            }
            AttestError::Busy => (Kind::Exhausted, "busy"),
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

pub(crate) const NONCE_BYTES: usize = 32;
/// Findings sent to the device; the operator sees all of them.
const FINDINGS_TOLD_MAX: usize = 64;
/// Challenges in a row that a claimed new boot may ask for.
const RESTARTS_MAX: u32 = 3;
/// Lists in a row that may end before the quote.
const SHORT_LISTS_MAX: u32 = 2;
/// How often a result is recorded anew when the device moves on meanwhile.
const ATTEMPTS_MAX: usize = 3;
