//! Policies that measure little or nothing, of which lint has to say so, and good ones, of which it has nothing to say.

use std::path::PathBuf;

use assay_trust::Policy;
use assay_trust::policy::{Demand, EndorsementKind, PcrSection, Severity, review};

use crate::learned;

fn vectors(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let policies = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    policies.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Whether a warning or an error is said.
fn is_named(text: &str) -> bool {
    review(text).iter().any(|remark| remark.severity != Severity::Note)
}

#[test]
fn every_weak_policy_is_named() {
    let weak = vectors("weak-policies");
    assert!(weak.len() >= 24);
    for (name, text) in weak {
        assert!(is_named(&text), "{name}");
    }
}

#[test]
fn nothing_is_said_of_good_policies() {
    for (name, text) in vectors("policy") {
        assert_eq!(review(&text), [], "{name}");
    }
    assert_eq!(review(&learned().to_toml()), []);
}

/// What alone makes a policy weak, whatever else is in it: each is put into a good one.
#[test]
fn each_weakness_is_named_in_a_policy_that_is_good_but_for_it() {
    let good = learned();
    let check = |change: fn(&mut Policy), word: &str| {
        let mut policy = good.clone();
        change(&mut policy);
        let said = review(&policy.to_toml());
        assert!(said.iter().any(|remark| remark.message.contains(word)), "{word}: {said:?}");
    };
    check(
        |policy| policy.freshness.evidence_age_max_seconds = 86_400,
        "minutes after its last good evidence",
    );
    check(|policy| policy.freshness.unanswered_max_seconds = 86_400, "stops answering");
    check(|policy| policy.boot.secure_boot = Demand::Optional, "Secure Boot is off");
    check(|policy| policy.boot.event_log = Demand::Optional, "no boot log");
    check(|policy| policy.ima.as_mut().unwrap().list = Demand::Optional, "sends no list");
    check(|policy| policy.ima = None, "files: any program may have run");
    check(|policy| policy.pcr = PcrSection::default(), "boot loader");
    check(|policy| policy.endorsement.required = EndorsementKind::DangerousNone, "software TPM");
    check(
        |policy| policy.boot.kernel_command_line_patterns = vec!["/k r*=x ima_policy=tcb".parse().unwrap()],
        "may be any argument",
    );
}

#[test]
fn exclusions_of_code_and_lines_that_open_doors_are_named() {
    for pattern in [
        "/opt/",
        "/usr/lib/x86_64-linux-gnu/",
        "/**.so",
        "/**.so.*",
        "/**.py",
        "/**.sh",
        "/init",
        "/scripts/",
        "/conf/",
        "/usr/bin/python3",
        "/usr/bin/py*",
        "/lib/**",
        "/usr/**",
        "/etc/ima/",
        "/usr/lib/systemd/**",
        "/usr/local/lib/*",
        "/bin/b*",
        "/usr/*/**",
        "/**lib**",
        "/srv/**",
    ] {
        let mut policy = learned();
        policy.ima.as_mut().unwrap().exclude.push(pattern.parse().unwrap());
        let said = review(&policy.to_toml());
        assert!(
            said.iter().any(|remark| remark.field.to_string() == "ima.exclude[0]"),
            "{pattern}: {said:?}"
        );
    }
    for word in
        ["init=/bin/sh", "lockdown=none", "module.sig_enforce=0", "ima_appraise=off", "initcall_blacklist=x"]
    {
        let mut policy = learned();
        policy.boot.kernel_command_lines.as_mut().unwrap().push(format!("/vmlinuz ro ima_policy=tcb {word}"));
        let said = review(&policy.to_toml());
        assert!(said.iter().any(|remark| remark.message.contains(word)), "{word}: {said:?}");
    }
}
