//! What the rules about the boot look like to a critical reader.

use assay_evidence::{Digest, HashAlgorithm};

use super::{BootSection, LinePattern};
use crate::policy::remark::Notes;
use crate::policy::suspicion;
use crate::policy::{Demand, Field, Pcr, PcrSection};

/// What there is twice, never counts, or lets in more than its writer may have meant.
pub(super) fn review(section: &BootSection, pcrs: &PcrSection, notes: &mut Notes<'_>) {
    let BootSection {
        event_log,
        secure_boot,
        banks,
        kernel_command_lines,
        kernel_command_line_patterns,
        applications,
        kernels,
        signers,
        firmware_statements,
        grub_commands: _,
        kernel_version_min: _,
        files,
        sequence,
        firmware_versions,
        dbx_contains,
        dbx_also_contains,
        dbx_entries_min: _,
        events,
    } = section;
    review_demands(*event_log, *secure_boot, notes);
    notes.repeated(Field::of(["boot", "banks"]), banks.iter().flatten().map(|bank| &bank.0));
    let field = Field::of(["boot", "kernel_command_lines"]);
    let lines = kernel_command_lines.as_deref().unwrap_or_default();
    review_lines(&field, lines, notes);
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| line.contains(['*', '^', '$'])) {
        notes.warn(
            field.clone().at(index),
            "a command line is compared as it is; patterns go into boot.kernel_command_line_patterns",
        );
    }
    notes.repeated(field, lines);
    notes.repeated(Field::of(["boot", "firmware_versions"]), firmware_versions.iter().flatten());
    review_patterns(kernel_command_line_patterns, notes);
    notes.repeated(Field::of(["boot", "firmware_statements"]), firmware_statements);
    for (name, digests) in [
        ("files", files.as_slice()),
        ("applications", applications.as_deref().unwrap_or_default()),
        ("kernels", kernels.as_deref().unwrap_or_default()),
        ("signers", signers.as_deref().unwrap_or_default()),
        ("dbx_contains", dbx_contains),
    ] {
        review_digests(name, digests, notes);
    }
    notes.repeated(Field::of(["boot", "dbx_also_contains"]), dbx_also_contains);
    let is_open =
        |pcr: &&Pcr| !sequence.contains_key(*pcr) && pcrs.iter().all(|(_, index, _)| index != pcr.0);
    for pcr in events.keys().filter(is_open) {
        let pcr = pcr.0;
        notes.warn(
            Field::of(["boot", "events", &pcr.to_string()]),
            format!(
                "PCR {pcr} is not pinned, so these descriptions are never used: pin it, or leave them out"
            ),
        );
    }
}

fn review_demands(event_log: Demand, secure_boot: Demand, notes: &mut Notes<'_>) {
    if event_log == Demand::Optional {
        notes.warn(
            Field::of(["boot", "event_log"]),
            "a device that sends no boot log passes, whatever it booted: use \"required\"",
        );
    }
    if secure_boot == Demand::Optional {
        notes.warn(
            Field::of(["boot", "secure_boot"]),
            "a device passes on which Secure Boot is off and nothing checks what starts: use \"required\"",
        );
    }
}

/// Lines, or patterns of lines, that let in whoever is at the device.
fn review_lines(field: &Field, lines: &[String], notes: &mut Notes<'_>) {
    for (index, line) in lines.iter().enumerate() {
        if let Some((word, what)) = suspicion::of_line(line) {
            notes.warn(field.clone().at(index), format!("{word:?} {what}: leave it out"));
        }
    }
}

fn review_patterns(patterns: &[LinePattern], notes: &mut Notes<'_>) {
    let texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    let field = Field::of(["boot", "kernel_command_line_patterns"]);
    review_lines(&field, &texts, notes);
    for (index, word) in patterns.iter().map(suspicion::of_pattern).enumerate() {
        let Some(word) = word else { continue };
        notes.warn(
            field.clone().at(index),
            format!("{word:?} may be any argument, init=/bin/sh or ima_appraise=off as well: name it, as in root=*"),
        );
    }
    notes.repeated(field, &texts);
}

fn review_digests(name: &str, digests: &[Digest], notes: &mut Notes<'_>) {
    let field = Field::of(["boot", name]);
    for (index, digest) in digests.iter().enumerate() {
        if digest.algorithm() == HashAlgorithm::Sha1 {
            notes.warn(field.clone().at(index), "images with the same SHA-1 digest can be made: use sha256");
        }
    }
    notes.repeated(field, digests);
}
