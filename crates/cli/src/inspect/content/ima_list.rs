//! IMA lists of any length: entry by entry, with what is worth knowing of them counted.

use std::collections::BTreeMap;
use std::io::Read;

use assay_evidence::ima::{Entry, EntryStream, Extension, ListForm, PCR, Replay};
use assay_evidence::tpm::pcr::PcrSet;
use assay_evidence::{HashAlgorithm, PcrIndex};

use super::report::{Report, Severity, Value};
use super::{EachEntry, Fault, malformed};

/// Reads a list to its end.
pub(super) fn read(head: Vec<u8>, rest: &mut dyn Read, each: EachEntry<'_>) -> Result<Report, Fault> {
    let form = ListForm::of(&head).unwrap_or(ListForm::Ascii);
    let mut stream = EntryStream::new(form);
    let mut seen = Seen::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    stream.push(&head);
    loop {
        while let Some(entry) = stream.next_entry().map_err(|error| malformed("an IMA list", error))? {
            each(seen.entries, &entry);
            seen.take(&entry);
        }
        match rest.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => stream.push(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    stream.finish();
    while let Some(entry) = stream.next_entry().map_err(|error| malformed("an IMA list", error))? {
        each(seen.entries, &entry);
        seen.take(&entry);
    }
    Ok(seen.report(form, stream.template_hash().unwrap_or(HashAlgorithm::Sha1)))
}

/// What was seen of a list.
struct Seen {
    entries: usize,
    /// The PCRs that entries were measured into.
    pcrs: PcrSet,
    replay: Replay,
    templates: BTreeMap<String, usize>,
    algorithms: BTreeMap<String, usize>,
    signing_keys: BTreeMap<String, usize>,
    boot_aggregates: Vec<String>,
    signed: usize,
    verity: usize,
    violations: Names,
    wrong_digests: Names,
    buffers: Names,
    keys: Names,
}

/// How many there are, and the first of them by name.
#[derive(Default)]
struct Names {
    count: usize,
    first: Vec<String>,
}

impl Names {
    fn add(&mut self, entry: usize, name: &str) {
        self.count += 1;
        if self.first.len() < NAMES_MAX {
            self.first.push(format!("entry {entry}: {name}"));
        }
    }

    fn value(&self) -> Value {
        Value::group([
            ("count", Value::from(self.count)),
            ("first", Value::list(self.first.iter().map(String::as_str))),
        ])
    }
}

impl Seen {
    fn new() -> Self {
        Seen {
            entries: 0,
            pcrs: PcrSet::default(),
            replay: Replay::new(&HashAlgorithm::ALL),
            templates: BTreeMap::new(),
            algorithms: BTreeMap::new(),
            signing_keys: BTreeMap::new(),
            boot_aggregates: Vec::new(),
            signed: 0,
            verity: 0,
            violations: Names::default(),
            wrong_digests: Names::default(),
            buffers: Names::default(),
            keys: Names::default(),
        }
    }

    fn take(&mut self, entry: &Entry<'_>) {
        let number = self.entries;
        if !self.pcrs.contains(entry.pcr()) {
            self.pcrs.insert(entry.pcr());
            if entry.pcr() != PcrIndex::IMA {
                HashAlgorithm::ALL.iter().for_each(|bank| self.replay.begin(entry.pcr(), bank.zero()));
            }
        }
        self.entries += 1;
        let name = entry.path_text();
        if !self.replay.extend(entry) {
            self.wrong_digests.add(number, &name);
        }
        count(&mut self.templates, entry.template().name());
        if entry.is_violation() {
            self.violations.add(number, &name);
            return;
        }
        let (algorithm, _) = entry.stated_digest();
        count(&mut self.algorithms, algorithm);
        if entry.is_boot_aggregate() && self.boot_aggregates.len() < NAMES_MAX {
            let digest = entry.file_digest().map(|digest| digest.to_string());
            self.boot_aggregates.push(format!("entry {number}: {}", digest.unwrap_or_default()));
        }
        if entry.verity_digest().is_some() {
            self.verity += 1;
        }
        if let Some(signature) = entry.signature() {
            self.signed += 1;
            count(&mut self.signing_keys, &data_encoding::HEXLOWER.encode(&signature.key_id));
        }
        if entry.measured_key().is_some() {
            self.keys.add(number, &name);
        } else if !entry.buffer().is_empty() {
            self.buffers.add(number, &name);
        }
    }

    fn report(self, form: ListForm, template_hash: HashAlgorithm) -> Report {
        let form = match form {
            ListForm::Binary(_) => "binary",
            ListForm::Ascii => "ascii",
        };
        let counts = |counts: &BTreeMap<String, usize>| {
            Value::group(counts.iter().map(|(name, count)| (name.clone(), *count)))
        };
        let title =
            format!("IMA list, {form}, {} entries, {} violations", self.entries, self.violations.count);
        let mut report = Report::new("ima-list", title)
            .with("form", form)
            .with("entries", self.entries)
            .with("template_hash", template_hash.name())
            .with("templates", counts(&self.templates))
            .with("file_digests", counts(&self.algorithms))
            .with("boot_aggregates", Value::list(self.boot_aggregates.iter().map(String::as_str)))
            .with("violations", self.violations.value())
            .with("wrong_template_digests", self.wrong_digests.value())
            .with("signed", self.signed)
            .with("signing_keys", counts(&self.signing_keys))
            .with("fs_verity", self.verity)
            .with("measured_keys", self.keys.value())
            .with("measured_data", self.buffers.value())
            .with("pcr10", self.led_to(PcrIndex::IMA));
        for pcr in self.pcrs.iter().filter(|pcr| *pcr != PcrIndex::IMA) {
            report = report.with(format!("pcr{pcr}"), self.led_to(pcr));
        }
        self.remarks(&mut report);
        report
    }

    /// A PCR of each bank, extended as kernels do.
    fn led_to(&self, pcr: PcrIndex) -> Value {
        Value::group(self.replay.chains().iter().filter(|chain| chain.pcr == pcr).map(|chain| {
            let bank = chain.value.algorithm().name();
            let name = match chain.extension {
                Extension::Native => bank.to_owned(),
                Extension::Sha1Padded => format!("{bank}_sha1_padded"),
            };
            (name, chain.value.to_hex())
        }))
    }

    fn remarks(&self, report: &mut Report) {
        report.remark(
            Severity::Note,
            format!(
                "a list by itself proves nothing: it counts as far as PCR {PCR} of a fresh quote is one of these values \
                 (assay appraise)"
            ),
        );
        let others: Vec<String> =
            self.pcrs.iter().filter(|p| *p != PcrIndex::IMA).map(|p| p.to_string()).collect();
        if !others.is_empty() {
            report.remark(
                Severity::Warning,
                format!(
                    "entries are measured into PCR {} (`pcr=` in the kernel's IMA policy, or CONFIG_IMA_MEASURE_PCR_IDX): \
                     a policy has to name it in ima.pcrs, and what else extended it before is not in the value here",
                    others.join(", ")
                ),
            );
        }
        if self.wrong_digests.count > 0 {
            report.remark(
                Severity::Error,
                format!(
                    "{} entries have another template digest than their data hash to: they were altered, or the digests \
                     are of an algorithm that is not known here",
                    self.wrong_digests.count
                ),
            );
        }
        if self.violations.count > 0 {
            report.remark(
                Severity::Warning,
                format!(
                    "{} files were written while they were measured, so nobody knows what was read of them",
                    self.violations.count
                ),
            );
        }
        match self.boot_aggregates.len() {
            0 => report
                .remark(Severity::Warning, "the list has no boot_aggregate, so it is only a part of one"),
            1 => {}
            more => report.remark(
                Severity::Note,
                format!("{more} entries are boot_aggregates: kernels were started from here by kexec"),
            ),
        }
        if self.algorithms.contains_key("sha1") {
            report.remark(
                Severity::Warning,
                "files are listed by SHA-1, under which other files can be made to pass",
            );
        }
    }
}

/// Names come from the list, so there is a bound on how many are told apart.
fn count(counts: &mut BTreeMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else if counts.len() < DISTINCT_MAX {
        counts.insert(name.to_owned(), 1);
    } else {
        *counts.entry("others".to_owned()).or_default() += 1;
    }
}

/// Names that a report has of one kind.
const NAMES_MAX: usize = 20;
/// Templates, algorithms and keys that are told apart.
const DISTINCT_MAX: usize = 64;
const CHUNK_BYTES: usize = 256 << 10;
