//! The files of the packages that are installed on a system, as far as dpkg says that they are as they came.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::policy::source::deb::merged;
use crate::policy::source::file_list::FileList;

/// What was found.
pub struct Installed {
    /// The files.
    pub files: FileList,
    /// Files that are not as their package has them, and are not listed.
    pub changed: BTreeSet<String>,
}

/// Lists the files of the packages of the system whose root is `root`.
pub fn installed(root: &Path, all_files: bool) -> Result<Installed> {
    let changed = changed(root)?;
    let mut files = FileList::new("installed", all_files);
    let info = root.join("var/lib/dpkg/info");
    let lists = fs::read_dir(&info).with_context(|| format!("{}: this is no Debian", info.display()))?;
    let mut seen = BTreeSet::new();
    for list in lists {
        let list = list?.path();
        if list.extension().is_none_or(|extension| extension != "list") {
            continue;
        }
        let text = fs::read(&list).with_context(|| list.display().to_string())?;
        for path in text.split(|byte| *byte == b'\n').filter(|path| path.len() > 1) {
            let measured = merged(path);
            if changed.contains(String::from_utf8_lossy(path).as_ref()) || !seen.insert(measured.clone()) {
                continue;
            }
            add(&mut files, root, &measured)
                .with_context(|| String::from_utf8_lossy(&measured).into_owned())?;
        }
    }
    if files.len() == 0 {
        bail!("{}: dpkg knows of no program there", root.display());
    }
    Ok(Installed { files, changed })
}

/// Lists a file where it really is; links and folders are none.
fn add(files: &mut FileList, root: &Path, measured: &[u8]) -> Result<()> {
    let inside = Path::new(std::ffi::OsStr::from_bytes(measured.strip_prefix(b"/").unwrap_or(measured)));
    let path: PathBuf = root.join(inside);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(()) };
    if !metadata.is_file() {
        return Ok(());
    }
    let is_executable = metadata.permissions().mode() & 0o111 != 0;
    // A file that grows while it is read is not read for ever.
    files.add(measured, is_executable, File::open(&path)?.take(metadata.len()))
}

/// What dpkg finds changed. Its digests are of MD5, and whoever is root can write them: it is a check against accidents.
fn changed(root: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new("dpkg")
        .arg(format!("--root={}", root.display()))
        .arg("--verify")
        .env("LC_ALL", "C")
        .output()
        .context("dpkg cannot be run: use --mirror with the packages of the system")?;
    // It ends with 1 where it found something.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("dpkg --verify: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(verified_path).map(str::to_owned).collect())
}

/// The path of a line such as `??5?????? c /etc/issue`; `None` for what is not there at all.
fn verified_path(line: &str) -> Option<&str> {
    let (flags, rest) = line.split_at_checked(FLAGS_BYTES)?;
    (!flags.starts_with("missing")).then_some(())?;
    let path = rest.get(MARK_BYTES..)?;
    path.starts_with('/').then_some(path)
}

const FLAGS_BYTES: usize = 9;
/// A space, what kind of file it is, a space.
const MARK_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_dpkg_are_read() {
        assert_eq!(verified_path("??5?????? c /etc/issue"), Some("/etc/issue"));
        assert_eq!(verified_path("??5??????   /usr/bin/a b"), Some("/usr/bin/a b"));
        assert_eq!(verified_path("missing     /usr/share/doc/x"), None);
        assert_eq!(verified_path("dpkg: error"), None);
        assert_eq!(verified_path(""), None);
    }
}
