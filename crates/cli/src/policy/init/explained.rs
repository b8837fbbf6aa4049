//! What explains the files that a good device measured: the causes, counted, and what is left. Pure.

use std::collections::{BTreeMap, BTreeSet};

use assay_evidence::ima::Entry;
use assay_evidence::verify::Claims;
use assay_trust::Policy;
use assay_trust::path::to_text;
use assay_trust::policy::MadeOnDevice;
use serde::Serialize;

/// What explains an entry of a list, or why nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A package has the file.
    Package,
    /// The initial ramdisk has the file.
    InitialRamdisk,
    /// It is a policy of IMA.
    KernelPolicy,
    /// It is a program of Assay's.
    Assay,
    /// The kernel measured data of its own: a key, a command line of kexec.
    KernelData,
    /// The device makes such files itself.
    MadeOnDevice(MadeOnDevice),
    /// A violation, which weighs by what it touches.
    Violation,
    /// A package has the file with another content.
    Changed,
    /// It lies where only an administrator puts files.
    Local,
    /// It lies where programs put files while they run.
    Written,
    /// No package has it.
    Unknown,
}

impl Cause {
    /// In words.
    pub fn words(self) -> String {
        match self {
            Cause::Package => "packages".to_owned(),
            Cause::InitialRamdisk => "initial ramdisk".to_owned(),
            Cause::KernelPolicy => "IMA policy".to_owned(),
            Cause::Assay => "Assay itself".to_owned(),
            Cause::KernelData => "data of the kernel".to_owned(),
            Cause::MadeOnDevice(kind) => format!("made on the device: {kind}"),
            Cause::Violation => "violations".to_owned(),
            Cause::Changed => "in a package, with another content".to_owned(),
            Cause::Local => "in no package, put there by hand".to_owned(),
            Cause::Written => "in no package, where programs write".to_owned(),
            Cause::Unknown => "in no package".to_owned(),
        }
    }

    /// Whether a policy can name it without the device's own word.
    pub fn explains(self) -> bool {
        match self {
            Cause::Package
            | Cause::InitialRamdisk
            | Cause::KernelPolicy
            | Cause::Assay
            | Cause::KernelData
            | Cause::MadeOnDevice(_)
            | Cause::Violation => true,
            Cause::Changed | Cause::Local | Cause::Written | Cause::Unknown => false,
        }
    }
}

/// A file that nothing explains.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Left {
    /// Why.
    pub cause: Cause,
    /// Its path, as policies write it.
    pub path: String,
    /// Its digest.
    pub digest: String,
}

/// What explains the lists of some devices.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Explained {
    /// Files, each with its digest, in all lists.
    pub files: usize,
    /// How many of each cause.
    #[serde(serialize_with = "by_words")]
    pub causes: BTreeMap<Cause, usize>,
    /// What nothing explains.
    pub left: BTreeSet<Left>,
}

impl Explained {
    /// Holds the lists of good devices against files of packages and of initial ramdisks.
    pub fn of(cases: &[Claims], packages: &Policy, ramdisks: &Policy) -> Self {
        let mut explained = Explained::default();
        let mut seen = BTreeSet::new();
        for entry in cases.iter().filter_map(|claims| claims.ima()).flat_map(|ima| ima.entries()) {
            let (path, digest) = (to_text(entry.path()).into_owned(), digest(&entry));
            if entry.is_boot_aggregate() || !seen.insert((path.clone(), digest.clone())) {
                continue;
            }
            let cause = cause(&entry, packages, ramdisks);
            explained.files += 1;
            *explained.causes.entry(cause).or_default() += 1;
            if !cause.explains() {
                explained.left.insert(Left { cause, path, digest });
            }
        }
        explained
    }

    /// Of a hundred files, how many are explained.
    pub fn percent(&self) -> f64 {
        let explained = self.files.saturating_sub(self.left.len());
        if self.files == 0 { 100.0 } else { 100.0 * explained as f64 / self.files as f64 }
    }

    /// The kinds of files that the devices make themselves.
    pub fn kinds(&self) -> Vec<MadeOnDevice> {
        let kind = |cause: &Cause| match cause {
            Cause::MadeOnDevice(kind) => Some(*kind),
            _ => None,
        };
        self.causes.keys().filter_map(kind).collect()
    }
}

fn digest(entry: &Entry<'_>) -> String {
    if entry.is_violation() {
        return "a violation".to_owned();
    }
    entry.file_digest().map_or_else(|| "unknown".to_owned(), |digest| digest.to_string())
}

fn cause(entry: &Entry<'_>, packages: &Policy, ramdisks: &Policy) -> Cause {
    let digests = |policy: &Policy, path: &[u8]| {
        policy.ima.as_ref().and_then(|ima| ima.allow.get(to_text(path).as_ref())).cloned()
    };
    let has = |policy: &Policy| {
        let known = digests(policy, entry.path()).unwrap_or_default();
        entry.file_digest().is_some_and(|digest| known.contains(&digest))
    };
    let path = String::from_utf8_lossy(entry.path());
    let is_in = |trees: &[&str]| trees.iter().any(|tree| path.starts_with(tree));
    let kind = || MadeOnDevice::of(entry.path(), |path| digests(packages, path).is_some());
    match () {
        () if entry.is_violation() => Cause::Violation,
        () if has(packages) => Cause::Package,
        () if has(ramdisks) => Cause::InitialRamdisk,
        () if entry.kernel_policy().is_some() => Cause::KernelPolicy,
        () if !entry.buffer().is_empty() => Cause::KernelData,
        () if PROGRAMS.contains(&path.rsplit('/').next().unwrap_or_default()) => Cause::Assay,
        () => match kind() {
            Some(kind) => Cause::MadeOnDevice(kind),
            None if digests(packages, entry.path()).is_some() => Cause::Changed,
            None if is_in(&LOCAL) => Cause::Local,
            None if is_in(&WRITTEN) => Cause::Written,
            None => Cause::Unknown,
        },
    }
}

fn by_words<S: serde::Serializer>(causes: &BTreeMap<Cause, usize>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(causes.iter().map(|(cause, count)| (cause.words(), count)))
}

const PROGRAMS: [&str; 2] = ["assay-agent", "assay"];
const LOCAL: [&str; 5] = ["/usr/local/", "/opt/", "/root/", "/home/", "/srv/"];
const WRITTEN: [&str; 7] = ["/var/", "/tmp/", "/run/", "/dev/", "/etc/", "/memfd:", "/proc/"];
