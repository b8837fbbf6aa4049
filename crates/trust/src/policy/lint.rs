//! What is well-formed and still of no use: an empty policy is an error, not a pass.

use std::collections::BTreeSet;

use assay_evidence::{Digest, HashAlgorithm};

use super::{BootSection, EndorsementKind, Policy, PolicyError};
use crate::path;

impl Policy {
    /// Everything that keeps this policy from doing its work.
    pub fn lint(&self) -> Vec<PolicyError> {
        let mut errors = Vec::new();
        self.lint_heading(&mut errors);
        self.lint_endorsement(&mut errors);
        self.lint_pcrs(&mut errors);
        self.lint_boot(&mut errors);
        self.lint_ima(&mut errors);
        if let Some(rego) = &self.rego {
            rego.lint(&mut errors);
        }
        if !self.measures_something() {
            errors.push(PolicyError::MeasuresNothing);
        }
        errors
    }

    fn measures_something(&self) -> bool {
        let files = self.ima.as_ref().is_some_and(|ima| {
            !ima.allow.is_empty() || !ima.signing_keys.is_empty() || !ima.keyrings.is_empty()
        });
        let BootSection { kernel_command_lines, kernel_command_line_patterns, .. } = &self.boot;
        let lines = kernel_command_lines.is_some() || !kernel_command_line_patterns.is_empty();
        let images = self.boot.applications.is_some() || self.boot.signers.is_some();
        !self.pcr.is_empty() || files || lines || images
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
        let seconds = self.freshness.evidence_age_max_seconds;
        if seconds == 0 || seconds > EVIDENCE_AGE_MAX_SECONDS {
            errors.push(PolicyError::EvidenceAge { seconds, max: EVIDENCE_AGE_MAX_SECONDS });
        }
        if self.location.as_ref().is_some_and(|location| location.is_empty()) {
            errors.push(PolicyError::EmptyList { field: "location".to_owned() });
        }
    }

    fn lint_endorsement(&self, errors: &mut Vec<PolicyError>) {
        let endorsement = &self.endorsement;
        let only_list = matches!(endorsement.required, EndorsementKind::Allowlist | EndorsementKind::Both);
        if only_list && endorsement.ek_sha256.is_empty() {
            errors.push(PolicyError::EmptyList { field: "endorsement.ek_sha256".to_owned() });
        }
        let mut names = BTreeSet::new();
        for (name, rule) in &endorsement.vendor {
            let digits = name.strip_prefix("id:").unwrap_or_default();
            let hex = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            // The same name in another case would be a second rule for the same TPMs.
            if !hex || !names.insert(name.to_ascii_uppercase()) {
                errors.push(PolicyError::Vendor { name: name.clone() });
            }
            if rule.required.is_none() && rule.firmware_version_min.is_none() {
                errors.push(PolicyError::EmptyList { field: format!("endorsement.vendor.{name:?}") });
            }
        }
        let (field, count) = ("endorsement.ek_sha256", endorsement.ek_sha256.len());
        if count > EK_SHA256_MAX {
            errors.push(PolicyError::TooMany { field, count, max: EK_SHA256_MAX });
        }
    }

    fn lint_pcrs(&self, errors: &mut Vec<PolicyError>) {
        for (bank, index, values) in self.pcr.iter() {
            if values.is_empty() {
                errors.push(PolicyError::EmptyList { field: format!("pcr.{bank}.{index}") });
            }
            if index.get() == IMA_PCR {
                errors.push(PolicyError::ImaPcrPinned { bank });
            }
        }
        if !self.pcr.is_empty() && self.pcr.iter().all(|(bank, ..)| bank == HashAlgorithm::Sha1) {
            errors.push(PolicyError::WeakBankAlone);
        }
    }

    fn lint_boot(&self, errors: &mut Vec<PolicyError>) {
        let boot = &self.boot;
        let is_empty = |digests: &Option<Vec<Digest>>| digests.as_ref().is_some_and(Vec::is_empty);
        let is_blank = |texts: &Option<Vec<String>>| texts.as_ref().is_some_and(Vec::is_empty);
        for (field, is_empty) in [
            ("kernel_command_lines", is_blank(&boot.kernel_command_lines)),
            ("applications", is_empty(&boot.applications)),
            ("kernels", is_empty(&boot.kernels)),
            ("signers", is_empty(&boot.signers)),
            ("firmware_versions", is_blank(&boot.firmware_versions)),
        ] {
            if is_empty {
                errors.push(PolicyError::EmptyList { field: format!("boot.{field}") });
            }
        }
        if boot.kernels.is_some() && boot.applications.is_none() {
            errors.push(PolicyError::KernelsAlone);
        }
        let (field, max) = ("boot.kernel_command_line_patterns", LINE_PATTERNS_MAX);
        let count = boot.kernel_command_line_patterns.len();
        if count > max {
            errors.push(PolicyError::TooMany { field, count, max });
        }
    }

    fn lint_ima(&self, errors: &mut Vec<PolicyError>) {
        let Some(ima) = &self.ima else { return };
        if ima.allow.contains_key(BOOT_AGGREGATE) {
            errors.push(PolicyError::BootAggregateListed);
        }
        for (text, digests) in &ima.allow {
            if path::from_text(text).is_none() {
                errors.push(PolicyError::Path { path: text.clone() });
            }
            if digests.is_empty() {
                errors.push(PolicyError::EmptyList { field: format!("ima.allow.{text:?}") });
            }
        }
        for (text, digests) in &ima.keyrings {
            if path::from_text(text).is_none() {
                errors.push(PolicyError::Path { path: text.clone() });
            }
            if digests.is_empty() {
                errors.push(PolicyError::EmptyList { field: format!("ima.keyrings.{text:?}") });
            }
        }
        for (field, count, max) in [
            ("ima.exclude", ima.exclude.len(), EXCLUDE_MAX),
            ("ima.signing_keys", ima.signing_keys.len(), SIGNING_KEYS_MAX),
        ] {
            if count > max {
                errors.push(PolicyError::TooMany { field, count, max });
            }
        }
    }
}

/// The name the kernel gives the entry that binds the list to the boot.
pub(crate) const BOOT_AGGREGATE: &str = "boot_aggregate";
/// Where the kernel extends its list unless told otherwise.
pub(crate) const IMA_PCR: u8 = 10;
const NAME_BYTES_MAX: usize = 64;
/// Each costs time for each command line.
const LINE_PATTERNS_MAX: usize = 1000;
/// As many devices as one server may have attached.
const EK_SHA256_MAX: usize = 100_000;
/// A week: longer is no freshness.
const EVIDENCE_AGE_MAX_SECONDS: u64 = 7 * 24 * 3600;
/// Each is tried on every file that no list has.
const EXCLUDE_MAX: usize = 256;
/// A signed file is tried against each key of the same identifier.
const SIGNING_KEYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::VendorRule;
    use assay_evidence::{Digest, PcrIndex};

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
            PolicyError::EvidenceAge { seconds: 0, max: EVIDENCE_AGE_MAX_SECONDS },
        );
    }
}
