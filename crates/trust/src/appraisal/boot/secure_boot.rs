//! Secure Boot as a conclusion: what the firmware was set to, that it stayed so, that shim checked as well, and that
//! nothing in PCR 7 is unaccounted for.

use assay_evidence::boot_log::BootFacts;

use super::{Report, refusal};
use crate::appraisal::demand::{SecureBootShown, witness};
use crate::policy::{BootRule, BootSection};

impl Report<'_> {
    pub(super) fn judge_secure_boot(&mut self, facts: Option<&BootFacts>) {
        let citation = self.policy.citation();
        let has_signers = self.policy.boot.signers.is_some();
        let off = |found: &str, what: String| {
            let message = format!(
                "{what}, and policy {citation} requires Secure Boot: turn it on in the firmware set-up, or set \
                 boot.secure_boot = \"optional\"."
            );
            refusal("Secure Boot", "on", found, message)
        };
        let missing = || {
            let what = match facts {
                None => "Without a boot log nothing shows whether Secure Boot was on",
                Some(_) => "The boot log does not show in PCR 7 whether Secure Boot was on",
            };
            off("unknown", what.to_owned())
        };
        let Some(SecureBootShown(shown)) = witness(facts, self.findings, missing) else { return };
        let (facts, variables) = *shown;
        let is_shim_unknown =
            !self.closes(MOK_PCR) && facts.unexplained_pcrs.iter().any(|pcr| pcr.get() == MOK_PCR);
        let mut refuse = |found: &str, what: String| self.findings.push(off(found, what));
        if !variables.is_enabled {
            return refuse("off", "Secure Boot is off".to_owned());
        }
        if is_shim_unknown {
            let what =
                "PCR 14 holds more than the boot log tells, so that shim may have been told to check nothing";
            refuse("unknown", what.to_owned());
        }
        if facts.is_shim_validation_off {
            let what = "shim's own checks of boot loader and kernel are switched off (MokSBState)";
            refuse("switched off in shim", what.to_owned());
        }
        if !facts.remeasured.is_empty() {
            let names = facts.remeasured.join(", ");
            refuse("changed", format!("The Secure Boot variables {names} were measured more than once"));
        }
        // Whom images were trusted by is the signers' rule, which says more of each.
        if !has_signers {
            for event in &facts.unexplained_in_pcr7 {
                let what = format!(
                    "Event {event} of the boot log changed PCR 7 and does not say what it is, so that Secure Boot may have been \
                     changed by it"
                );
                refuse(&format!("event {event}"), what);
            }
        }
    }

    /// Firmware says in words where it left a protection off; each that nobody accepted counts, wherever it stands.
    pub(super) fn judge_statements(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let statements = facts.map(|facts| facts.statements.as_slice()).unwrap_or_default();
        let is_accepted = |text: &str| boot.firmware_statements.iter().any(|accepted| accepted == text);
        let citation = self.policy.citation();
        let unaccepted = statements.iter().filter(|statement| !is_accepted(&statement.text));
        for statement in unaccepted.take(STATEMENTS_SAID_MAX) {
            let text = statement.text.escape_debug();
            let message = format!(
                "The firmware says `{text}` in PCR 7 (event {}), which policy {citation} does not accept: turn the protection on \
                 in the firmware set-up, or list the words under boot.firmware_statements",
                statement.event
            );
            let rule = BootRule::FirmwareStatement(statement.text.clone());
            self.refuse_unlisted(rule, "firmware protection", "nothing said", text.to_string(), &message);
        }
    }

    /// A separator of the number 1 reports an error of the firmware (Platform Firmware Profile, 10.4.1).
    pub(super) fn judge_errors(&mut self, facts: Option<&BootFacts>) {
        for index in facts.map(|facts| facts.error_separators.as_slice()).unwrap_or_default() {
            let message = format!(
                "The firmware reports an error where it ends PCR {index}, so that nothing it measured there counts: see what \
                 its own log says."
            );
            self.refuse("firmware", format!("a separator in PCR {index}"), "an error", message);
        }
    }
}

/// How many there are the sender chooses; real firmware says one or two.
const STATEMENTS_SAID_MAX: usize = 8;
/// Where shim measures its lists and states.
const MOK_PCR: u8 = 14;
