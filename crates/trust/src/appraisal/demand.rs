//! Demands are met by something attested, or they are not met.
//!
//! What meets a demand is a witness, and each kind of witness is made here alone, of claims that show something: a list
//! of which nothing is attested, or a log without an event, is none. That a demand is not met has to be said. So a check
//! that passes over an empty set, or fails in silence, does not compile.

use assay_evidence::Check;
use assay_evidence::verify::{Claims, ImaClaims};

use crate::finding::{Finding, Tier};

/// How a demand stands.
pub(super) enum Stand<W> {
    /// The policy does not make it.
    NotAsked,
    /// This meets it.
    Met(W),
    /// It is not met, and that is said.
    Unmet(Said),
}

/// That a finding says why. Made by saying it.
pub(super) struct Said(());

impl Said {
    pub(super) fn by(finding: Finding, findings: &mut Vec<Finding>) -> Self {
        findings.push(finding);
        Said(())
    }
}

impl<W> Stand<W> {
    /// How a demand stands that is made or not, by its witness; `missing` says what is not there.
    pub(super) fn of(
        is_asked: bool,
        witness: Option<W>,
        findings: &mut Vec<Finding>,
        missing: impl FnOnce() -> Finding,
    ) -> Self {
        match (is_asked, witness) {
            (_, Some(witness)) => Stand::Met(witness),
            (true, None) => Stand::Unmet(Said::by(missing(), findings)),
            (false, None) => Stand::NotAsked,
        }
    }
}

/// A list of which PCR 10 attests something: a file, or where a policy accepts none, that there was none.
#[derive(Clone, Copy)]
pub(super) struct AttestedFiles<'a>(&'a ImaClaims);

impl<'a> AttestedFiles<'a> {
    /// `None`: nothing is attested, or boot_aggregate alone, which the kernel writes before it measures anything.
    pub(super) fn of(claims: &'a Claims) -> Option<Self> {
        let ima = claims.ima()?;
        (ima.attested_total() > BOOT_AGGREGATES).then_some(AttestedFiles(ima))
    }

    /// What meets a policy that accepts no file: boot_aggregate shows that the kernel keeps a list.
    pub(super) fn or_none_of(claims: &'a Claims) -> Option<Self> {
        let ima = claims.ima()?;
        (ima.attested_total() >= BOOT_AGGREGATES).then_some(AttestedFiles(ima))
    }

    pub(super) fn claims(self) -> &'a ImaClaims {
        self.0
    }
}

/// A boot log with something that the firmware measured.
pub(super) struct AttestedBoot(());

impl AttestedBoot {
    /// `None`: no event of the log extended a PCR of the firmware's.
    pub(super) fn of(claims: &Claims) -> Option<Self> {
        let boot = claims.boot()?;
        boot.events().iter().any(|event| event.pcr.get() <= FIRMWARE_PCR_LAST).then_some(AttestedBoot(()))
    }
}

/// A demanded boot log that shows nothing; one that is not there at all is said with the boot.
pub(super) fn empty_log(citation: &str) -> Finding {
    Finding {
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

/// The first entry of a list.
const BOOT_AGGREGATES: u64 = 1;
/// TCG PC Client Platform Firmware Profile, 2.3.4: 0 to 7 are the firmware's.
const FIRMWARE_PCR_LAST: u8 = 7;
