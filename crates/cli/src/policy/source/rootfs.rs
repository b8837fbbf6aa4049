//! `assay policy from-rootfs`: the programs of a root file system.
//!
//! No link is followed, so nothing outside is read, and each file is found where it really is. That is the path the
//! kernel reports: with /bin a link to /usr/bin, `/bin/true` runs as `/usr/bin/true`.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_trust::path::as_logged;
use assay_trust::pattern::Pattern;

use super::file_list::FileList;
use crate::policy::destination::Destination;

/// Arguments of `assay policy from-rootfs`.
#[derive(clap::Args)]
pub struct Args {
    /// The root of the file system.
    root: PathBuf,
    #[command(flatten)]
    to: Destination,
    /// Leave out what this pattern covers, such as /opt/*/cache/ (may be repeated).
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<Pattern>,
    /// List every file, as the kernel's policy tcb measures what root reads.
    #[arg(long)]
    all_files: bool,
    /// What to call it.
    #[arg(long, default_value = "rootfs")]
    name: String,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    if !args.root.is_dir() {
        bail!("{} is not a folder", args.root.display());
    }
    let mut files = FileList::new(&args.name, args.all_files);
    let progress = indicatif::ProgressBar::new_spinner();
    let mut folders = vec![args.root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry.with_context(|| folder.display().to_string())?;
            let path = entry.path();
            let kind = entry.file_type().with_context(|| path.display().to_string())?;
            let measured = measured_path(&args.root, &path)?;
            if kind.is_dir() && !is_virtual(&measured) {
                folders.push(path);
            } else if kind.is_file() && !is_excluded(&args.exclude, &measured) {
                add(&mut files, &measured, &path).with_context(|| path.display().to_string())?;
                progress.set_message(format!("{} files", files.len()));
                progress.inc(1);
            }
        }
        if folders.len() > FOLDERS_MAX {
            bail!("{}: more than {FOLDERS_MAX} folders are waiting", folder.display());
        }
    }
    progress.finish_and_clear();
    let policy = files.finish();
    args.to.write(&policy, &[]).context("no program was found")
}

/// The path as a system that runs on this root has it.
fn measured_path(root: &Path, path: &Path) -> Result<Vec<u8>> {
    let inside = path.strip_prefix(root).with_context(|| format!("{} left the root", path.display()))?;
    Ok([b"/", inside.as_os_str().as_bytes()].concat())
}

fn is_excluded(exclude: &[Pattern], measured: &[u8]) -> bool {
    let logged = as_logged(measured);
    exclude.iter().any(|pattern| pattern.matches(&logged))
}

fn add(files: &mut FileList, measured: &[u8], path: &Path) -> Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // A file that grows while it is read is not read for ever.
    files.add(measured, metadata.permissions().mode() & 0o111 != 0, file.take(metadata.len()))
}

/// What the kernel makes up is no file of the system.
fn is_virtual(measured: &[u8]) -> bool {
    [b"/proc".as_slice(), b"/sys", b"/dev", b"/run"].contains(&measured)
}

/// Of one level and its ancestors' rest, far more than any system has.
const FOLDERS_MAX: usize = 1_000_000;
