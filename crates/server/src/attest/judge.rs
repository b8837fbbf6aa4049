//! Verification and appraisal of one piece of evidence: at once if it is short, on a thread of its own if its logs
//! are long.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{
    Baseline, Evidence, Expectation, ImaLog, KnownBootLog, QuoteEvidence, Verification, verify,
};
use assay_evidence::{Check, Failure, HashAlgorithm, PcrIndex};
use assay_trust::{AttestationResult, CompiledPolicy, appraise, refuse};
use assay_wire::edge;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::attest::{AttestError, NONCE_BYTES};
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
        let permit = self.threads.clone().acquire_owned().await.map_err(|_| AttestError::Busy)?;
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
    pub evidence: edge::Evidence,
    pub quote: edge::Quote,
    pub pcrs: PcrValues,
    pub nonce: [u8; NONCE_BYTES],
    pub baseline: Option<Baseline>,
    pub boot_logs: Arc<BootLogs>,
    pub last_counters: Option<BootCounters>,
    pub policy: Option<Arc<CompiledPolicy>>,
    pub endorsement: Option<Arc<Endorsement>>,
    pub now: UnixTime,
}

/// What they found.
#[derive(Debug)]
pub(crate) struct Judged {
    pub result: AttestationResult,
    pub baseline: Option<Baseline>,
    /// Whether the bound AK signed this, for this challenge.
    pub authentic: bool,
    /// IMA entries since boot that the quote attests, and how many more were sent; `None`: it does not verify.
    pub attested: Option<(u64, usize)>,
    /// Whether all that is wrong is that the IMA list does not reach the quoted PCR 10.
    pub list_may_be_short: bool,
}

impl Job {
    /// Bytes of logs to read, which is what the work grows with.
    pub(crate) fn log_bytes(&self) -> usize {
        self.evidence.ima_log.len() + self.evidence.boot_log.as_ref().map_or(0, Bytes::len)
    }

    /// Verifies and appraises: pure.
    pub(crate) fn judge(self) -> Judged {
        let Verification { claims, failures, .. } = self.verify();
        let policy = self.policy.as_deref();
        match claims {
            Some(claims) => {
                if let (Some(log), Some(claims)) = (self.boot_log(), claims.boot()) {
                    self.boot_logs.keep(log.len(), claims);
                }
                let result = appraise(&claims, policy, self.endorsement.as_deref(), self.now);
                let baseline = policy.map(|_| claims.baseline(result.good_ima_entries()));
                let ima = claims.ima().map(|ima| (ima.attested_total(), ima.undecided()));
                Judged {
                    result,
                    baseline,
                    authentic: true,
                    attested: Some(ima.unwrap_or_default()),
                    list_may_be_short: false,
                }
            }
            None => {
                let authentic = !failures.iter().any(|failure| AUTHENTICITY.contains(&failure.check));
                let result = refuse(&failures, policy, self.now);
                let list_may_be_short = self.list_may_be_short(&failures);
                Judged { result, baseline: None, authentic, attested: None, list_may_be_short }
            }
        }
    }

    /// A list that was cut short looks the same as one with an entry left out; each entry of it is sound.
    fn list_may_be_short(&self, failures: &[Failure]) -> bool {
        let judged = self.baseline.as_ref().map_or(0, Baseline::ima_entries);
        let starts_well = [0, judged].contains(&self.evidence.ima_from_entry);
        starts_well && failures.iter().all(|failure| failure.check == Check::ImaReplay)
    }

    /// Makes every check of the evidence.
    pub(crate) fn verify(&self) -> Verification {
        let boot_log = self.boot_log();
        let evidence = Evidence {
            ak_public: &self.ak_public,
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &self.quote.message,
                signature: &self.quote.signature,
                pcrs: self.pcrs.clone(),
                nonce: &self.nonce,
                ak_public: None,
            }],
            boot_log,
            ima_log: self.ima_log(),
            ima_from_entry: self.evidence.ima_from_entry,
        };
        let expectation = Expectation {
            required_selection: quoted_pcrs().map(|index| (HashAlgorithm::Sha256, index)).collect(),
            last_counters: self.last_counters,
            baseline: self.baseline.as_ref(),
            known_boot_log: boot_log
                .and_then(|log| KnownBootLog::find(log, |sha256| self.boot_logs.find(sha256))),
        };
        verify(&evidence, &expectation)
    }

    fn boot_log(&self) -> Option<&[u8]> {
        self.evidence.boot_log.as_deref().filter(|log| !log.is_empty())
    }

    /// No bytes mean nothing new after entries that were judged, and else that the host has no list.
    fn ima_log(&self) -> Option<ImaLog<'_>> {
        let log = self.evidence.ima_log.as_ref();
        match (log.is_empty() && self.evidence.ima_from_entry == 0, self.evidence.ima_ascii) {
            (true, _) => None,
            (false, true) => Some(ImaLog::Ascii(log)),
            (false, false) => Some(ImaLog::Binary(log)),
        }
    }
}

/// Firmware, boot loader, IMA and everything between, in one quote.
pub(crate) fn quoted_pcrs() -> impl Iterator<Item = PcrIndex> {
    (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new)
}

/// The checks that show whose evidence it is and which challenge it answers.
const AUTHENTICITY: [Check; 9] = [
    Check::AkParse,
    Check::AkAttributes,
    Check::AkName,
    Check::AkPublic,
    Check::QuoteParse,
    Check::QuoteMagic,
    Check::QuoteType,
    Check::QuoteSignature,
    Check::QuoteNonce,
];

/// Some 300 IMA entries, about as long as a quote's signature takes.
const INLINE_BYTES_MAX: usize = 32 * 1024;
