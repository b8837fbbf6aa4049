//! Rules about the boot instead of PCR values: what an update may change, and what it may not.

use std::path::Path;

use tempfile::tempdir;

use crate::{Appraisal, learn, shared_cases, vector};

/// Appraises a case by rules learned from `baseline`, after `change`.
fn by_rules(baseline: &Path, case: &Path, change: impl FnOnce(String) -> String) -> Appraisal {
    let folder = tempdir().unwrap();
    let policy = learn(baseline, folder.path(), &["--boot", "rules"]);
    let text = change(std::fs::read_to_string(&policy).unwrap());
    std::fs::write(&policy, text).unwrap();
    Appraisal::of(case, &["--policy", policy.to_str().unwrap()])
}

/// What the rules refuse of each recorded boot of one machine; nothing where they accept it.
#[test]
fn updates_by_the_same_signers_are_no_findings() {
    let Some(shared) = shared_cases() else { return };
    let baseline = shared.join("sb-good-1");
    for (case, refused) in [
        ("sb-good-1", vec![]),
        ("sb-good-2-rebooted", vec![]),
        // The kernel is signed by whom it was; its file and its initial ramdisk are new.
        ("sb-update-kernel", vec!["PCR 9 events"]),
        ("sb-update-dbx", vec![]),
        // A quirk of the firmware, which measures a volume as it lies in memory: other code, as far as a digest tells.
        ("sb-varstore-replaced", vec!["PCR 0 events"]),
        ("sb-update-firmware", vec!["PCR 0 events", "firmware"]),
        ("sb-update-cmdline", vec!["kernel command line"]),
        ("sb-systemd-full-boot", vec!["kernel command line"]),
        (
            "nosb-grub212",
            vec![
                "PCR 0 events",
                "PCR 4 events",
                "PCR 7 events",
                "PCR 9 events",
                "Secure Boot",
                "dbx",
                "signer",
            ],
        ),
    ] {
        let appraisal = by_rules(&baseline, &shared.join(case), |policy| policy);
        let mut found = appraisal.claims("boot-policy");
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, refused, "{case}: {}", appraisal.messages());
        assert!(appraisal.claims("pcr-policy").is_empty(), "{case}");
    }
}

/// A kernel of the same signer needs its two files listed, and no other word.
#[test]
fn an_update_brings_its_files() {
    let Some(shared) = shared_cases() else { return };
    let update = shared.join("sb-update-kernel");
    let refused = by_rules(&shared.join("sb-good-1"), &update, |policy| policy);
    let findings = refused.findings().iter().filter(|finding| finding["check"] == "boot-policy");
    let mut files: Vec<String> = findings.map(|finding| finding["found"].to_string()).collect();
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), 2, "{}", refused.messages());
    assert!(refused.messages().contains("initrd.img-6.1.0-56-amd64"), "{}", refused.messages());
    let files = format!("files = [{}, ", files.join(", "));
    let accepted = by_rules(&shared.join("sb-good-1"), &update, |policy| policy.replace("files = [", &files));
    assert!(accepted.claims("boot-policy").is_empty(), "{}", accepted.messages());
}

#[test]
fn what_rules_refuse_is_named_with_what_to_do() {
    let Some(shared) = shared_cases() else { return };
    let messages =
        |case: &str| by_rules(&shared.join("sb-good-1"), &shared.join(case), |policy| policy).messages();
    let firmware = messages("sb-update-firmware");
    assert!(firmware.contains("2025.02") && firmware.contains("boot.firmware_versions"), "{firmware}");
    let line = messages("sb-update-cmdline");
    assert!(line.contains("it adds `panic=30 audit=1`") || line.contains("panic=30"), "{line}");
    let unsigned = messages("nosb-grub212");
    assert!(unsigned.contains("turn Secure Boot on"), "{unsigned}");
}

#[test]
fn rules_need_secure_boot_to_be_learned_from() {
    let Some(shared) = shared_cases() else { return };
    let folder = tempdir().unwrap();
    let case = shared.join("nosb-grub212");
    let policy = folder.path().join("policy.toml");
    let arguments =
        ["policy", "learn", case.to_str().unwrap(), "--boot", "rules", "-o", policy.to_str().unwrap()];
    let output = crate::assay(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("learn PCR values instead"), "{said}");
    assert!(!policy.exists());
}

/// Each rule refuses for its own reason alone.
#[test]
fn each_rule_refuses_alone() {
    let good = vector("sb-good-1");
    let other = format!("sha256:{}", "ab".repeat(32));
    let without = |text: &str, key: &str| {
        let lines = text.lines().filter(|line| !line.starts_with(key));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let with = |text: &str, line: &str| text.replace("[boot]\n", &format!("[boot]\n{line}\n"));
    for (key, line, claim) in [
        ("signers", format!("signers = [{other:?}]"), "signer"),
        ("firmware_versions", "firmware_versions = [\"1.0\"]".to_owned(), "firmware"),
        (
            "kernel_command_line_patterns",
            "kernel_command_line_patterns = [\"/vmlinuz-* ro\"]".to_owned(),
            "kernel command line",
        ),
        ("dbx_entries_min", "dbx_entries_min = 100000".to_owned(), "dbx"),
    ] {
        let appraisal = by_rules(&good, &good, |policy| with(&flat(&without(&flat(&policy), key)), &line));
        let mut claims = appraisal.claims("boot-policy");
        claims.dedup();
        assert_eq!(claims, [claim], "{key}: {}", appraisal.messages());
        assert!(appraisal.findings().iter().all(|finding| finding["check"] == "boot-policy"), "{key}");
    }
}

/// Lists on one line, so that a line can be taken out.
fn flat(policy: &str) -> String {
    policy.replace("[\n    ", "[").replace(",\n    ", ", ").replace(",\n]", "]")
}

/// Kernels are told apart from what starts them, and one of them has to be started.
#[test]
fn a_kernel_has_to_be_one_of_the_listed() {
    let good = vector("sb-good-1");
    let images = |appraisal: &Appraisal| -> Vec<String> {
        let findings = appraisal.findings().iter().filter(|finding| finding["check"] == "boot-policy");
        findings.map(|finding| finding["found"].as_str().unwrap().to_owned()).collect()
    };
    let other = format!("sha256:{}", "ab".repeat(32));
    let with = |line: &str| {
        let line = format!("[boot]\n{line}\n");
        by_rules(&good, &good, |policy| policy.replace("[boot]\n", &line))
    };
    let started = images(&with(&format!("applications = [{other:?}]")));
    let [shim, grub, kernel] = started.as_slice() else { panic!("{started:?}") };
    let all = with(&format!("applications = [{shim:?}, {grub:?}]\nkernels = [{kernel:?}]"));
    assert_eq!((all.exit, all.tier()), (0, "affirming"), "{}", all.messages());
    let another = with(&format!("applications = [{shim:?}, {grub:?}]\nkernels = [{other:?}]"));
    assert_eq!(images(&another), [kernel.as_str(), "another"], "{}", another.messages());
    // Everything is known, and none of it is a kernel.
    let none = with(&format!("applications = [{shim:?}, {grub:?}, {kernel:?}]\nkernels = [{other:?}]"));
    assert_eq!(images(&none), ["another"], "{}", none.messages());
}

/// The verb takes the files themselves, and what was good before stays so unless it must not.
#[test]
fn a_kernel_is_allowed_by_its_files() {
    let folder = tempdir().unwrap();
    let policy = learn(&vector("sb-good-1"), folder.path(), &["--boot", "rules"]);
    let file = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.display().to_string()
    };
    let (kernel, initrd) = (file("vmlinuz", "a kernel"), file("initrd.img", "its initial ramdisk"));
    let (policy, next) = (policy.display().to_string(), folder.path().join("next.toml"));
    let verb = ["policy", "allow-kernel", &policy, "--kernel", &kernel, "--initrd", &initrd];
    let run = |more: &[&str]| {
        let to = ["-o", next.to_str().unwrap()];
        let output = crate::assay([&verb[..], &to, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(&next).unwrap()
    };
    let both = run(&[]);
    // sha256sum of both.
    for digest in [
        "4fff0d3e643b3894c17a0738fbdc591953aa722c9d42774425090accc4377126",
        "dc6a532894a3ca1d88a720319e36f3b378a2a393e0759fa519edf71e4c6d5bd7",
    ] {
        assert!(both.contains(digest), "{both}");
    }
    assert_eq!(both.matches("[[alternative]]").count(), 1, "{both}");
    let good = Appraisal::of(&vector("sb-good-1"), &["--policy", next.to_str().unwrap()]);
    assert_eq!(good.tier(), "affirming", "{}", good.messages());
    let only = run(&["--only"]);
    assert_eq!(only.matches("[[alternative]]").count(), 0, "{only}");
    let old = Appraisal::of(&vector("sb-good-1"), &["--policy", next.to_str().unwrap()]);
    let mut claims = old.claims("boot-policy");
    claims.dedup();
    assert_eq!(claims, ["PCR 9 events"], "{}", old.messages());

    let values = learn(&vector("sb-good-1"), folder.path(), &[]);
    let output = crate::assay([
        "policy",
        "allow-kernel",
        values.to_str().unwrap(),
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "-o",
        next.to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--boot rules"), "{said}");
}
