//! The boot log against the quoted PCRs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mismatch::{Misfit, mismatch};
use super::runtime::{Course, Runtime};
use super::{Baseline, QuoteOutcome, Report};
use crate::boot_log::{self, BootClaims, BootLog, BootLogErrorKind};
use crate::check::{Check, Failure, Mismatch};
use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::tpm::pcr::PcrValues;

/// What there is to say of the boot.
#[derive(Default)]
pub(super) struct Boot {
    pub(super) claims: Option<Arc<BootClaims>>,
    /// The boot PCRs were extended and no log says with what.
    pub(super) log_missing: bool,
    log_pcrs: Vec<PcrIndex>,
    history: History,
    explained: PcrValues,
}

/// The values that PCRs went through since the log ended, where that is known and more than one.
pub(super) type History = BTreeMap<(HashAlgorithm, PcrIndex), Vec<Digest>>;

/// What holding a log against the quotes shows.
#[derive(Default)]
struct Comparison {
    /// PCRs that hold more than the log tells and may.
    unexplained: Vec<PcrIndex>,
    history: History,
    /// Quoted values that the measurement log explains.
    explained: PcrValues,
    /// PCRs that contradict the log.
    misfits: Vec<Misfit>,
}

impl Boot {
    /// The PCRs that the log extends.
    pub(super) fn log_pcrs(&self) -> Vec<PcrIndex> {
        self.log_pcrs.clone()
    }

    /// What the log replays to; nothing where there is none.
    pub(super) fn logged(&self) -> &PcrValues {
        self.claims.as_ref().map_or(&NO_VALUES, |claims| claims.logged())
    }

    /// What PCRs went through after the log ended.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Quoted values that the measurement log explained, now or before in the same boot.
    pub(super) fn explained(&self) -> &PcrValues {
        &self.explained
    }
}

/// A boot log, and what verification made of the very same bytes before, if it did: of this device, or of another that
/// booted alike. It spares reading them again, never holding them against the quotes.
#[derive(Clone, Debug)]
pub struct KnownBootLog<'a> {
    log: &'a [u8],
    sha256: Digest,
    claims: Option<Arc<BootClaims>>,
}

impl<'a> KnownBootLog<'a> {
    /// Looks the log up by its SHA-256.
    pub fn find(
        log: &'a [u8],
        by_sha256: impl FnOnce(&Digest) -> Option<Arc<BootClaims>>,
    ) -> KnownBootLog<'a> {
        let sha256 = HashAlgorithm::Sha256.hash(&[log]);
        // Whoever looks up is not believed: claims say themselves what log they were made of.
        let claims = by_sha256(&sha256).filter(|claims| *claims.log_sha256() == sha256);
        KnownBootLog { log, sha256, claims }
    }

    /// Whether anything was made of it before.
    pub fn is_known(&self) -> bool {
        self.claims.is_some()
    }
}

/// Replays the log, or takes the one judged before in this boot, and compares with every quote.
pub(super) fn verify(
    log: Option<&[u8]>,
    seen: Option<&KnownBootLog<'_>>,
    baseline: Option<&Baseline>,
    quotes: &[QuoteOutcome<'_>],
    runtime: &Runtime<'_>,
    report: &mut Report,
) -> Boot {
    let known = baseline.and_then(Baseline::boot_claims);
    match (log, known) {
        (Some(log), _) => {
            // What is known of another log says nothing of this one.
            let seen = seen.filter(|seen| seen.log == log);
            let claims = seen.and_then(|seen| seen.claims.as_ref());
            let same = claims.and_then(|claims| verify_seen(claims, quotes, runtime, report));
            let sha256 = || seen.map(|seen| seen.sha256);
            same.unwrap_or_else(|| verify_unread(log, sha256(), quotes, runtime, report))
        }
        (None, Some(known)) => verify_known(known, quotes, runtime, report),
        (None, None) => note_missing(quotes, report),
    }
}

/// Claims that were made of this log before, in one bank and without the PCRs that the quotes did not bear out then.
/// Where these quotes say otherwise about either, the log has to be read for them.
fn verify_seen(
    seen: &Arc<BootClaims>,
    quotes: &[QuoteOutcome<'_>],
    runtime: &Runtime<'_>,
    report: &mut Report,
) -> Option<Boot> {
    let mut found = Report::default();
    let (logged, log_pcrs) = (seen.logged(), pcrs_of(seen.logged()));
    let Comparison { unexplained, history, explained, misfits } =
        compare(logged, quotes, runtime, &mut found);
    let bank = common_banks(logged, &log_pcrs, quotes, &mut found).into_iter().max()?;
    // Where it is not the PCRs', it has to be read as well to tell why.
    if bank != seen.facts().bank || unexplained != seen.facts().unexplained_pcrs || !misfits.is_empty() {
        return None;
    }
    report.failures.append(&mut found.failures);
    report.notes.append(&mut found.notes);
    Some(Boot { claims: Some(Arc::clone(seen)), log_missing: false, log_pcrs, history, explained })
}

fn verify_unread(
    log: &[u8],
    sha256: Option<Digest>,
    quotes: &[QuoteOutcome<'_>],
    runtime: &Runtime<'_>,
    report: &mut Report,
) -> Boot {
    match boot_log::parse(log) {
        Ok(log) => verify_log(&log, sha256, quotes, runtime, report),
        Err(error) => {
            let expected = "a TCG PC Client boot log";
            let failure = Failure::new(Check::EventLogParse, "boot log", expected, error.to_string());
            // Whatever else is wrong with a log, no copy of one has made it so.
            let is_cut = error.event > 0 && matches!(error.kind, BootLogErrorKind::Truncated(_));
            let cause = if is_cut { Mismatch::CopyCutShort } else { Mismatch::Contradiction };
            report.failures.push(failure.explained(cause));
            Boot::default()
        }
    }
}

fn verify_log(
    log: &BootLog<'_>,
    sha256: Option<Digest>,
    quotes: &[QuoteOutcome<'_>],
    runtime: &Runtime<'_>,
    report: &mut Report,
) -> Boot {
    report.failures.extend(boot_log::data_digest_failures(log));
    report.failures.extend(boot_log::bank_contradictions(log));
    let logged = boot_log::replay(log);
    let log_pcrs = pcrs_of(&logged);
    let before = report.failures.len();
    let Comparison { unexplained, history, explained, misfits } = compare(&logged, quotes, runtime, report);
    if !misfits.is_empty() {
        let cause = mismatch(log, &misfits);
        report.failures.iter_mut().skip(before).for_each(|failure| failure.mismatch = Some(cause));
    }
    let bank = common_banks(&logged, &log_pcrs, quotes, report).into_iter().max();
    let claims = bank.map(|bank| {
        let sha256 = sha256.unwrap_or_else(|| HashAlgorithm::Sha256.hash(&[log.bytes()]));
        Arc::new(boot_log::claims(log, sha256, logged, bank).without(&unexplained))
    });
    Boot { claims, log_missing: false, log_pcrs, history, explained }
}

/// The log was judged before; that the PCRs are still what it replays to has to be seen each time.
fn verify_known(
    known: &Arc<BootClaims>,
    quotes: &[QuoteOutcome<'_>],
    runtime: &Runtime<'_>,
    report: &mut Report,
) -> Boot {
    let (logged, log_pcrs) = (known.replayed(), pcrs_of(known.replayed()));
    let Comparison { unexplained, history, explained, .. } = compare(logged, quotes, runtime, report);
    let banks = common_banks(logged, &log_pcrs, quotes, report);
    if !banks.is_empty() && !banks.contains(&known.facts().bank) {
        fail_no_bank(known.facts().bank.name(), report);
    }
    let is_known = unexplained.iter().all(|index| known.facts().unexplained_pcrs.contains(index));
    let claims =
        if is_known { Arc::clone(known) } else { Arc::new(BootClaims::clone(known).without(&unexplained)) };
    Boot { claims: Some(claims), log_missing: false, log_pcrs, history, explained }
}

fn note_missing(quotes: &[QuoteOutcome<'_>], report: &mut Report) -> Boot {
    let extended = quotes
        .iter()
        .flat_map(|quote| quote.pcrs().iter())
        .find(|(_, index, value)| index.is_of_firmware() && !value.is_zero());
    if let Some((bank, index, _)) = extended {
        let found = format!("none, and {bank} PCR {index} is extended");
        report.note(Check::EventLogPresent, "boot log", "a boot log", found);
    }
    Boot { log_missing: extended.is_some(), ..Boot::default() }
}

/// Each quoted value is what the log makes of that PCR, in each bank the log has, and what user space is known to add.
///
/// Once the boot log has ended, systemd goes on to extend some PCRs, with words that everybody knows or that its own log
/// tells ([`Runtime`]), or with others ([`is_runtime`]), so that a machine is not refused for a difference there. But root can extend them as
/// well, to hide behind: having booted with another command line, extend PCR 12 once more, and send a log in which that
/// PCR's events are the expected ones. So an unknown difference takes every word about that PCR out of the claims,
/// instead of leaving some of them. What a policy demands of it is then not there, and its pinned value does not match
/// either. Every other PCR is strict: after the firmware and the boot loader nothing else honest extends it but IMA,
/// whose own list explains PCR 10.
fn compare(
    replayed: &PcrValues,
    quotes: &[QuoteOutcome<'_>],
    runtime: &Runtime<'_>,
    report: &mut Report,
) -> Comparison {
    let banks: Vec<HashAlgorithm> = replayed.banks().collect();
    let mut comparison = Comparison::default();
    for quote in quotes {
        for bank in quote.pcrs().banks().filter(|bank| !banks.contains(bank)) {
            unlogged_bank(quote, bank, report);
        }
        let reached = runtime.reached(quote.pcrs(), replayed);
        for (bank, index, quoted) in quote.pcrs().iter().filter(|(bank, ..)| banks.contains(bank)) {
            let before = replayed.get(bank, index).copied().unwrap_or(bank.zero());
            if before == *quoted {
                continue;
            }
            if let Some(Course { values, is_logged }) = runtime.course(index, &before, quoted) {
                if is_logged {
                    comparison.explained.insert(index, *quoted);
                }
                comparison.history.insert((bank, index), values);
            } else if reached.contains(index) {
                comparison.history.insert((bank, index), vec![before, *quoted]);
            } else {
                unexplained(quote, replayed, (bank, index, quoted), &mut comparison, report);
            }
        }
    }
    comparison.unexplained.sort_unstable();
    comparison.unexplained.dedup();
    comparison
}

/// What follows from a value that nothing explains.
fn unexplained(
    quote: &QuoteOutcome<'_>,
    replayed: &PcrValues,
    (bank, index, quoted): (HashAlgorithm, PcrIndex, &Digest),
    comparison: &mut Comparison,
    report: &mut Report,
) {
    let logged = replayed.get(bank, index);
    let found = match logged {
        Some(value) => format!("the log replays to {value}"),
        None => "the log does not extend it".to_owned(),
    };
    let claim = format!("{} {bank} PCR {index}", quote.label);
    if is_runtime(index, bank, replayed) {
        comparison.unexplained.push(index);
        // A kernel that found the log's value has said so in its boot_aggregate.
        comparison.history.insert((bank, index), logged.into_iter().chain([quoted]).copied().collect());
        report.note(Check::EventLogReplay, claim, quoted.to_string(), found);
    } else if logged.is_some() || index.is_of_firmware() {
        // A log from which every event of a PCR was cut would still replay in the others.
        report.fail(Check::EventLogReplay, claim, quoted.to_string(), found);
        comparison.misfits.push(Misfit { bank, index, quoted: *quoted });
    } else if BOOT_LOADER_PCRS.contains(&index.get()) {
        // A boot loader need not log what it measures; but then nobody may think that it measured nothing.
        comparison.unexplained.push(index);
    }
}

/// Whether honest user space may have extended the PCR with words that nobody knows beforehand. It extends PCR 9, the boot
/// loader's and the kernel's own, on machines that systemd-stub started alone, which is to be seen in PCR 11.
fn is_runtime(index: PcrIndex, bank: HashAlgorithm, replayed: &PcrValues) -> bool {
    let is_by_stub = || PcrIndex::new(STUB_PCR).is_some_and(|stub| replayed.get(bank, stub).is_some());
    RUNTIME_PCRS.contains(&index.get()) || (index.get() == NV_PCR && is_by_stub())
}

/// A bank that firmware extended and the log leaves out: the log could be of another boot, replaying in a bank that
/// firmware left empty and root filled.
fn unlogged_bank(quote: &QuoteOutcome<'_>, bank: HashAlgorithm, report: &mut Report) {
    let extended = quote
        .pcrs()
        .iter()
        .find(|(of, index, value)| *of == bank && index.is_of_firmware() && was_extended(*index, value));
    if let Some((_, index, value)) = extended {
        let claim = format!("{} {bank} PCR {index}", quote.label);
        let found = format!("the log has no digests of {bank}");
        report.fail(Check::EventLogReplay, claim, value.to_string(), found);
    }
}

/// Whether it is no value that a PCR starts with: PCR 0 has the locality of TPM2_Startup in its last byte, in every bank
/// that the TPM has.
fn was_extended(index: PcrIndex, value: &Digest) -> bool {
    let locality = value.as_bytes().split_last();
    let is_start =
        locality.is_some_and(|(last, rest)| *last <= LOCALITY_LAST && rest.iter().all(|byte| *byte == 0));
    !(value.is_zero() || (index.get() == 0 && is_start))
}

/// Banks of the log in which the first quote has every PCR that the log extends.
fn common_banks(
    replayed: &PcrValues,
    log_pcrs: &[PcrIndex],
    quotes: &[QuoteOutcome<'_>],
    report: &mut Report,
) -> Vec<HashAlgorithm> {
    let covering = quotes.first().map(|quote| quote.covering_banks(log_pcrs)).unwrap_or_default();
    let of_log: Vec<HashAlgorithm> = replayed.banks().collect();
    let common: Vec<HashAlgorithm> = covering.iter().copied().filter(|bank| of_log.contains(bank)).collect();
    // A quote that covers them in no bank at all is the selection check's to report.
    if common.is_empty() && !covering.is_empty() {
        let names: Vec<&str> = of_log.iter().map(|bank| bank.name()).collect();
        fail_no_bank(&names.join(", "), report);
    }
    common
}

fn fail_no_bank(banks: &str, report: &mut Report) {
    report.fail(Check::EventLogReplay, "boot log", "digests of a quoted bank", format!("digests of {banks}"));
}

fn pcrs_of(values: &PcrValues) -> Vec<PcrIndex> {
    let mut indexes: Vec<PcrIndex> = values.iter().map(|(_, index, _)| index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Of a device without a boot log.
static NO_VALUES: PcrValues = PcrValues::new();
/// The highest locality.
const LOCALITY_LAST: u8 = 4;
/// GRUB and the kernel's EFI stub measure into 8 and 9, shim into 14.
const BOOT_LOADER_PCRS: [u8; 3] = [8, 9, 14];
/// The UAPI group's Linux TPM PCR registry: systemd extends these at run time, 11 with its phases, 12 and 13 with
/// credentials and extensions, 15 with the machine's identity and its file systems.
const RUNTIME_PCRS: [u8; 4] = [11, 12, 13, 15];
/// The same registry: systemd 259 and later say here what they made NV indexes of (`nvpcr-init`).
const NV_PCR: u8 = 9;
/// systemd-stub measures the sections of its image here.
const STUB_PCR: u32 = 11;
