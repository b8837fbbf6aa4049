//! `assay policy allow-kernel`: a kernel and its initial ramdisk, by their files, in a policy of rules.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_evidence::{Digest, HashAlgorithm};
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};

use super::destination::Destination;
use super::text;

/// Arguments of `assay policy allow-kernel`.
#[derive(clap::Args)]
pub struct Args {
    /// The policy, learned with --boot rules.
    policy: PathBuf,
    /// The kernel's file, such as /boot/vmlinuz-6.1.0-56-amd64.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// Its initial ramdisk (may be repeated: each file that the boot loader reads for it).
    #[arg(long = "initrd", value_name = "FILE", required = true)]
    initrds: Vec<PathBuf>,
    /// Accept no other kernel any more. Otherwise the ones before stay good, each with its own initial ramdisk.
    #[arg(long)]
    only: bool,
    #[command(flatten)]
    to: Destination,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut policy = text::read(&args.policy)?;
    let before = policy.clone();
    let paths = std::iter::once(&args.kernel).chain(&args.initrds);
    let files: Vec<Vec<Digest>> =
        paths.map(|path| digests(path).with_context(|| path.display().to_string())).collect::<Result<_>>()?;
    policy.allow_kernel(&files, args.only)?;
    policy.version += u64::from(policy != before);
    args.to.write(&policy, &[])
}

/// What boot loaders and the kernel's stub measure of a file: the whole of it, in any bank.
fn digests(path: &Path) -> Result<Vec<Digest>> {
    let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
    let mut contexts = [&SHA256, &SHA384, &SHA512].map(digest::Context::new);
    let (mut buffer, mut length) = (vec![0; BUFFER_BYTES], 0u64);
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        length += read as u64;
        let bytes = buffer.get(..read).unwrap_or_default();
        contexts.iter_mut().for_each(|context| context.update(bytes));
    }
    if length == 0 || length > FILE_BYTES_MAX {
        bail!("a kernel or an initial ramdisk has 1 to {FILE_BYTES_MAX} bytes");
    }
    let algorithms = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
    let digests = algorithms.into_iter().zip(contexts);
    Ok(digests.filter_map(|(algorithm, context)| Digest::new(algorithm, context.finish().as_ref())).collect())
}

/// Initial ramdisks with all firmware have some 200 MiB.
const FILE_BYTES_MAX: u64 = 4 << 30;
const BUFFER_BYTES: usize = 1 << 16;
