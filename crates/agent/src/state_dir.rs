//! The agent's folder of private files: TPM key blobs, the enrollment, where the telemetry chain stands.
//!
//! Nothing here is secret without this machine's TPM, and still only the agent may read it. A file is written whole or
//! not at all, and one agent at a time uses the folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// The state directory could not be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file or the folder itself could not be read or written.
    #[error("{path}: {action}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent uses the folder.
    #[error("{path}: in use by another agent")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file is not what the agent wrote.
    #[error("{path}: damaged; remove it to start anew")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// The open folder; clones share it, and the last one gone releases it.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Option<Arc<File>>,
}

impl StateDir {
    /// Opens the folder, making it (0700) if it is not there, and takes it for this process.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |action| move |source| StateError::Io { path: path.to_owned(), action, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("cannot make the state directory"))?;
        let lock_path = path.join("lock");
        let lock = private_file(&lock_path).map_err(failed("cannot open the lock file"))?;
        match lock.try_lock() {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: Some(Arc::new(lock)) }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(failed("cannot lock the state directory")(source)),
        }
    }

    /// The folder for whoever reads what an agent left in it, which may run.
    pub fn look_into(path: &Path) -> StateDir {
        StateDir { path: path.to_owned(), _lock: None }
    }

    /// The same folder for whoever may be a TPM command longer there than the agent: it does not keep the next one out.
    pub(crate) fn unheld(&self) -> StateDir {
        StateDir { path: self.path.clone(), _lock: None }
    }

    /// Where a file of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file's bytes, or `None` if there is no such file. Our own files have a few kilobytes.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.read_up_to(name, FILE_BYTES_MAX)
    }

    /// The same of a file that may have so many bytes; with more it is not what the agent wrote.
    pub fn read_up_to(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path(name);
        let failed = |source| StateError::Io { path: path.clone(), action: "cannot read", source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let one_too_many = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(one_too_many).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > bytes_max {
            return Err(StateError::Damaged { path });
        }
        Ok(Some(bytes))
    }

    /// Puts a file that is of no use out of the way, for whoever wants to know what became of it. Returns where it is now.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf, StateError> {
        let (path, aside) = (self.path(name), self.path(&format!("{name}.damaged")));
        let moved = fs::rename(&path, &aside);
        moved.map_err(|source| StateError::Io { path, action: "cannot be set aside", source })?;
        Ok(aside)
    }

    /// Replaces the file (0600) so that a crash leaves the old or the new one.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        let temporary = self.path.join(format!(".{name}.new"));
        let replace = || {
            let mut file = private_file(&temporary)?;
            file.set_len(0)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        replace().map_err(|source| StateError::Io { path: path.clone(), action: "cannot write", source })
    }

    /// Removes the file, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { path, action: "cannot remove", source: error })
            }
            _ => Ok(()),
        }
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

const FILE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        assert_eq!(state.read("ak.key").unwrap(), None);
        state.write("ak.key", b"first, and longer").unwrap();
        state.write("ak.key", b"second").unwrap();
        assert_eq!(state.read("ak.key").unwrap().unwrap(), b"second");
        let mode = fs::metadata(state.path("ak.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(state.read_up_to("ak.key", 6).unwrap().unwrap(), b"second");
        assert!(
            matches!(state.read_up_to("ak.key", 5), Err(StateError::Damaged { .. })),
            "never a part of it"
        );
        state.remove("ak.key").unwrap();
        state.remove("ak.key").unwrap();
        assert_eq!(state.read("ak.key").unwrap(), None);
    }

    #[test]
    fn one_agent_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        assert!(matches!(StateDir::open(folder.path()), Err(StateError::InUse { .. })));
        drop(first);
        StateDir::open(folder.path()).unwrap();
    }
}
