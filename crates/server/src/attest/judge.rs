//! Verification and appraisal of one piece of evidence: at once if it is short, on a thread of its own if its logs
//! are long.

use std::sync::Arc;

use assay_evidence::request::{BankStatement, Evidence, NONCE_BYTES};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::{self, Baseline, Expectation, KnownBootLog, QuoteEvidence, Verification};
use assay_evidence::{Check, Failure, HashAlgorithm, PcrIndex};
use assay_trust::condition::{Conditions, Holding, Searched};
use assay_trust::{AttestationResult, CompiledPolicy, Finding, Tier, appraise, refuse};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{AttestError, Binding};
use crate::in_force::boot_logs::BootLogs;
use crate::thread::aside;

/// The door to the threads; so many at a time, the rest wait in line.
#[derive(Debug)]
pub(crate) struct Verifier {
    threads: Arc<Semaphore>,
}

impl Verifier {
    pub(crate) fn new(verifications_max: usize) -> Verifier {
        Verifier { threads: Arc::new(Semaphore::new(verifications_max.max(1))) }
    }

    /// Judges evidence without holding up the other streams.
    pub(crate) async fn run(&self, job: Job) -> Result<Judged, AttestError> {
        if job.log_bytes() <= INLINE_BYTES_MAX {
            return Ok(job.judge());
        }
        let permit = self.threads.clone().acquire_owned().await.map_err(|_| AttestError::Stopping)?;
        let judged = aside(move || {
            let judged = job.judge();
            drop(permit);
            judged
        });
        Ok(judged.await?)
    }
}

/// Everything verification and appraisal need, owned, so that it can go to another thread.
#[derive(Debug)]
pub(crate) struct Job {
    pub ak_public: Bytes,
    pub evidence: Evidence,
    pub nonce: [u8; NONCE_BYTES],
    /// Whether the TPM has to say which of its banks are active.
    pub banks_wanted: bool,
    pub baseline: Option<Baseline>,
    pub boot_logs: Arc<BootLogs>,
    pub last_counters: Option<BootCounters>,
    pub policy: Option<Arc<CompiledPolicy>>,
    /// What entries ask of the device, and what the list before this was searched for.
    pub conditions: Conditions,
    pub searched: Searched,
    pub endorsement: Option<Arc<Endorsement>>,
    pub now: UnixTime,
}

/// What they found.
#[derive(Debug)]
pub(crate) struct Judged {
    /// What was judged.
    pub evidence: Evidence,
    pub result: AttestationResult,
    /// What it fulfils of what entries ask.
    pub holding: Holding,
    /// What to remember of the boot.
    pub baseline: Option<(Baseline, Searched)>,
    /// Whose word it is.
    pub binding: Binding,
    /// IMA entries since boot that the quote attests, and how many more were sent; `None`: it does not verify.
    pub attested: Option<(u64, usize)>,
}

impl Job {
    /// Bytes of logs to read, which is what the work grows with.
    pub(crate) fn log_bytes(&self) -> usize {
        let of = |log: &Option<Bytes>| log.as_ref().map_or(0, Bytes::len);
        self.evidence.ima_log.len() + of(&self.evidence.boot_log) + of(&self.evidence.measure_log)
    }

    /// Verifies and appraises: pure.
    pub(crate) fn judge(self) -> Judged {
        let Verification { claims, failures, notes } = self.verify();
        let policy = self.policy.as_deref();
        match claims {
            Some(claims) => {
                if let (Some(log), Some(claims)) = (self.evidence.boot_log(), claims.boot()) {
                    self.boot_logs.keep(log.len(), claims);
                }
                let result = appraise(&claims, policy, self.endorsement.as_deref(), self.now);
                let searched = self.searched.go_on(&claims, &self.conditions);
                let holding = Holding::of(&claims, &self.conditions, &searched);
                let baseline = policy.map(|_| (claims.baseline(result.good_ima_entries()), searched));
                let ima = claims.ima().map(|ima| (ima.attested_total(), ima.undecided()));
                let binding = self.binding_of_what_is_missing(&result, &notes);
                let attested = Some(ima.unwrap_or_default());
                Judged { result, holding, baseline, binding, attested, evidence: self.evidence }
            }
            None => {
                let binding = Binding::of(failures.iter().map(|one| one.check), self.list_starts_well());
                let result = refuse(&failures, policy, self.now);
                Judged {
                    result,
                    holding: Holding::default(),
                    baseline: None,
                    binding,
                    attested: None,
                    evidence: self.evidence,
                }
            }
        }
    }

    /// A log that was left out proves nothing about the device. Where the policy is content without it, it is not missed.
    fn binding_of_what_is_missing(&self, result: &AttestationResult, notes: &[Failure]) -> Binding {
        let is_missed = |check: Check| {
            let worse = |finding: &&Finding| finding.tier > Tier::Affirming;
            result.findings().iter().filter(worse).any(|finding| finding.check == check)
        };
        let missing = notes.iter().map(|note| note.check).find(|check| *check == Check::EventLogPresent);
        match missing {
            Some(check) if is_missed(check) => Binding::LogsUnbound { list_may_be_short: false },
            _ => Binding::Authentic,
        }
    }

    /// A list that was cut short looks the same as one with an entry left out; each entry of it is sound.
    fn list_starts_well(&self) -> bool {
        let judged = self.baseline.as_ref().map_or(0, Baseline::ima_entries);
        [0, judged].contains(&self.evidence.ima_from_entry)
    }

    /// Makes every check of the evidence.
    pub(crate) fn verify(&self) -> Verification {
        let boot_log = self.evidence.boot_log();
        let quote = &self.evidence.quote;
        let evidence = verify::Evidence {
            ak_public: &self.ak_public,
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs: quote.pcrs.clone(),
                nonce: &self.nonce,
                ak_public: None,
            }],
            boot_log,
            measure_log: self.evidence.measure_log.as_deref(),
            ima_log: self.evidence.ima_log(),
            ima_from_entry: self.evidence.ima_from_entry,
            banks: self.evidence.banks.as_ref().map(BankStatement::as_evidence),
        };
        let expectation = Expectation {
            required_selection: selection(self.policy.as_deref()),
            banks_wanted: self.banks_wanted,
            last_counters: self.last_counters,
            baseline: self.baseline.as_ref(),
            known_boot_log: boot_log.map(|log| KnownBootLog::find(log, |sha256| self.boot_logs.find(sha256))),
        };
        verify::verify(&evidence, &expectation)
    }
}

/// What a quote has to cover: all that the policy looks at, and without one firmware, boot loader, IMA and everything
/// between.
pub(crate) fn selection(policy: Option<&CompiledPolicy>) -> Vec<(HashAlgorithm, PcrIndex)> {
    let all = || (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new);
    policy.map_or_else(
        || all().map(|index| (HashAlgorithm::Sha256, index)).collect(),
        |policy| policy.selection().to_vec(),
    )
}

/// Some 300 IMA entries, about as long as a quote's signature takes.
const INLINE_BYTES_MAX: usize = 32 * 1024;
