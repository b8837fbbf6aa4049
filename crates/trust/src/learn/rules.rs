//! Learning what a boot means instead of what it measures: who signed it, what the kernel was told, which firmware it
//! was. A kernel of the same signer, or a longer dbx, is no finding then.

use std::collections::BTreeSet;

use assay_evidence::boot_log::{BootFacts, KernelLine};
use assay_evidence::verify::Claims;

use super::{LearnError, learn};
use crate::appraisal::{kernel_lines, signers_of};
use crate::pattern::LinePattern;
use crate::policy::{BootSection, PcrSection, Policy};

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
    let dbx =
        facts.iter().filter_map(|facts| facts.secure_boot.as_ref()).map(|variables| variables.dbx.len());
    boot.dbx_entries_min = dbx.min().and_then(|entries| u32::try_from(entries).ok());
    let lines: Option<Vec<Vec<&str>>> = facts.iter().map(|facts| kernel_lines(facts)).collect();
    for line in lines.into_iter().flatten().flatten() {
        add_line(boot, line);
    }
    match policy.lint().into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(policy),
    }
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
