//! The files that tests read: the project's own vectors, and recorded evidence beside the clone.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

/// A file of the project's own vectors.
pub fn vector(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Recorded evidence that may not be part of the project; says in one line that it is absent.
pub fn recorded(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/evidence/tpm").join(path);
    if !path.exists() {
        // Not `eprintln!`, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "skipped: recorded evidence {path:?} is not here");
        return None;
    }
    Some(path)
}

/// Folders of recorded cases that hold `file`, sorted.
pub fn recorded_cases(file: &str) -> Vec<PathBuf> {
    let Some(root) = recorded("") else { return Vec::new() };
    let entries = fs::read_dir(root).unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let mut cases: Vec<PathBuf> = entries.filter(|case| case.join(file).exists()).collect();
    cases.sort();
    cases
}

/// What a vector expects: a count by name, and PCR values as the TPM had them.
pub struct Expected {
    text: String,
}

impl Expected {
    /// Reads the `expected.txt` of a vector.
    pub fn of(vector_folder: &str) -> Self {
        Expected { text: String::from_utf8(vector(&format!("{vector_folder}/expected.txt"))).unwrap() }
    }

    /// The number on the line that starts with `name`.
    pub fn count(&self, name: &str) -> usize {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    }

    /// The lines `bank:index hex`.
    pub fn pcrs(&self) -> PcrValues {
        let line = |line: &str| {
            let (name, hex) = line.split_once(' ')?;
            let (bank, index) = name.split_once(':')?;
            Some((PcrIndex::new(index.parse().ok()?)?, Digest::from_text(&format!("{bank}:{hex}"))?))
        };
        self.text.lines().filter_map(line).collect()
    }
}

/// PCR values of a recorded case: `pcrs.<bank>.bin` is 24 digests.
pub fn recorded_pcrs(case: &Path) -> PcrValues {
    let mut values = PcrValues::new();
    for bank in [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384] {
        let bytes = fs::read(case.join(format!("pcrs.{bank}.bin"))).unwrap();
        for (index, digest) in bytes.chunks(bank.len()).enumerate() {
            let index = PcrIndex::new(u32::try_from(index).unwrap()).unwrap();
            values.insert(index, Digest::new(bank, digest).unwrap());
        }
    }
    values
}
