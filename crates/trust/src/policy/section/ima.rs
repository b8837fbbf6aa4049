//! What may have been measured at run time.

use std::collections::BTreeMap;

use assay_evidence::ima::{KernelPolicy, ShippedPolicy, SigningKey};
use assay_evidence::{Digest, HashAlgorithm};
use serde::{Deserialize, Serialize};

use super::{Join, Presence, Section};
use crate::path;
use crate::pattern::Pattern;
use crate::policy::choice::{Demanded, Ranked};
use crate::policy::list::{Lists, join_option, sorted, sorted_as_text, texts};
use crate::policy::remark::Notes;
use crate::policy::suspicion;
use crate::policy::{
    Bank, Demand, Field, ImaPcr, MadeOnDevice, PcrSection, PolicyError, ViolationWeight, unique,
};

/// What may have been measured at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaSection {
    /// Whether there must be an IMA list.
    #[serde(default)]
    pub list: Demand,
    /// The PCRs that the kernel measures files into: 10, and others that its own IMA policy (`pcr=`) or its configuration
    /// (CONFIG_IMA_MEASURE_PCR_IDX) names. Nothing else may be in these, or an entry could be kept from the list.
    #[serde(default = "own_pcr", skip_serializing_if = "is_own_pcr")]
    pub pcrs: Vec<ImaPcr>,
    /// What a violation weighs: a file changed while it was measured, so its content is unknown. What is not said is
    /// `by-path`, and no opinion that another policy would have to share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violations: Option<ViolationWeight>,
    /// The digests of policies of IMA itself, of which the kernel has to have measured one when it was loaded; any other
    /// is refused. Absent: the kernel may follow any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_policies: Option<Vec<Digest>>,
    /// The weakest hash of a file's content that counts.
    #[serde(default)]
    pub weakest_digest: Bank,
    /// Paths that are not judged: trees (`/var/log/`) and patterns (`*`, `**`, `?`), always of the whole path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Pattern>,
    /// Kinds of files that the device makes itself, which are not judged: see [`MadeOnDevice`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_on_device: Vec<MadeOnDevice>,
    /// Certificates or public keys, in PEM, whose file signatures are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<String>,
    /// Digests of certificates, per keyring, whose file signatures are accepted once the kernel has measured that
    /// it put the certificate on that keyring.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique::map")]
    pub keyrings: BTreeMap<String, Vec<Digest>>,
    /// The files that may have been measured, with their digests.
    #[serde(default, deserialize_with = "unique::map")]
    pub allow: BTreeMap<String, Vec<Digest>>,
}

impl Default for ImaSection {
    fn default() -> Self {
        ImaSection {
            list: Demand::Required,
            pcrs: own_pcr(),
            violations: None,
            kernel_policies: None,
            weakest_digest: Bank::default(),
            exclude: Vec::new(),
            made_on_device: Vec::new(),
            signing_keys: Vec::new(),
            keyrings: BTreeMap::new(),
            allow: BTreeMap::new(),
        }
    }
}

fn own_pcr() -> Vec<ImaPcr> {
    vec![ImaPcr::default()]
}

fn is_own_pcr(pcrs: &[ImaPcr]) -> bool {
    pcrs == own_pcr()
}

impl ImaSection {
    /// The section but for its list of files, which may be long.
    pub(crate) fn without_files(&self) -> Self {
        let ImaSection {
            list,
            pcrs,
            violations,
            kernel_policies,
            weakest_digest,
            exclude,
            made_on_device,
            signing_keys,
            keyrings,
            allow: _,
        } = self;
        ImaSection {
            list: *list,
            pcrs: pcrs.clone(),
            violations: *violations,
            kernel_policies: kernel_policies.clone(),
            weakest_digest: *weakest_digest,
            exclude: exclude.clone(),
            made_on_device: made_on_device.clone(),
            signing_keys: signing_keys.clone(),
            keyrings: keyrings.clone(),
            allow: BTreeMap::new(),
        }
    }
}

impl Section for Option<ImaSection> {
    fn key(&self) -> &'static str {
        "ima"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let Some(ima) = self else { return };
        let ImaSection {
            list: _,
            pcrs,
            violations: _,
            kernel_policies,
            weakest_digest: _,
            exclude,
            made_on_device: _,
            signing_keys,
            keyrings,
            allow,
        } = ima;
        let is_no_policy = kernel_policies.as_ref().is_some_and(Vec::is_empty);
        for (field, is_empty) in [("pcrs", pcrs.is_empty()), ("kernel_policies", is_no_policy)] {
            if is_empty {
                errors.push(PolicyError::EmptyList { field: format!("ima.{field}") });
            }
        }
        if allow.contains_key(BOOT_AGGREGATE) {
            errors.push(PolicyError::BootAggregateListed);
        }
        for (name, digests) in [("allow", allow), ("keyrings", keyrings)] {
            for (text, digests) in digests {
                if path::from_text(text).is_none() {
                    errors.push(PolicyError::Path { path: text.clone() });
                }
                if digests.is_empty() {
                    errors.push(PolicyError::EmptyList { field: format!("ima.{name}.{text:?}") });
                }
            }
        }
        for (field, count, max) in [
            ("ima.exclude", exclude.len(), EXCLUDE_MAX),
            ("ima.signing_keys", signing_keys.len(), SIGNING_KEYS_MAX),
        ] {
            if count > max {
                errors.push(PolicyError::TooMany { field, count, max });
            }
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let Some(ima) = self else { return };
        let ImaSection {
            list,
            pcrs,
            violations,
            kernel_policies,
            weakest_digest,
            exclude,
            made_on_device,
            signing_keys,
            keyrings,
            allow,
        } = ima;
        notes.repeated(Field::of(["ima", "pcrs"]), pcrs);
        review_kernel_policies(kernel_policies.as_deref().unwrap_or_default(), weakest_digest.0, notes);
        if *violations == Some(ViolationWeight::Ignore) {
            notes.warn(
                Field::of(["ima", "violations"]),
                "files that change while they are measured pass unsaid: use \"by-path\" or \"report\"",
            );
        }
        if *list == Demand::Optional {
            notes.warn(
                Field::of(["ima", "list"]),
                "a device that sends no list passes, whatever it runs: use \"required\"",
            );
        }
        if weakest_digest.0 == HashAlgorithm::Sha1 {
            notes.warn(
                Field::of(["ima", "weakest_digest"]),
                "files with the same SHA-1 digest can be made: use \"sha256\"",
            );
        }
        if allow.is_empty() && signing_keys.is_empty() && keyrings.is_empty() {
            notes.warn(
                Field::of(["ima"]),
                "no file and no signing key is accepted, so every measured file is refused: list files, or leave [ima] out",
            );
        }
        review_files(ima, notes);
        review_exclusions(exclude, notes);
        let field = Field::of(["ima", "made_on_device"]);
        for (index, kind) in made_on_device.iter().enumerate() {
            notes.warn(field.clone().at(index), kind.risk());
        }
        notes.repeated(field, made_on_device);
        review_signing_keys(signing_keys, notes);
    }

    fn measures(&self) -> bool {
        let Some(ima) = self else { return false };
        let ImaSection {
            list: _,
            pcrs: _,
            violations: _,
            kernel_policies,
            weakest_digest: _,
            exclude: _,
            made_on_device: _,
            signing_keys,
            keyrings,
            allow,
        } = ima;
        kernel_policies.is_some() || !allow.is_empty() || !signing_keys.is_empty() || !keyrings.is_empty()
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let Some(ima) = self else { return Vec::new() };
        let ImaSection {
            list,
            pcrs: _,
            violations,
            kernel_policies: _,
            weakest_digest,
            exclude: _,
            made_on_device: _,
            signing_keys: _,
            keyrings: _,
            allow: _,
        } = ima;
        let Bank(weakest) = weakest_digest;
        vec![
            Demanded::ranked(["ima", "list"], *list),
            Demanded::ranked(["ima", "violations"], violations.unwrap_or_default()),
            Demanded::least(Field::of(["ima", "weakest_digest"]), weakest, weakest.len() as u64),
        ]
    }

    fn lists(&self) -> Lists {
        let mut lists = Lists::default();
        let Some(ima) = self else { return lists };
        let ImaSection {
            list: _,
            pcrs,
            violations: _,
            kernel_policies,
            weakest_digest: _,
            exclude,
            made_on_device,
            signing_keys,
            keyrings,
            allow,
        } = ima;
        lists.restricts(Field::of(["ima", "kernel_policies"]), kernel_policies.as_ref().map(texts));
        lists.accepts(Field::of(["ima", "pcrs"]), pcrs);
        // Of each that is named, nothing else may be in it.
        lists.demands(Field::of(["ima", "pcrs", "explained"]), pcrs);
        lists.accepts(Field::of(["ima", "exclude"]), exclude);
        lists.accepts(Field::of(["ima", "made_on_device"]), made_on_device);
        lists.accepts(Field::of(["ima", "signing_keys"]), signing_keys);
        for (keyring, digests) in keyrings {
            lists.accepts(Field::of(["ima", "keyrings", keyring]), digests);
        }
        for (path, digests) in allow {
            lists.accepts(Field::of(["ima", "allow", path]), digests);
        }
        lists
    }

    fn presence(&self) -> Option<Presence> {
        let words = match self {
            Some(ima) => format!("{} files allowed", ima.allow.len()),
            None => "files are not judged".to_owned(),
        };
        Some(Presence { is_there: self.is_some(), words })
    }
}

fn review_kernel_policies(digests: &[Digest], weakest: HashAlgorithm, notes: &mut Notes<'_>) {
    let field = Field::of(["ima", "kernel_policies"]);
    for (index, digest) in digests.iter().enumerate() {
        if digest.algorithm() < weakest {
            let message = format!(
                "it does not count, because ima.weakest_digest is {weakest}: list its {weakest} digest"
            );
            notes.warn(field.clone().at(index), message);
        }
        let shipped =
            ShippedPolicy::of_digest(digest).and_then(|shipped| KernelPolicy::parse(shipped.text).ok());
        if shipped.is_some_and(|policy| policy.measures_reads()) {
            notes.warn(
                field.clone().at(index),
                "it has measured what is read as well, so that the list grows with files that nobody runs",
            );
        }
    }
    notes.repeated(field, digests);
}

fn review_files(ima: &ImaSection, notes: &mut Notes<'_>) {
    let mut names: BTreeMap<Vec<u8>, &str> = BTreeMap::new();
    for (name, digests) in &ima.allow {
        let field = Field::of(["ima", "allow", name]);
        let Some(bytes) = path::from_text(name) else { continue };
        let bytes = path::as_logged(&bytes).into_owned();
        if let Some(pattern) = ima.exclude.iter().find(|pattern| pattern.matches(&bytes)) {
            let pattern = pattern.to_string();
            notes.warn(
                field.clone(),
                format!("ima.exclude has {pattern:?}, so this file passes with any content"),
            );
        }
        if name.starts_with('/') && name.contains(['*', '?']) {
            notes.warn(field.clone(), "files are listed by their exact path; * and ? are no patterns here");
        }
        if !digests.is_empty() && digests.iter().all(|digest| digest.algorithm() < ima.weakest_digest.0) {
            let weakest = ima.weakest_digest.0;
            notes.warn(
                field.clone(),
                format!("none of its digests counts, because ima.weakest_digest is {weakest}: list a {weakest} digest"),
            );
        }
        if digests.iter().any(Digest::is_zero) {
            notes.warn(field.clone(), "all zeros is the digest of no file");
        } else if let Some(why) = digests.iter().find_map(suspicion::of_file_digest) {
            notes.warn(field.clone(), format!("it has a digest of no file: {why}"));
        }
        notes.repeated(field.clone(), digests);
        if let Some(other) = names.insert(bytes, name) {
            notes.warn(field, format!("the same file as {other:?}, written in another way: write it once"));
        }
    }
}

fn review_exclusions(exclude: &[Pattern], notes: &mut Notes<'_>) {
    let field = Field::of(["ima", "exclude"]);
    for (index, pattern) in exclude.iter().enumerate() {
        let text = pattern.to_string();
        let message = match Exclusion::of(pattern) {
            Exclusion::Programs(tree) => {
                format!("{text:?} covers {tree}, so programs there run unjudged: list them instead")
            }
            Exclusion::Code(file) => {
                format!("{text:?} covers code such as {file}, which runs with any content: list it instead")
            }
            Exclusion::Writable(tree) => format!(
                "{text:?} covers {tree}, where any program can put another and run it unjudged: name the files you mean"
            ),
            Exclusion::Data => continue,
        };
        notes.warn(field.clone().at(index), message);
    }
    notes.repeated(field, &exclude.iter().map(Pattern::to_string).collect::<Vec<_>>());
}

/// What an exclusion leaves unjudged.
enum Exclusion {
    /// Everything in a tree of programs or libraries, or one of its programs.
    Programs(&'static str),
    /// Files that are code by their names.
    Code(String),
    /// Everything in a tree that is there to be written to.
    Writable(&'static str),
    /// Nothing that is known to run.
    Data,
}

impl Exclusion {
    fn of(pattern: &Pattern) -> Self {
        let text = pattern.to_string();
        let literal = text.split(['*', '?']).next().unwrap_or_default();
        let is_within = |tree: &&&str| literal.starts_with(**tree);
        let covered = |tree: &&&str| covers(pattern, tree);
        if let Some(tree) = PROGRAM_TREES.iter().find(covered) {
            return Exclusion::Programs(tree);
        }
        if let Some(tree) = BIN_TREES.iter().find(is_within) {
            return Exclusion::Programs(tree);
        }
        // A whole folder of a tree of libraries, however deep.
        if let Some(tree) = LIBRARY_TREES.iter().find(is_within)
            && text.ends_with(['/', '*'])
        {
            return Exclusion::Programs(tree);
        }
        let is_code = CODE_ENDINGS.iter().any(|ending| text.ends_with(ending)) && !text.ends_with(".pyc");
        if is_code || CODE_FILES.contains(&text.as_str()) {
            return Exclusion::Code(text);
        }
        if let Some(tree) = WRITABLE_TREES.iter().find(covered) {
            return Exclusion::Writable(tree);
        }
        match covered_code(pattern) {
            Some(file) => Exclusion::Code(file),
            None => Exclusion::Data,
        }
    }
}

/// Whether programs of a tree are covered, near its top or deep in it.
///
/// The names are ones that no pattern spells out, so a pattern for a file or two covers no tree.
fn covers(pattern: &Pattern, tree: &str) -> bool {
    ["any-program", "anyprogram", "any-folder/any-program"]
        .iter()
        .any(|file| pattern.matches(format!("{tree}{file}").as_bytes()))
}

/// A file that is code by its name and covered in a folder that nobody named.
fn covered_code(pattern: &Pattern) -> Option<String> {
    let folders = ["/", "/any-folder/", "/usr/lib/", "/opt/", "/usr/bin/"];
    let files = folders
        .iter()
        .flat_map(|folder| CODE_ENDINGS.iter().map(move |ending| format!("{folder}any-program{ending}")));
    let mut files = files.chain(CODE_FILES.map(str::to_owned));
    files.find(|file| pattern.matches(file.as_bytes()))
}

fn review_signing_keys(signing_keys: &[String], notes: &mut Notes<'_>) {
    for (index, pem) in signing_keys.iter().enumerate() {
        if SigningKey::from_certificate_or_spki(pem.as_bytes()).is_err() {
            notes.error(&PolicyError::SigningKey { index });
        }
    }
    notes.repeated(Field::of(["ima", "signing_keys"]), signing_keys);
}

impl Join for Option<ImaSection> {
    fn join(&mut self, other: &Self) {
        join_option(self, other, |ima, other| {
            let ImaSection {
                list,
                pcrs,
                violations,
                kernel_policies,
                weakest_digest,
                exclude,
                made_on_device,
                signing_keys,
                keyrings,
                allow,
            } = ima;
            pcrs.extend_from_slice(&other.pcrs);
            list.tighten(other.list);
            join_option(violations, &other.violations, |mine, other| mine.tighten(*other));
            join_option(kernel_policies, &other.kernel_policies, |mine, other| mine.extend_from_slice(other));
            *weakest_digest = (*weakest_digest).max(other.weakest_digest);
            exclude.extend_from_slice(&other.exclude);
            made_on_device.extend_from_slice(&other.made_on_device);
            signing_keys.extend_from_slice(&other.signing_keys);
            join_digests(keyrings, &other.keyrings);
            join_digests(allow, &other.allow);
        });
    }

    fn sort(&mut self) {
        let Some(ima) = self else { return };
        let ImaSection {
            list: _,
            pcrs,
            violations: _,
            kernel_policies,
            weakest_digest: _,
            exclude,
            made_on_device,
            signing_keys,
            keyrings,
            allow,
        } = ima;
        sorted(pcrs);
        kernel_policies.iter_mut().for_each(sorted);
        sorted_as_text(exclude);
        sorted(made_on_device);
        sorted(signing_keys);
        keyrings.values_mut().chain(allow.values_mut()).for_each(sorted);
    }
}

fn join_digests(mine: &mut BTreeMap<String, Vec<Digest>>, other: &BTreeMap<String, Vec<Digest>>) {
    for (name, digests) in other {
        mine.entry(name.clone()).or_default().extend_from_slice(digests);
    }
}

/// The name the kernel gives the entry that binds the list to the boot.
pub(crate) const BOOT_AGGREGATE: &str = "boot_aggregate";
/// Each is tried on every file that no list has.
const EXCLUDE_MAX: usize = 256;
/// A signed file is tried against each key of the same identifier.
const SIGNING_KEYS_MAX: usize = 64;
/// Trees of which everything is there to be run, or to be loaded by what runs.
const PROGRAM_TREES: [&str; 41] = [
    "/etc/systemd/",
    "/etc/systemd/system/",
    "/etc/cron.d/",
    "/etc/init.d/",
    "/etc/profile.d/",
    "/var/lib/containers/",
    "/var/lib/docker/",
    "/var/lib/flatpak/",
    "/var/lib/machines/",
    "/var/lib/snapd/",
    "/usr/bin/",
    "/usr/sbin/",
    "/usr/lib/",
    "/usr/libexec/",
    "/usr/local/",
    "/usr/local/bin/",
    "/usr/local/sbin/",
    "/usr/local/lib/",
    "/usr/lib64/",
    "/usr/lib32/",
    "/usr/share/",
    "/bin/",
    "/sbin/",
    "/lib/",
    "/lib64/",
    "/lib32/",
    "/boot/",
    "/opt/",
    "/srv/",
    "/etc/",
    "/root/",
    "/scripts/",
    "/conf/",
    "/hooks/",
    "/app/",
    "/snap/",
    "/nix/store/",
    "/gnu/store/",
    "/usr/lib/modules/",
    "/lib/modules/",
    "/usr/",
];
/// Trees in which each file is a program.
const BIN_TREES: [&str; 8] = [
    "/usr/bin/",
    "/usr/sbin/",
    "/usr/libexec/",
    "/usr/local/bin/",
    "/usr/local/sbin/",
    "/bin/",
    "/sbin/",
    "/boot/",
];
/// Trees of libraries and modules, also of single architectures and languages.
const LIBRARY_TREES: [&str; 5] = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/usr/local/lib/"];
const WRITABLE_TREES: [&str; 13] = [
    "/home/user/.local/",
    "/home/user/.local/bin/",
    "/home/user/bin/",
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/home/user/",
    "/run/",
    "/var/",
    "/var/lib/",
    "/mnt/",
    "/media/",
    "/proc/self/",
];
/// Names of programs, libraries, modules and scripts end in these.
const CODE_ENDINGS: [&str; 18] = [
    ".so", ".so.*", ".so.1", ".py", ".pyc", ".sh", ".pl", ".pm", ".rb", ".js", ".lua", ".php", ".jar", ".ko",
    ".ko.xz", ".exe", ".elf", ".bin",
];
/// Files that run or decide what does, in whatever folder.
const CODE_FILES: [&str; 7] = [
    "/init",
    "/linuxrc",
    "/etc/ld.so.preload",
    "/etc/ima/ima-policy",
    "/etc/rc.local",
    "/etc/inittab",
    "/root/any-program",
];
