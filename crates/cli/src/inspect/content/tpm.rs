//! A TPM's small structures: signatures, public areas, Names, and PCR values.

use assay_evidence::tpm::name::Name;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::tpm::public_area::{Attributes, PublicArea};
use assay_evidence::tpm::signature::Signature;
use assay_evidence::{Digest, Failure, HashAlgorithm, PcrIndex};

use super::boot_log::pcrs;
use super::report::{Report, Severity, Value};
use super::{Context, Fault, malformed};

/// A signature scheme, and a hash.
pub(super) fn begins_signature(head: &[u8], _is_all: bool) -> bool {
    matches!(word(head, 0), Some(0x0014 | 0x0016 | 0x0018))
        && word(head, 2).is_some_and(|id| HashAlgorithm::from_tpm_id(id).is_some())
}

/// Reads a TPMT_SIGNATURE.
pub(super) fn read_signature(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let signature = Signature::parse(bytes).map_err(|error| malformed("a TPM's signature", error))?;
    let algorithm = signature.algorithm().to_string();
    let mut report = Report::new("signature", format!("signature of a TPM, {algorithm}"))
        .with("algorithm", algorithm)
        .with("bytes", bytes.len());
    if signature.algorithm().hash == HashAlgorithm::Sha1 {
        report.remark(
            Severity::Warning,
            "it is over SHA-1, under which two statements can be made to have one signature",
        );
    }
    report.remark(Severity::Note, "what it is over is another file (assay appraise verifies both)");
    Ok(report)
}

/// A length, and RSA or ECC with a hash that makes Names.
pub(super) fn begins_public_area(head: &[u8], is_all: bool) -> bool {
    let length = word(head, 0).map(usize::from);
    let fits = is_all && length == head.len().checked_sub(2);
    fits && begins_area(head.get(2..).unwrap_or_default()) || (is_all && begins_area(head))
}

fn begins_area(head: &[u8]) -> bool {
    matches!(word(head, 0), Some(0x0001 | 0x0023))
        && word(head, 2).is_some_and(|id| HashAlgorithm::from_tpm_id(id).is_some())
}

/// Reads a TPM2B_PUBLIC, or the TPMT_PUBLIC in it.
pub(super) fn read_public_area(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let parsed = if begins_area(bytes) { PublicArea::parse(bytes) } else { PublicArea::parse_tpm2b(bytes) };
    let area = parsed.map_err(|error| malformed("a public area", error))?;
    let attributes = area.attributes();
    let (what, broken) = role(&area);
    let set = ATTRIBUTES.iter().filter(|(attribute, _)| attributes.contains(*attribute));
    let mut report = Report::new("public-area", format!("public area of {what}, {}", area.key()))
        .with("name", area.name().to_hex())
        .with("key", area.key().to_string())
        .with("spki_sha256", HashAlgorithm::Sha256.hash(&[&area.spki_der()]).to_hex())
        .with("name_algorithm", area.name_algorithm().name())
        .with("attributes", Value::list(set.map(|(_, name)| *name)))
        .with("scheme", Value::of(area.scheme().map(|scheme| scheme.to_string())))
        .with("symmetric_bits", Value::of(area.symmetric().map(|cipher| u64::from(cipher.bits))));
    for failure in broken {
        report.remark(
            Severity::Warning,
            format!("{}: expected {}, found {}", failure.claim, failure.expected, failure.found),
        );
    }
    report.remark(Severity::Note, "what it says is worth something once a TPM vouches for it");
    Ok(report)
}

/// What kind of key it is by its attributes, and what of that kind's rules it breaks.
fn role(area: &PublicArea) -> (&'static str, Vec<Failure>) {
    let has = |attribute| area.attributes().contains(attribute);
    match (has(Attributes::RESTRICTED), has(Attributes::SIGN), has(Attributes::DECRYPT)) {
        (true, false, true) => ("an endorsement or storage key", area.check_ek()),
        (true, true, false) => ("an attestation key", area.check_ak()),
        (false, true, false) => ("a signing key", area.check_device_key()),
        _ => ("a key for other uses", Vec::new()),
    }
}

/// An algorithm and a digest of just its length.
pub(super) fn begins_name(head: &[u8], is_all: bool) -> bool {
    is_all && Name::from_bytes(head).is_some()
}

/// Reads a Name.
pub(super) fn read_name(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let name = Name::from_bytes(bytes).ok_or_else(|| malformed("a Name", "no digest of its length"))?;
    Ok(describe_name(&name))
}

/// What a Name says.
pub(super) fn describe_name(name: &Name) -> Report {
    let id = word(name.as_bytes(), 0).and_then(HashAlgorithm::from_tpm_id);
    Report::new("name", "Name of an object in a TPM")
        .with("name", name.to_hex())
        .with("algorithm", Value::of(id.map(HashAlgorithm::name)))
}

/// A TPML_PCR_SELECTION as a tool's memory has it: a count, and then a bank that exists.
pub(super) fn begins_pcr_file(head: &[u8], _is_all: bool) -> bool {
    let bank = head.get(4..6).and_then(|id| id.try_into().ok()).map(u16::from_le_bytes);
    matches!(head, [1..=16, 0, 0, 0, ..])
        && bank.and_then(HashAlgorithm::from_tpm_id).is_some()
        && matches!(head.get(6), Some(1..=4))
}

/// Reads a `.pcrs` file.
pub(super) fn read_pcr_file(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let (selection, values) = PcrValues::from_tpm2_tools(bytes)
        .map_err(|error| malformed("PCR values as tpm2-tools write them", error))?;
    let digests = HashAlgorithm::ALL.map(|hash| {
        let ordered: Option<Vec<&[u8]>> =
            selection.iter().map(|(bank, index)| values.get(bank, index).map(Digest::as_bytes)).collect();
        (hash.name(), Value::of(ordered.map(|ordered| hash.hash(&ordered).to_hex())))
    });
    let mut report = Report::new("pcr-values", format!("PCR values, {selection}"))
        .with("selection", selection.to_string())
        .with("pcrs", pcrs(&values))
        .with("quoted_as", Value::group(digests));
    report.remark(
        Severity::Note,
        "values by themselves prove nothing: a quote over them has one of these digests as its pcr_digest",
    );
    Ok(report)
}

/// Twenty-four digests, of which 17 to 22 are all ones, as they are until a late launch (PC Client Platform TPM
/// Profile, 4.6).
pub(super) fn begins_pcr_bank(head: &[u8], is_all: bool) -> bool {
    is_all && bank_of(head).is_some()
}

fn bank_of(bytes: &[u8]) -> Option<HashAlgorithm> {
    let count = usize::from(PcrIndex::COUNT);
    let bank = HashAlgorithm::ALL.into_iter().find(|bank| bank.len() * count == bytes.len())?;
    let late = bytes.get(bank.len() * 17..bank.len() * 23)?;
    late.iter().all(|byte| *byte == 0xff).then_some(bank)
}

/// Reads the PCRs of one bank, one after the other.
pub(super) fn read_pcr_bank(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let bank =
        bank_of(bytes).ok_or_else(|| malformed("the PCRs of one bank", "no bank has so many bytes"))?;
    let indexes = (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new);
    let values = indexes.zip(bytes.chunks_exact(bank.len()));
    let values: PcrValues =
        values.filter_map(|(index, value)| Some((index, Digest::new(bank, value)?))).collect();
    Ok(Report::new("pcr-values", format!("the {} PCRs of bank {bank}", values.len()))
        .with("pcrs", pcrs(&values)))
}

/// A bank, and a PCR with its digits: `sha256:`, `0 : 0x…`.
pub(super) fn begins_pcr_text(head: &[u8], _is_all: bool) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line));
    let first = lines.find(|line| !line.trim().is_empty());
    first.is_some_and(|line| bank_line(&line).is_some())
}

fn bank_line(line: &str) -> Option<HashAlgorithm> {
    let name = line.trim().strip_suffix(':')?;
    HashAlgorithm::ALL.into_iter().find(|bank| bank.name() == name)
}

/// Reads PCR values as `tpm2_pcrread` prints them; a bank without values is one that the TPM does not keep.
pub(super) fn read_pcr_text(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let bad = |line: usize, what: &str| {
        malformed("PCR values as tpm2_pcrread prints them", format!("line {line}: {what}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| bad(1, "it is not text"))?;
    // The bank in which the lines are; of one that is not known here they are passed over.
    let mut bank = None;
    let mut values = Vec::new();
    for (line, words) in (1..).zip(text.lines()).filter(|(_, words)| !words.trim().is_empty()) {
        if words.trim().ends_with(':') {
            bank = Some(bank_line(words));
            continue;
        }
        let (index, digits) = words.split_once(':').ok_or_else(|| bad(line, "no bank, and no PCR"))?;
        let index = index.trim().parse().ok().and_then(PcrIndex::new);
        let Some(bank) = bank.ok_or_else(|| bad(line, "a value before any bank"))? else { continue };
        let digits = digits.trim().strip_prefix("0x").unwrap_or_default().to_ascii_lowercase();
        let value = Digest::from_text(&format!("{bank}:{digits}"));
        let (index, value) = index.zip(value).ok_or_else(|| bad(line, "no PCR with a digest of its bank"))?;
        values.push((index, value));
    }
    let count = values.len();
    let values: PcrValues = values.into_iter().collect();
    let mut report = Report::new("pcr-values", format!("{count} PCR values as tpm2_pcrread prints them"))
        .with("pcrs", pcrs(&values));
    report.remark(Severity::Note, "values by themselves prove nothing: read once, without a quote over them");
    Ok(report)
}

/// Two bytes in the TPM's order.
fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|word| word.try_into().ok()).map(u16::from_be_bytes)
}

const ATTRIBUTES: [(Attributes, &str); 6] = [
    (Attributes::FIXED_TPM, "fixedTPM"),
    (Attributes::FIXED_PARENT, "fixedParent"),
    (Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
    (Attributes::RESTRICTED, "restricted"),
    (Attributes::DECRYPT, "decrypt"),
    (Attributes::SIGN, "sign"),
];
