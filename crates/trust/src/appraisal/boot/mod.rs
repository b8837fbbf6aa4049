//! What the boot log shows: that there is one, and the firmware's version; in `secure_boot.rs` whether Secure Boot
//! was on and stayed so, in `revocations.rs` what dbx holds, in `images.rs` the images that were started and who vouched
//! for them, in `commands.rs` what GRUB ran, in `loader.rs` what the kernel was told, in `sequences.rs` whole PCRs, event by
//! event, and in `openings.rs` what may stand where those leave one open.
//!
//! Only facts that a digest covers are judged. A label in the log is the sender's word, so nothing is accepted for it:
//! see [`BootFacts::kernel_lines`]. The order of the log across PCRs is the sender's as well; within one it is the TPM's.

mod commands;
mod images;
mod loader;
mod openings;
mod revocations;
mod secure_boot;
mod sequences;
mod version;

use assay_evidence::boot_log::BootFacts;
use assay_evidence::verify::Claims;
use assay_evidence::{Check, HashAlgorithm};

pub(crate) use images::{loaders_least, signers_of};
pub(crate) use openings::CHANGED_SECTIONS;
pub(crate) use version::is_older;

use super::demand::{AttestedVersion, witness};
use crate::finding::{Finding, Tier};
use crate::policy::{Acceptable, BootRule, BootSection, Demand};
use crate::reference::BootReference;

pub(super) fn judge(policy: &BootReference, claims: &Claims, findings: &mut Vec<Finding>) {
    let boot = &policy.boot;
    let facts = claims.boot().map(|claims| claims.facts());
    let mut report = Report { policy, findings };
    match facts {
        None => report.missing_log(claims.boot_log_missing()),
        Some(facts) if facts.bank == HashAlgorithm::Sha1 => report.weak_log(),
        Some(_) => {}
    }
    if boot.secure_boot == Demand::Required {
        report.judge_secure_boot(facts);
    }
    report.judge_errors(facts);
    report.judge_statements(facts, boot);
    report.judge_firmware(facts, boot);
    report.judge_sequences(claims, boot);
    report.judge_commands(facts, boot);
    report.judge_command_lines(facts, boot);
    report.judge_kernel_version(facts, boot);
    report.judge_images(facts, boot);
    report.judge_signers(facts, boot);
    report.judge_dbx(facts, boot);
}

struct Report<'a> {
    policy: &'a BootReference,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    /// Whether the policy says of the whole PCR what it may hold.
    fn closes(&self, index: u8) -> bool {
        let sequenced = self.policy.boot.sequence.keys().any(|pcr| pcr.0.get() == index);
        sequenced || self.policy.pcr.iter().any(|(_, pinned, _)| pinned.get() == index)
    }

    fn refuse(
        &mut self,
        claim: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        message: String,
    ) {
        self.findings.push(refusal(claim, expected, found, message));
    }

    /// Refuses what an operator can accept as well.
    fn refuse_unlisted(
        &mut self,
        rule: BootRule,
        claim: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        message: &str,
    ) {
        let accept = self.policy.acceptable(rule);
        let message = format!("{message}{}", or_approve(accept.as_ref()));
        self.findings.push(Finding { accept, ..refusal(claim, expected, found, message) });
    }

    fn missing_log(&mut self, were_extended: bool) {
        let required = self.policy.boot.event_log == Demand::Required;
        if !required && !were_extended {
            return;
        }
        let citation = self.policy.citation();
        let what = if were_extended {
            "PCRs of the boot were extended, but no boot log explains them"
        } else {
            "No boot log was sent"
        };
        let then = if required {
            format!(
                "policy {citation} requires one: see whether the boot loader hands the log to the kernel, or set \
                 boot.event_log = \"optional\""
            )
        } else {
            format!("policy {citation} accepts that")
        };
        self.findings.push(Finding {
            accept: None,
            check: Check::EventLogPresent,
            tier: if required { Tier::Contraindicated } else { Tier::Affirming },
            claim: "boot log".to_owned(),
            expected: "a boot log that replays to the quoted PCRs".to_owned(),
            found: "none".to_owned(),
            message: format!("{what}; {then}."),
        });
    }

    fn weak_log(&mut self) {
        self.findings.push(Finding {
            accept: None,
            check: Check::AlgorithmPolicy,
            tier: Tier::Contraindicated,
            claim: "boot log".to_owned(),
            expected: "a log and a quote in sha256 or better".to_owned(),
            found: "sha1 alone".to_owned(),
            message: format!(
                "The boot log is vouched for by SHA-1 digests alone, which policy {} does not count, because collisions can \
                 be made: turn on the TPM's SHA-256 bank in the firmware set-up.",
                self.policy.citation()
            ),
        });
    }

    fn judge_firmware(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let Some(allowed) = &boot.firmware_versions else { return };
        let citation = self.policy.citation();
        let expected = || allowed.join(" or ");
        let missing = || {
            let message = format!(
                "The boot log does not show the firmware's version, and policy {citation} lists allowed ones."
            );
            refusal("firmware", expected(), "unknown", message)
        };
        let Some(AttestedVersion(found)) = witness(facts, self.findings, missing) else { return };
        if allowed.iter().any(|allowed| allowed == *found) {
            return;
        }
        let shown = found.escape_debug().to_string();
        let message = format!(
            "The firmware's version is `{shown}`, which policy {citation} does not list: if it is an update of yours, add it \
             to boot.firmware_versions"
        );
        let rule = BootRule::FirmwareVersion((*found).to_owned());
        self.refuse_unlisted(rule, "firmware", expected(), shown, &message);
    }
}

/// How a sentence ends that says where to list what was measured.
fn or_approve(accept: Option<&Acceptable>) -> &'static str {
    match accept {
        Some(_) => ", or accept this boot with `assay device approve DEVICE --boot`.",
        None => ".",
    }
}

/// A finding that refuses a boot.
fn refusal(claim: &str, expected: impl Into<String>, found: impl Into<String>, message: String) -> Finding {
    Finding {
        accept: None,
        check: Check::BootPolicy,
        tier: Tier::Contraindicated,
        claim: claim.to_owned(),
        expected: expected.into(),
        found: found.into(),
        message,
    }
}

/// A demanded boot log that shows nothing; one that is not there at all is said with the boot.
pub(super) fn empty_log(citation: &str) -> Finding {
    Finding {
        accept: None,
        check: Check::EventLogPresent,
        tier: Tier::Contraindicated,
        claim: "boot log".to_owned(),
        expected: "events of the firmware in PCRs 0 to 7".to_owned(),
        found: "none".to_owned(),
        message: format!(
            "The boot log has no event in any PCR of the firmware, so that it shows no boot, and policy {citation} requires one: \
             see whether the boot loader hands the firmware's log to the kernel."
        ),
    }
}
