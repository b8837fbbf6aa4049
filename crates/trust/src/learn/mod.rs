//! Learning: a policy from evidence of devices that are known to be good.
//!
//! Claims are what verification vouches for, so nothing unattested is learned. PCR 10 is never pinned, because the
//! order of measurements changes from boot to boot; `boot_aggregate` and violations are no files and never listed.
//! [`learn`] pins the boot's PCR values, which change with every update; [`learn_rules`] learns what they mean.

mod alike;
mod banks;
mod rules;
mod sequences;
mod values;

use std::collections::BTreeSet;

use assay_evidence::verify::Claims;
use assay_evidence::{Digest, PcrIndex};
use thiserror::Error;

pub use rules::learn_rules;

use crate::policy::{
    Alternative, BOOTS_MAX, Demand, ImaPcr, ImaSection, MadeOnDevice, Policy, PolicyError, ViolationWeight,
};
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
    /// More kinds of boot than one policy accepts.
    #[error(
        "the evidence shows {boots} boots that differ in more than one thing, and a policy accepts at most {BOOTS_MAX}, each as a \
         whole: learn one policy for each kind of machine and set each for a label, or learn rules \
         (--boot rules), which leave open what differs with each kernel and menu"
    )]
    TooManyBoots {
        /// How many.
        boots: usize,
    },
    /// What was learned is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Makes a policy under which each of these claims is affirming. Files signed by one of `signing_keys` (PEM) are
/// accepted by signature and not listed. A boot is good if it is, as a whole, that of one of them: what differs in one
/// thing alone is joined, and each boot demands what its own evidence shows.
pub fn learn(name: &str, signing_keys: &[String], cases: &[&Claims]) -> Result<Policy, LearnError> {
    let boots = cases.iter().map(|claims| values::boot(claims)).collect();
    learn_with(name, signing_keys, cases, boots)
}

/// A policy of the boots and of the files of all cases.
fn learn_with(
    name: &str,
    signing_keys: &[String],
    cases: &[&Claims],
    boots: Vec<Alternative>,
) -> Result<Policy, LearnError> {
    if cases.is_empty() {
        return Err(LearnError::NoEvidence);
    }
    let mut policy = Policy::new(name);
    let boots = alike::joined(boots);
    if boots.len() > BOOTS_MAX {
        return Err(LearnError::TooManyBoots { boots: boots.len() });
    }
    policy.accept_boots(&boots);
    if cases.iter().any(|claims| claims.ima().is_some()) {
        let everywhere = cases.iter().all(|claims| claims.ima().is_some());
        let list = if everywhere { Demand::Required } else { Demand::Optional };
        policy.ima = Some(ImaSection {
            list,
            violations: Some(ViolationWeight::ByPath),
            kernel_policies: kernel_policies(cases),
            signing_keys: signing_keys.to_vec(),
            ..ImaSection::default()
        });
    }
    for claims in cases {
        learn_files(&mut policy, claims)?;
    }
    match policy.lint().into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(policy),
    }
}

fn extend<T: Ord>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    list.extend(more);
    list.sort_unstable();
    list.dedup();
}

/// The policies of IMA that were measured; `None` where a device followed one that was not, as the kernel's own are not.
fn kernel_policies(cases: &[&Claims]) -> Option<Vec<Digest>> {
    let mut found = Vec::new();
    for ima in cases.iter().filter_map(|claims| claims.ima()) {
        let measured = ima.kernel_policies();
        if measured.is_empty() {
            return None;
        }
        extend(&mut found, measured.iter().copied());
    }
    Some(found).filter(|found| !found.is_empty())
}

fn learn_files(policy: &mut Policy, claims: &Claims) -> Result<(), PolicyError> {
    let Some(section) = &mut policy.ima else { return Ok(()) };
    let Some(ima) = claims.ima() else { return Ok(()) };
    let measured_into: BTreeSet<PcrIndex> = ima.entries().map(|entry| entry.pcr()).collect();
    extend(&mut section.pcrs, measured_into.into_iter().filter_map(ImaPcr::new));
    let reference = FileReference::new(section.without_files())?;
    let mut signers = Signers::new(&reference, ima.known_keys());
    let mut kinds = Vec::new();
    for entry in ima.entries() {
        let is_policy = reference.kernel_policies.is_some() && entry.kernel_policy().is_some();
        let is_no_file = entry.is_violation() || entry.is_boot_aggregate() || is_policy;
        if is_no_file
            || signers.learn(&entry)
            || reference.excludes(entry.path())
            || signers.judge(&entry).is_ok()
        {
            continue;
        }
        // What is another one with every boot is not worth a line either.
        if let Some(kind) = LEARNED_KINDS.into_iter().find(|kind| kind.covers(entry.path(), |_| false)) {
            kinds.push(kind);
            continue;
        }
        // A digest that the policy would not count is not worth a line.
        if let Some(digest) =
            entry.file_digest().filter(|digest| digest.algorithm() >= reference.weakest_digest.0)
        {
            policy.allow_file(entry.path(), digest);
        }
    }
    extend(&mut policy.ima.get_or_insert_default().made_on_device, kinds);
    Ok(())
}

/// What never repeats, so that a device would fall with its next look at it.
const LEARNED_KINDS: [MadeOnDevice; 2] = [MadeOnDevice::SystemState, MadeOnDevice::AgentState];
