//! The TPM's PCR banks: that firmware measured into each that is active, that each can be judged, and that they are those
//! which the policy knows.
//!
//! A bank that firmware leaves empty is root's to fill with any boot. So what counts is not that one bank shows a good
//! boot, but that every active one shows the same: verification holds the log against each that is quoted, and here none may be
//! empty, unknown, or more than a good device has.

use assay_evidence::tpm::banks::ActiveBanks;
use assay_evidence::verify::Claims;
use assay_evidence::{Check, HashAlgorithm, PcrIndex};

use super::demand::{ShownBanks, witness};
use crate::finding::{Finding, Tier};
use crate::policy::{Bank, BootRule};
use crate::reference::{BootReference, CompiledPolicy};

/// What speaks against the banks whatever boots a policy accepts. It weighs where the policy says anything of the boot.
pub(super) fn judge(policy: &CompiledPolicy, claims: &Claims, findings: &mut Vec<Finding>) {
    let tier = if policy.judges_boots() { Tier::Contraindicated } else { Tier::Warning };
    for bank in claims.banks().map(ActiveBanks::unknown).unwrap_or_default() {
        let what =
            "nothing that was measured into it can be held against the boot log, so it may hold another boot";
        findings.push(finding(tier, format!("{bank:#06x}"), what, policy.citation()));
    }
    let mut banks: Vec<HashAlgorithm> =
        claims.pcrs().banks().filter(|bank| is_quoted(claims, *bank)).collect();
    banks.retain(|bank| !is_measured(claims, *bank));
    // Where nothing is measured anywhere, that there is no boot is told otherwise.
    if !claims.pcrs().banks().any(|bank| is_measured(claims, bank)) {
        return;
    }
    for bank in banks {
        let what = "firmware measured into another bank and not into this one, so whoever is root fills it with any boot";
        findings.push(finding(tier, bank.name().to_owned(), what, policy.citation()));
    }
}

/// That the TPM has the banks of a good device active, and no others.
pub(super) fn judge_set(policy: &BootReference, claims: &Claims, findings: &mut Vec<Finding>) {
    let Some(expected) = &policy.boot.banks else { return };
    let refusal = |found: String, message: String| Finding {
        accept: None,
        check: Check::PcrBanks,
        tier: Tier::Contraindicated,
        claim: "PCR banks".to_owned(),
        expected: names(expected.iter().map(|bank| bank.0)),
        found,
        message,
    };
    let missing = || {
        let message = format!(
            "The TPM's word on which PCR banks are active is not there, and policy {} lists them (boot.banks): collect the \
             evidence with an agent of today.",
            policy.citation()
        );
        refusal("not shown".to_owned(), message)
    };
    let Some(ShownBanks(shown)) = witness(claims, findings, missing) else { return };
    let is_listed = |bank: &HashAlgorithm| expected.iter().any(|listed| listed.0 == *bank);
    if shown.known().iter().all(is_listed) && shown.known().len() == expected.len() {
        return;
    }
    let found = names(shown.known().iter().copied());
    let message = format!(
        "The TPM has the PCR banks {found} active, and policy {} knows its boots by {} (boot.banks): whoever sets up the firmware \
         chooses them, and firmware need not measure into each. Set them up as on the other devices, learn the policy from a \
         device that has these, or accept this boot with `assay device approve DEVICE --boot`.",
        policy.citation(),
        names(expected.iter().map(|bank| bank.0))
    );
    let accept = policy.acceptable(BootRule::Banks(shown.known().iter().copied().map(Bank).collect()));
    findings.push(Finding { accept, ..refusal(found, message) });
}

fn finding(tier: Tier, bank: String, what: &str, citation: &str) -> Finding {
    Finding {
        accept: None,
        check: Check::PcrBanks,
        tier,
        claim: format!("PCR bank {bank}"),
        expected: "extended by firmware as every other".to_owned(),
        found: "not".to_owned(),
        message: format!(
            "The PCR bank {bank} is active, and {what}; policy {citation} judges boots. Turn that bank off in the firmware set-up, \
             or update the firmware."
        ),
    }
}

/// Whether the quote has all of a bank that firmware extends.
fn is_quoted(claims: &Claims, bank: HashAlgorithm) -> bool {
    PcrIndex::of_firmware().all(|index| claims.pcrs().get(bank, index).is_some())
}

/// Whether any of it was extended. PCR 0 starts with the locality of TPM2_Startup and so tells nothing.
fn is_measured(claims: &Claims, bank: HashAlgorithm) -> bool {
    let mut quoted = PcrIndex::of_firmware().skip(1).filter_map(|index| claims.pcrs().get(bank, index));
    quoted.any(|value| !value.is_zero())
}

fn names(banks: impl Iterator<Item = HashAlgorithm>) -> String {
    banks.map(HashAlgorithm::name).collect::<Vec<_>>().join(", ")
}
