//! Verification: evidence in, claims out, and every check that did not hold.
//!
//! [`verify`] is the only maker of [`Claims`]. It ties the pieces together: keys and quotes first, then the boot
//! log and the IMA list replayed to the quoted PCRs. A log is the attacker's until it replays. Nothing here asks
//! whether a value is a good one; that is appraisal.

mod boot;
mod claims;
mod ima;
mod mismatch;
mod runtime;

use bytes::Bytes;

pub use self::boot::KnownBootLog;
pub use self::claims::{Baseline, Claims, ImaClaims};
use crate::check::{Check, Failure};
use crate::digest::{HashAlgorithm, PcrIndex};
use crate::tpm::attest::BootCounters;
use crate::tpm::banks::{ActiveBanks, BankStatement, verify_banks};
use crate::tpm::pcr::PcrValues;
use crate::tpm::public_area::PublicArea;
use crate::tpm::quote::{Quote, VerifiedQuote, verify_quote};
use runtime::Runtime;

/// What a device sent, believed by nobody yet.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// TPM2B_PUBLIC of the attestation key.
    pub ak_public: &'a [u8],
    /// The first is the evidence; where there are more, all must hold.
    pub quotes: Vec<QuoteEvidence<'a>>,
    /// The TCG boot log, if it was sent. Empty counts as absent.
    pub boot_log: Option<&'a [u8]>,
    /// systemd's measurement log, if it was sent: what user space extended after the boot log had ended.
    pub measure_log: Option<&'a [u8]>,
    /// The IMA list, if it was sent.
    pub ima_log: Option<ImaLog<'a>>,
    /// Index of the list's first entry: zero, or as many as the baseline has.
    pub ima_from_entry: u64,
    /// The TPM's word on its PCR banks, if it was sent.
    pub banks: Option<BankStatement<'a>>,
}

/// One quote.
#[derive(Clone, Debug)]
pub struct QuoteEvidence<'a> {
    /// What findings call it, such as `quote`.
    pub label: &'a str,
    /// TPMS_ATTEST.
    pub message: &'a [u8],
    /// TPMT_SIGNATURE.
    pub signature: &'a [u8],
    /// The PCR values that it is said to cover.
    pub pcrs: PcrValues,
    /// The nonce that it has to answer.
    pub nonce: &'a [u8],
    /// TPM2B_PUBLIC of its AK, where that is another one than the evidence's.
    pub ak_public: Option<&'a [u8]>,
}

/// An IMA list in one of the kernel's two forms.
#[derive(Clone, Copy, Debug)]
pub enum ImaLog<'a> {
    /// `binary_runtime_measurements`.
    Binary(&'a [u8]),
    /// The same, in bytes that claims share instead of copying them.
    Shared(&'a Bytes),
    /// `ascii_runtime_measurements`.
    Ascii(&'a [u8]),
}

impl ImaLog<'_> {
    /// Bytes that its first `entries` entries take, so that it can be kept in parts; `None` if it has fewer.
    pub fn offset(self, entries: u64) -> Option<usize> {
        match self {
            ImaLog::Binary(bytes) => crate::ima::binary_offset(bytes, entries),
            ImaLog::Shared(bytes) => crate::ima::binary_offset(bytes, entries),
            ImaLog::Ascii(text) => crate::ima::ascii_offset(text, entries),
        }
    }
}

/// What the verifier knows of the device and asked for.
#[derive(Clone, Debug, Default)]
pub struct Expectation<'a> {
    /// PCRs that the first quote has to cover, whatever logs there are, and no others but those of the firmware in each
    /// active bank. Empty: any.
    pub required_selection: Vec<(HashAlgorithm, PcrIndex)>,
    /// Whether the TPM has to say which banks are active, unless it did so earlier in this boot.
    pub banks_wanted: bool,
    /// The TPM's counters when it was last seen.
    pub last_counters: Option<BootCounters>,
    /// What was judged before of this boot. Applies while the reset counter stands.
    pub baseline: Option<&'a Baseline>,
    /// The boot log's hash, and what was made of the same log before, by whatever device.
    pub known_boot_log: Option<KnownBootLog<'a>>,
}

/// What verification found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The claims, if no check failed.
    pub claims: Option<Claims>,
    /// Every check that did not hold.
    pub failures: Vec<Failure>,
    /// What a policy may want to refuse, but what proves nothing false: no log, a weak bank, a value undecided.
    pub notes: Vec<Failure>,
}

/// Makes every check of the evidence, each reported on its own.
pub fn verify(evidence: &Evidence<'_>, expectation: &Expectation<'_>) -> Verification {
    let mut report = Report::default();
    let ak = report.attestation_key("AK", evidence.ak_public);
    let quotes: Vec<QuoteOutcome<'_>> =
        evidence.quotes.iter().map(|quote| report.quote(quote, ak.as_ref())).collect();
    report.same_boot(&quotes);
    let Some(first) = quotes.first() else {
        report.fail(Check::QuoteParse, "quote", "a quote", "none".to_owned());
        return report.without_claims();
    };
    report.counters(first, expectation);
    let baseline = expectation.baseline.filter(|baseline| {
        let reset_count = first.verified.as_ref().map(|quote| quote.clock_info().reset_count);
        reset_count.is_none_or(|reset_count| reset_count == baseline.reset_count())
    });

    let banks = match baseline.and_then(Baseline::banks) {
        Some(known) => Some(known.clone()),
        None => report.banks(evidence, ak.as_ref(), first, expectation),
    };

    let list = evidence.ima_log.and_then(|log| ima::parse(log, &mut report));
    let known = ima::known_start(list.as_ref(), evidence.ima_from_entry, baseline, &mut report);
    let (list, known) = known.map_or((None, None), |known| (list, known));
    let explained = baseline.map(Baseline::explained);
    let runtime = Runtime::new(evidence.measure_log, list.as_ref(), known, explained, &mut report);
    let boot_log = evidence.boot_log.filter(|log| !log.is_empty());
    let seen = expectation.known_boot_log.as_ref();
    let boot = boot::verify(boot_log, seen, baseline, &quotes, &runtime, &mut report);
    let ima = list.as_ref().and_then(|list| {
        let earlier = baseline.filter(|_| known.is_none());
        let attested = ima::verify(list, &runtime, &quotes, &boot, earlier, &mut report)?;
        Some((attested, known.and(baseline).map(Baseline::measured).unwrap_or_default()))
    });
    let ima = ima.zip(list).map(|((attested, measured), list)| ImaClaims::new(list, attested, measured));
    let covered = report.selection(first, boot.log_pcrs(), ima.is_some(), expectation, banks.as_ref());
    if covered.iter().all(|bank| *bank == HashAlgorithm::Sha1) && !covered.is_empty() {
        let found = "SHA-1 alone".to_owned();
        report.note(Check::AlgorithmPolicy, "PCR bank", "SHA-256 or better", found);
    }

    let verified: Option<Vec<VerifiedQuote>> =
        quotes.into_iter().filter(|quote| quote.by_main_ak).map(|quote| quote.verified).collect();
    match (ak, verified) {
        (Some(ak), Some(quotes)) if report.failures.is_empty() => {
            let claims = Claims::new(ak, &quotes, banks, boot, ima, &report.notes);
            Verification { claims, failures: report.failures, notes: report.notes }
        }
        _ => report.without_claims(),
    }
}

/// A quote after its checks.
struct QuoteOutcome<'a> {
    label: &'a str,
    verified: Option<VerifiedQuote>,
    by_main_ak: bool,
    as_sent: &'a PcrValues,
}

impl QuoteOutcome<'_> {
    /// The values to hold logs against. Where the quote failed they prove nothing, but a log that contradicts
    /// them is still worth reporting; there are no claims then anyway.
    fn pcrs(&self) -> &PcrValues {
        self.verified.as_ref().map_or(self.as_sent, VerifiedQuote::pcrs)
    }

    /// The banks in which it has all of these PCRs. One of which it has the firmware's alone bears witness beside another.
    fn covering_banks(&self, indexes: &[PcrIndex]) -> Vec<HashAlgorithm> {
        let pcrs = self.pcrs();
        let is_more =
            |bank: HashAlgorithm| pcrs.iter().any(|(of, index, _)| of == bank && !index.is_of_firmware());
        let is_any_more = pcrs.banks().any(is_more);
        let covers = |bank: &HashAlgorithm| indexes.iter().all(|index| pcrs.get(*bank, *index).is_some());
        pcrs.banks().filter(|bank| !is_any_more || is_more(*bank)).filter(covers).collect()
    }
}

/// The checks that did not hold, as they are made.
#[derive(Default)]
struct Report {
    failures: Vec<Failure>,
    notes: Vec<Failure>,
}

impl Report {
    fn fail(&mut self, check: Check, claim: impl Into<String>, expected: impl Into<String>, found: String) {
        self.failures.push(Failure::new(check, claim, expected, found));
    }

    fn note(&mut self, check: Check, claim: impl Into<String>, expected: impl Into<String>, found: String) {
        self.notes.push(Failure::new(check, claim, expected, found));
    }

    fn without_claims(self) -> Verification {
        Verification { claims: None, failures: self.failures, notes: self.notes }
    }

    fn attestation_key(&mut self, label: &str, bytes: &[u8]) -> Option<PublicArea> {
        match PublicArea::parse_tpm2b(bytes) {
            Ok(ak) => {
                self.failures.extend(ak.check_ak());
                Some(ak)
            }
            Err(error) => {
                self.fail(Check::AkParse, label, "a TPM2B_PUBLIC", error.to_string());
                None
            }
        }
    }

    fn quote<'a>(&mut self, evidence: &'a QuoteEvidence<'a>, ak: Option<&PublicArea>) -> QuoteOutcome<'a> {
        let QuoteEvidence { label, message, signature, pcrs, nonce, ak_public } = evidence;
        let other = ak_public.map(|bytes| self.attestation_key(&format!("AK of {label}"), bytes));
        let by_main_ak = other.is_none();
        let verified = match other.as_ref().map_or(ak, Option::as_ref) {
            Some(ak) => {
                let (verified, failures) =
                    verify_quote(&Quote { label, message, signature, pcrs, nonce }, ak);
                self.failures.extend(failures);
                verified
            }
            // Its AK did not parse, which was reported.
            None => None,
        };
        QuoteOutcome { label, verified, by_main_ak, as_sent: pcrs }
    }

    /// Quotes of different boots, put together, would describe a machine that never was. Another AK's counters
    /// may be obfuscated (TPM 2.0 Part 1, 36.7), so that only the same AK's can be compared.
    fn same_boot(&mut self, quotes: &[QuoteOutcome<'_>]) {
        let mut boots = quotes.iter().filter(|quote| quote.by_main_ak).filter_map(|quote| {
            quote.verified.as_ref().map(|verified| (quote.label, verified.clock_info().reset_count))
        });
        let Some((_, expected)) = boots.next() else { return };
        for (label, found) in boots.filter(|(_, found)| *found != expected) {
            let claim = format!("{label} reset counter");
            self.fail(Check::ResetCounter, claim, expected.to_string(), found.to_string());
        }
    }

    /// A counter that went back means another TPM state: a cloned or replayed one.
    fn counters(&mut self, first: &QuoteOutcome<'_>, expectation: &Expectation<'_>) {
        let now = first.verified.as_ref().map(|quote| quote.clock_info().counters());
        let (Some(now), Some(before)) = (now, expectation.last_counters) else { return };
        let [(now_restarts, restarts), (now, before)] =
            [(now.restart_count, before.restart_count), (now.reset_count, before.reset_count)];
        if now < before {
            self.fail(Check::ResetCounter, "reset counter", format!("{before} or more"), now.to_string());
        } else if now == before && now_restarts < restarts {
            let expected = format!("{restarts} or more since reset {before}");
            self.fail(Check::RestartCounter, "restart counter", expected, now_restarts.to_string());
        }
    }

    /// The TPM's word on its banks, in the boot of the first quote.
    fn banks(
        &mut self,
        evidence: &Evidence<'_>,
        ak: Option<&PublicArea>,
        first: &QuoteOutcome<'_>,
        expectation: &Expectation<'_>,
    ) -> Option<ActiveBanks> {
        let Some((statement, ak)) = evidence.banks.as_ref().zip(ak) else {
            if expectation.banks_wanted {
                let expected = "the TPM's word on which are active";
                self.fail(Check::PcrBanks, "PCR banks", expected, "none".to_owned());
            }
            return None;
        };
        let banks =
            verify_banks(statement, ak).map_err(|mut failures| self.failures.append(&mut failures)).ok()?;
        let quoted = first.verified.as_ref().map(|quote| quote.clock_info().reset_count);
        if let Some(quoted) = quoted.filter(|quoted| *quoted != banks.reset_count()) {
            let found = banks.reset_count().to_string();
            self.fail(Check::PcrBanks, "PCR banks reset counter", quoted.to_string(), found);
        }
        Some(banks)
    }

    /// The first quote covers what was asked for, the firmware's PCRs in each active bank, and every PCR of the logs in one
    /// bank. Returns the banks that do the last.
    fn selection(
        &mut self,
        first: &QuoteOutcome<'_>,
        mut log_pcrs: Vec<PcrIndex>,
        has_ima: bool,
        expectation: &Expectation<'_>,
        banks: Option<&ActiveBanks>,
    ) -> Vec<HashAlgorithm> {
        let pcrs = first.pcrs();
        let active = banks.map(ActiveBanks::known).unwrap_or_default();
        let of_active =
            active.iter().flat_map(|bank| PcrIndex::of_firmware().map(move |index| (*bank, index)));
        let mut required: Vec<(HashAlgorithm, PcrIndex)> =
            expectation.required_selection.iter().copied().chain(of_active).collect();
        required.sort_unstable();
        required.dedup();
        for (bank, index) in required.iter().filter(|(bank, index)| pcrs.get(*bank, *index).is_none()) {
            let claim = format!("{} {bank} PCR {index}", first.label);
            self.fail(Check::QuoteSelection, claim, "covered", "not covered".to_owned());
        }
        let is_asked = |bank: HashAlgorithm, index: PcrIndex| {
            expectation.required_selection.is_empty() || required.binary_search(&(bank, index)).is_ok()
        };
        // Who answers more than was asked chooses what is looked at.
        if let Some((bank, index, _)) = pcrs.iter().find(|(bank, index, _)| !is_asked(*bank, *index)) {
            let claim = format!("{} {bank} PCR {index}", first.label);
            self.fail(Check::QuoteSelection, claim, "not covered", "covered".to_owned());
        }
        if has_ima {
            log_pcrs.extend(PcrIndex::new(crate::ima::PCR.into()));
        }
        let covered = first.covering_banks(&log_pcrs);
        if covered.is_empty() {
            let list = |indexes: &mut dyn Iterator<Item = PcrIndex>| {
                indexes.map(|index| index.to_string()).collect::<Vec<_>>().join(",")
            };
            let expected = format!("one bank with PCRs {}", list(&mut log_pcrs.iter().copied()));
            let found: Vec<String> = pcrs
                .banks()
                .map(|bank| {
                    let of_bank = pcrs.iter().filter(|(of, ..)| *of == bank);
                    format!("{bank}:{}", list(&mut of_bank.map(|(_, index, _)| index)))
                })
                .collect();
            self.fail(Check::QuoteSelection, first.label, expected, found.join("+"));
        }
        covered
    }
}
