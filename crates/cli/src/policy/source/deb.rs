//! `assay policy from-deb`: the programs of Debian packages, out of the archives.
//!
//! A package (deb(5)) is an `ar` archive of three members, of which `data.tar.*` holds the files. Nothing is
//! unpacked to disk, and every length is bounded: packages come from elsewhere.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Take};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::file_list::FileList;
use crate::policy::destination::Destination;

/// Arguments of `assay policy from-deb`.
#[derive(clap::Args)]
pub struct Args {
    /// Packages, or folders that hold packages at any depth, such as a repository's pool.
    #[arg(required = true, value_name = "DEB_OR_DIR")]
    packages: Vec<PathBuf>,
    #[command(flatten)]
    to: Destination,
    /// List every file, as the kernel's policy tcb measures what root reads.
    #[arg(long)]
    all_files: bool,
    /// Keep /bin, /sbin and /lib as they are: for systems where these are no links into /usr.
    #[arg(long)]
    no_usr_merge: bool,
    /// What to call it.
    #[arg(long, default_value = "debian")]
    name: String,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut files = FileList::new(&args.name, args.all_files);
    let packages = add_packages(&mut files, &args.packages, !args.no_usr_merge)?;
    let policy = files.finish();
    args.to.write(&policy, &[]).with_context(|| format!("no program was found in {packages} packages"))
}

/// Lists the files of packages, and of those in folders; says how many packages there were.
pub fn add_packages(files: &mut FileList, paths: &[PathBuf], usr_merge: bool) -> Result<usize> {
    let mut packages = Vec::new();
    for path in paths {
        if path.is_dir() { find(path, 0, &mut packages)? } else { packages.push(path.clone()) }
    }
    packages.sort_unstable();
    let progress = indicatif::ProgressBar::new(packages.len() as u64);
    for package in &packages {
        add_package(files, package, usr_merge).with_context(|| package.display().to_string())?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(packages.len())
}

fn find(folder: &Path, depth: usize, packages: &mut Vec<PathBuf>) -> Result<()> {
    if depth > DEPTH_MAX || packages.len() > PACKAGES_MAX {
        bail!("{}: too deep, or more than {PACKAGES_MAX} packages", folder.display());
    }
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            find(&path, depth + 1, packages)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    Ok(())
}

fn add_package(files: &mut FileList, package: &Path, usr_merge: bool) -> Result<()> {
    let mut file = BufReader::new(File::open(package)?);
    let (name, size) = data_member(&mut file)?;
    let packed = file.take(size);
    let data: Box<dyn Read + '_> = match name.as_str() {
        "data.tar" => Box::new(packed),
        "data.tar.gz" => Box::new(flate2::read::GzDecoder::new(packed)),
        "data.tar.xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        "data.tar.zst" => Box::new(
            ruzstd::decoding::StreamingDecoder::new(packed)
                .map_err(|error| anyhow!("data.tar.zst: {error}"))?,
        ),
        other => bail!("{other} is packed in a way that is not known"),
    };
    add_tar(files, data.take(DATA_BYTES_MAX), usr_merge).context(name)
}

/// Skips to the member that holds the files: its name and size.
fn data_member(file: &mut impl Read) -> Result<(String, u64)> {
    let mut magic = [0; AR_MAGIC.len()];
    file.read_exact(&mut magic).ok().filter(|()| magic == *AR_MAGIC).context("this is no Debian package")?;
    for _ in 0..MEMBERS_MAX {
        let mut header = [0; AR_HEADER_BYTES];
        file.read_exact(&mut header).context("no data.tar in it")?;
        // Name in bytes 0 to 16, size in decimal in bytes 48 to 58.
        let text = |from: usize, to: usize| {
            header.get(from..to).and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim_end)
        };
        let (name, size) = (text(0, 16), text(48, 58).and_then(|size| size.parse::<u64>().ok()));
        let (Some(name), Some(size)) = (name, size) else { bail!("a member's header is broken") };
        let name = name.trim_end_matches('/');
        if name.starts_with("data.tar") {
            return Ok((name.to_owned(), size));
        }
        // Members start at even offsets.
        let skipped = std::io::copy(&mut file.by_ref().take(size + size % 2), &mut std::io::sink())?;
        if skipped < size {
            bail!("it ends in the middle of {name}");
        }
    }
    bail!("no data.tar in its first {MEMBERS_MAX} members")
}

fn add_tar(files: &mut FileList, data: Take<impl Read>, usr_merge: bool) -> Result<()> {
    let mut archive = tar::Archive::new(data);
    let (mut long_name, mut long_target) = (None, None);
    // Raw, because the crate reads long names of any length into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            tar::EntryType::GNULongName => long_name = Some(long_path(&mut entry)?),
            tar::EntryType::GNULongLink => long_target = Some(long_path(&mut entry)?),
            tar::EntryType::Regular => {
                let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                let path = measured_path(&name, usr_merge)?;
                let is_executable = entry.header().mode()? & 0o111 != 0;
                files.add(&path, is_executable, &mut entry)?;
            }
            // A hard link is another name of a file before it, whose content is not repeated.
            tar::EntryType::Link => {
                let target = long_target.take().or_else(|| entry.link_name_bytes().map(Cow::into_owned));
                let target = target.context("a link to nothing")?;
                let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
                files.add_link(&measured_path(&name, usr_merge)?, &measured_path(&target, usr_merge)?);
            }
            tar::EntryType::XHeader | tar::EntryType::XGlobalHeader => {
                bail!("it has pax headers, which Debian packages have not");
            }
            _ => (long_name, long_target) = (None, None),
        }
    }
    if archive.into_inner().limit() == 0 {
        bail!("more than {DATA_BYTES_MAX} bytes are in it");
    }
    Ok(())
}

/// The content of an entry that says the next one's name.
fn long_path(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut name = Vec::new();
    entry.take(PATH_BYTES_MAX + 1).read_to_end(&mut name)?;
    if name.len() as u64 > PATH_BYTES_MAX {
        bail!("a path has more than {PATH_BYTES_MAX} bytes");
    }
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(name)
}

/// `./bin/true` as the kernel reports it, `/usr/bin/true`.
fn measured_path(name: &[u8], usr_merge: bool) -> Result<Vec<u8>> {
    let inside = name.strip_prefix(b".").unwrap_or(name);
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    if inside.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        bail!("{:?} is no path of a package", String::from_utf8_lossy(name));
    }
    let path = [b"/", inside].concat();
    Ok(if usr_merge { merged(&path) } else { path })
}

/// Where a file is on a system whose /bin, /sbin and /lib are links into /usr.
pub fn merged(path: &[u8]) -> Vec<u8> {
    let inside = path.strip_prefix(b"/").unwrap_or(path);
    let top = inside.split(|byte| *byte == b'/').next().unwrap_or_default();
    let is_merged = MERGED.iter().any(|folder| folder.as_bytes() == top);
    [if is_merged { b"/usr/".as_slice() } else { b"/" }, inside].concat()
}

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_HEADER_BYTES: usize = 60;
/// deb(5): the data member is the third, and names that start with an underscore may stand before it.
const MEMBERS_MAX: usize = 16;
/// Twice the largest packages of Debian, those of debugging symbols.
const DATA_BYTES_MAX: u64 = 16 << 30;
/// `xz -9` needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;
/// Linux, PATH_MAX.
const PATH_BYTES_MAX: u64 = 4096;
const DEPTH_MAX: usize = 32;
const PACKAGES_MAX: usize = 200_000;
/// The folders that are links into /usr where it is merged.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];
