//! Files only the server's user can read, replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use assay_identity::PrivateKey;
use assay_identity::bundle::pem_certificates;
use assay_identity::key::KeyError;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use super::KeysError;

/// What went wrong with which file.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file system said no.
    #[error("{}: cannot {what}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "{}: its mode is {mode:o}, so others may have read or changed it. If nobody did: chmod 600",
        path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another server has the data folder.
    #[error("{}: another server is running on this data folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The key in it does not read.
    #[error("{}: not a key of ours", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// The ledger's key in it does not read.
    #[error("{}: not a key that signs the ledger", path.display())]
    LedgerKey {
        /// Which file.
        path: PathBuf,
    },
    /// The certificate in it does not read.
    #[error("{}: not a PEM certificate", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
}

/// Makes a folder for its owner alone.
pub(crate) fn private_folder(folder: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Io { path: folder.to_owned(), what: "be made private", source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Makes the data folder and keeps other servers out of it: the audit trail has one writer.
pub(crate) fn take_data_folder(data: &Path) -> Result<File, FileError> {
    private_folder(data)?;
    let path = data.join("lock");
    let lock = File::create(&path).map_err(|source| FileError::Io { path, what: "be made", source })?;
    lock.try_lock().map_err(|_| FileError::InUse { path: data.to_owned() })?;
    Ok(lock)
}

/// Writes a file for its owner alone.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    write(path, contents, 0o600)
}

/// Writes a file for everyone to read.
pub(crate) fn write_public(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    write(path, contents, 0o644)
}

/// Reads a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Io { path: path.to_owned(), what: "be read", source }),
    }
}

/// Reads a file that is for its owner alone; one that others may read or write is refused, as they may have.
pub(super) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let contents = read(path)?;
    let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if contents.is_some() && mode & 0o077 != 0 {
        return Err(FileError::Open { path: path.to_owned(), mode: mode & 0o777 });
    }
    Ok(contents)
}

/// Reads a secret that somebody named, which has to be there, and for its owner alone.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let missing = || FileError::Io {
        path: path.to_owned(),
        what: "be read",
        source: std::io::ErrorKind::NotFound.into(),
    };
    read_private(path)?.ok_or_else(missing)
}

/// Saves a key and its certificate. The key comes first: a certificate without its key is of no use.
pub(super) fn save(folder: &Path, name: &str, key: &PrivateKey, certificate: &[u8]) -> Result<(), FileError> {
    write_private(&folder.join(format!("{name}.key")), key.to_pem().as_bytes())?;
    write_private(&folder.join(format!("{name}.pem")), pem_certificates([certificate]).as_bytes())
}

/// Loads a key and its certificate; `None` unless both are there.
pub(super) fn load(folder: &Path, name: &str) -> Result<Option<(PrivateKey, Vec<u8>)>, FileError> {
    load_with(folder, name, PrivateKey::from_pem)
}

/// The same of a key that is read so.
pub(super) fn load_with(
    folder: &Path,
    name: &str,
    read_key: fn(&[u8]) -> Result<PrivateKey, KeyError>,
) -> Result<Option<(PrivateKey, Vec<u8>)>, FileError> {
    let (key_path, certificate_path) =
        (folder.join(format!("{name}.key")), folder.join(format!("{name}.pem")));
    let (Some(key), Some(certificate)) = (read_private(&key_path)?, read(&certificate_path)?) else {
        return Ok(None);
    };
    let key = read_key(&key).map_err(|source| FileError::Key { path: key_path, source })?;
    let certificate = CertificateDer::from_pem_slice(&certificate)
        .map_err(|_| FileError::Certificate { path: certificate_path })?;
    Ok(Some((key, certificate.to_vec())))
}

/// Loads a key that has no certificate, or makes it; deleting its file makes another.
pub(super) fn signing_key(folder: &Path, name: &str) -> Result<PrivateKey, KeysError> {
    private_folder(folder)?;
    let path = folder.join(name);
    if let Some(pem) = read_private(&path)? {
        return Ok(PrivateKey::from_pem(&pem).map_err(|source| FileError::Key { path, source })?);
    }
    let key = PrivateKey::generate()?;
    write_private(&path, key.to_pem().as_bytes())?;
    Ok(key)
}

/// To the disk under another name, then renamed: a crash leaves the old file or the new one.
fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), what: "be written", source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new).map_err(failed)?;
    // The mode above counts only for a file that was not there.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}
