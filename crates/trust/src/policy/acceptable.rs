//! What an operator can accept of a boot that was refused: what findings name, put where the policy would have it.
//!
//! A boot is accepted as a whole: the one that it came nearest to with what was measured in the place of what differs, so
//! that neither a new kernel is good with an old command line nor an old one with the new.

use assay_evidence::{Digest, PcrIndex};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::alternative::Boots;
use super::{Alternative, Bank, Pcr, PcrSection, Policy, Sequence};
use crate::pattern::LinePattern;

/// What one finding about a boot would have the policy list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptable {
    /// Which of the policy's boots the measured one was held against: 0 is its own, 1 the first alternative.
    pub boot: usize,
    /// The field, and what would be in it.
    pub rule: BootRule,
}

/// A field of a policy's boot, and what was measured that is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "field", content = "value", deny_unknown_fields)]
pub enum BootRule {
    /// The active PCR banks.
    #[serde(rename = "boot.banks")]
    Banks(Vec<Bank>),
    /// The kernel's command line.
    #[serde(rename = "boot.kernel_command_lines")]
    CommandLine(String),
    /// The image that was started last, where kernels are listed.
    #[serde(rename = "boot.kernels")]
    Kernel(Digest),
    /// An image that was started.
    #[serde(rename = "boot.applications")]
    Image(Digest),
    /// What Secure Boot trusted an image by.
    #[serde(rename = "boot.signers")]
    Signer(Digest),
    /// The firmware's version.
    #[serde(rename = "boot.firmware_versions")]
    FirmwareVersion(String),
    /// What firmware says of its protections.
    #[serde(rename = "boot.firmware_statements")]
    FirmwareStatement(String),
    /// A command of the boot loader.
    #[serde(rename = "boot.grub_commands")]
    Command(String),
    /// All events of a PCR.
    #[serde(rename = "boot.sequence")]
    Events {
        /// Which.
        pcr: Pcr,
        /// From the first to the last.
        events: Sequence,
    },
    /// A PCR's value.
    #[serde(rename = "pcr")]
    Value {
        /// Which.
        pcr: Pcr,
        /// In the bank of its algorithm.
        value: Digest,
    },
}

/// Why what findings name cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAcceptable {
    /// They are of several boots, or of one that the policy does not have.
    #[error("the findings are not about one boot of the policy")]
    Boot,
    /// A text that is no pattern, as it would have to be.
    #[error(
        "a command with wildcards in it cannot be accepted: write a pattern for it into boot.grub_commands"
    )]
    Command,
}

impl BootRule {
    /// The field, as policies write it.
    pub fn field(&self) -> String {
        match self {
            BootRule::Banks(_) => "boot.banks".to_owned(),
            BootRule::CommandLine(_) => "boot.kernel_command_lines".to_owned(),
            BootRule::Kernel(_) => "boot.kernels".to_owned(),
            BootRule::Image(_) => "boot.applications".to_owned(),
            BootRule::Signer(_) => "boot.signers".to_owned(),
            BootRule::FirmwareVersion(_) => "boot.firmware_versions".to_owned(),
            BootRule::FirmwareStatement(_) => "boot.firmware_statements".to_owned(),
            BootRule::Command(_) => "boot.grub_commands".to_owned(),
            BootRule::Events { pcr, .. } => format!("boot.sequence.{}", pcr.0),
            BootRule::Value { pcr, value } => format!("pcr.{}.{}", value.algorithm(), pcr.0),
        }
    }

    /// As it stands in a finding; `None` where there is more of it than an operator could look at.
    pub(crate) fn offered(self) -> Option<BootRule> {
        let is_short = match &self {
            BootRule::CommandLine(text)
            | BootRule::FirmwareVersion(text)
            | BootRule::FirmwareStatement(text)
            | BootRule::Command(text) => text.len() <= TEXT_BYTES_MAX,
            BootRule::Events { events, .. } => events.0.len() <= EVENTS_MAX,
            BootRule::Banks(_)
            | BootRule::Kernel(_)
            | BootRule::Image(_)
            | BootRule::Signer(_)
            | BootRule::Value { .. } => true,
        };
        is_short.then_some(self)
    }

    /// Whether what was good before still is with it.
    fn is_addition(&self) -> bool {
        matches!(
            self,
            BootRule::Image(_) | BootRule::Signer(_) | BootRule::FirmwareStatement(_) | BootRule::Command(_)
        )
    }

    /// Puts it in its place. What there is one of in a boot takes the place of what was there.
    fn put_into(&self, boot: &mut Alternative) -> Result<(), NotAcceptable> {
        let Alternative { pcr: pinned, boot } = boot;
        match self {
            BootRule::Banks(banks) => boot.banks = Some(banks.clone()),
            BootRule::CommandLine(line) => {
                boot.kernel_command_lines = Some(vec![line.clone()]);
                boot.kernel_command_line_patterns = Vec::new();
            }
            BootRule::Kernel(digest) => boot.kernels = Some(vec![*digest]),
            BootRule::Image(digest) => add(boot.applications.get_or_insert_default(), digest),
            BootRule::Signer(digest) => add(boot.signers.get_or_insert_default(), digest),
            BootRule::FirmwareVersion(version) => boot.firmware_versions = Some(vec![version.clone()]),
            BootRule::FirmwareStatement(text) => add(&mut boot.firmware_statements, text),
            BootRule::Command(text) => {
                let pattern = literal(text).ok_or(NotAcceptable::Command)?;
                add(&mut boot.grub_commands, &pattern);
            }
            BootRule::Events { pcr, events } => {
                boot.sequence.insert(*pcr, vec![events.clone()]);
            }
            BootRule::Value { pcr, value } => pin(pinned, pcr.0, *value),
        }
        Ok(())
    }
}

impl Policy {
    /// The boot that rules of one result make of the one that it came nearest to.
    pub fn accepted_boot(&self, rules: &[Acceptable]) -> Result<AcceptedBoot, NotAcceptable> {
        let number = rules.first().ok_or(NotAcceptable::Boot)?.boot;
        if rules.iter().any(|rule| rule.boot != number) {
            return Err(NotAcceptable::Boot);
        }
        let nearest = self.boots().nth(number).ok_or(NotAcceptable::Boot)?;
        let before = Alternative { pcr: nearest.pcr.clone(), boot: nearest.boot.clone() };
        let mut boot = before.clone();
        rules.iter().try_for_each(|rule| rule.rule.put_into(&mut boot))?;
        let is_wider = rules.iter().all(|rule| rule.rule.is_addition());
        Ok(AcceptedBoot { boot, instead_of: Some(before).filter(|_| is_wider) })
    }

    /// Accepts one more boot. A policy that asks nothing of boots accepts it as it is.
    pub fn accept_boot(&mut self, accepted: &AcceptedBoot) {
        if !self.speaks_of_boots() {
            return;
        }
        let AcceptedBoot { boot, instead_of } = accepted;
        let mut boots = Boots::of(self);
        if let Some(instead_of) = instead_of {
            boots.remove(instead_of);
        }
        boots.insert(boot);
        boots.put_into(self);
    }
}

/// A boot that an operator accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedBoot {
    boot: Alternative,
    /// The boot that it accepts as well.
    instead_of: Option<Alternative>,
}

fn add<T: PartialEq + Clone>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

/// Instead of the values that the bank had for it.
fn pin(pinned: &mut PcrSection, index: PcrIndex, value: Digest) {
    let others = pinned.take(index);
    let others = others.iter().filter(|(bank, ..)| *bank != value.algorithm());
    others.for_each(|(_, index, values)| values.iter().for_each(|value| pinned.allow(index, *value)));
    pinned.allow(index, value);
}

/// The pattern that covers the text and nothing else.
pub(crate) fn literal(text: &str) -> Option<LinePattern> {
    let has_wildcards = text.contains(['*', '?']);
    text.parse().ok().filter(|pattern: &LinePattern| !has_wildcards && pattern.matches(text))
}

/// Longer than any line that a kernel takes (COMMAND_LINE_SIZE is at most 4096).
const TEXT_BYTES_MAX: usize = 4096;
/// Three times what GRUB measures into PCR 8 for a menu of a dozen entries.
const EVENTS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use assay_evidence::HashAlgorithm;

    use super::super::Slot;

    fn policy() -> Policy {
        let text = "name = \"edge\"\nversion = 1\n[boot]\nkernel_command_lines = [\"/k1 ro\"]\n[pcr.sha256]\n\"4\" = [\"AA\"]\n";
        Policy::from_toml(&text.replace("AA", &"aa".repeat(32))).unwrap()
    }

    fn of(boot: usize, rule: BootRule) -> Acceptable {
        Acceptable { boot, rule }
    }

    fn line(text: &str) -> BootRule {
        BootRule::CommandLine(text.to_owned())
    }

    #[test]
    fn what_there_is_one_of_makes_another_boot() {
        let value = HashAlgorithm::Sha256.hash(&[b"x"]);
        let pcr = Pcr(PcrIndex::new(4).unwrap());
        let rules = [of(0, line("/k2 ro")), of(0, BootRule::Value { pcr, value })];
        let mut widened = policy();
        widened.accept_boot(&policy().accepted_boot(&rules).unwrap());
        let boots: Vec<_> =
            widened.boots().map(|boot| (boot.boot.kernel_command_lines.clone(), boot.pcr.clone())).collect();
        assert_eq!(boots.len(), 2);
        for (lines, pinned) in boots {
            let is_new = lines == Some(vec!["/k2 ro".to_owned()]);
            let values: Vec<_> = pinned.iter().flat_map(|(.., values)| values).copied().collect();
            assert_eq!((values.len(), values.contains(&value)), (1, is_new));
        }
        let again = widened.clone();
        widened.accept_boot(&policy().accepted_boot(&rules).unwrap());
        assert_eq!(widened, again, "the same boot is there once");
    }

    #[test]
    fn what_is_added_to_makes_a_boot_wider() {
        let rules = [of(0, BootRule::FirmwareStatement("DMA Protection Disabled".to_owned()))];
        let mut widened = policy();
        widened.accept_boot(&policy().accepted_boot(&rules).unwrap());
        assert_eq!((widened.alternative.len(), widened.boot.firmware_statements.len()), (0, 1));
    }

    #[test]
    fn what_makes_no_boot_is_refused() {
        let error = |rules: &[Acceptable]| policy().accepted_boot(rules).unwrap_err();
        assert_eq!(error(&[]), NotAcceptable::Boot);
        assert_eq!(error(&[of(1, line("/k2"))]), NotAcceptable::Boot);
        assert_eq!(error(&[of(0, line("/k2")), of(1, line("/k2"))]), NotAcceptable::Boot);
        assert_eq!(error(&[of(0, BootRule::Command("insmod *".to_owned()))]), NotAcceptable::Command);
        assert_eq!(line(&"a".repeat(4097)).offered(), None);
    }

    #[test]
    fn a_policy_that_asks_nothing_of_boots_does_not_begin_to() {
        let mut files = Policy::new("files");
        files.accept_boot(&policy().accepted_boot(&[of(0, line("/k2 ro"))]).unwrap());
        assert_eq!(files, Policy::new("files"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let events = Sequence(vec![Slot::File, Slot::Any(1)]);
        let pcr = Pcr(PcrIndex::new(9).unwrap());
        let value = HashAlgorithm::Sha384.hash(&[b"x"]);
        for rule in [
            line("/k"),
            BootRule::Events { pcr, events },
            BootRule::Value { pcr, value },
            BootRule::Kernel(value),
        ] {
            let json = serde_json::to_string(&of(3, rule.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Acceptable>(&json).unwrap(), of(3, rule.clone()), "{json}");
            assert!(json.contains(&rule.field().split(".sha").next().unwrap().replace(".9", "")), "{json}");
        }
        assert!(
            serde_json::from_str::<Acceptable>(
                "{\"boot\":0,\"rule\":{\"field\":\"boot.dbx\",\"value\":\"\"}}"
            )
            .is_err()
        );
    }
}
