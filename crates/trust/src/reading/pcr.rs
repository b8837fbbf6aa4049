//! What each PCR holds, what tells that, and which lines of a policy are about it.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_evidence::boot_log::BootClaims;
use assay_evidence::tpm::pcr::PcrSet;
use assay_evidence::verify::{Claims, ImaClaims};
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

use super::{PolicyLine, QuotedPcr, ToldBy};
use crate::appraisal::pcr::meaning;
use crate::policy::{BootSection, Demand};
use crate::reference::{BootReference, CompiledPolicy};

/// The quoted PCRs of the bank that the boot's facts stand on, or else of the strongest.
pub(super) fn table(claims: &Claims, policy: Option<&CompiledPolicy>) -> Vec<QuotedPcr> {
    let facts_bank = claims.boot().map(|boot| boot.facts().bank);
    let Some(bank) = facts_bank.or_else(|| claims.pcrs().banks().max()) else { return Vec::new() };
    let quoted = claims.pcrs().iter().filter(|(of, ..)| *of == bank);
    let of_list: PcrSet = claims.ima().map(of_list).unwrap_or_default();
    quoted
        .map(|(_, index, value)| QuotedPcr {
            index,
            about: meaning(index),
            bank,
            value: *value,
            told_by: told_by(claims, of_list, index, value),
            events: claims.boot().map_or(0, |boot| events(boot, index)),
            lines: policy.map(|policy| lines(policy, claims, index)).unwrap_or_default(),
        })
        .collect()
}

/// Where the list is measured, as far as it explains what is there.
fn of_list(ima: &ImaClaims) -> PcrSet {
    let pcrs: BTreeSet<PcrIndex> = ima.entries().map(|entry| entry.pcr()).collect();
    pcrs.into_iter().filter(|pcr| ima.explains(*pcr)).collect()
}

fn told_by(claims: &Claims, of_list: PcrSet, index: PcrIndex, value: &Digest) -> ToldBy {
    // PCRs 17 to 22 are all ones until a dynamic launch.
    let is_untouched = value.is_zero() || value.as_bytes().iter().all(|byte| *byte == u8::MAX);
    let is_told = |boot: &Arc<BootClaims>| {
        boot.replayed().get(value.algorithm(), index).is_some()
            && !boot.facts().unexplained_pcrs.contains(&index)
    };
    if of_list.contains(index) {
        ToldBy::ImaList
    } else if is_untouched {
        ToldBy::Nothing
    } else if claims.boot().is_some_and(is_told) {
        ToldBy::BootLog
    } else {
        ToldBy::NoLog
    }
}

fn events(boot: &BootClaims, index: PcrIndex) -> usize {
    boot.events().iter().filter(|event| event.pcr == index).count()
}

fn lines(policy: &CompiledPolicy, claims: &Claims, index: PcrIndex) -> Vec<PolicyLine> {
    let mut lines: Vec<PolicyLine> =
        policy.boots.iter().flat_map(|boot| lines_of_boot(boot, claims, index)).collect();
    let is_of_files = policy.ima.as_ref().is_some_and(|files| files.pcrs.contains(index));
    lines.extend(is_of_files.then(|| PolicyLine { line: "ima".to_owned(), holds: None }));
    lines
}

fn lines_of_boot(boot: &BootReference, claims: &Claims, index: PcrIndex) -> Vec<PolicyLine> {
    let which = match boot.number() {
        0 => String::new(),
        number => format!("alternative {number}: "),
    };
    let pinned = boot.pcr.iter().filter(|(_, of, _)| *of == index);
    let pinned = pinned.map(|(bank, _, values): (HashAlgorithm, _, &[Digest])| PolicyLine {
        line: format!("{which}pcr.{bank}.{index}"),
        holds: Some(claims.boot_pcr(bank, index).is_some_and(|value| values.contains(value))),
    });
    let about = keys_about(&boot.boot, index).into_iter();
    pinned.chain(about.map(|key| PolicyLine { line: format!("{which}boot.{key}"), holds: None })).collect()
}

/// The keys of `[boot]` that are set and say something of what is measured into a PCR.
fn keys_about(boot: &BootSection, index: PcrIndex) -> Vec<String> {
    let sequence = boot.sequence.iter().find(|(pcr, _)| pcr.0 == index);
    let sequence = sequence.map(|_| format!("sequence.{index}"));
    let is_told = boot.kernel_command_lines.is_some() || !boot.kernel_command_line_patterns.is_empty();
    let keys: &[(bool, &str)] = match index.get() {
        0 => &[(boot.firmware_versions.is_some(), "firmware_versions")],
        4 => &[(boot.applications.is_some(), "applications"), (boot.kernels.is_some(), "kernels")],
        7 => &[
            (boot.secure_boot == Demand::Required, "secure_boot"),
            (boot.signers.is_some(), "signers"),
            (!boot.dbx_contains.is_empty(), "dbx_contains"),
            (!boot.dbx_also_contains.is_empty(), "dbx_also_contains"),
            (boot.dbx_entries_min.is_some(), "dbx_entries_min"),
            (!boot.firmware_statements.is_empty(), "firmware_statements"),
        ],
        8 => &[
            (is_told, "kernel_command_lines"),
            (!boot.grub_commands.is_empty(), "grub_commands"),
            (boot.kernel_version_min.is_some(), "kernel_version_min"),
        ],
        9 => &[(!boot.files.is_empty(), "files")],
        12 => &[(is_told, "kernel_command_lines")],
        _ => &[],
    };
    let set = keys.iter().filter(|(is_set, _)| *is_set).map(|(_, key)| (*key).to_owned());
    sequence.into_iter().chain(set).collect()
}
