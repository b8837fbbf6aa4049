//! Unified kernel images: what systemd-stub measured of its own sections into PCR 11, before it started the kernel.

use super::Event;
use crate::{Digest, HashAlgorithm};

/// A section of a unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The event that measured its content.
    pub event: usize,
    /// Its name, such as `.cmdline`: by the digest that was measured, not by the log's word.
    pub name: &'static str,
    /// The digest of its content.
    pub digest: Digest,
}

/// Reads the events of PCR 11: for each section its name (with NUL) and then its content are measured.
///
/// The pairs are read from the beginning and as far as they go. What follows was measured by something else, which may
/// well have used a section's name: root can extend PCR 11 with the sections of an image that never ran, all of them
/// where no image was measured. So the sections say what an image holds of which PCR 4 says that it was started.
pub(super) fn sections(events: &[(&Event<'_>, Digest)], bank: HashAlgorithm) -> Vec<Section> {
    if events.is_empty() {
        return Vec::new();
    }
    let names = SECTIONS.map(|name| (name, bank.hash(&[name.as_bytes(), &[0]])));
    let mut sections = Vec::new();
    let mut events = events.iter();
    while let (Some((_, of_name)), Some((event, digest))) = (events.next(), events.next()) {
        let Some((name, _)) = names.iter().find(|(_, digest)| digest == of_name) else { break };
        sections.push(Section { event: event.number(), name, digest: *digest });
    }
    sections
}

/// The UAPI group's specification of unified kernel images, without `.pcrsig`, which is not measured.
const SECTIONS: [&str; 14] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".dtbauto", ".efifw", ".hwids",
    ".uname", ".sbat", ".pcrpkey", ".profile",
];
