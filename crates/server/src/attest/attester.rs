//! What the verifier knows of one attached device, and what follows from each thing that happens to it.
//!
//! Pure: no store, no stream, no clock. Evidence comes in as bytes, the caller does what a [`Step`] says (`step.rs`) and tells
//! what came of it. What is remembered of a boot ([`Baseline`]) is in memory only; after a restart of the server or a change of
//! policy everything is judged anew, but of what is kept (`archive/keeper.rs`) only the rest is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_evidence::request::{self, Evidence, NONCE_BYTES, Quote};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::banks::ActiveBanks;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::{self, quote::verify_quote};
use assay_evidence::verify::Baseline;
use assay_evidence::{Check, HashAlgorithm, PcrIndex};
use assay_trust::condition::{self, Conditions, Holding, Searched};
use assay_trust::{AttestationResult, CompiledPolicy, Status, TrustState, reappraise_endorsement};
use bytes::Bytes;

use super::AttestError;
use super::binding::{Binding, OF_THE_LOGS};
use super::judge::{Job, Judged, selection};
use super::step::{Asked, Attempt, Finished, Known, Pending, StateChange, Step, Taken, Verdict, citation};
use super::told::{Told, ToldList};
use crate::actor::Actor;
use crate::archive::keeper::{JudgedEvidence, Keeper, clock};
use crate::device::{Device, DeviceError, columns};
use crate::fate::change;
use crate::in_force::boot_logs::BootLogs;
use crate::in_force::endorsers::Endorsing;
use crate::in_force::policies::PolicyInForce;
use crate::store::{AppraisalRecord, EntryRecord, LostEntry, RenewTrust};

/// The verifier's memory of one attached device.
#[derive(Debug)]
pub(crate) struct Attester {
    /// The device, its state as of the last look.
    pub device: Device,
    endorsement: Arc<Endorsement>,
    /// Those it was verified with, as evidence is kept with, and the count of their changes.
    endorsed_by: (Bytes, u64),
    /// What need not be judged again.
    baseline: Option<Remembered>,
    /// What need not be sent again.
    keeper: Keeper,
    /// What it told and need not tell again.
    told: Told,
    /// The result on record, so that the same one is not recorded twice.
    recorded: Option<AppraisalRecord>,
    /// Whether its agent shows the TPM's word on its banks.
    shows_banks: bool,
    restarts: u32,
    /// Pieces of evidence in a row whose logs are not bound to the quote.
    unbound: u32,
}

/// What was judged of a boot.
#[derive(Clone, Debug)]
struct Remembered {
    /// The policy that it was judged under.
    revision: u64,
    baseline: Baseline,
    /// What entries ask of the list, and was looked for.
    searched: Searched,
}

impl Attester {
    /// Takes up a device: its endorsement is verified again.
    pub(crate) fn new(
        device: Device,
        recorded: Option<AppraisalRecord>,
        keeper: Keeper,
        endorsing: &Endorsing,
        now: UnixTime,
    ) -> Result<Attester, AttestError> {
        if device.state.status() == Status::Revoked {
            return Err(AttestError::Revoked);
        }
        Ok(Attester {
            endorsement: Arc::new(device.endorsement(endorsing, now)?),
            endorsed_by: (endorsing.kept.clone(), endorsing.version),
            device,
            baseline: None,
            keeper,
            told: Told::default(),
            recorded,
            shows_banks: true,
            restarts: 0,
            unbound: 0,
        })
    }

    /// Of a device whose agent cannot show the TPM's word on its banks. Policies that list them refuse it.
    pub(crate) fn without_banks(self) -> Attester {
        Attester { shows_banks: false, ..self }
    }

    /// Looks at the device as it is now. Keys that were bound anew are not the ones this stream has proven to hold.
    pub(crate) fn look_at(&mut self, device: Device) -> Result<(), AttestError> {
        let rebound = device.record.ak_public != self.device.record.ak_public;
        if device.state.status() == Status::Revoked {
            self.device = device;
            return Err(AttestError::Revoked);
        }
        if rebound {
            return Err(AttestError::Rebound);
        }
        self.device = device;
        Ok(())
    }

    /// Verifies the endorsement again where it may be another: whether it is, and a result to record where the policy no
    /// longer accepts it. The device's own word is not waited for.
    pub(crate) fn endorse_again(
        &mut self,
        endorsing: &Endorsing,
        policy: Option<&CompiledPolicy>,
        now: UnixTime,
    ) -> Result<(bool, Option<Finished>), AttestError> {
        let before = self.endorsement.clone();
        self.endorse(endorsing, now)?;
        if self.endorsement == before {
            return Ok((false, None));
        }
        let result = policy.and_then(|policy| reappraise_endorsement(policy, &self.endorsement, now));
        Ok((true, result.map(|result| Finished::new(result, Holding::default(), None))))
    }

    /// The endorsement under the endorsers in force, and by certificates that have not expired. Evidence is kept with
    /// the endorsers that it was judged with, so that under others it is kept anew.
    fn endorse(&mut self, endorsing: &Endorsing, now: UnixTime) -> Result<(), DeviceError> {
        let changed = self.endorsed_by.1 != endorsing.version;
        if changed {
            self.baseline = None;
            self.keeper.forget();
        }
        if changed || self.endorsement.valid_until().is_some_and(|until| until < now) {
            self.endorsement = Arc::new(self.device.endorsement(endorsing, now)?);
            self.endorsed_by = (endorsing.kept.clone(), endorsing.version);
        }
        Ok(())
    }

    /// Whether the next challenge may bring whole logs.
    pub(crate) fn needs_logs(&self, policy: &PolicyInForce, conditions: &Conditions) -> bool {
        !self.baseline.as_ref().is_some_and(|known| known.serves(policy, conditions))
    }

    /// Asks for fresh evidence, and of the logs only for what is new.
    pub(crate) fn ask(
        &self,
        policy: &PolicyInForce,
        conditions: Conditions,
        nonce: [u8; NONCE_BYTES],
    ) -> (Asked, request::Challenge) {
        let known = match self.baseline.as_ref().filter(|known| known.serves(policy, &conditions)) {
            Some(known) => Known::Judged(known.baseline.clone(), known.searched.clone()),
            None => self.keeper.progress().cloned().map_or(Known::Nothing, Known::Kept),
        };
        let challenge = request::Challenge {
            nonce,
            selection: by_bank(selection(policy.compiled.as_deref()), known.banks()),
            watched: grouped(condition::pcrs(&conditions)),
            boot_log_wanted: known.boot_log_wanted(),
            ima_from_entry: match &known {
                Known::Judged(baseline, _) => self.told.list_to(baseline.ima_entries()),
                Known::Nothing | Known::Kept(_) => known.ima_entries(),
            },
            banks_wanted: known.banks().is_none() && self.shows_banks,
        };
        (
            Asked { nonce, known, conditions, revision: policy.revision, endorsed: self.endorsed_by.1 },
            challenge,
        )
    }

    /// Whether a quote is the device's own answer to the challenge; its logs may not have come yet.
    pub(crate) fn signed(&self, asked: &Asked, nonce: &[u8], quote: &Quote) -> Result<(), AttestError> {
        if nonce != asked.nonce {
            return Err(AttestError::NotAnAnswer);
        }
        let quote = tpm::quote::Quote {
            label: "quote",
            message: &quote.message,
            signature: &quote.signature,
            pcrs: &quote.pcrs,
            nonce,
        };
        let ak = PublicArea::parse_tpm2b(&self.device.record.ak_public).ok();
        match ak.and_then(|ak| verify_quote(&quote, &ak).0) {
            Some(_) => Ok(()),
            None => Err(AttestError::NotTheDevice(Vec::new())),
        }
    }

    /// Takes evidence up. The challenge is spent, whatever comes of it.
    pub(crate) fn evidence(
        &mut self,
        asked: Asked,
        evidence: Evidence,
        (policy, endorsing): (PolicyInForce, &Endorsing),
        boot_logs: &Arc<BootLogs>,
        now: UnixTime,
    ) -> Result<Step, AttestError> {
        if evidence.nonce != asked.nonce.as_slice() {
            return Err(AttestError::NotAnAnswer);
        }
        let evidence = self.told.complete(evidence, asked.known.banks().is_none());
        let evidence = match &asked.known {
            Known::Judged(baseline, _) => self.told.complete_list(evidence, baseline.ima_entries()),
            Known::Nothing | Known::Kept(_) => evidence,
        };
        self.endorse(endorsing, now)?;
        if self.is_overtaken(&asked, &evidence.quote, policy.revision) {
            return Ok(Step::AskAgain);
        }
        let pending = Pending { asked, policy, now, kept_bytes: None };
        if pending.progress().is_some() {
            return Ok(Step::Complete(pending, evidence));
        }
        Ok(self.judge(pending, evidence, boot_logs))
    }

    /// Goes on with what is kept before what was sent, and how many bytes of the list that is; `None`: it cannot be put
    /// there.
    pub(crate) fn completed(
        &mut self,
        pending: Pending,
        completed: Option<(Evidence, Option<usize>)>,
        boot_logs: &Arc<BootLogs>,
    ) -> Step {
        match completed {
            Some((evidence, kept_bytes)) => {
                self.judge(Pending { kept_bytes, ..pending }, evidence, boot_logs)
            }
            None => self.ask_for_everything(),
        }
    }

    fn judge(&self, pending: Pending, evidence: Evidence, boot_logs: &Arc<BootLogs>) -> Step {
        let job = Job {
            ak_public: Bytes::copy_from_slice(&self.device.record.ak_public),
            last_counters: self.device.last_counters(),
            policy: pending.policy.compiled.clone(),
            endorsement: Some(self.endorsement.clone()),
            nonce: pending.asked.nonce,
            banks_wanted: self.shows_banks,
            baseline: pending.asked.known.baseline().cloned(),
            conditions: pending.asked.conditions.clone(),
            searched: pending.asked.known.searched(),
            boot_logs: boot_logs.clone(),
            evidence,
            now: pending.now,
        };
        Step::Judge(pending, job)
    }

    /// Decides what follows from what was found.
    pub(crate) fn judged(&mut self, pending: Pending, found: Judged) -> Result<Step, AttestError> {
        let Judged { evidence, result, holding, baseline, attested, binding } = found;
        match binding {
            Binding::Authentic => {}
            Binding::NotTheDevice => return Err(AttestError::NotTheDevice(result.findings().to_vec())),
            Binding::LogsUnbound { list_may_be_short } => {
                return self.unbound(&pending, &result, list_may_be_short);
            }
        }
        self.unbound = 0;
        let judged = JudgedEvidence {
            evidence,
            endorsers: self.endorsed_by.0.clone(),
            known_entries: pending.asked.known.baseline().map(Baseline::ima_entries),
            kept_bytes: pending.kept_bytes,
            last_counters: self.device.last_counters(),
            policy_revision: pending.policy.revision,
            at: pending.now,
            attested,
            good: result.good_ima_entries(),
        };
        Ok(Step::Record(Finished::new(result, holding, Some((judged, baseline)))))
    }

    /// A list that was read before its last entry was in it is no fault of the device's, and what is kept may be damaged:
    /// both are asked for again, but not for ever. The rest may be the carrier's doing.
    fn unbound(
        &mut self,
        pending: &Pending,
        result: &AttestationResult,
        list_may_be_short: bool,
    ) -> Result<Step, AttestError> {
        self.unbound = self.unbound.saturating_add(1);
        if list_may_be_short && self.unbound <= SHORT_LISTS_MAX {
            return Ok(Step::AskAgain);
        }
        if pending.progress().is_some() {
            return Ok(self.ask_for_everything());
        }
        self.unbound = 0;
        let failed = |check: &Check| result.findings().iter().any(|finding| finding.check == *check);
        let telling = OF_THE_LOGS.into_iter().find(failed).unwrap_or(Check::ImaReplay);
        Err(AttestError::LogsUnbound(telling))
    }

    /// Whether what was asked for is no longer enough.
    fn is_overtaken(&mut self, asked: &Asked, quote: &Quote, revision: u64) -> bool {
        if self.is_new_boot(&asked.known, quote) {
            self.keeper.forget();
            self.baseline = None;
            return true;
        }
        if asked.endorsed != self.endorsed_by.1 && !matches!(asked.known, Known::Nothing) {
            return true;
        }
        let judged_otherwise = matches!(asked.known, Known::Judged(..)) && asked.revision != revision;
        if judged_otherwise {
            self.baseline = None;
        }
        judged_otherwise
    }

    /// A new boot makes what was left out of the logs necessary. It is only claimed yet, so a device that claims one
    /// each time is judged by what it sent. What is forgotten for a claim costs another transfer, never a state.
    fn is_new_boot(&mut self, known: &Known, quote: &Quote) -> bool {
        let known = match known {
            Known::Nothing => return false,
            Known::Kept(progress) => progress.clock,
            Known::Judged(baseline, _) => (baseline.reset_count(), baseline.restart_count()),
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

    /// How a result goes on record: a step of the state if it changes anything, else its new times; and the evidence, if
    /// it says anything new.
    pub(crate) fn attempt(&self, finished: &Finished, keeps: bool, entries: &[Arc<EntryRecord>]) -> Attempt {
        let now = finished.result.at();
        let next = self.device.state.apply(&finished.event);
        let same_result =
            self.recorded.as_ref().is_some_and(|recorded| recorded.says_the_same_as(&finished.appraisal));
        let moves = !same_result || next.version() != self.device.state.version();
        let judged = finished.judged.as_ref().map(|(judged, _)| judged);
        let new = judged.filter(|judged| keeps && (moves || self.keeper.wants(judged)));
        let draft = new.and_then(|judged| self.keeper.draft(&self.device, judged));
        let change = match moves {
            true => {
                let change = change(&self.device, &next, &finished.event, Actor::Server, now);
                StateChange::Moves(Box::new((change, finished.appraisal.clone())))
            }
            false => {
                let device_id = self.device.id.to_string();
                StateChange::Renews(RenewTrust { device_id, trust: columns(&next) })
            }
        };
        let lost = self.lost(&next, entries);
        Attempt { change, lost, draft, next }
    }

    /// Entries whose conditions held and do not any more. Where the state's version is another, all that stood by it falls
    /// anyway.
    fn lost(&self, next: &TrustState, entries: &[Arc<EntryRecord>]) -> Vec<LostEntry> {
        let state = &self.device.state;
        if next.version() != state.version() {
            return Vec::new();
        }
        let held = entries.iter().filter(|entry| state.unmet(&entry.selectors).is_none());
        let lost = held.filter_map(|entry| Some((entry, next.unmet(&entry.selectors)?)));
        lost.map(|(entry, condition)| LostEntry {
            id: entry.id.clone(),
            spiffe_id: entry.spiffe_id.clone(),
            condition: condition.to_string(),
        })
        .collect()
    }

    /// The result was taken.
    pub(crate) fn recorded(&mut self, finished: Finished, attempt: Attempt, taken: Taken) {
        let Finished { appraisal, judged, .. } = finished;
        let Taken { on_record, kept } = taken;
        if let (Some(draft), Some((judged, _))) = (&attempt.draft, &judged) {
            self.keeper.kept(draft, judged, kept);
        }
        self.device.record.trust = match attempt.change {
            StateChange::Moves(change) => change.0.trust,
            StateChange::Renews(renewal) => renewal.trust,
        };
        self.device.state = attempt.next;
        if on_record {
            self.recorded = Some(appraisal);
        }
        if let Some((judged, baseline)) = judged {
            self.remember(baseline, &judged);
        }
    }

    /// Remembers what need not be judged again, unless it would leave a gap in what is kept.
    fn remember(&mut self, baseline: Option<(Baseline, Searched)>, judged: &JudgedEvidence) {
        self.keeper.expect_again(judged);
        let kept = self.keeper.progress().map(|kept| kept.entries);
        let goes_on = |known: &Baseline| kept.is_none_or(|kept| known.ima_entries() <= kept);
        let revision = judged.policy_revision;
        let known = baseline.filter(|(baseline, _)| goes_on(baseline));
        let list = known.as_ref().and_then(|(baseline, _)| {
            let from = baseline.ima_entries();
            let (bytes, to) = judged.attested_from(from)?;
            Some(ToldList { from, to, bytes, is_ascii: judged.evidence.ima_ascii })
        });
        self.told.remember_list(list);
        self.baseline = known.map(|(baseline, searched)| Remembered { revision, baseline, searched });
        self.restarts = 0;
    }

    /// What the device is told of a result that is on record.
    pub(crate) fn verdict(&self, result: &AttestationResult, now: UnixTime) -> Verdict {
        let state = &self.device.state;
        Verdict {
            tier: result.tier(),
            state: state.status_at(now),
            findings: result.findings().iter().take(FINDINGS_TOLD_MAX).cloned().collect(),
            valid_for_seconds: state.valid_until().map_or(0, |until| until.0.saturating_sub(now.0)),
            policy: citation(result),
        }
    }
}

impl Remembered {
    /// Whether it was judged by this policy, and searched for all that entries ask.
    fn serves(&self, policy: &PolicyInForce, conditions: &Conditions) -> bool {
        self.revision == policy.revision && self.searched.covers(conditions)
    }
}

/// PCRs as a challenge names them: the policy's, and the firmware's in every active bank. Before it is known which are active,
/// that is every bank, of which the device leaves out those that are off.
fn by_bank(
    selection: Vec<(HashAlgorithm, PcrIndex)>,
    active: Option<&ActiveBanks>,
) -> Vec<(HashAlgorithm, Vec<PcrIndex>)> {
    let active = active.map_or(HashAlgorithm::ALL.as_slice(), ActiveBanks::known);
    let of_firmware = active.iter().flat_map(|bank| PcrIndex::of_firmware().map(move |index| (*bank, index)));
    grouped(selection.into_iter().chain(of_firmware))
}

/// The PCRs of each bank.
fn grouped(pcrs: impl IntoIterator<Item = (HashAlgorithm, PcrIndex)>) -> Vec<(HashAlgorithm, Vec<PcrIndex>)> {
    let mut banks: BTreeMap<HashAlgorithm, BTreeSet<PcrIndex>> = BTreeMap::new();
    for (bank, index) in pcrs {
        banks.entry(bank).or_default().insert(index);
    }
    banks.into_iter().map(|(bank, indexes)| (bank, indexes.into_iter().collect())).collect()
}

/// Findings sent to the device; the operator sees all of them.
const FINDINGS_TOLD_MAX: usize = 64;
/// Challenges in a row that a claimed new boot may ask for.
const RESTARTS_MAX: u32 = 3;
/// Lists in a row that may end before the quote.
const SHORT_LISTS_MAX: u32 = 2;
