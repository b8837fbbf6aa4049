//! Who vouches for the TPM.

use assay_evidence::Check;
use assay_evidence::tpm::ek_certificate::Endorsement;

use crate::finding::{Finding, Tier};
use crate::policy::EndorsementKind;
use crate::reference::CompiledPolicy;

/// Without an endorsement, the keys may be those of any program that plays a TPM.
pub(super) fn judge(policy: &CompiledPolicy, endorsement: Option<&Endorsement>, findings: &mut Vec<Finding>) {
    let accepted = &policy.endorsement.manufacturers;
    let (expected, found, message) = match endorsement {
        None if policy.endorsement.required == EndorsementKind::Certificate => (
            "an EK certificate that chains to a trust anchor".to_owned(),
            "none".to_owned(),
            format!(
                "No EK certificate vouches for this TPM, and policy {} requires one: enroll the device with its EK \
                 certificate, or trust its manufacturer's root.",
                policy.citation()
            ),
        ),
        Some(endorsement) if !accepted.is_empty() && !is_accepted(accepted, endorsement) => {
            let found = endorsement.manufacturer().unwrap_or("a manufacturer that is not named").to_owned();
            let message = format!(
                "The TPM is by {found}, which policy {} does not list: add it to endorsement.manufacturers if it is \
                 to be trusted.",
                policy.citation()
            );
            (accepted.join(", "), found, message)
        }
        _ => return,
    };
    findings.push(Finding {
        check: Check::EndorsementPolicy,
        tier: Tier::Contraindicated,
        claim: "EK certificate".to_owned(),
        expected,
        found,
        message,
    });
}

fn is_accepted(accepted: &[String], endorsement: &Endorsement) -> bool {
    endorsement
        .manufacturer()
        .is_some_and(|name| accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(name)))
}
