//! What is well-formed and still of no use: an empty policy is an error, not a pass.

use super::section::Section;
use super::{Boot, Policy, PolicyError};

impl Policy {
    /// Everything that keeps this policy from doing its work.
    pub fn lint(&self) -> Vec<PolicyError> {
        let mut errors = Vec::new();
        self.lint_heading(&mut errors);
        self.sections().into_iter().for_each(|section| section.lint(&mut errors));
        errors.extend(Boot { pcr: &self.pcr, boot: &self.boot }.weakness());
        self.lint_alternatives(&mut errors);
        let measures = |section: &dyn Section| section.measures();
        let is_judged = |boot: Boot<'_>| boot.sections().into_iter().any(measures);
        if !self.sections_beside_boots().into_iter().any(measures) && !self.boots().all(is_judged) {
            errors.push(PolicyError::MeasuresNothing);
        }
        errors
    }

    fn lint_heading(&self, errors: &mut Vec<PolicyError>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(plain) {
            errors.push(PolicyError::Name { name: self.name.clone() });
        }
        // TOML has signed integers.
        if self.version == 0 || i64::try_from(self.version).is_err() {
            errors.push(PolicyError::Version { version: self.version });
        }
    }
}

const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::section::freshness::EVIDENCE_AGE_MAX_SECONDS;
    use crate::policy::{EndorsementKind, VendorRule};
    use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

    fn check(change: impl FnOnce(&mut Policy), expected: PolicyError) {
        let mut policy = Policy::new("edge");
        policy.allow_file(b"/bin/a", HashAlgorithm::Sha256.hash(&[b"a"]));
        assert_eq!(policy.lint(), []);
        change(&mut policy);
        assert_eq!(policy.lint(), [expected]);
    }

    fn digest() -> Digest {
        HashAlgorithm::Sha256.hash(&[b"b"])
    }

    fn required(kind: EndorsementKind) -> VendorRule {
        VendorRule { required: Some(kind), ..VendorRule::default() }
    }

    #[test]
    fn each_useless_line_is_named() {
        check(|policy| policy.name = "no spaces".into(), PolicyError::Name { name: "no spaces".into() });
        check(
            |policy| policy.endorsement.required = EndorsementKind::Both,
            PolicyError::EmptyList { field: "endorsement.ek_sha256".into() },
        );
        check(
            |policy| {
                policy.endorsement.vendor.insert("id:IFX".into(), required(EndorsementKind::Either));
            },
            PolicyError::Vendor { name: "id:IFX".into() },
        );
        check(
            |policy| {
                for name in ["id:4946580A", "id:4946580a"] {
                    policy.endorsement.vendor.insert(name.into(), required(EndorsementKind::Either));
                }
            },
            PolicyError::Vendor { name: "id:4946580a".into() },
        );
        check(
            |policy| {
                policy.endorsement.vendor.insert("id:49465800".into(), VendorRule::default());
            },
            PolicyError::EmptyList { field: "endorsement.vendor.\"id:49465800\"".into() },
        );
        check(
            |policy| policy.endorsement.crl_grace_seconds = 1 << 40,
            PolicyError::CrlGrace { seconds: 1 << 40, max: 365 * 24 * 3600 },
        );
        check(|policy| policy.version = 0, PolicyError::Version { version: 0 });
        check(|policy| policy.ima = None, PolicyError::MeasuresNothing);
        check(
            |policy| policy.boot.applications = Some(Vec::new()),
            PolicyError::EmptyList { field: "boot.applications".into() },
        );
        check(
            |policy| {
                policy.ima.get_or_insert_default().keyrings.insert(".ima".into(), Vec::new());
            },
            PolicyError::EmptyList { field: "ima.keyrings.\".ima\"".into() },
        );
        check(
            |policy| policy.location = Some(Default::default()),
            PolicyError::EmptyList { field: "location".into() },
        );
        check(|policy| policy.allow_file(b"boot_aggregate", digest()), PolicyError::BootAggregateListed);
        check(
            |policy| policy.allow_pcr(PcrIndex::new(10).unwrap(), digest()),
            PolicyError::ImaPcrPinned { bank: HashAlgorithm::Sha256 },
        );
        check(
            |policy| policy.allow_pcr(PcrIndex::new(0).unwrap(), HashAlgorithm::Sha1.hash(&[b"b"])),
            PolicyError::WeakBankAlone,
        );
        check(
            |policy| policy.freshness.evidence_age_max_seconds = 0,
            PolicyError::EvidenceAge {
                field: "evidence_age_max_seconds",
                seconds: 0,
                max: EVIDENCE_AGE_MAX_SECONDS,
            },
        );
        let seconds = EVIDENCE_AGE_MAX_SECONDS + 1;
        check(
            |policy| policy.freshness.unanswered_max_seconds = seconds,
            PolicyError::EvidenceAge {
                field: "unanswered_max_seconds",
                seconds,
                max: EVIDENCE_AGE_MAX_SECONDS,
            },
        );
        check(
            |policy| policy.freshness.offline_max_seconds = Some(0),
            PolicyError::EvidenceAge {
                field: "offline_max_seconds",
                seconds: 0,
                max: EVIDENCE_AGE_MAX_SECONDS,
            },
        );
        check(
            |policy| policy.freshness.restart_offline_max_seconds = Some(seconds),
            PolicyError::EvidenceAge {
                field: "restart_offline_max_seconds",
                seconds,
                max: EVIDENCE_AGE_MAX_SECONDS,
            },
        );
    }
}
