//! Files for a policy's list: which of them a kernel measures as programs, and their digests.

use std::io::{ErrorKind, Read};

use anyhow::{Context as _, Result, bail};
use assay_evidence::Digest;
use assay_trust::Policy;
use assay_trust::path::{as_logged, from_text, to_text};
use aws_lc_rs::digest::{Context, SHA256};

/// A policy in the making: its files.
pub struct FileList {
    policy: Policy,
    all_files: bool,
}

impl FileList {
    /// Starts with nothing. With `all_files`, every file is listed; otherwise only what can run.
    pub fn new(name: &str, all_files: bool) -> Self {
        FileList { policy: Policy::new(name), all_files }
    }

    /// Reads a file, and lists it if it counts: a program, a library, a kernel module or firmware.
    pub fn add(&mut self, path: &[u8], is_executable: bool, mut content: impl Read) -> Result<()> {
        let mut head = [0; ELF_MAGIC.len()];
        let filled = fill(&mut content, &mut head)?;
        let head = head.get(..filled).unwrap_or_default();
        if !self.all_files && !is_executable && head != ELF_MAGIC && !is_for_the_kernel(path) {
            return Ok(());
        }
        if self.len() >= FILES_MAX {
            bail!("more than {FILES_MAX} files");
        }
        let digest = sha256(head, &mut content)?;
        self.policy.allow_file(path, digest);
        Ok(())
    }

    /// Lists another name of a file, if that file is listed.
    pub fn add_link(&mut self, path: &[u8], target: &[u8]) {
        let listed =
            self.policy.ima.as_ref().and_then(|ima| ima.allow.get(to_text(&as_logged(target)).as_ref()));
        for digest in listed.cloned().unwrap_or_default() {
            self.policy.allow_file(path, digest);
        }
    }

    /// Forgets a path: something else is there now.
    pub fn remove(&mut self, path: &[u8]) {
        if let Some(ima) = &mut self.policy.ima {
            ima.allow.remove(to_text(&as_logged(path)).as_ref());
        }
    }

    /// Lists `path` as what is listed as `target`, and as nothing else.
    pub fn rename(&mut self, path: &[u8], target: &[u8]) {
        self.remove(path);
        self.add_link(path, target);
    }

    /// Takes over what another list has.
    pub fn absorb(&mut self, other: FileList) -> Result<()> {
        for (path, digests) in other.policy.ima.map(|ima| ima.allow).unwrap_or_default() {
            let path = from_text(&path).context("a path that was listed is none")?;
            digests.into_iter().for_each(|digest| self.policy.allow_file(&path, digest));
        }
        if self.len() > FILES_MAX { bail!("more than {FILES_MAX} files") } else { Ok(()) }
    }

    /// How many files are listed.
    pub fn len(&self) -> usize {
        self.policy.ima.as_ref().map_or(0, |ima| ima.allow.len())
    }

    /// The policy.
    pub fn finish(self) -> Policy {
        self.policy
    }
}

/// Kernel modules, packed or not, and firmware: the kernel measures them by themselves.
fn is_for_the_kernel(path: &[u8]) -> bool {
    let is_module = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| path.ends_with(end.as_bytes()));
    let is_firmware =
        ["/usr/lib/firmware/", "/lib/firmware/"].iter().any(|tree| path.starts_with(tree.as_bytes()));
    is_module || is_firmware
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match content.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn sha256(head: &[u8], content: &mut impl Read) -> Result<Digest> {
    let mut context = Context::new(&SHA256);
    context.update(head);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = fill(content, &mut buffer)?;
        match buffer.get(..count) {
            None | Some([]) => break,
            Some(bytes) => context.update(bytes),
        }
    }
    let digest = Digest::new(assay_evidence::HashAlgorithm::Sha256, context.finish().as_ref());
    Ok(digest.unwrap_or(assay_evidence::HashAlgorithm::Sha256.zero()))
}

const ELF_MAGIC: &[u8; 4] = b"\x7fELF";
/// A full desktop has a tenth of it; at a hundred bytes a file, the policy stays readable.
const FILES_MAX: usize = 300_000;
