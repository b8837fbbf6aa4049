//! Learning: a policy from evidence of devices that are known to be good.
//!
//! Claims are what verification vouches for, so nothing unattested is learned. PCR 10 is never pinned, because the
//! order of measurements changes from boot to boot; `boot_aggregate` and violations are no files and never listed.
//! [`learn`] pins the boot's PCR values, which change with every update; [`learn_rules`] learns what they mean.

mod rules;
mod sequences;

use std::collections::BTreeSet;

use assay_evidence::verify::Claims;
use assay_evidence::{HashAlgorithm, PcrIndex};
use thiserror::Error;

pub use rules::learn_rules;

use crate::appraisal::signers_of;
use crate::policy::{Demand, ImaPcr, ImaSection, Pcr, Policy, PolicyError};
use crate::reference::{FileReference, Signers};

/// Why nothing was learned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LearnError {
    /// There was no evidence.
    #[error("there is no evidence to learn from")]
    NoEvidence,
    /// Evidence without what rules are about.
    #[error(
        "case {case}: its boot log does not show that Secure Boot was on and by whom images were signed, so there is no \
         rule to learn: learn PCR values instead"
    )]
    NoSecureBoot {
        /// Which evidence, from 1.
        case: usize,
    },
    /// What was learned is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Makes a policy under which each of these claims is affirming. Files signed by one of `signing_keys` (PEM) are
/// accepted by signature and not listed; PCRs and sections that some evidence lacks are not demanded.
pub fn learn(name: &str, signing_keys: &[String], cases: &[&Claims]) -> Result<Policy, LearnError> {
    let Some(first) = cases.first() else { return Err(LearnError::NoEvidence) };
    let mut policy = Policy::new(name);
    for index in LEARNED_PCRS.into_iter().filter_map(PcrIndex::new) {
        if let Some(value) = first.boot_pcr(HashAlgorithm::Sha256, index)
            && cases.iter().all(|claims| is_stable(claims, index))
        {
            policy.allow_pcr(index, *value);
        }
    }
    policy.boot.kernel_command_lines = Some(Vec::new());
    if cases.iter().any(|claims| claims.ima().is_some()) {
        let everywhere = cases.iter().all(|claims| claims.ima().is_some());
        let list = if everywhere { Demand::Required } else { Demand::Optional };
        policy.ima = Some(ImaSection { list, signing_keys: signing_keys.to_vec(), ..ImaSection::default() });
    }
    for claims in cases {
        widen(&mut policy, claims)?;
    }
    match policy.lint().into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(policy),
    }
}

/// Makes a policy accept these claims too, as far as it judges them at all. The version is the caller's to raise.
pub fn widen(policy: &mut Policy, claims: &Claims) -> Result<(), PolicyError> {
    let pinned: Vec<_> = policy.pcr.iter().map(|(bank, index, _)| (bank, index)).collect();
    for (bank, index) in pinned {
        if let Some(value) = claims.boot_pcr(bank, index) {
            policy.allow_pcr(index, *value);
        }
    }
    widen_boot(policy, claims);
    widen_files(policy, claims)
}

fn widen_boot(policy: &mut Policy, claims: &Claims) {
    let measured = claims;
    let boot = &mut policy.boot;
    let Some(claims) = claims.boot() else {
        boot.event_log = Demand::Optional;
        boot.secure_boot = Demand::Optional;
        boot.kernel_command_lines = None;
        return;
    };
    if !claims.facts().secure_boot.as_ref().is_some_and(|variables| variables.is_enabled) {
        boot.secure_boot = Demand::Optional;
    }
    let pinned = |index| policy.pcr.iter().any(|(_, pinned, _)| pinned == index);
    for event in claims.events().iter().filter(|event| pinned(event.pcr)) {
        let events = boot.events.entry(Pcr(event.pcr)).or_default();
        events.entry(event.digest).or_insert_with(|| event.remark.clone());
    }
    let sequenced: Vec<PcrIndex> = boot.sequence.keys().map(|pcr| pcr.0).collect();
    sequences::widen(boot, measured, sequenced);
    if let Some(signers) = &mut boot.signers {
        match signers_of(claims.facts()) {
            Some(new) => extend(signers, new),
            None => boot.signers = None,
        }
    }
    if let Some(versions) = &mut boot.firmware_versions {
        match &claims.facts().firmware_version {
            Some(new) => extend(versions, [new.clone()]),
            None => boot.firmware_versions = None,
        }
    }
    if let Some(lines) = &mut boot.kernel_command_lines {
        match claims.facts().kernel_lines() {
            Some(new) if !new.is_empty() => {
                extend(lines, new.into_iter().map(str::to_owned));
            }
            _ => boot.kernel_command_lines = None,
        }
    }
}

fn extend<T: Ord>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    list.extend(more);
    list.sort_unstable();
    list.dedup();
}

fn widen_files(policy: &mut Policy, claims: &Claims) -> Result<(), PolicyError> {
    let Some(section) = &mut policy.ima else { return Ok(()) };
    let Some(ima) = claims.ima() else {
        section.list = Demand::Optional;
        return Ok(());
    };
    let measured_into: BTreeSet<PcrIndex> = ima.entries().map(|entry| entry.pcr()).collect();
    extend(&mut section.pcrs, measured_into.into_iter().filter_map(ImaPcr::new));
    let reference = FileReference::new(section.without_files())?;
    let mut signers = Signers::new(&reference, ima.known_keys());
    for entry in ima.entries() {
        let is_no_file = entry.is_violation() || entry.is_boot_aggregate();
        if is_no_file
            || signers.learn(&entry)
            || reference.excludes(entry.path())
            || signers.judge(&entry).is_ok()
        {
            continue;
        }
        // A digest that the policy would not count is not worth a line.
        if let Some(digest) =
            entry.file_digest().filter(|digest| digest.algorithm() >= reference.weakest_digest.0)
        {
            policy.allow_file(entry.path(), digest);
        }
    }
    Ok(())
}

/// Whether a PCR will have the same value after another boot that measures the same: it was quoted, and what extends it
/// while the system runs left it alone or can be told from the boot.
fn is_stable(claims: &Claims, index: PcrIndex) -> bool {
    let Some(quoted) = claims.pcrs().get(HashAlgorithm::Sha256, index) else { return false };
    let is_logged = || {
        let boot = claims.boot();
        boot.is_some_and(|boot| boot.replayed().get(HashAlgorithm::Sha256, index).is_some())
    };
    !RUN_TIME_PCRS.contains(&index.get()) || quoted.is_zero() || is_logged()
}

/// What a boot leaves behind: firmware and boot loader in 0 to 9, unified kernel images in 11 to 13, shim in 14, the
/// machine's identity in 15.
const LEARNED_PCRS: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15];
/// What systemd extends after the boot as well.
const RUN_TIME_PCRS: [u8; 4] = [11, 12, 13, 15];
