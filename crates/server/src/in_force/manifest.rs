//! The manifest in force: who may enroll that was never here, as a file says it, read again when it changes.
//!
//! One that cannot be read stops the server from starting. Later it changes nothing: what was in force stays, and the log
//! says so.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;
use thiserror::Error;

/// Who is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    ek_sha256: HashSet<String>,
    serials: HashSet<String>,
    idevid_subjects: HashSet<String>,
}

/// The same, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    /// SHA-256 of EKs' SubjectPublicKeyInfo, as `assay device pending` and `assay-agent tpm detect` show them.
    ek_sha256: Vec<String>,
    /// Serial numbers of machines, as their IDevIDs have them.
    serials: Vec<String>,
    /// Subjects of IDevIDs.
    idevid_subjects: Vec<String>,
}

impl Manifest {
    fn parse(text: &str) -> Result<Manifest, ManifestProblem> {
        let Written { ek_sha256, serials, idevid_subjects } = toml::from_str(text)?;
        let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(text) = ek_sha256.iter().find(|text| !is_hash(text)) {
            return Err(ManifestProblem::NoHash { text: text.clone() });
        }
        if serials.iter().chain(&idevid_subjects).any(|text| text.trim().is_empty()) {
            return Err(ManifestProblem::Empty);
        }
        Ok(Manifest {
            ek_sha256: ek_sha256.iter().map(|hash| hash.to_ascii_lowercase()).collect(),
            serials: serials.into_iter().collect(),
            idevid_subjects: idevid_subjects.into_iter().collect(),
        })
    }

    #[cfg(test)]
    pub(crate) fn of_serials(serials: &[&str]) -> Manifest {
        Manifest {
            serials: serials.iter().map(|serial| (*serial).to_owned()).collect(),
            ..Manifest::default()
        }
    }

    /// Whether a device is listed, by its EK's hash or by what a verified IDevID says.
    pub(crate) fn lists(&self, ek_sha256: &str, serial: &str, idevid_subject: &str) -> bool {
        self.ek_sha256.contains(ek_sha256)
            || self.serials.contains(serial)
            || self.idevid_subjects.contains(idevid_subject)
    }
}

/// The door to the manifest in force.
#[derive(Debug)]
pub(crate) struct ManifestInForce {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The file's length and time as they were when it was read; `None`: it was not there.
    seen: Option<(u64, SystemTime)>,
    current: Arc<Manifest>,
}

impl ManifestInForce {
    /// Reads the file that the configuration names; without one nobody is listed.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<ManifestInForce, ManifestError> {
        let manifest = ManifestInForce { path, state: Mutex::default() };
        if let Some(path) = &manifest.path {
            let mut state = manifest.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = State { seen: seen(path), current: Arc::new(read(path)?) };
        }
        Ok(manifest)
    }

    /// Who is listed now.
    pub(crate) fn current(&self) -> Arc<Manifest> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    /// Reads the file if it is another than before.
    pub(crate) fn read_again(&self) -> Result<(), ManifestError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seen(path);
        if found == state.seen {
            return Ok(());
        }
        state.seen = found;
        state.current = Arc::new(read(path)?);
        tracing::info!(manifest = %path.display(), "enrollment manifest read");
        Ok(())
    }
}

fn seen(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let problem = |problem| ManifestError { path: path.to_owned(), problem };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|source| problem(source.into()))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err(problem(ManifestProblem::TooLong));
    }
    Manifest::parse(&text).map_err(problem)
}

/// The manifest cannot be used.
#[derive(Debug, Error)]
#[error("{}", path.display())]
pub struct ManifestError {
    path: PathBuf,
    #[source]
    problem: ManifestProblem,
}

/// Why not.
#[derive(Debug, Error)]
pub enum ManifestProblem {
    /// It cannot be read.
    #[error("cannot be read")]
    File(#[from] std::io::Error),
    /// Not TOML, or a key that does not exist.
    #[error(transparent)]
    Text(#[from] toml::de::Error),
    /// Not a hash.
    #[error("ek_sha256: {text:?} is no SHA-256 in hex")]
    NoHash {
        /// What it is.
        text: String,
    },
    /// Nothing would be listed by it, or everything.
    #[error("serials and idevid_subjects: an empty one lists nothing")]
    Empty,
    /// Longer than any.
    #[error("more than {BYTES_MAX} bytes")]
    TooLong,
}

/// Some 400,000 hashes.
const BYTES_MAX: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_10_a_manifest_lists_by_hash_serial_and_subject_and_nothing_by_silence() {
        let hash = "AB".repeat(32);
        let text = format!("ek_sha256 = [\"{hash}\"]\nserials = [\"S-1\"]\nidevid_subjects = [\"CN=press\"]");
        let manifest = Manifest::parse(&text).unwrap();
        assert!(manifest.lists(&hash.to_lowercase(), "", ""));
        assert!(manifest.lists("00", "S-1", "") && manifest.lists("00", "", "CN=press"));
        assert!(!manifest.lists("00", "", "") && !manifest.lists("00", "CN=press", "S-1"));
        for (text, says) in [
            ("serial = [\"S-1\"]", "unknown field"),
            ("ek_sha256 = [\"abcd\"]", "no SHA-256"),
            ("serials = [\" \"]", "lists nothing"),
        ] {
            let said = Manifest::parse(text).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn year_10_a_manifest_that_does_not_read_leaves_what_was_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.toml");
        assert!(ManifestInForce::open(Some(path.clone())).is_err());
        fs::write(&path, "serials = [\"S-1\"]").unwrap();
        let manifest = ManifestInForce::open(Some(path.clone())).unwrap();
        fs::write(&path, "serials = [\"S-1\", ").unwrap();
        assert!(manifest.read_again().is_err());
        assert!(manifest.current().lists("", "S-1", ""));
        manifest.read_again().unwrap();
        fs::write(&path, "serials = [\"S-22222\"]").unwrap();
        manifest.read_again().unwrap();
        assert!(!manifest.current().lists("", "S-1", "") && manifest.current().lists("", "S-22222", ""));
    }
}
