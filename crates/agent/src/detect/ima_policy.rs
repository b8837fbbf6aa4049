//! Which policy IMA follows, from what the kernel shows of it, and what that policy does not see.
//!
//! Kernels of the distributions take a policy once and do not show it afterwards (CONFIG_IMA_WRITE_POLICY and
//! CONFIG_IMA_READ_POLICY are off), so that what was measured when it was loaded is the best there is to go by.

use std::fmt;

use assay_evidence::Digest;
use assay_evidence::ima::{KernelPolicy, ShippedPolicy};
use serde::Serialize;

use super::report::{Report, Severity};

/// What the kernel shows.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The kernel's command line.
    pub command_line: String,
    /// The rules in force, where the kernel shows them.
    pub rules: Option<String>,
    /// Whether the kernel still takes a policy.
    pub takes_policy: bool,
    /// The policies that were measured in this boot, in their order.
    pub measured: Vec<Digest>,
}

/// Where the policy in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The kernel shows its rules.
    Shown,
    /// It was measured when it was loaded.
    Measured,
    /// It is the kernel's own, by the command line.
    BuiltIn,
    /// Something was loaded that nothing measured.
    Unmeasured,
    /// None was asked for.
    None,
}

/// The policy in force, as far as that can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Active {
    /// What people call it: that of one of Assay's, `built-in`, or its digest.
    pub name: String,
    /// How it is known.
    pub source: Source,
    /// What it does not see of what can run; `None` where its rules are not known.
    pub unseen: Option<Vec<&'static str>>,
    /// Whether the list grows with files that somebody only reads.
    pub measures_reads: Option<bool>,
    /// Whether a policy that is loaded later shows in the list.
    pub is_replacement_seen: Option<bool>,
}

/// Tells the policy in force.
pub fn active(found: &Found) -> Active {
    let rules = found.rules.as_deref().and_then(|text| KernelPolicy::parse(text).ok());
    let shipped = found.measured.iter().rev().find_map(ShippedPolicy::of_digest);
    if let Some(rules) = rules {
        let name = shipped.map_or("shown by the kernel", |shipped| shipped.name);
        return told(name.to_owned(), Source::Shown, Some(&rules));
    }
    match (found.measured.last(), shipped, found.takes_policy) {
        (Some(_), Some(shipped), _) => {
            told(shipped.name.to_owned(), Source::Measured, KernelPolicy::parse(shipped.text).ok().as_ref())
        }
        (Some(digest), None, _) => told(digest.to_string(), Source::Measured, None),
        (None, _, false) => told("unknown".to_owned(), Source::Unmeasured, None),
        (None, _, true) => match built_in(&found.command_line) {
            words if words.is_empty() => {
                told("none".to_owned(), Source::None, Some(&KernelPolicy::default()))
            }
            words => told(
                format!("built-in: {}", words.join(", ")),
                Source::BuiltIn,
                Some(&KernelPolicy::built_in(&words)),
            ),
        },
    }
}

fn told(name: String, source: Source, rules: Option<&KernelPolicy>) -> Active {
    let unseen =
        rules.map(|rules| rules.unseen().into_iter().map(assay_evidence::ima::Unseen::words).collect());
    Active {
        name,
        source,
        unseen,
        measures_reads: rules.map(KernelPolicy::measures_reads),
        is_replacement_seen: rules
            .map(|rules| !rules.unseen().contains(&assay_evidence::ima::Unseen::Policies)),
    }
}

/// The words of `ima_policy=`, which may be there more than once, and `ima_tcb`, as older kernels have it.
fn built_in(command_line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for argument in command_line.split_ascii_whitespace() {
        match argument.split_once('=') {
            Some(("ima_policy", policies)) => {
                words.extend(policies.split(['|', ' ']).filter(|word| !word.is_empty()))
            }
            None if argument == "ima_tcb" => words.push("tcb"),
            _ => {}
        }
    }
    words
}

/// Says what speaks against it.
pub(super) fn advise(active: &Active, report: &mut Report) {
    let install = "install Assay's own policy with `assay-agent setup ima` and reboot";
    match active.source {
        Source::None => report.advise_about(
            ABOUT,
            Severity::Note,
            "IMA follows no policy, and measures next to nothing",
            install,
        ),
        Source::Unmeasured => report.advise_about(
            ABOUT,
            Severity::Note,
            "IMA follows a policy that was loaded without being measured, so that nobody can tell what it leaves out",
            format!("have it loaded by its file name and with ima_policy=tcb on the command line, or {install}"),
        ),
        Source::Measured if active.unseen.is_none() => report.advise_about(
            ABOUT,
            Severity::Note,
            format!("IMA follows a policy that is none of Assay's ({})", active.name),
            format!("read /etc/ima/ima-policy on it, or {install}"),
        ),
        Source::Shown | Source::Measured | Source::BuiltIn => {}
    }
    if let Some(unseen) =
        active.unseen.as_ref().filter(|unseen| !unseen.is_empty() && active.source != Source::None)
    {
        report.advise_about(
            ABOUT,
            Severity::Note,
            format!("the IMA policy ({}) does not see {}", active.name, unseen.join(", ")),
            install,
        );
    }
    if active.measures_reads == Some(true) {
        report.advise_about(
            ABOUT,
            Severity::Note,
            format!("the IMA policy ({}) measures what is read: a log in or an editor adds files that no package has", active.name),
            install,
        );
    }
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.source {
            Source::Shown => "shown by the kernel",
            Source::Measured => "measured when it was loaded",
            Source::BuiltIn => "by the command line",
            Source::Unmeasured => "loaded and not measured",
            Source::None => "none asked for",
        };
        write!(f, "{} ({how})", self.name)?;
        match self.unseen.as_deref() {
            None => write!(f, "; what it leaves out is not known"),
            Some([]) => {
                write!(f, "; does not see what interpreters are given (scripts read by name, -c, pipes)")
            }
            Some(unseen) => write!(f, "; does not see {}", unseen.join(", ")),
        }
    }
}

/// What people look for it under.
const ABOUT: &str = "ima policy";

#[cfg(test)]
mod tests {
    use assay_evidence::HashAlgorithm;

    use super::*;

    const LINE: &str = "BOOT_IMAGE=/vmlinuz-6.1.0 root=/dev/vda2 ro quiet ima_policy=tcb ima_hash=sha256";

    fn check(found: &Found, name: &str, source: Source, unseen: Option<&[&str]>) {
        let active = active(found);
        assert_eq!((active.name.as_str(), active.source, active.unseen.as_deref()), (name, source, unseen));
    }

    #[test]
    fn the_policy_is_told_by_what_the_kernel_shows() {
        let base = ShippedPolicy::ALL[0];
        let digest = base.digest(HashAlgorithm::Sha256);
        let on_tcb = Found { command_line: LINE.to_owned(), takes_policy: true, ..Found::default() };
        let memory = "anything on tmpfs (/dev/shm, /run, memfd)";
        check(&on_tcb, "built-in: tcb", Source::BuiltIn, Some(&["what kexec starts", memory]));
        let loaded = Found { takes_policy: false, measured: vec![digest], ..on_tcb.clone() };
        check(&loaded, "base", Source::Measured, Some(&[]));
        let other = HashAlgorithm::Sha256.hash(&[b"other"]);
        let strange = Found { measured: vec![other], ..loaded.clone() };
        check(&strange, &other.to_string(), Source::Measured, None);
        let unmeasured = Found { measured: Vec::new(), ..loaded.clone() };
        check(&unmeasured, "unknown", Source::Unmeasured, None);
        let shown = Found { rules: Some(base.text.replace("measure func=BPRM_CHECK\n", "")), ..loaded };
        check(&shown, "base", Source::Shown, Some(&["programs"]));
        let none = Found { command_line: "quiet".to_owned(), ..on_tcb };
        assert_eq!(active(&none).source, Source::None);
    }

    #[test]
    fn what_a_policy_leaves_out_is_advice_and_ours_leaves_nothing_out() {
        let advice = |found: &Found| {
            let mut report = Report::new("tpm".to_owned());
            advise(&active(found), &mut report);
            report.advice.into_iter().map(|advice| advice.what).collect::<Vec<_>>().join("\n")
        };
        let tcb = Found { command_line: LINE.to_owned(), takes_policy: true, ..Found::default() };
        let said = advice(&tcb);
        assert!(
            said.contains("does not see") && said.contains("memfd") && said.contains("what is read"),
            "{said}"
        );
        let base = ShippedPolicy::ALL[0].digest(HashAlgorithm::Sha256);
        assert_eq!(advice(&Found { takes_policy: false, measured: vec![base], ..tcb.clone() }), "");
        assert!(advice(&Found { takes_policy: false, ..tcb }).contains("without being measured"));
        assert!(advice(&Found { takes_policy: true, ..Found::default() }).contains("no policy"));
    }

    #[test]
    fn several_built_in_policies_are_read() {
        assert_eq!(
            built_in("a=b ima_policy=tcb|critical_data ima_policy=fail_securely"),
            ["tcb", "critical_data", "fail_securely"]
        );
        assert_eq!(built_in("ima_tcb quiet"), ["tcb"]);
    }
}
