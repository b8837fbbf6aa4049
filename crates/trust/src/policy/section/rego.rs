//! Rules of one's own, in Rego, for what no typed section says.

use serde::{Deserialize, Serialize};

use super::{Join, Section};
use crate::policy::choice::Demanded;
use crate::policy::list::{Lists, join_option, sorted};
use crate::policy::remark::Notes;
use crate::policy::{Field, PcrSection, PolicyError};

/// Rego modules of the package `assay`. Every text in the set `deny` refuses the device; every one in `warn`
/// makes the result a warning, on which nothing is granted. Modules are judged each by itself. They see verified
/// claims alone, as `input`; what is not known is `null`:
///
/// | `input.` | what it is |
/// |---|---|
/// | `pcrs.sha256["7"]` | a quoted PCR value, in hex |
/// | `clock.milliseconds`, `.reset_count`, `.restart_count`, `.safe` | the TPM's clock and counters |
/// | `tpm.firmware_version` | the TPM's firmware version, a number |
/// | `ak.name`, `ak.signature_algorithm` | the attestation key's Name in hex, and how it signed |
/// | `endorsement.ek_sha256` | SHA-256 of the EK's SubjectPublicKeyInfo, in hex |
/// | `endorsement.certificate` | `null`, or `.manufacturer`, `.model`, `.version`, `.issuer` of the EK certificate |
/// | `boot` | `null` without a boot log that replays |
/// | `boot.bank`, `boot.firmware_version`, `boot.sbat_level` | texts |
/// | `boot.secure_boot` | `null` where PCR 7 does not tell, else `.enabled` and `.dbx`, digests as `sha256:…` |
/// | `boot.authorities[_]` | what images were trusted by: `.variable`, `.digest` |
/// | `boot.applications[_]` | Authenticode digests of what was started |
/// | `boot.kernel_command_lines[_]` | command lines; the list is `null` where they cannot be believed |
/// | `ima` | `null` without an IMA list |
/// | `ima.total`, `ima.first_index`, `ima.undecided` | entries since boot that are attested, those judged before, those past the quote |
/// | `ima.new[_]` | the attested entries that are new: `.path`, `.digest` (`null` in a violation), `.violation` |
///
/// A rule that gives anything but texts, or does not end within its bound, refuses the device. As always in Rego, an
/// expression that fails is undefined, so that its rule says nothing: write demands as `not` of what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegoSection {
    /// The modules' texts.
    pub modules: Vec<String>,
}

impl RegoSection {
    /// Each module made ready, or why it cannot be.
    #[cfg(feature = "rego")]
    pub(crate) fn compile(&self) -> impl Iterator<Item = Result<crate::rego::Module, PolicyError>> + '_ {
        self.modules.iter().enumerate().map(|(index, text)| crate::rego::Module::compile(index, text))
    }
}

impl Section for Option<RegoSection> {
    fn key(&self) -> &'static str {
        "rego"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let Some(RegoSection { modules }) = self else { return };
        let count = modules.len();
        if count == 0 {
            errors.push(PolicyError::EmptyList { field: "rego.modules".to_owned() });
        }
        if count > REGO_MODULES_MAX {
            errors.push(PolicyError::TooMany { field: "rego.modules", count, max: REGO_MODULES_MAX });
            return;
        }
        #[cfg(feature = "rego")]
        errors.extend(self.iter().flat_map(RegoSection::compile).filter_map(Result::err));
        #[cfg(not(feature = "rego"))]
        errors.push(PolicyError::RegoUnsupported);
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let Some(RegoSection { modules }) = self else { return };
        notes.repeated(Field::of(["rego", "modules"]), modules);
    }

    /// Rules may look at nothing that was measured, so by themselves they do not count.
    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        Vec::new()
    }

    fn lists(&self) -> Lists {
        let mut lists = Lists::default();
        let modules = self.iter().flat_map(|RegoSection { modules }| modules);
        lists.demands(Field::of(["rego", "modules"]), modules);
        lists
    }
}

impl Join for Option<RegoSection> {
    /// Each module is judged by itself, and what any of them denies is denied.
    fn join(&mut self, other: &Self) {
        join_option(self, other, |RegoSection { modules }, other| modules.extend_from_slice(&other.modules));
    }

    fn sort(&mut self) {
        if let Some(RegoSection { modules }) = self {
            sorted(modules);
        }
    }
}

/// A page of rules has 2 KiB.
pub const REGO_MODULE_BYTES_MAX: usize = 64 << 10;
/// As many as a merge of policies may bring together.
pub const REGO_MODULES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    fn policy(name: &str, modules: &[&str]) -> Policy {
        let mut policy = Policy::new(name);
        policy.allow_file(b"/bin/a", assay_evidence::HashAlgorithm::Sha256.hash(&[b"a"]));
        policy.rego = Some(RegoSection { modules: modules.iter().map(|text| (*text).to_owned()).collect() });
        policy
    }

    const A: &str = "package assay\ndeny contains \"a\" if not input.clock.safe\n";
    #[cfg(feature = "rego")]
    const B: &str = "package assay\nwarn contains \"b\" if input.boot == null\n";

    #[cfg(not(feature = "rego"))]
    #[test]
    fn a_build_without_rego_refuses_rules() {
        assert_eq!(policy("edge", &[A]).lint(), [PolicyError::RegoUnsupported]);
        assert_eq!(Policy::from_toml(&policy("edge", &[A]).to_toml()), Err(PolicyError::RegoUnsupported));
    }

    #[cfg(feature = "rego")]
    #[test]
    fn what_holds_no_rule_is_refused() {
        assert_eq!(policy("edge", &[A, B]).lint(), []);
        let empty = PolicyError::EmptyList { field: "rego.modules".to_owned() };
        assert_eq!(policy("edge", &[]).lint(), [empty]);
        let many = PolicyError::TooMany { field: "rego.modules", count: 17, max: REGO_MODULES_MAX };
        assert_eq!(policy("edge", &[A; 17]).lint(), [many]);
        let long = format!("{A}#{}", " ".repeat(REGO_MODULE_BYTES_MAX));
        let bytes = long.len();
        assert_eq!(policy("edge", &[A, &long]).lint(), [PolicyError::RegoTooLong { index: 1, bytes }]);
    }

    #[cfg(feature = "rego")]
    #[test]
    fn merged_policies_keep_every_module() {
        let merged = crate::policy::merge("both", &[policy("b", &[B]), policy("a", &[A, B])]).unwrap();
        assert_eq!(merged.policy.rego.unwrap().modules, [A, B]);
        let changes = crate::policy::diff(&policy("a", &[A]), &policy("a", &[A, B]));
        let said: Vec<_> = changes.iter().map(|change| (change.field.to_string(), change.effect)).collect();
        assert_eq!(said, [("rego.modules".to_owned(), crate::policy::Effect::Stricter)]);
    }

    #[cfg(feature = "rego")]
    #[test]
    fn the_example_of_the_guide_is_a_good_policy() {
        let guide = include_str!("../../../../../docs/howto/rego.md");
        let section = guide.split("```").nth(1).unwrap().strip_prefix("toml\n").unwrap();
        let text = format!("{}\n{section}", policy("edge", &[A]).to_toml().split("[rego]").next().unwrap());
        assert_eq!(Policy::from_toml(&text).unwrap().rego.unwrap().modules.len(), 1);
    }
}
