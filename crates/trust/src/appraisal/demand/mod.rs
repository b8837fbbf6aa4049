//! Demands are met by something attested, or they are not met.
//!
//! What meets a demand is a witness: see `witness.rs` for each kind. Only [`witness`] and [`witness_if`] give one, and only
//! against the finding that says what is missing. So a rule that passes over an empty set, or fails in silence, does not
//! compile.

mod witness;

use crate::finding::Finding;

#[cfg(feature = "rego")]
pub(super) use witness::AnsweredRules;
pub(super) use witness::{
    AttestedBoot, AttestedFiles, AttestedList, AttestedVersion, CertifiedKey, IdentifiedDevice, KernelLines,
    Measured, MeasuredKernelPolicy, MeasuredPcr, QuotedPcr, SecureBootShown, ShownBanks, StartedImages,
    TrustedImages, VouchedKey,
};

/// Something attested that a demand can be met by.
pub(super) trait Attested: Sized {
    /// What attests it.
    type By;

    /// `None` where nothing is attested. Nobody else has an [`Asked`] to call it with.
    fn attested(by: Self::By, _: &Asked) -> Option<Self>;
}

/// That a finding stands ready for the case that there is nothing.
pub(super) struct Asked(());

/// What is said where a demand is not met: at least one finding.
pub(super) struct Missing {
    /// What else there is to say of it.
    pub(super) why: Vec<Finding>,
    /// That it is not met.
    pub(super) finding: Finding,
}

impl From<Finding> for Missing {
    fn from(finding: Finding) -> Self {
        Missing { why: Vec::new(), finding }
    }
}

/// What meets a demand that is made, or the finding says that it is not met.
pub(super) fn witness<W: Attested, M: Into<Missing>>(
    by: W::By,
    findings: &mut Vec<Finding>,
    missing: impl FnOnce() -> M,
) -> Option<W> {
    witness_if(true, by, findings, missing)
}

/// The same of a demand that is made or not: what is not asked for need not be there.
pub(super) fn witness_if<W: Attested, M: Into<Missing>>(
    is_asked: bool,
    by: W::By,
    findings: &mut Vec<Finding>,
    missing: impl FnOnce() -> M,
) -> Option<W> {
    let found = W::attested(by, &Asked(()));
    if found.is_none() && is_asked {
        let Missing { mut why, finding } = missing().into();
        findings.append(&mut why);
        findings.push(finding);
    }
    found
}

/// Whether there is something that would meet a demand. It judges nothing.
pub(super) fn is_shown<W: Attested>(by: W::By) -> bool {
    W::attested(by, &Asked(())).is_some()
}
