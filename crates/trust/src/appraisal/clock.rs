//! The TPM's clock. That its reset counter does not go back is a matter of verification.

use assay_evidence::Check;
use assay_evidence::verify::Claims;

use crate::finding::{Finding, Tier};
use crate::policy::Weight;
use crate::reference::CompiledPolicy;

pub(super) fn judge(policy: &CompiledPolicy, claims: &Claims, findings: &mut Vec<Finding>) {
    let Some(tier) = policy.clock.unsafe_clock.tier() else { return };
    if claims.clock().safe {
        return;
    }
    findings.push(Finding {
        accept: None,
        check: Check::ClockPolicy,
        tier,
        claim: "TPM clock".to_owned(),
        expected: "safe".to_owned(),
        found: "not safe".to_owned(),
        message: format!(
            "The TPM lost power without an orderly shutdown, so its clock may lie in the past until it has caught up. \
             It is safe again within hours; policy {} weighs it by clock.unsafe_clock.",
            policy.citation()
        ),
    });
}

impl Weight {
    /// The tier of a finding of this weight; what is reported is accepted all the same.
    pub(super) fn tier(self) -> Option<Tier> {
        match self {
            Weight::Refuse => Some(Tier::Contraindicated),
            Weight::Report => Some(Tier::Affirming),
            Weight::Ignore => None,
        }
    }
}
