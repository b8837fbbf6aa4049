//! Learning what a boot means instead of what it measures, where an update is meant to change it: the kernel (of the same
//! signer and no older), the version in its command line, its menu, a longer dbx. Everything else is learned as it was
//! measured, event by event: firmware code, keys, boot loaders and their signers, machine-owner keys, and the files that
//! the boot loader read, to which an update adds its kernel and its initial ramdisk.

use std::collections::BTreeSet;

use assay_evidence::boot_log::{BootFacts, KernelLine, SignatureKind};
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, PcrIndex};

use super::{LearnError, learn, sequences};
use crate::appraisal::{is_older, signers_of};
use crate::pattern::LinePattern;
use crate::policy::{BootSection, PcrSection, Policy, Revocation};

/// Like [`learn`], with rules about the boot in the place of its PCR values.
pub fn learn_rules(name: &str, signing_keys: &[String], cases: &[&Claims]) -> Result<Policy, LearnError> {
    let mut policy = learn(name, signing_keys, cases)?;
    policy.pcr = PcrSection::default();
    policy.boot = BootSection::default();
    let mut signers = BTreeSet::new();
    for (case, claims) in (1..).zip(cases) {
        let of_case = claims.boot().and_then(|boot| signers_of(boot.facts()));
        signers.extend(of_case.ok_or(LearnError::NoSecureBoot { case })?);
    }
    let facts: Vec<&BootFacts> =
        cases.iter().filter_map(|claims| claims.boot()).map(|boot| boot.facts()).collect();
    let boot = &mut policy.boot;
    boot.signers = Some(signers.into_iter().collect());
    boot.firmware_versions = facts
        .iter()
        .map(|facts| facts.firmware_version.clone())
        .collect::<Option<BTreeSet<_>>>()
        .map(|versions| versions.into_iter().collect());
    boot.dbx_contains = revoked_everywhere(&facts, image);
    boot.dbx_also_contains = revoked_everywhere(&facts, Revocation::of);
    let statements: BTreeSet<&str> =
        facts.iter().flat_map(|facts| &facts.statements).map(|statement| statement.text.as_str()).collect();
    boot.firmware_statements = statements.into_iter().map(str::to_owned).collect();
    let lines: Option<Vec<Vec<&str>>> = facts.iter().map(|facts| facts.kernel_lines()).collect();
    let lines: Vec<&str> = lines.into_iter().flatten().flatten().collect();
    for line in &lines {
        add_line(boot, line);
    }
    boot.kernel_version_min = oldest(&lines);
    let is_silent = |facts: &&BootFacts| !facts.has_loader_texts();
    let loaders = facts.iter().all(is_silent).then(|| PcrIndex::new(COMMANDS_PCR)).flatten();
    for claims in cases {
        sequences::widen(boot, claims, loaders);
        sequences::widen(boot, claims, SEQUENCED_PCRS.into_iter().filter_map(PcrIndex::new));
    }
    match policy.lint().into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(policy),
    }
}

/// What `of` makes of the entries that dbx holds in every case.
fn revoked_everywhere<T: Ord + Clone>(
    facts: &[&BootFacts],
    of: impl Fn(&SignatureKind) -> Option<T>,
) -> Vec<T> {
    let of_case = |facts: &&BootFacts| -> BTreeSet<T> {
        let entries = facts.secure_boot.iter().flat_map(|variables| &variables.dbx);
        entries.filter_map(|entry| of(&entry.kind)).collect()
    };
    let common = facts.iter().map(of_case).reduce(|one, other| &one & &other);
    common.unwrap_or_default().into_iter().collect()
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
