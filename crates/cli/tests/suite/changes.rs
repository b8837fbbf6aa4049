//! `assay appraise --since`: every shared case of the machine alpha against its first boot, and others.

use std::path::Path;

use serde_json::Value;

use crate::{Appraisal, assay, shared_cases, vector};

/// Each change but the boot itself, as `cause PCR,PCR`.
fn changes(case: &Path, since: &Path) -> (Vec<String>, String) {
    let appraisal = Appraisal::of(case, &["--since", since.to_str().unwrap()]);
    assert_eq!(appraisal.exit, 0, "{}", case.display());
    let changes = appraisal.json["changes"].as_array().unwrap();
    let told = changes.iter().filter(|change| change["cause"] != "boot").map(|change| {
        let pcrs: Vec<String> = change["pcrs"].as_array().unwrap().iter().map(Value::to_string).collect();
        format!("{} {}", change["cause"].as_str().unwrap(), pcrs.join(","))
    });
    let messages: Vec<&str> = changes.iter().map(|change| change["message"].as_str().unwrap()).collect();
    (told.collect(), messages.join("\n"))
}

fn check(case: &str, expected: &[&str], words: &[&str]) {
    let Some(shared) = shared_cases() else { return };
    let (told, messages) = changes(&shared.join(case), &shared.join("sb-good-1"));
    assert_eq!(told, expected, "{case}: {messages}");
    for word in words {
        assert!(messages.contains(word), "{case}: {word} is not in {messages}");
    }
}

#[test]
fn updates_are_told_by_their_cause() {
    check(
        "sb-update-kernel",
        &["kernel 4,8,9", "changed-files 10"],
        &["PCR 4, 8 and 9 changed because the kernel went from 6.1.0-55-amd64 to 6.1.0-56-amd64."],
    );
    check(
        "sb-update-cmdline",
        &["kernel-command-line 8,9", "ima-order 10"],
        &["PCR 8 and 9 changed because the kernel command line has the new words `panic=30 audit=1`."],
    );
    check(
        "sb-update-firmware",
        &["firmware 0,1", "ima-order 10"],
        &["from an unnamed version to 2025.02-8+deb13u1 (events 1, 2 and 3)", "`ACPI DATA`", "`BootOrder`"],
    );
    check("sb-update-dbx", &["dbx 7", "ima-order 10"], &["grew by 211 entries (1 to 212)"]);
    check("sb-varstore-replaced", &["firmware 0", "ima-order 10"], &["(event 2)", "variable store"]);
    check(
        "sb-systemd-full-boot",
        &["kernel-command-line 8,9", "new-files 10"],
        &["lacks `quiet init=/sbin/ev-init`"],
    );
}

#[test]
fn what_ran_since_is_told() {
    check("sb-good-2-rebooted", &["ima-order 10"], &["the TPM was reset 2 times since (2 to 4)"]);
    check(
        "sb-good-2-grown",
        &["new-files 10"],
        &["1 file measured for the first time: `/usr/local/bin/report-tool`"],
    );
    check("sb-ima-violations", &["new-files 10", "violations 10"], &["`/var/lib/ev/tomtou.txt`"]);
}

#[test]
fn another_machine_is_told_apart_part_by_part() {
    let Some(shared) = shared_cases() else { return };
    let (told, messages) = changes(&shared.join("nosb-grub212"), &shared.join("sb-good-1"));
    for cause in ["attestation-key ", "firmware 0", "secure-boot 7", "secure-boot-keys 7", "boot-loader 4"] {
        assert!(told.iter().any(|told| told == cause), "{cause} is not in {told:?}");
    }
    assert!(messages.contains("Secure Boot is off now, and was on before"), "{messages}");
    let (told, messages) = changes(&shared.join("nosb-ima-ng-no-eventlog"), &shared.join("sb-good-1"));
    assert_eq!(
        told,
        ["attestation-key ", "boot-log ", "unexplained 0,4,7,8,9", "ima-order 10"],
        "{messages}"
    );
}

#[test]
fn changes_are_printed_and_earlier_evidence_has_to_verify() {
    let (again, first) = (vector("sb-good-2-rebooted"), vector("sb-good-1"));
    let told = assay(["appraise".as_ref(), again.as_os_str(), "--since".as_ref(), first.as_os_str()]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("changed since") && text.contains("ima-order"), "{text}");
    let same = assay(["appraise".as_ref(), first.as_os_str(), "--since".as_ref(), first.as_os_str()]);
    assert!(String::from_utf8_lossy(&same.stdout).contains("nothing changed since"));

    let broken = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&first).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), broken.path().join(file.file_name())).unwrap();
    }
    std::fs::write(broken.path().join("quote.nonce"), "00").unwrap();
    let refused =
        assay(["appraise".as_ref(), again.as_os_str(), "--since".as_ref(), broken.path().as_os_str()]);
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("does not verify") && why.contains("another challenge"), "{why}");
}
