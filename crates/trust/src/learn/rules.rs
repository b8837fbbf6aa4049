//! Learning what a boot means instead of what it measures, where an update is meant to change it: the kernel (of the same
//! signer and no older), the version in its command line, its menu, a longer dbx. Everything else is learned as it was
//! measured, event by event: firmware code, keys, boot loaders and their signers, machine-owner keys, and the files that
//! the boot loader read, to which an update adds its kernel and its initial ramdisk.

use std::collections::BTreeSet;

use assay_evidence::boot_log::{BootFacts, KernelLine, SignatureKind};
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

use super::{LearnError, learn_with, sequences};
use crate::appraisal::{is_older, signers_of};
use crate::pattern::LinePattern;
use crate::policy::{Alternative, BootSection, PcrSection, Policy, Revocation};

/// Like [`learn`](super::learn), with rules about the boot in the place of its PCR values.
pub fn learn_rules(name: &str, signing_keys: &[String], cases: &[&Claims]) -> Result<Policy, LearnError> {
    let boots = (1..).zip(cases).map(|(case, claims)| {
        let boot = section(claims).ok_or(LearnError::NoSecureBoot { case })?;
        Ok(Alternative { pcr: firmware_elsewhere(claims), boot })
    });
    let boots = boots.collect::<Result<_, LearnError>>()?;
    learn_with(name, signing_keys, cases, boots)
}

/// The rules of one boot; `None` where Secure Boot does not show who signed what.
fn section(claims: &Claims) -> Option<BootSection> {
    let facts = claims.boot()?.facts();
    let mut signers = signers_of(facts)?;
    super::extend(&mut signers, []);
    let lines = facts.kernel_lines().unwrap_or_default();
    let statements: BTreeSet<&str> = facts.statements.iter().map(|one| one.text.as_str()).collect();
    let mut boot = BootSection {
        signers: Some(signers),
        firmware_versions: facts.firmware_version.clone().map(|version| vec![version]),
        banks: super::banks::active(claims),
        dbx_contains: revoked(facts, image),
        dbx_also_contains: revoked(facts, Revocation::of),
        firmware_statements: statements.into_iter().map(str::to_owned).collect(),
        kernel_version_min: oldest(&lines),
        ..BootSection::default()
    };
    for line in &lines {
        add_line(&mut boot, line);
    }
    let loaders = (!facts.has_loader_texts()).then(|| PcrIndex::new(COMMANDS_PCR)).flatten();
    sequences::add(&mut boot, claims, loaders);
    sequences::add(&mut boot, claims, SEQUENCED_PCRS.into_iter().filter_map(PcrIndex::new));
    Some(boot)
}

/// What the firmware's code is in the banks that the rules do not judge by: the same firmware measures into each.
fn firmware_elsewhere(claims: &Claims) -> PcrSection {
    let mut pcr = PcrSection::default();
    let Some(boot) = claims.boot() else { return pcr };
    let of_code = |(_, index): &(HashAlgorithm, PcrIndex)| FIRMWARE_CODE_PCRS.contains(&index.get());
    for (bank, index) in super::banks::beside(claims, boot.facts().bank).filter(of_code) {
        if let Some(value) = claims.boot_pcr(bank, index) {
            pcr.allow(index, *value);
        }
    }
    pcr
}

/// What `of` makes of the entries of dbx, each once.
fn revoked<T: Ord>(facts: &BootFacts, of: impl Fn(&SignatureKind) -> Option<T>) -> Vec<T> {
    let entries = facts.secure_boot.iter().flat_map(|variables| &variables.dbx);
    let entries: BTreeSet<T> = entries.filter_map(|entry| of(&entry.kind)).collect();
    entries.into_iter().collect()
}

fn image(kind: &SignatureKind) -> Option<Digest> {
    match kind {
        SignatureKind::ImageDigest(digest) => Some(*digest),
        SignatureKind::Certificate { .. } | SignatureKind::Other { .. } => None,
    }
}

/// The oldest version of a kernel, where each line names one.
fn oldest(lines: &[&str]) -> Option<String> {
    let versions: Option<Vec<&str>> = lines.iter().map(|line| KernelLine::parse(line).version()).collect();
    let oldest = versions?.into_iter().reduce(|one, other| if is_older(other, one) { other } else { one });
    oldest.map(str::to_owned)
}

/// Accepts a command line, of whatever version the kernel in it is.
fn add_line(boot: &mut BootSection, line: &str) {
    match of_any_version(line) {
        Some(pattern) if boot.kernel_command_line_patterns.contains(&pattern) => {}
        Some(pattern) => boot.kernel_command_line_patterns.push(pattern),
        None => {
            let lines = boot.kernel_command_lines.get_or_insert_default();
            if !lines.iter().any(|known| known == line) {
                lines.push(line.to_owned());
            }
        }
    }
}

/// The pattern of a line with a star for its kernel's version; `None` where it names none, or has stars of its own.
fn of_any_version(line: &str) -> Option<LinePattern> {
    let KernelLine { image, .. } = KernelLine::parse(line);
    let version = KernelLine::parse(line).version()?;
    let start = line.find(image?)? + image?.len() - version.len();
    let (before, after) = (line.get(..start)?, line.get(start + version.len()..)?);
    if [before, after].iter().any(|part| part.contains(['*', '?'])) {
        return None;
    }
    format!("{before}*{after}").parse().ok()
}

/// What is learned event by event. PCRs 1, 3, 5 and 6 have the firmware's settings, the order in which it boots and the
/// disk's partitions, which differ from device to device; 8 has its own rules.
const SEQUENCED_PCRS: [u32; 10] = [0, 2, 4, 7, 9, 11, 12, 13, 14, 15];

/// Firmware and option ROMs.
const FIRMWARE_CODE_PCRS: [u8; 2] = [0, 2];

/// Where GRUB measures what it runs, by rules of its own. That nothing was measured there is learned.
const COMMANDS_PCR: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(of_any_version(line).map(|pattern| pattern.to_string()).as_deref(), expected);
    }

    #[test]
    fn the_version_of_the_kernel_is_left_open_and_nothing_else() {
        check("/vmlinuz-6.1.0-55-amd64 root=/dev/vda2 ro", Some("/vmlinuz-* root=/dev/vda2 ro"));
        check("BOOT_IMAGE=/boot/vmlinuz-6.12 quiet", Some("BOOT_IMAGE=/boot/vmlinuz-* quiet"));
        check("/boot/vmlinuz root=/dev/vda2", None);
        check("/vmlinuz-6.1 dyndbg=*", None);
        check("root=/dev/vda2 ro", None);
    }
}
