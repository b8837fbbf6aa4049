//! A policy read critically: besides what keeps it from its work, what is there twice, never counts, or lets in
//! more than its writer may have meant.

use std::collections::{BTreeMap, BTreeSet};

use assay_evidence::ima::SigningKey;
use assay_evidence::{Digest, HashAlgorithm};
use toml::de::{DeTable, DeValue};

use super::remark::Step;
use super::{
    Demand, EndorsementKind, EndorsementSection, Field, ImaSection, Policy, PolicyError, Remark, Severity,
    Weight, text,
};
use crate::path;
use crate::pattern::Pattern;

/// Everything worth saying about a policy's text, by line. An empty answer is a policy that nothing speaks against.
pub fn review(policy_text: &str) -> Vec<Remark> {
    let policy = match text::parse(policy_text) {
        Ok(policy) => policy,
        Err(error) => return vec![Remark::from(&error)],
    };
    let mut remarks: Vec<Remark> = policy.lint().iter().map(Remark::from).collect();
    Review { policy: &policy, remarks: &mut remarks }.all();
    add_lines(policy_text, &mut remarks);
    remarks.sort_by_key(|remark| (remark.line, remark.severity));
    remarks
}

struct Review<'a> {
    policy: &'a Policy,
    remarks: &'a mut Vec<Remark>,
}

impl Review<'_> {
    fn all(&mut self) {
        self.demands();
        self.pcrs();
        self.boot();
        if let Some(ima) = &self.policy.ima {
            self.files(ima);
            self.patterns(ima);
            self.signing_keys(ima);
        }
        self.endorsement(&self.policy.endorsement);
    }

    fn warn(&mut self, field: Field, message: impl Into<String>) {
        self.remarks.push(Remark::new(Severity::Warning, field, message));
    }

    fn endorsement(&mut self, endorsement: &EndorsementSection) {
        self.repeated(Field::of(["endorsement", "manufacturers"]), endorsement.manufacturers.iter());
        let list = Field::of(["endorsement", "ek_sha256"]);
        self.repeated(list.clone(), endorsement.ek_sha256.iter());
        if !endorsement.ek_sha256.is_empty() && !endorsement.uses_list() {
            self.warn(
                list,
                "nothing asks for this list: set endorsement.required to \"both\", \"either\" or \"allowlist\"",
            );
        }
        let required = Field::of(["endorsement", "required"]);
        match endorsement.required {
            EndorsementKind::DangerousNone => self.warn(
                required,
                "nobody vouches for the TPM, so any software TPM passes: require a certificate",
            ),
            kind if kind.accepts_list_alone() && !endorsement.vendor.is_empty() => self.warn(
                required,
                "a listed device that shows no certificate has no manufacturer, so no rule under endorsement.vendor \
                 holds for it: use \"both\" or \"certificate\"",
            ),
            _ => {}
        }
        if endorsement.stale_crl == Weight::Ignore {
            self.warn(
                Field::of(["endorsement", "stale_crl"]),
                "whoever withholds new revocation lists is not noticed: use \"report\" or \"refuse\"",
            );
        }
        let accepted = &endorsement.manufacturers;
        let is_accepted =
            |name: &&String| accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(name));
        for name in endorsement.vendor.keys().filter(|name| !accepted.is_empty() && !is_accepted(name)) {
            self.warn(
                Field::of(["endorsement", "vendor", name]),
                "endorsement.manufacturers does not have this manufacturer, so its TPMs are refused anyway",
            );
        }
    }

    /// Choices that let in more than the strict ones do, beyond what some machines simply cannot show.
    fn demands(&mut self) {
        let policy = self.policy;
        if policy.clock.unsafe_clock == Weight::Ignore {
            self.warn(
                Field::of(["clock", "unsafe_clock"]),
                "a TPM clock that went back is not even said: use \"report\"",
            );
        }
        let Some(ima) = &policy.ima else { return };
        if ima.violations == Weight::Ignore {
            self.warn(
                Field::of(["ima", "violations"]),
                "files that change while they are measured pass unsaid: use \"report\" or \"refuse\"",
            );
        }
        if ima.list == Demand::Optional {
            self.warn(
                Field::of(["ima", "list"]),
                "a device that sends no list passes, whatever it runs: use \"required\"",
            );
        }
        if ima.weakest_digest.0 == HashAlgorithm::Sha1 {
            self.warn(
                Field::of(["ima", "weakest_digest"]),
                "files with the same SHA-1 digest can be made: use \"sha256\"",
            );
        }
        if ima.allow.is_empty() && ima.signing_keys.is_empty() {
            self.warn(
                Field::of(["ima"]),
                "no file and no signing key is accepted, so every measured file is refused: list files, or leave [ima] out",
            );
        }
    }

    fn pcrs(&mut self) {
        let policy = self.policy;
        let strong: BTreeSet<_> = policy
            .pcr
            .iter()
            .filter(|(bank, ..)| *bank != HashAlgorithm::Sha1)
            .map(|(_, index, _)| index)
            .collect();
        for (bank, index, values) in policy.pcr.iter() {
            let field = Field::of(["pcr", bank.name(), &index.to_string()]);
            // Where every pin is of SHA-1, an error says so.
            if bank == HashAlgorithm::Sha1 && !strong.is_empty() && !strong.contains(&index) {
                self.warn(
                    field.clone(),
                    format!("PCR {index} is pinned by SHA-1 alone, and SHA-1 can be made to collide: pin sha256 as well"),
                );
            }
            if matches!(index.get(), RESETTABLE_DEBUG | RESETTABLE_APPLICATION) {
                self.warn(
                    field.clone(),
                    format!("any program can reset PCR {index}, so its value proves nothing: leave it out"),
                );
            }
            if values.iter().any(|value| value.is_zero()) {
                self.warn(
                    field.clone(),
                    format!(
                        "all zeros is PCR {index} before anything was measured: that boot vouches for nothing"
                    ),
                );
            }
            self.repeated(field, values.iter());
        }
    }

    fn boot(&mut self) {
        let boot = &self.policy.boot;
        let lines = boot.kernel_command_lines.as_deref().unwrap_or_default();
        let field = Field::of(["boot", "kernel_command_lines"]);
        for (index, line) in lines.iter().enumerate() {
            if line.contains(['*', '^', '$']) {
                self.warn(
                    field.clone().at(index),
                    "a command line is compared as it is; patterns go into boot.kernel_command_line_patterns",
                );
            }
        }
        self.repeated(field, lines.iter());
        let field = Field::of(["boot", "firmware_versions"]);
        self.repeated(field, boot.firmware_versions.iter().flatten());
        let field = Field::of(["boot", "kernel_command_line_patterns"]);
        let patterns: Vec<String> =
            boot.kernel_command_line_patterns.iter().map(ToString::to_string).collect();
        self.repeated(field, patterns.iter());
        for (name, digests) in [
            ("applications", boot.applications.as_deref().unwrap_or_default()),
            ("kernels", boot.kernels.as_deref().unwrap_or_default()),
            ("signers", boot.signers.as_deref().unwrap_or_default()),
            ("dbx_contains", &boot.dbx_contains),
        ] {
            let field = Field::of(["boot", name]);
            for (index, digest) in digests.iter().enumerate() {
                if digest.algorithm() == HashAlgorithm::Sha1 {
                    self.warn(
                        field.clone().at(index),
                        "images with the same SHA-1 digest can be made: use sha256",
                    );
                }
            }
            self.repeated(field, digests.iter());
        }
        let idle =
            boot.events.keys().filter(|pcr| self.policy.pcr.iter().all(|(_, index, _)| index != pcr.0));
        let idle: Vec<String> = idle.map(|pcr| pcr.0.to_string()).collect();
        for pcr in idle {
            self.warn(
                Field::of(["boot", "events", &pcr]),
                format!(
                    "PCR {pcr} is not pinned, so these descriptions are never used: pin it, or leave them out"
                ),
            );
        }
    }

    fn files(&mut self, ima: &ImaSection) {
        let mut names: BTreeMap<Vec<u8>, &str> = BTreeMap::new();
        for (name, digests) in &ima.allow {
            let field = Field::of(["ima", "allow", name]);
            let Some(bytes) = path::from_text(name) else { continue };
            if let Some(pattern) = ima.exclude.iter().find(|pattern| pattern.matches(&bytes)) {
                self.warn(
                    field.clone(),
                    format!(
                        "ima.exclude has {:?}, so this file passes with any content",
                        pattern.to_string()
                    ),
                );
            }
            if name.starts_with('/') && name.contains(['*', '?']) {
                self.warn(
                    field.clone(),
                    "files are listed by their exact path; * and ? are no patterns here",
                );
            }
            if !digests.is_empty() && digests.iter().all(|digest| digest.algorithm() < ima.weakest_digest.0) {
                let weakest = ima.weakest_digest.0;
                self.warn(
                    field.clone(),
                    format!("none of its digests counts, because ima.weakest_digest is {weakest}: list a {weakest} digest"),
                );
            }
            if digests.iter().any(Digest::is_zero) {
                self.warn(field.clone(), "all zeros is the digest of no file");
            }
            self.repeated(field.clone(), digests.iter());
            if let Some(other) = names.insert(bytes, name) {
                self.warn(
                    field,
                    format!("the same file as {other:?}, written in another way: write it once"),
                );
            }
        }
    }

    fn patterns(&mut self, ima: &ImaSection) {
        let field = Field::of(["ima", "exclude"]);
        for (index, pattern) in ima.exclude.iter().enumerate() {
            let covered = |tree: &&&str| covers(pattern, tree);
            if let Some(tree) = PROGRAM_TREES.iter().find(covered) {
                self.warn(
                    field.clone().at(index),
                    format!(
                        "{:?} covers {tree}, so programs there run unjudged: list them instead",
                        pattern.to_string()
                    ),
                );
            } else if let Some(tree) = WRITABLE_TREES.iter().find(covered) {
                self.warn(
                    field.clone().at(index),
                    format!(
                        "{:?} covers {tree}, where any program can put another and run it unjudged: name the files you mean",
                        pattern.to_string()
                    ),
                );
            }
        }
        self.repeated(field, ima.exclude.iter().map(Pattern::to_string).collect::<Vec<_>>().iter());
    }

    fn signing_keys(&mut self, ima: &ImaSection) {
        let field = Field::of(["ima", "signing_keys"]);
        for (index, pem) in ima.signing_keys.iter().enumerate() {
            if SigningKey::from_certificate_or_spki(pem.as_bytes()).is_err() {
                self.remarks.push(Remark::from(&PolicyError::SigningKey { index }));
            }
        }
        self.repeated(field, ima.signing_keys.iter());
    }

    /// Says which members of a list are there before.
    fn repeated<'a, T: Ord + 'a>(&mut self, field: Field, list: impl Iterator<Item = &'a T>) {
        let mut seen = BTreeMap::new();
        for (index, item) in list.enumerate() {
            if let Some(first) = seen.get(item) {
                self.warn(
                    field.clone().at(index),
                    format!("the same as number {first} of the list: write it once"),
                );
            } else {
                seen.insert(item, index);
            }
        }
    }
}

/// Whether programs of a tree are covered, near its top or deep in it.
///
/// The names are ones that no pattern spells out, so a pattern for a file or two covers no tree.
fn covers(pattern: &Pattern, tree: &str) -> bool {
    ["any-program", "any-folder/any-program"]
        .iter()
        .any(|file| pattern.matches(format!("{tree}{file}").as_bytes()))
}

/// JSON keeps no places; TOML has them in its tree.
fn add_lines(policy_text: &str, remarks: &mut [Remark]) {
    if text::is_json(policy_text) {
        return;
    }
    let Ok(document) = DeTable::parse(policy_text) else { return };
    for remark in remarks.iter_mut().filter(|remark| remark.line.is_none() && !remark.field.0.is_empty()) {
        remark.line = offset(document.get_ref(), &remark.field).map(|at| text::place(policy_text, at).0);
    }
}

/// Where the field is written, or the nearest thing around it that is.
fn offset(document: &DeTable<'_>, field: &Field) -> Option<usize> {
    let mut steps = field.0.iter();
    let Some(Step::Key(first)) = steps.next() else { return None };
    let (key, mut value) = document.get_key_value(first.as_str())?;
    let mut offset = key.span().start;
    for step in steps {
        let next = match (step, value.get_ref()) {
            (Step::Key(name), DeValue::Table(table)) => {
                table.get_key_value(name.as_str()).map(|(key, value)| (key.span().start, value))
            }
            (Step::Index(index), DeValue::Array(array)) => {
                array.get(*index).map(|value| (value.span().start, value))
            }
            _ => None,
        };
        let Some((start, inner)) = next else { break };
        (offset, value) = (start, inner);
    }
    Some(offset)
}

/// TCG PC Client Platform TPM Profile, PCR attributes: 16 and 23 can be reset at any locality.
const RESETTABLE_DEBUG: u8 = 16;
const RESETTABLE_APPLICATION: u8 = 23;
const PROGRAM_TREES: [&str; 9] = [
    "/usr/bin/",
    "/usr/sbin/",
    "/usr/lib/",
    "/usr/libexec/",
    "/usr/local/bin/",
    "/bin/",
    "/sbin/",
    "/lib/",
    "/boot/",
];
const WRITABLE_TREES: [&str; 4] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/home/user/"];

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"edge\"\nversion = 1\n[ima.allow]\n";

    /// The remarks of a policy that starts with a good file in line 4.
    fn check(lines: &str, expected: &[(Option<usize>, Severity, &str, &str)]) {
        let policy = format!("{GOOD}\"/bin/a\" = [\"sha256:{}\"]\n{lines}", "ab".repeat(32));
        let remarks = review(&policy);
        let said: Vec<_> = remarks.iter().map(|r| (r.line, r.severity, r.field.to_string())).collect();
        let wanted: Vec<_> = expected
            .iter()
            .map(|(line, severity, field, _)| (*line, *severity, (*field).to_owned()))
            .collect();
        assert_eq!(said, wanted, "{remarks:#?}");
        for (remark, (.., word)) in remarks.iter().zip(expected) {
            assert!(remark.message.contains(word), "{word} is not in {}", remark.message);
        }
    }

    fn warns(lines: &str, line: usize, field: &str, word: &str) {
        check(lines, &[(Some(line), Severity::Warning, field, word)]);
    }

    #[test]
    fn nothing_speaks_against_a_good_policy() {
        check("", &[]);
    }

    #[test]
    fn files_that_never_count_are_named() {
        let digest = "cd".repeat(32);
        warns(
            &format!("\"/b\" = [\"sha1:{}\"]\n", "cd".repeat(20)),
            5,
            "ima.allow.\"/b\"",
            "none of its digests",
        );
        warns(&format!("\"/bin/*\" = [\"sha256:{digest}\"]\n"), 5, "ima.allow.\"/bin/*\"", "no patterns");
        warns(&format!("\"/b\" = [\"sha256:{}\"]\n", "00".repeat(32)), 5, "ima.allow.\"/b\"", "no file");
        warns(
            &format!("\"/b\" = [\n\"sha256:{digest}\",\n\"sha256:{digest}\"]\n"),
            7,
            "ima.allow.\"/b\"[1]",
            "number 0",
        );
        warns(
            &format!("\"\\\\x2fbin/a\" = [\"sha256:{digest}\"]\n"),
            5,
            "ima.allow.\"\\\\x2fbin/a\"",
            "written in another way",
        );
    }

    #[test]
    fn patterns_that_cover_too_much_are_named() {
        for (pattern, tree) in [
            ("/usr/**", "/usr/bin/"),
            ("/usr/lib/*", "/usr/lib/"),
            ("/tmp/", "/tmp/"),
            ("/home/*/**", "/home/"),
        ] {
            warns(&format!("[ima]\nexclude = [\"/srv/x\",\n\"{pattern}\"]\n"), 7, "ima.exclude[1]", tree);
        }
        warns("[ima]\nexclude = [\"/bin/a\"]\n", 4, "ima.allow.\"/bin/a\"", "any content");
        check("[ima]\nexclude = [\"/var/log/\", \"/home/*/.cache/\", \"/usr/lib/a/**.pyc\"]\n", &[]);
    }

    #[test]
    fn weak_choices_are_named() {
        warns("[endorsement]\nrequired = \"dangerous_none\"\n", 6, "endorsement.required", "software TPM");
        warns("[endorsement]\nstale_crl = \"ignore\"\n", 6, "endorsement.stale_crl", "withholds");
        let ek = "ef".repeat(32);
        warns(
            &format!("[endorsement]\nek_sha256 = [\"{ek}\"]\n"),
            6,
            "endorsement.ek_sha256",
            "nothing asks",
        );
        warns(
            &format!("[endorsement]\nrequired = \"both\"\nek_sha256 = [\"{ek}\",\n\"{ek}\"]\n"),
            8,
            "endorsement.ek_sha256[1]",
            "number 0",
        );
        warns(
            "[endorsement]\nrequired = \"either\"\n[endorsement.vendor.\"id:49465800\"]\nrequired = \"both\"\n",
            6,
            "endorsement.required",
            "no certificate",
        );
        warns(
            "[endorsement]\nmanufacturers = [\"id:494E5443\"]\n[endorsement.vendor.\"id:49465800\"]\nrequired = \"certificate\"\n",
            7,
            "endorsement.vendor.\"id:49465800\"",
            "refused anyway",
        );
        warns("[clock]\nunsafe_clock = \"ignore\"\n", 6, "clock.unsafe_clock", "went back");
        warns("[ima]\nviolations = \"ignore\"\n", 6, "ima.violations", "unsaid");
        warns("[ima]\nlist = \"optional\"\n", 6, "ima.list", "no list");
        warns("[ima]\nweakest_digest = \"sha1\"\n", 6, "ima.weakest_digest", "SHA-1");
        warns(
            "[boot]\nkernel_command_lines = [\"/k ro *\"]\n",
            6,
            "boot.kernel_command_lines[0]",
            "compared as it is",
        );
    }

    #[test]
    fn pcrs_that_prove_nothing_are_named() {
        let (value, zeros) = ("ab".repeat(32), "00".repeat(32));
        warns(&format!("[pcr.sha256]\n\"23\" = [\"{value}\"]\n"), 6, "pcr.sha256.23", "reset");
        warns(&format!("[pcr.sha256]\n\"7\" = [\"{zeros}\"]\n"), 6, "pcr.sha256.7", "zeros");
        let sha1 = "ab".repeat(20);
        warns(
            &format!("[pcr.sha256]\n\"7\" = [\"{value}\"]\n[pcr.sha1]\n\"4\" = [\"{sha1}\"]\n"),
            8,
            "pcr.sha1.4",
            "SHA-1 alone",
        );
        check(
            &format!("[pcr.sha1]\n\"4\" = [\"{sha1}\"]\n"),
            &[(Some(5), Severity::Error, "pcr.sha1", "never trusted alone")],
        );
    }

    #[test]
    fn errors_come_with_their_line() {
        let said =
            |text: &str| review(text).iter().map(|r| (r.line, r.field.to_string())).collect::<Vec<_>>();
        assert_eq!(said("name = \"edge\"\nversion = 1\n"), [(None, String::new())]);
        assert_eq!(said("name = \"edge\"\nversion = 1\ncolour = 1\n"), [(Some(3), String::new())]);
        assert_eq!(said(&format!("{GOOD}\"/a\" = []\n")), [(Some(4), "ima.allow.\"/a\"".to_owned())]);
        assert_eq!(
            said("{\"name\": \"a b\", \"version\": 1, \"ima\": {\"signing_keys\": [\"x\"]}}").len(),
            2
        );
        let twice = review(&format!("{GOOD}\"/a\" = []\n\"/a\" = []\n"));
        assert!(matches!(twice.as_slice(), [Remark { line: Some(5), .. }]), "{twice:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_reviewed_without_panic(text in "[\\[\\]{}\"=.:, \n0-9a-z]{0,80}") {
            let _ = review(&text);
        }
    }
}
