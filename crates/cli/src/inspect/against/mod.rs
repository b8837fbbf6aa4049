//! Two files of one kind against each other, or a log against the PCR values that it should lead to.
//!
//! Boot logs, IMA lists, policies, bundles and revocation lists are compared by what they mean; everything else by what its
//! report says (`said.rs`), and by its bytes where the report does not tell them apart.

mod certificates;
mod policy;
mod revocation;
mod said;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use assay_evidence::boot_log;
use assay_evidence::ima::{self, List, ListForm, QuotedPcr, Replay, attested_prefix};
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use assay_trust::change::{describe_boot_logs, describe_ima_lists};
use serde::Serialize;
use serde_json::json;

use super::content::report::{Report, Value};
use super::content::{self, Context};
use super::{open, sentence};
use crate::output;

/// One thing that changed.
#[derive(Serialize)]
struct Difference {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A file that was read.
struct Subject {
    report: Report,
    bytes: Vec<u8>,
}

/// Whether nothing changed from `earlier` to the only file.
pub(super) fn run(files: &[PathBuf], earlier: &Path, as_json: bool, context: &Context) -> Result<bool> {
    let [file] = files else { bail!("--against compares one file with one: name one FILE") };
    if [file.as_path(), earlier].iter().all(|path| path.as_os_str() == "-") {
        bail!("standard input is one file and can be read once: name the other");
    }
    let (before, after) = (subject(earlier, context)?, subject(file, context)?);
    let differences = compare(&before, &after)?;
    if as_json {
        output::json(&json!({
            "file": file, "against": earlier, "kind": after.report.kind, "differences": differences,
        }))?;
        return Ok(differences.is_empty());
    }
    let (now, then) = (file.display(), earlier.display());
    match differences.is_empty() {
        true if before.report.kind != after.report.kind => output::out!("{now} leads to {then}"),
        true => output::out!("{now} says the same as {then}"),
        false => output::out!("{now} against {then}"),
    }
    differences.iter().for_each(print);
    Ok(differences.is_empty())
}

fn print(difference: &Difference) {
    let Difference { what, before, after, message } = difference;
    output::out!("\n  {}", Value::from(what.as_str()).line());
    if let Some(message) = message {
        output::out!("    {}", Value::from(message.as_str()).line());
        return;
    }
    for (word, value) in [("before", before), ("after", after)] {
        let line = value.as_ref().map_or_else(|| "-".to_owned(), |value| Value::from(value.as_str()).line());
        output::out!("    {word:6} {line}");
    }
}

fn subject(file: &Path, context: &Context) -> Result<Subject> {
    let mut bytes = Vec::new();
    let mut input = std::io::Read::take(open(file).with_context(|| file.display().to_string())?, BYTES_MAX);
    std::io::Read::read_to_end(&mut input, &mut bytes).with_context(|| file.display().to_string())?;
    if bytes.starts_with(content::GZIP_MAGIC) {
        let mut unpacked = Vec::new();
        let mut decoder = std::io::Read::take(flate2::read::MultiGzDecoder::new(bytes.as_slice()), BYTES_MAX);
        std::io::Read::read_to_end(&mut decoder, &mut unpacked)
            .with_context(|| file.display().to_string())?;
        bytes = unpacked;
    }
    if bytes.len() as u64 >= BYTES_MAX {
        bail!(
            "{}: it is longer than the {} bytes that are compared; without --against it is read to its end",
            file.display(),
            BYTES_MAX - 1
        );
    }
    if bytes.starts_with(content::GZIP_MAGIC) {
        bail!("{}", sentence(file, &content::Fault::PackedTwice));
    }
    match content::inspect(&mut Cursor::new(&bytes), context, &mut |_, _| {}) {
        Ok(report) => Ok(Subject { report, bytes }),
        Err(fault) => bail!("{}", sentence(file, &fault)),
    }
}

fn compare(before: &Subject, after: &Subject) -> Result<Vec<Difference>> {
    match (before.report.kind, after.report.kind) {
        ("boot-log", "boot-log") => compare_boot_logs(before, after),
        ("ima-list", "ima-list") => compare_ima_lists(before, after),
        ("pcr-values", "boot-log") => Ok(compare_values(before, after, "pcrs")),
        ("tdx-quote", "cc-log") => Ok(compare_values(before, after, "registers")),
        ("pcr-values", "ima-list") => compare_list_with_pcrs(before, after),
        ("crl", "crl") => revocation::compare(before, after),
        _ if certificates::are_several(before, after) => Ok(certificates::compare(before, after)),
        _ if policy::is_policy(before) && policy::is_policy(after) => policy::compare(before, after),
        (old, new) if old == new => Ok(compare_reports(before, after)),
        (old, new) => bail!("these cannot be compared: before it is {old}, and now {new}"),
    }
}

fn of_changes(changes: Vec<assay_trust::change::Change>) -> Vec<Difference> {
    let difference = |change: assay_trust::change::Change| Difference {
        what: change.cause.to_string(),
        before: change.before,
        after: change.after,
        message: Some(change.message),
    };
    changes.into_iter().map(difference).collect()
}

fn compare_boot_logs(before: &Subject, after: &Subject) -> Result<Vec<Difference>> {
    let (old, new) = (boot_log::parse(&before.bytes)?, boot_log::parse(&after.bytes)?);
    let bank = content::boot_log::bank_of(&new);
    if !old.banks().contains(&bank) {
        bail!("the logs have no bank in common by which they could be compared");
    }
    Ok(of_changes(describe_boot_logs(&old, &new, bank)))
}

fn compare_ima_lists(before: &Subject, after: &Subject) -> Result<Vec<Difference>> {
    Ok(of_changes(describe_ima_lists(&parse_list(before)?, &parse_list(after)?)))
}

fn parse_list(subject: &Subject) -> Result<List> {
    Ok(match ListForm::of(&subject.bytes) {
        Some(ListForm::Ascii) => ima::parse_ascii(&subject.bytes)?,
        _ => ima::parse_binary(&subject.bytes)?,
    })
}

/// The PCRs or registers that a boot log leads to against those that were read or quoted; others are none of its business.
fn compare_values(pcrs: &Subject, log: &Subject, member: &str) -> Vec<Difference> {
    let logged = said::values(&log.report, member);
    let differs = |(name, value): (String, String)| {
        let found = logged.get(&name).filter(|found| **found != value)?;
        Some(Difference {
            what: name,
            before: Some(value),
            after: Some(found.clone()),
            message: Some(
                "the log does not lead to this value: it is of another boot, or not whole, or altered"
                    .to_owned(),
            ),
        })
    };
    said::values(&pcrs.report, member).into_iter().filter_map(differs).collect()
}

/// The list against the values of the PCRs that it was measured into; a list may have gone on since they were read.
fn compare_list_with_pcrs(pcrs: &Subject, list: &Subject) -> Result<Vec<Difference>> {
    let list = parse_list(list)?;
    let named = |(name, value): (String, String)| {
        let (bank, index) = name.rsplit_once('.')?;
        let index = PcrIndex::new(index.parse().ok()?).filter(|index| list.pcrs().contains(*index))?;
        Some((index, Digest::from_text(&format!("{bank}:{value}"))?))
    };
    let quoted: Vec<QuotedPcr> = said::values(&pcrs.report, "pcrs").into_iter().filter_map(named).collect();
    let missing: Vec<String> = (list.pcrs().iter())
        .filter(|index| quoted.iter().all(|(of, _)| of != index))
        .map(|index| index.to_string())
        .collect();
    if !missing.is_empty() || quoted.is_empty() {
        bail!(
            "there is no PCR {} among the values, so nothing shows what the list leads to",
            missing.join(", ")
        );
    }
    let mut start = Replay::new(&[]);
    quoted.iter().for_each(|(index, value)| start.begin(*index, value.algorithm().zero()));
    let (prefix, _) = attested_prefix(&list, &start, &quoted);
    let mut indexes: Vec<String> = quoted.iter().map(|(index, _)| index.to_string()).collect();
    indexes.dedup();
    let difference = |after: &str, message: &str| Difference {
        what: format!("PCR {}", indexes.join(", ")),
        before: Some(quoted.iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>().join(", ")),
        after: Some(after.to_owned()),
        message: Some(message.to_owned()),
    };
    Ok(match prefix {
        Some(prefix) if prefix.entries == list.len() => Vec::new(),
        Some(prefix) => vec![difference(
            &format!("entry {} of {}", prefix.entries, list.len()),
            &format!(
                "the values cover the first {} of {} entries: the others came later",
                prefix.entries,
                list.len()
            ),
        )],
        None => vec![difference(
            "no entry",
            "no beginning of the list leads to these values: it is of another boot, or not whole, or altered",
        )],
    })
}

fn compare_reports(before: &Subject, after: &Subject) -> Vec<Difference> {
    let differences = said::compare(&before.report, &after.report, |_| true);
    let is_told_apart = IDENTIFIED_BY_REPORT.contains(&after.report.kind);
    if !differences.is_empty() || is_told_apart || before.bytes == after.bytes {
        return differences;
    }
    let sha256 = |subject: &Subject| Some(HashAlgorithm::Sha256.hash(&[&subject.bytes]).to_hex());
    vec![Difference {
        what: "sha256".to_owned(),
        before: sha256(before),
        after: sha256(after),
        message: Some("the files differ in what is not shown here, such as a signature".to_owned()),
    }]
}

/// Kinds of which the report has all there is, or a hash over it: PEM and DER of one certificate are the same.
const IDENTIFIED_BY_REPORT: &[&str] = &[
    "public-area",
    "public-key",
    "name",
    "hex",
    "pcr-values",
    "ek-certificate",
    "platform-certificate",
    "platform-attribute-certificate",
    "attribute-certificate",
    "certificate",
    "ca-certificate",
    "svid",
    "spiffe-authority",
    "jwk-set",
];
/// The longest IMA list that is compared, and one byte.
const BYTES_MAX: u64 = ima::LIST_BYTES_MAX as u64 + 1;
