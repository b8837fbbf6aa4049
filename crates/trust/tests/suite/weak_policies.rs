//! Policies that measure little or nothing, of which lint has to say so, and good ones, of which it has nothing to say.

use std::path::PathBuf;

use assay_trust::Policy;
use assay_trust::policy::{Demand, EndorsementKind, PcrSection, Remark, Severity, review};

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
        "/usr/*",
        "/**/*.so*",
        "/usr/lib/*/*.so.*",
        "/usr/lib/*.so",
        "/usr/lib/jvm/",
        "/usr/lib/python3/**",
        "/lib/modules/**",
        "/lib/modules/6.1.0-55-amd64/",
        "/lib/firmware/",
        "/usr/lib/firmware/**",
        "/var/tmp/**",
        "/home/*/bin/",
        "/home/*/.local/",
        "/var/lib/docker/",
        "/var/lib/containers/**",
        "/var/lib/snapd/",
        "/usr/share/**",
        "/lib64/ld-*",
        "/etc/cron*/**",
        "/etc/systemd/",
        "^/usr/.*$",
        "^/.*\\.so.*$",
        "^/opt(/.*)?$",
        "^/usr/bin/[a-z]+$",
        "^/(bin|sbin)/.*$",
    ] {
        let mut policy = learned();
        policy.ima.as_mut().unwrap().exclude.push(pattern.parse().unwrap());
        let said = review(&policy.to_toml());
        assert!(
            said.iter().any(|remark| remark.field.to_string() == "ima.exclude[0]"),
            "{pattern}: {said:?}"
        );
    }
    for word in [
        "init=/bin/sh",
        "init=/usr/bin/env",
        "init=/sbin/../bin/sh",
        "init=/usr/lib/systemd/../../bin/bash",
        "rdinit=/bin/busybox",
        "lockdown=none",
        "module.sig_enforce=0",
        "module.sig-enforce=false",
        "ima_appraise=off",
        "ima_appraise=fix",
        "ima_appraise=log",
        "ima-appraise=fix",
        "ima_template=ima",
        "ima_template_fmt=d",
        "ima_hash=md5",
        "evm=fix",
        "initcall_blacklist=x",
        "module_blacklist=tpm_tis",
        "modprobe.blacklist=tpm_crb",
        "rd.break",
        "rd.break=pre-mount",
        "rd.shell",
        "rd.debug",
        "rd.systemd.debug_shell",
        "rd.systemd.unit=emergency.target",
        "systemd.unit=rescue.target",
        "systemd.unit=any.service",
        "systemd.debug_shell=1",
        "systemd.set_credential=x:y",
        "systemd.set_credential_binary=x:y",
        "systemd.setenv=LD_PRELOAD=/tmp/x.so",
        "systemd.wants=debug-shell.service",
        "systemd.mask=auditd.service",
        "systemd.verity=0",
        "rd.systemd.verity=no",
        "systemd.run=/bin/sh",
        "s",
        "S",
        "1",
        "single",
        "-b",
        "emergency",
        "mitigations=off",
        "spectre_v2=off",
        "nospectre_v2",
        "noexec=off",
        "nosmep",
        "selinux=0",
        "apparmor=0",
        "security=none",
        "iommu=pt",
        "intel_iommu=off",
        "efi=no_disable_early_pci_dma",
        "crashkernel=256M kexec_load_disabled=0",
        "sysrq_always_enabled",
        "slub_debug=- hardened_usercopy=off",
        "randomize_kstack_offset=off",
        "debugfs=on kgdboc=ttyS0",
    ] {
        let mut policy = learned();
        policy.boot.kernel_command_lines.as_mut().unwrap().push(format!("/vmlinuz ro ima_policy=tcb {word}"));
        let said = review(&policy.to_toml());
        let is_named =
            |remark: &Remark| word.split(' ').any(|word| remark.message.contains(&format!("{word:?}")));
        assert!(said.iter().any(is_named), "{word}: {said:?}");
    }
}

/// What ima_policy names may measure no file at all.
#[test]
fn a_line_under_which_no_file_is_measured_is_named() {
    for (word, is_named) in [
        ("ima_policy=tcb", false),
        ("ima_policy=appraise_tcb|tcb", false),
        ("ima_policy=tcb ima_policy=critical_data", false),
        ("ima_tcb", false),
        ("ima_policy=critical_data", true),
        ("ima_policy=secure_boot|appraise_tcb", true),
        ("ima_policy=fail_securely", true),
        ("ima_policy=", true),
        ("", true),
    ] {
        let mut policy = learned();
        policy.boot.kernel_command_lines.as_mut().unwrap().push(format!("/vmlinuz ro {word}"));
        let said = review(&policy.to_toml());
        assert_eq!(said.iter().any(|remark| remark.field.to_string() == "ima"), is_named, "{word}: {said:?}");
    }
}
