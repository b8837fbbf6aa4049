//! What a policy leaves open that its reader would think closed.

use super::coverage::{Cover, Coverage, Covered, Row};
use super::remark::Notes;
use super::{Boot, Field, Policy, suspicion};

/// Names every open row that something in the policy promises to close, where it is promised; and then, in one remark,
/// what else of the chain from the firmware to the files is open.
pub(super) fn review(policy: &Policy, notes: &mut Notes<'_>) {
    let coverage = Coverage::of(policy);
    let mut said = Vec::new();
    for covered in coverage.open() {
        let promise = policy.boots().find_map(|boot| promise(covered.row, policy, boot));
        if let Some(field) = promise {
            notes.warn(field, format!("leaves open, {}: {}", covered.row, covered.meaning));
            said.push(covered.row);
        }
    }
    let unsaid = |covered: &&Covered| CHAIN.contains(&covered.row) && !said.contains(&covered.row);
    let rest: Vec<String> = coverage
        .open()
        .filter(unsaid)
        .map(|Covered { row, meaning, .. }| format!("{row}: {meaning}"))
        .collect();
    if !rest.is_empty() {
        let message = format!(
            "leaves open, of the chain from firmware to files, {}; merge it with a policy learned from a good device",
            rest.join("; ")
        );
        notes.warn(Field::default(), message);
    }
    if coverage.cover(Row::Files) > Cover::Open {
        measured_from_the_start(policy, notes);
    }
}

/// What makes a reader think that a row is closed.
fn promise(row: Row, policy: &Policy, Boot { boot, .. }: Boot<'_>) -> Option<Field> {
    let of_boot = |key: &str, is_there: bool| is_there.then(|| Field::of(["boot", key]));
    let signers = || of_boot("signers", boot.signers.is_some());
    let applications = || of_boot("applications", boot.applications.is_some());
    match row {
        Row::FirmwareCode => of_boot("firmware_versions", boot.firmware_versions.is_some()),
        Row::Keys => signers(),
        Row::Revocations => of_boot("dbx_entries_min", boot.dbx_entries_min.is_some())
            .or_else(|| of_boot("dbx_contains", !boot.dbx_contains.is_empty())),
        Row::BootLoader => signers(),
        Row::Kernel => signers().or_else(applications),
        Row::CommandLine => {
            of_boot("kernel_command_lines", boot.kernel_command_lines.is_some()).or_else(|| {
                of_boot("kernel_command_line_patterns", !boot.kernel_command_line_patterns.is_empty())
            })
        }
        Row::Files => policy.ima.as_ref().map(|_| Field::of(["ima"])),
        Row::Endorsement => (!policy.endorsement.manufacturers.is_empty())
            .then(|| Field::of(["endorsement", "manufacturers"])),
        Row::PcrBanks
        | Row::FirmwareSettings
        | Row::SignerChain
        | Row::Initrd
        | Row::MachineOwnerKeys
        | Row::RuntimePcrs
        | Row::Place => None,
    }
}

/// Where lines are listed, each has the kernel measure files before anything of the system can decide otherwise.
fn measured_from_the_start(policy: &Policy, notes: &mut Notes<'_>) {
    for boot in policy.boots() {
        let lines = boot.boot.kernel_command_lines.iter().flatten().cloned();
        let patterns = boot.boot.kernel_command_line_patterns.iter().map(ToString::to_string);
        if let Some(line) = lines.chain(patterns).find(|line| !suspicion::measures_files(line)) {
            notes.warn(
                Field::of(["ima"]),
                format!(
                    "with {line:?} the kernel measures no file until the system loads an IMA policy, which whoever is root \
                     can replace: add ima_policy=tcb"
                ),
            );
        }
    }
}

/// Without one of these, what the others say can be what an attacker wants.
const CHAIN: [Row; 7] =
    [Row::FirmwareCode, Row::Keys, Row::BootLoader, Row::Kernel, Row::CommandLine, Row::Initrd, Row::Files];
