//! Learning the events of whole PCRs from a good boot, with what an update is meant to change left open in its place.
//!
//! Which event is the kernel's or a menu's only labels say. Here they may: the boot is known to be good. What comes out
//! is judged by without any label.

use std::collections::BTreeMap;

use assay_evidence::boot_log::{BootClaims, EventSummary, KernelLine, LOAD_OPTIONS_REMARK, load_options};
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, PcrIndex};

use crate::appraisal::{CHANGED_SECTIONS, loaders_least};
use crate::policy::{BootSection, Pcr, Sequence, Slot};

/// Adds the sequences of this boot, and the files that it read, to what a policy lists.
pub(super) fn add(boot: &mut BootSection, claims: &Claims, indexes: impl IntoIterator<Item = PcrIndex>) {
    let Some(measured) = claims.boot() else { return };
    let facts = measured.facts();
    for index in indexes {
        let is_known =
            claims.pcrs().get(facts.bank, index).is_some() && !facts.unexplained_pcrs.contains(&index);
        if !is_known {
            continue;
        }
        let mut learner =
            Learner { measured, lines: facts.kernel_lines().unwrap_or_default(), open: Vec::new() };
        let events: Vec<&EventSummary> =
            measured.events().iter().filter(|event| event.pcr == index).collect();
        let sequence = Sequence(events.iter().map(|event| learner.slot(event)).collect());
        let files = events.iter().zip(&sequence.0).filter(|(_, slot)| **slot == Slot::File);
        let files: Vec<Digest> = files.map(|(event, _)| event.digest).collect();
        super::extend(&mut boot.files, files);
        boot.sequence.insert(Pcr(index), vec![sequence]);
        let remarks = boot.events.entry(Pcr(index)).or_default();
        for event in events {
            remarks.entry(event.digest).or_insert_with(|| event.remark.clone());
        }
    }
    boot.events.retain(|_, events: &mut BTreeMap<Digest, String>| !events.is_empty());
}

struct Learner<'a> {
    measured: &'a BootClaims,
    lines: Vec<&'a str>,
    /// Digests that are left open, each with its number.
    open: Vec<Digest>,
}

impl Learner<'_> {
    fn slot(&mut self, event: &EventSummary) -> Slot {
        let digest = event.digest;
        let is_open = match event.pcr.get() {
            IMAGES_PCR => self.is_kernel(&digest),
            // Updates make it longer; what it has to hold is a rule of its own.
            SECURE_BOOT_PCR => event.remark == "dbx",
            FILES_PCR => is_configuration(&event.remark),
            SECTIONS_PCR => self.section(event).is_some_and(|name| CHANGED_SECTIONS.contains(&name)),
            _ => false,
        };
        if is_open {
            return Slot::Any(self.number(digest));
        }
        if self.section(event) == Some(".initrd") {
            return Slot::File;
        }
        if event.pcr.get() != FILES_PCR {
            return Slot::Digest(digest);
        }
        let facts = self.measured.facts();
        if self.lines.iter().any(|line| load_options(facts.bank, line).contains(&digest)) {
            return Slot::KernelLine;
        }
        let is_file = self.is_kernel_file(&event.remark) || is_initial_ramdisk(&event.remark);
        if is_file && event.remark != LOAD_OPTIONS_REMARK { Slot::File } else { Slot::Digest(digest) }
    }

    /// The section of the unified kernel image whose content the event measured.
    fn section(&self, event: &EventSummary) -> Option<&'static str> {
        let mut sections = self.measured.facts().unified_kernel.iter();
        sections.find(|section| section.event == event.number).map(|section| section.name)
    }

    fn number(&mut self, digest: Digest) -> u8 {
        let place = self.open.iter().position(|known| *known == digest).unwrap_or_else(|| {
            self.open.push(digest);
            self.open.len() - 1
        });
        u8::try_from(place + 1).unwrap_or(u8::MAX)
    }

    /// The kernel is what was started last. One that was signed by whom it was takes its place.
    fn is_kernel(&self, digest: &Digest) -> bool {
        let facts = self.measured.facts();
        let images: Vec<Digest> = facts.boot_applications.iter().map(|image| image.digest).collect();
        kernel(images, loaders_least(facts)) == Some(*digest)
    }

    fn is_kernel_file(&self, remark: &str) -> bool {
        let of_path = |path: &str| path.rsplit_once(')').map_or(path, |(_, path)| path).to_owned();
        let images = self.lines.iter().filter_map(|line| KernelLine::parse(line).image);
        images.map(of_path).any(|image| image == of_path(remark))
    }
}

/// The image that was started last, where as many as there are boot loaders started before it: GRUB itself is the last where it
/// asks nobody for the kernel, and no update of a kernel changes it.
fn kernel(mut images: Vec<Digest>, loaders: usize) -> Option<Digest> {
    images.dedup();
    images.last().copied().filter(|_| images.len() > loaders)
}

/// A menu of GRUB: each command in it is measured when it runs.
fn is_configuration(remark: &str) -> bool {
    remark.ends_with("/grub.cfg")
}

fn is_initial_ramdisk(remark: &str) -> bool {
    let name = remark.rsplit(['/', ')']).next().unwrap_or_default();
    remark == "Linux initrd" || name.starts_with("initr")
}

/// Where the firmware measures the images that it starts.
const IMAGES_PCR: u8 = 4;
const SECURE_BOOT_PCR: u8 = 7;
/// Where systemd-stub measures the sections of a unified kernel image.
const SECTIONS_PCR: u8 = 11;
/// Where GRUB measures the files that it reads, and the kernel's stub what it was given.
const FILES_PCR: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use assay_evidence::HashAlgorithm;

    #[test]
    fn a_boot_loader_is_no_kernel() {
        let digest = |name: char| HashAlgorithm::Sha256.hash(&[name.to_string().as_bytes()]);
        let check = |images: &str, loaders: usize, expected: Option<char>| {
            assert_eq!(
                kernel(images.chars().map(digest).collect(), loaders),
                expected.map(digest),
                "{images}"
            );
        };
        // shim, GRUB, and the kernel twice; without shim; and where GRUB asks nobody.
        check("sgkk", 2, Some('k'));
        check("gk", 1, Some('k'));
        check("g", 1, None);
        check("sg", 2, None);
        check("sk", 0, Some('k'));
        check("", 0, None);
    }
}
