//! The policy that IMA follows in the kernel: which one was measured when it was loaded, what a policy leaves unseen, and
//! the policies that come with Assay.
//!
//! That a policy was measured says that the kernel read it to load it, or that somebody else read it under a policy that
//! measures what is read: whoever relies on it closes the boot, too. A kernel measures one that it then refuses as well.

use thiserror::Error;

use super::{Entry, List};
use crate::{Digest, HashAlgorithm};

/// Where a policy lies that systemd or the initial RAM disk loads.
pub const KERNEL_POLICY_PATH: &str = "/etc/ima/ima-policy";

impl Entry<'_> {
    /// The digest of the kernel's policy, if this entry is of the file that it is loaded from.
    pub fn kernel_policy(&self) -> Option<Digest> {
        let is_policy = self.path == KERNEL_POLICY_PATH.as_bytes() && !self.is_violation();
        self.file_digest().filter(|_| is_policy)
    }
}

/// The digests of the policies that were measured in `list`, each once.
pub fn measured_kernel_policies(list: &List) -> Vec<Digest> {
    let mut found = Vec::new();
    for digest in list.iter().filter_map(|entry| entry.kernel_policy()) {
        if found.len() < KERNEL_POLICIES_MAX && !found.contains(&digest) {
            found.push(digest);
        }
    }
    found
}

/// A policy that comes with Assay, as a file under `deploy/ima`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedPolicy {
    /// What people call it.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
}

impl ShippedPolicy {
    /// All of them; the first is the one that is recommended.
    pub const ALL: [ShippedPolicy; 4] = [
        ShippedPolicy { name: "base", text: include_str!("../../../../deploy/ima/base.policy") },
        ShippedPolicy {
            name: "critical-data",
            text: include_str!("../../../../deploy/ima/critical-data.policy"),
        },
        ShippedPolicy { name: "scripts", text: include_str!("../../../../deploy/ima/scripts.policy") },
        ShippedPolicy { name: "appraise", text: include_str!("../../../../deploy/ima/appraise.policy") },
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name == name)
    }

    /// The one whose file has this digest.
    pub fn of_digest(digest: &Digest) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.digest(digest.algorithm()) == *digest)
    }

    /// The digest of its file, as the kernel measures it.
    pub fn digest(&self, algorithm: HashAlgorithm) -> Digest {
        algorithm.hash(&[self.text.as_bytes()])
    }
}

/// A policy's rules, as far as measuring goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPolicy {
    rules: Vec<Rule>,
}

/// One `measure` or `dont_measure`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    measures: bool,
    /// The hook, under its present name; `None`: every one.
    func: Option<String>,
    mask: Option<String>,
    /// Everything else that has to hold.
    conditions: Vec<String>,
}

/// Why a text is no policy of IMA.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KernelPolicyError {
    /// It is longer than [`KERNEL_POLICY_BYTES_MAX`].
    #[error("it has more than {KERNEL_POLICY_BYTES_MAX} bytes")]
    TooLong,
    /// A line begins with no action that IMA knows.
    #[error("line {line} begins with no action such as measure or appraise")]
    Action {
        /// The line, from 1.
        line: usize,
    },
    /// A word of a rule is neither `key=value` nor a flag.
    #[error("line {line}: {word:?} is no condition")]
    Word {
        /// The line, from 1.
        line: usize,
        /// The word.
        word: String,
    },
}

/// Something that a policy does not have the kernel measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unseen {
    /// Programs that are started.
    Programs,
    /// Libraries and what else is mapped to be executed.
    Libraries,
    /// Kernel modules that are loaded from a file.
    Modules,
    /// Firmware for devices.
    Firmware,
    /// What kexec starts: kernel, initial RAM disk or command line.
    Kexec,
    /// A policy of IMA that takes this one's place.
    Policies,
    /// Whatever lies in memory file systems, and so in `/dev/shm`, `/run` and files without a name.
    MemoryFiles,
}

impl Unseen {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Unseen::Programs => "programs",
            Unseen::Libraries => "libraries",
            Unseen::Modules => "kernel modules",
            Unseen::Firmware => "firmware",
            Unseen::Kexec => "what kexec starts",
            Unseen::Policies => "another IMA policy",
            Unseen::MemoryFiles => "anything on tmpfs (/dev/shm, /run, memfd)",
        }
    }
}

impl KernelPolicy {
    /// Reads a policy as the kernel does: a rule a line, `#` begins a remark.
    pub fn parse(text: &str) -> Result<Self, KernelPolicyError> {
        if text.len() > KERNEL_POLICY_BYTES_MAX {
            return Err(KernelPolicyError::TooLong);
        }
        let mut rules = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let mut words = text.split_ascii_whitespace();
            let Some(action) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let measures = match action {
                "measure" => Some(true),
                "dont_measure" => Some(false),
                action if OTHER_ACTIONS.contains(&action) => None,
                _ => return Err(KernelPolicyError::Action { line }),
            };
            let rule = Rule::read(words, line)?;
            rules.extend(measures.map(|measures| Rule { measures, ..rule }));
        }
        Ok(KernelPolicy { rules })
    }

    /// The kernel's built-in policy, by the words of `ima_policy=` on its command line.
    ///
    /// Linux ima_policy.c: dont_measure_rules and default_measurement_rules; the words that are not here measure nothing that
    /// this module tells apart.
    pub fn built_in(words: &[&str]) -> Self {
        let is_tcb = words.contains(&"tcb");
        let text = if is_tcb { BUILT_IN_TCB } else { "" };
        // The text is a constant that a test reads.
        Self::parse(text).unwrap_or_default()
    }

    /// What it does not have measured, of all that can run or decide what does.
    pub fn unseen(&self) -> Vec<Unseen> {
        let hooks: [(Unseen, &[&str]); 6] = [
            (Unseen::Programs, &["BPRM_CHECK"]),
            (Unseen::Libraries, &["MMAP_CHECK"]),
            (Unseen::Modules, &["MODULE_CHECK"]),
            (Unseen::Firmware, &["FIRMWARE_CHECK"]),
            (Unseen::Kexec, &["KEXEC_KERNEL_CHECK", "KEXEC_INITRAMFS_CHECK", "KEXEC_CMDLINE"]),
            (Unseen::Policies, &["POLICY_CHECK"]),
        ];
        let is_unseen = |funcs: &[&str]| !funcs.iter().all(|func| self.measures_everywhere(func));
        let mut unseen: Vec<Unseen> =
            hooks.into_iter().filter(|(_, funcs)| is_unseen(funcs)).map(|(what, _)| what).collect();
        let memory = |rule: &Rule| {
            let of_memory =
                |condition: &String| MEMORY_CONDITIONS.contains(&condition.to_ascii_lowercase().as_str());
            let is_of_code = ["BPRM_CHECK", "MMAP_CHECK", "MODULE_CHECK"].iter().any(|func| rule.is_of(func));
            !rule.measures && is_of_code && rule.conditions.iter().any(of_memory)
        };
        if !self.rules.is_empty() && self.rules.iter().any(memory) {
            unseen.push(Unseen::MemoryFiles);
        }
        unseen
    }

    /// Whether it has measured what somebody only reads, so that the list grows with every file that is looked at.
    pub fn measures_reads(&self) -> bool {
        self.rules.iter().any(|rule| rule.measures && rule.is_of("FILE_CHECK"))
    }

    /// Whether nothing is left out of a hook but file systems that hold no files of anybody.
    fn measures_everywhere(&self, func: &str) -> bool {
        let is_whole = |rule: &&Rule| {
            let is_of_code = rule.mask.as_deref().is_none_or(|mask| mask.ends_with("MAY_EXEC"));
            rule.measures && rule.is_of(func) && rule.conditions.is_empty() && is_of_code
        };
        let Some(whole) = self.rules.iter().position(|rule| is_whole(&rule)) else { return false };
        // The first rule that fits decides.
        let before = self.rules.iter().take(whole);
        before.filter(|rule| !rule.measures && rule.is_of(func)).all(|rule| !rule.conditions.is_empty())
    }
}

impl Rule {
    fn read<'a>(words: impl Iterator<Item = &'a str>, line: usize) -> Result<Self, KernelPolicyError> {
        let mut rule = Rule { measures: false, func: None, mask: None, conditions: Vec::new() };
        for word in words {
            match word.split_once('=') {
                Some(("func", func)) => rule.func = Some(present_name(func).to_owned()),
                Some(("mask", mask)) => rule.mask = Some(mask.to_owned()),
                // They say how it is measured, not what is.
                Some(("pcr" | "template" | "digest_type", _)) => {}
                // Every key of a hook for keys and every label are conditions of that hook alone.
                Some((_, _)) => rule.conditions.push(word.to_owned()),
                None if FLAGS.contains(&word) => {}
                None if word.contains(COMPARISONS) => {
                    rule.conditions.push(word.to_owned());
                }
                None => {
                    return Err(KernelPolicyError::Word {
                        line,
                        word: word.chars().take(WORD_SHOWN).collect(),
                    });
                }
            }
        }
        Ok(rule)
    }

    fn is_of(&self, func: &str) -> bool {
        self.func.as_deref().is_none_or(|of| of == func)
    }
}

/// Names that older kernels have for the same hook.
fn present_name(func: &str) -> &str {
    match func {
        "FILE_MMAP" => "MMAP_CHECK",
        "PATH_CHECK" => "FILE_CHECK",
        func => func,
    }
}

/// Bytes of a policy; the kernel itself takes no line of more than a page.
pub const KERNEL_POLICY_BYTES_MAX: usize = 64 << 10;
/// Policies of one boot that are remembered. Each is a load, of which most kernels allow one.
pub const KERNEL_POLICIES_MAX: usize = 16;
/// Characters of a word that an error repeats.
const WORD_SHOWN: usize = 40;
const OTHER_ACTIONS: [&str; 5] = ["appraise", "dont_appraise", "audit", "hash", "dont_hash"];
const FLAGS: [&str; 1] = ["permit_directio"];
/// `uid>1000` and `uid<1000`.
const COMPARISONS: [char; 2] = ['>', '<'];
/// TMPFS_MAGIC and the file system's name.
const MEMORY_CONDITIONS: [&str; 3] = ["fsmagic=0x01021994", "fsmagic=0x1021994", "fsname=tmpfs"];
const BUILT_IN_TCB: &str = "\
dont_measure fsmagic=0x9fa0
dont_measure fsmagic=0x62656572
dont_measure fsmagic=0x64626720
dont_measure fsmagic=0x01021994
dont_measure fsmagic=0x1cd1
dont_measure fsmagic=0x42494e4d
dont_measure fsmagic=0x73636673
dont_measure fsmagic=0xf97cff8c
dont_measure fsmagic=0x43415d53
dont_measure fsmagic=0x27e0eb
dont_measure fsmagic=0x63677270
dont_measure fsmagic=0x6e736673
dont_measure fsmagic=0xde5e81e4
measure func=MMAP_CHECK mask=MAY_EXEC
measure func=BPRM_CHECK mask=MAY_EXEC
measure func=FILE_CHECK mask=^MAY_READ euid=0
measure func=FILE_CHECK mask=^MAY_READ uid=0
measure func=MODULE_CHECK
measure func=FIRMWARE_CHECK
measure func=POLICY_CHECK
";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, unseen: &[Unseen]) {
        assert_eq!(KernelPolicy::parse(text).unwrap().unseen(), unseen, "{text}");
    }

    #[test]
    fn the_policies_that_come_with_assay_leave_nothing_out() {
        for shipped in ShippedPolicy::ALL {
            let policy = KernelPolicy::parse(shipped.text).unwrap();
            assert_eq!(policy.unseen(), [], "{}", shipped.name);
            assert_eq!(policy.measures_reads(), shipped.name == "scripts");
            let digest = shipped.digest(HashAlgorithm::Sha256);
            assert_eq!(ShippedPolicy::of_digest(&digest), ShippedPolicy::named(shipped.name));
            // What every variant adds to is the base.
            let rules = |policy: &ShippedPolicy| -> Vec<&'static str> {
                policy.text.lines().filter(|line| line.starts_with("measure")).collect()
            };
            let base = rules(&ShippedPolicy::ALL[0]);
            assert_eq!(rules(&shipped).get(..base.len()), Some(base.as_slice()), "{}", shipped.name);
        }
    }

    #[test]
    fn the_built_in_policy_does_not_see_memory_files_and_kexec_and_measures_reads() {
        let tcb = KernelPolicy::built_in(&["tcb", "critical_data"]);
        assert_eq!(tcb.unseen(), [Unseen::Kexec, Unseen::MemoryFiles]);
        assert!(tcb.measures_reads());
        assert!(KernelPolicy::built_in(&["appraise_tcb"]).unseen().contains(&Unseen::Programs));
    }

    #[test]
    fn what_a_policy_leaves_out_is_told() {
        let without = |line: &str| -> String {
            let lines = ShippedPolicy::ALL[0].text.lines().filter(|known| !known.starts_with(line));
            lines.map(|line| format!("{line}\n")).collect()
        };
        check(&without("measure func=BPRM_CHECK"), &[Unseen::Programs]);
        check(&without("measure func=MMAP_CHECK"), &[Unseen::Libraries]);
        check(&without("measure func=MODULE_CHECK"), &[Unseen::Modules]);
        check(&without("measure func=FIRMWARE_CHECK"), &[Unseen::Firmware]);
        check(&without("measure func=KEXEC_CMDLINE"), &[Unseen::Kexec]);
        check(&without("measure func=POLICY_CHECK"), &[Unseen::Policies]);
        // The first rule that fits decides.
        let base = ShippedPolicy::ALL[0].text;
        check(&format!("dont_measure fsmagic=0x01021994\n{base}"), &[Unseen::MemoryFiles]);
        check(&format!("dont_measure func=BPRM_CHECK fsname=tmpfs\n{base}"), &[Unseen::MemoryFiles]);
        check(&format!("dont_measure func=MODULE_CHECK\n{base}"), &[Unseen::Modules]);
        check(&format!("{base}dont_measure func=MODULE_CHECK\n"), &[]);
        // What holds for some users or files only leaves the others out.
        let some = base.replace("func=BPRM_CHECK", "func=BPRM_CHECK fowner=0");
        check(&some, &[Unseen::Programs]);
        check(&base.replace("func=BPRM_CHECK", "func=BPRM_CHECK uid>1000"), &[Unseen::Programs]);
        check(&base.replace("func=MMAP_CHECK", "func=FILE_MMAP pcr=11"), &[]);
    }

    #[test]
    fn what_is_no_policy_is_told_by_its_line() {
        assert_eq!(KernelPolicy::parse("# a\nmesure func=A"), Err(KernelPolicyError::Action { line: 2 }));
        let word = KernelPolicyError::Word { line: 1, word: "func".to_owned() };
        assert_eq!(KernelPolicy::parse("measure func"), Err(word));
        assert_eq!(KernelPolicy::parse(&" ".repeat(70 << 10)), Err(KernelPolicyError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[ -~\n]{0,200}") {
            if let Ok(policy) = KernelPolicy::parse(&text) {
                let _ = (policy.unseen(), policy.measures_reads());
            }
        }
    }
}
