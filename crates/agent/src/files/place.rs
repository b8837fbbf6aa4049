//! A file in the place of an old one: whole, with its mode and owner before its content.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Whose a file is, by number; `None`: whose the program is that writes it.
pub(crate) type Owner = Option<(u32, Option<u32>)>;

/// A file that was written beside its place, and is not there yet.
#[derive(Debug)]
pub(crate) struct Beside {
    beside: PathBuf,
    path: PathBuf,
}

impl Beside {
    /// Writes it. One that nobody puts into its place is removed.
    pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> io::Result<Beside> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let placed = Beside { beside: beside.into(), path: path.to_owned() };
        // One that was left behind may be anybody's to read.
        remove(&placed.beside)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode & 0o600).open(&placed.beside)?;
        if let Some((user, group)) = owner {
            fchown(&file, Some(user), group)?;
        }
        // The process' mask does not narrow what was asked for.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(placed)
    }

    /// Puts it where it belongs.
    pub(crate) fn put(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = remove(&self.beside);
    }
}

/// Makes what was put into a folder, and what was removed from it, last.
pub(crate) fn settle(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file; true if it was there.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_read_by_whom_it_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svid.key");
        fs::write(folder.path().join("svid.key.new"), "left behind").unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        Beside::write(&path, b"one", 0o600, None).unwrap().put().unwrap();
        assert_eq!(mode(), 0o600);
        Beside::write(&path, b"two", 0o640, None).unwrap().put().unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode()), (b"two".as_slice(), 0o640));
        drop(Beside::write(&path, b"three", 0o640, None).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("svid.key"), folder.path().join("precious"));
        fs::write(&other, "precious").unwrap();
        for link in [path.clone(), folder.path().join("svid.key.new")] {
            std::os::unix::fs::symlink(&other, link).unwrap();
        }
        Beside::write(&path, b"key", 0o600, None).unwrap().put().unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}
