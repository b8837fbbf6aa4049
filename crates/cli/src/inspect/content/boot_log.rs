//! Boot logs: of a TPM, legacy or crypto-agile, and of a confidential machine (CCEL).

use assay_evidence::boot_log::{
    self, Authority, BootFacts, BootLog, CcLog, Coverage, Event, EventType, LOG_BYTES_MAX, SignatureKind,
    data_digest_failures, facts, replay,
};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::{HashAlgorithm, PcrIndex};

use super::report::{Column, Place, Report, Severity, Table, Value};
use super::{Context, Fault, malformed};

/// Bytes of a log.
pub(super) const BYTES_MAX: usize = LOG_BYTES_MAX;

/// A header, or one event of a legacy log: PCR, type, SHA-1 digest, size.
pub(super) fn begins(head: &[u8], is_all: bool) -> bool {
    let word = |at: usize| head.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let (Some(pcr), Some(event_type), Some(size)) = (word(0), word(4), word(28)) else { return false };
    // Other binary forms begin with small numbers too, but an event that is measured is of something.
    let is_measured = size > 0 && head.get(8..28).is_some_and(|digest| digest.iter().any(|byte| *byte != 0));
    let event_type = EventType(event_type);
    let is_event = PcrIndex::new(pcr).is_some() || event_type == EventType::NO_ACTION;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let fits = size <= boot_log::EVENT_BYTES_MAX && (!is_all || size <= head.len().saturating_sub(32));
    let says_something = is_measured || (event_type == EventType::NO_ACTION && size > 0);
    is_event && event_type.name().is_some() && says_something && fits
}

/// Reads a log of either machine.
pub(super) fn read(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    match (boot_log::parse(bytes), boot_log::parse_cc(bytes)) {
        (Ok(log), Ok(cc)) if is_confidential(&log) => Ok(describe_cc(bytes, &cc)),
        (Ok(log), _) => Ok(describe(&log)),
        (Err(_), Ok(cc)) => Ok(describe_cc(bytes, &cc)),
        (Err(_), Err(error)) if has_sha384_alone(bytes) => {
            Err(malformed("a boot log of a confidential machine", error))
        }
        (Err(error), Err(_)) => Err(malformed("a boot log", error)),
    }
}

/// Whether the header lists SHA-384 and nothing else, as those of confidential machines do.
fn has_sha384_alone(bytes: &[u8]) -> bool {
    bytes.get(ALGORITHMS_AT..ALGORITHMS_AT + 6) == Some(&[1, 0, 0, 0, 0x0c, 0])
}

/// A TPM's firmware ends its part of PCR 0 to 7; registers of a confidential machine end at 4, and have SHA-384 alone.
fn is_confidential(log: &BootLog<'_>) -> bool {
    let mut registers = log.events().iter().filter_map(Event::extends).peekable();
    log.banks() == [HashAlgorithm::Sha384]
        && registers.peek().is_some()
        && registers.all(|register| (1..=RTMR_INDEX_LAST).contains(&register.get()))
}

/// The bank whose digests are shown and judged: the one that most rely on.
pub fn bank_of(log: &BootLog<'_>) -> HashAlgorithm {
    let banks = log.banks();
    let has = |bank: &HashAlgorithm| banks.contains(bank);
    PREFERRED_BANKS.into_iter().find(has).unwrap_or(HashAlgorithm::Sha1)
}

fn describe(log: &BootLog<'_>) -> Report {
    let bank = bank_of(log);
    let facts = facts(log, bank);
    let is_agile = log.events().first().is_some_and(|first| {
        first.event_type() == EventType::NO_ACTION && first.data().starts_with(b"Spec ID Event03")
    });
    let form = if is_agile { "crypto-agile" } else { "legacy" };
    let secure_boot = match &facts.secure_boot {
        Some(variables) if variables.is_enabled => "on",
        Some(_) => "off",
        None => "not said",
    };
    let events = log.events().len();
    let mut report =
        Report::new("boot-log", format!("boot log, {form}, {events} events, Secure Boot {secure_boot}"))
            .with("form", form)
            .with("bytes", log.bytes().len())
            .with("sha256", HashAlgorithm::Sha256.hash(&[log.bytes()]).to_hex())
            .with("banks", Value::list(log.banks().iter().map(|bank| bank.name())))
            .with("facts_by", bank.name())
            .with("secure_boot", secure_boot);
    report = with_facts(report, &facts);
    report =
        report.with("pcrs", pcrs(&replay(log))).with("events", events_of(log.events().iter(), log, bank));
    remarks(log, &facts, &mut report);
    report
}

fn with_facts(report: Report, facts: &BootFacts) -> Report {
    let mut separators: Vec<u64> = facts.separators.iter().map(|pcr| u64::from(pcr.get())).collect();
    separators.sort_unstable();
    let sbat_level = facts.sbat_level.iter().flat_map(|level| level.split_whitespace());
    let trusted_by = facts.authorities.iter().filter(|authority| !authority.is_setting());
    let mut report = report.with("firmware_version", Value::of(facts.firmware_version.clone()));
    if let Some(variables) = &facts.secure_boot {
        let counts = [
            ("pk", variables.pk.len()),
            ("kek", variables.kek.len()),
            ("db", variables.db.len()),
            ("dbx", variables.dbx.len()),
        ];
        report = report.with("secure_boot_keys", Value::group(counts));
    }
    let images =
        facts.boot_applications.iter().map(|image| format!("{} {}", image.digest.to_hex(), image.remark));
    let sections = facts.unified_kernel.iter().map(|section| section.name);
    report
        .with("started", Value::list(images))
        .with("trusted_by", Value::list(trusted_by.map(authority)))
        .with("sbat_level", Value::list(sbat_level))
        .with("command_lines", Value::list(facts.kernel_lines().unwrap_or_default()))
        .with("unified_kernel", Value::list(sections))
        .with("separators", Value::list(separators))
}

fn authority(authority: &Authority) -> String {
    let what = match &authority.signature {
        Some(SignatureKind::Certificate { subject, sha256 }) => format!("{subject} ({})", sha256.to_hex()),
        Some(SignatureKind::ImageDigest(digest)) => format!("the image {digest}"),
        Some(SignatureKind::Other { sha256, .. }) => format!("data {}", sha256.to_hex()),
        None => "an entry that is not readable".to_owned(),
    };
    format!("{}: {what}", authority.variable)
}

/// By bank and index, as the yardsticks have them.
pub(super) fn pcrs(values: &PcrValues) -> Value {
    let bank = |bank: HashAlgorithm| {
        let of_bank = values.iter().filter(move |(of, _, _)| *of == bank);
        (bank.name(), Value::group(of_bank.map(|(_, index, value)| (index.to_string(), value.to_hex()))))
    };
    Value::group(values.banks().map(bank))
}

fn events_of<'a>(
    events: impl Iterator<Item = &'a Event<'a>>,
    log: &BootLog<'_>,
    bank: HashAlgorithm,
) -> Value {
    let row = |event: &Event<'_>| {
        let digests =
            log.banks().iter().filter_map(|bank| Some((bank.name(), event.digest(*bank)?.to_hex())));
        vec![
            event.number().into(),
            Value::of(event.pcr().map(|pcr| u64::from(pcr.get()))),
            event.event_type().to_string().into(),
            event.meaning().into(),
            measured(event, bank),
            covered(event, bank).into(),
            Value::group(digests),
        ]
    };
    Table { columns: EVENT_COLUMNS, rows: events.map(row).collect() }.into()
}

/// The digest in one bank, and what it has to do with the words.
fn measured(event: &Event<'_>, bank: HashAlgorithm) -> Value {
    let digest = event.digest(bank).filter(|_| event.extends().is_some());
    Value::of(digest.map(|digest| {
        let what = match event.coverage(bank) {
            Coverage::Covered(_) => "these words",
            Coverage::Elsewhere => "something that the log only names",
            Coverage::Broken => "NOT these words",
        };
        format!("{digest}, {what}")
    }))
}

/// What the digest covers, in a word.
fn covered(event: &Event<'_>, bank: HashAlgorithm) -> &'static str {
    match (event.extends(), event.coverage(bank)) {
        (None, _) => "nothing",
        (_, Coverage::Covered(_)) => "data",
        (_, Coverage::Elsewhere) => "elsewhere",
        (_, Coverage::Broken) => "broken",
    }
}

fn remarks(log: &BootLog<'_>, facts: &BootFacts, report: &mut Report) {
    report.remark(
        Severity::Note,
        "a log by itself proves nothing: it counts once these PCRs are those of a fresh quote (assay appraise)",
    );
    for failure in data_digest_failures(log) {
        report.remark(
            Severity::Error,
            format!("{}: {}, and it hashes to {}", failure.claim, failure.expected, failure.found),
        );
    }
    for pcr in &facts.error_separators {
        report.remark(Severity::Error, format!("the firmware reports an error in PCR {pcr}"));
    }
    for event in &facts.unexplained_in_pcr7 {
        report.remark(
            Severity::Warning,
            format!("event {event} extends PCR 7, and nothing that it measured can be read"),
        );
    }
    if log.banks() == [HashAlgorithm::Sha1] {
        report.remark(Severity::Warning, "the log has SHA-1 alone, which nobody should rely on");
    }
    if log.events().is_empty() {
        report.remark(Severity::Warning, "the log has no event");
    }
}

fn describe_cc(bytes: &[u8], log: &CcLog<'_>) -> Report {
    let events = log.events().count();
    let registers =
        log.replay().into_iter().map(|(register, value)| (format!("rtmr{}", register.get()), value.to_hex()));
    let rows = log.events().map(|(register, event)| {
        vec![
            event.number().into(),
            u64::from(register.get()).into(),
            event.event_type().to_string().into(),
            event.meaning().into(),
            measured(event, HashAlgorithm::Sha384),
            covered(event, HashAlgorithm::Sha384).into(),
        ]
    });
    let mut report =
        Report::new("cc-log", format!("boot log of a confidential machine (CCEL), {events} events"))
            .with("bytes", bytes.len())
            .with("registers", Value::group(registers))
            .with("events", Table { columns: CC_COLUMNS, rows: rows.collect() });
    report.remark(
        Severity::Note,
        "a log by itself proves nothing: it counts once these registers are those of a TDX report (assay tee verify)",
    );
    report
}

const EVENT_COLUMNS: &[Column] = &[
    Column { name: "event", place: Place::Row },
    Column { name: "pcr", place: Place::Row },
    Column { name: "type", place: Place::Row },
    Column { name: "says", place: Place::Row },
    Column { name: "measured", place: Place::Below },
    Column { name: "covers", place: Place::Program },
    Column { name: "digests", place: Place::Program },
];
const CC_COLUMNS: &[Column] = &[
    Column { name: "event", place: Place::Row },
    Column { name: "rtmr", place: Place::Row },
    Column { name: "type", place: Place::Row },
    Column { name: "says", place: Place::Row },
    Column { name: "measured", place: Place::Below },
    Column { name: "covers", place: Place::Program },
];
const PREFERRED_BANKS: [HashAlgorithm; 3] =
    [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
/// Where TCG_EfiSpecIDEvent has the number of its algorithms, behind the frame of its event.
const ALGORITHMS_AT: usize = 32 + 24;
/// The index that a confidential machine's log has for its last register.
const RTMR_INDEX_LAST: u8 = 4;
