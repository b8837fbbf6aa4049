//! `assay policy init debian`: a policy of packages, of the initial ramdisk and of a good device, which says what they
//! explain. The device is a Debian that `assay-agent setup ima` was run on.

use std::path::{Path, PathBuf};

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::ShippedPolicy;
use serde_json::Value;
use tempfile::tempdir;

use crate::initrd::{Cpio, PROGRAM};
use crate::{Appraisal, assay};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/debian/base-boot")
}

/// What the initial ramdisk of the device had, of what this repository has.
fn ramdisk(folder: &Path) -> PathBuf {
    let path = folder.join("initrd.img-6.1.0-50-amd64");
    let load = include_bytes!("../../../../deploy/ima/initramfs-load");
    std::fs::write(&path, Cpio::default().file("scripts/init-top/assay-ima", PROGRAM, load).finish())
        .unwrap();
    path
}

/// A system of one package, with a program that is another than the device's, and one that was changed.
fn system(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    for part in ["usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "boot"] {
        std::fs::create_dir_all(root.join(part)).unwrap();
    }
    let write = |path: &str, text: &str| std::fs::write(root.join(path), text).unwrap();
    write("usr/bin/sh", "\x7fELF another shell");
    write("usr/bin/changed", "\x7fELF changed");
    let status = "Package: tool\nStatus: install ok installed\nMaintainer: a <a@example>\nArchitecture: all\nVersion: 1\n\
                  Description: a\n\n";
    write("var/lib/dpkg/status", status);
    write("var/lib/dpkg/info/format", "1\n");
    write("var/lib/dpkg/info/tool.list", "/.\n/bin\n/bin/sh\n/usr\n/usr/bin\n/usr/bin/changed\n");
    write("var/lib/dpkg/info/tool.md5sums", "00000000000000000000000000000000  usr/bin/changed\n");
    ramdisk(&root.join("boot"));
    root
}

fn init(arguments: &[&str]) -> (i32, Value, String) {
    let fixed = ["policy", "init", "debian", "--json"];
    let output = assay(fixed.iter().chain(arguments));
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), said, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_debian_is_explained_and_passes_its_own_policy() {
    let folder = tempdir().unwrap();
    let (golden, root) = (golden(), system(folder.path()));
    let made = folder.path().join("made.json");
    let paths = [golden.to_str().unwrap(), root.to_str().unwrap(), made.to_str().unwrap()];
    let [case, root, file] = paths;
    let (exit, said, why) = init(&[case, "--installed", "--root", root, "-o", file]);
    if why.contains("dpkg cannot be run") {
        eprintln!("skipped: dpkg is absent");
        return;
    }
    assert_eq!(exit, 0, "{why}");
    let explained = &said["explained"];
    assert_eq!(explained["files"], 166);
    let causes = explained["causes"].as_object().unwrap();
    assert_eq!(causes["IMA policy"], 1);
    assert_eq!(causes["initial ramdisk"], 1);
    assert_eq!(causes["Assay itself"], 1);
    assert_eq!(causes["in a package, with another content"], 1);
    let left = explained["left"].as_array().unwrap();
    assert!(left.iter().any(|left| left["path"] == "/usr/bin/sh" && left["cause"] == "changed"), "{left:?}");
    let remarks = said["remarks"].to_string();
    assert!(remarks.contains("/usr/bin/changed") && remarks.contains("without Secure Boot"), "{remarks}");

    let policy: Value = serde_json::from_slice(&std::fs::read(&made).unwrap()).unwrap();
    let base = ShippedPolicy::ALL[0].digest(HashAlgorithm::Sha256).to_string();
    assert_eq!(policy["ima"]["kernel_policies"], serde_json::json!([base]));
    assert_eq!(policy["ima"]["violations"], "by-path");
    // Both shells pass: the package's and the device's.
    assert_eq!(policy["ima"]["allow"]["/usr/bin/sh"].as_array().unwrap().len(), 2);
    assert!(policy["ima"]["allow"].get("/usr/bin/changed").is_none());

    // Nobody vouches for the TPM of a virtual machine that was thrown away; all else is as it should be.
    let appraisal = Appraisal::as_given(&golden, &["--policy", file], &[]);
    let bad = |appraisal: &Appraisal| -> Vec<String> {
        let bad = appraisal.findings().iter().filter(|finding| finding["tier"] == "contraindicated");
        bad.map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
    };
    let of_files = |checks: &[String]| checks.iter().any(|check| check.starts_with("ima"));
    assert!(!of_files(&bad(&appraisal)), "{:?}", appraisal.findings());

    // What nothing explains is left out where that is asked for.
    let (exit, said, why) = init(&[case, "--installed", "--root", root, "--only-explained", "-o", file]);
    assert_eq!((exit, &said["left_are_accepted"]), (0, &Value::Bool(false)), "{why}");
    let appraisal = Appraisal::as_given(&golden, &["--policy", file], &[]);
    assert!(appraisal.claims("ima-policy").contains(&"/usr/bin/sh"));
    assert!(!appraisal.claims("ima-policy").contains(&"/scripts/init-top/assay-ima"));
}

#[test]
fn the_policy_of_ima_is_demanded_from_then_on() {
    let folder = tempdir().unwrap();
    let learned = crate::learn(&golden(), folder.path(), &[]);
    let text = std::fs::read_to_string(&learned).unwrap();
    let base = ShippedPolicy::ALL[0].digest(HashAlgorithm::Sha256).to_string();
    assert!(
        text.contains(&format!("kernel_policies = [\"{base}\"]")) && !text.contains("/etc/ima/ima-policy")
    );
    let judged = |text: &str| {
        std::fs::write(&learned, text).unwrap();
        Appraisal::as_given(&golden(), &["--policy", learned.to_str().unwrap()], &[])
    };
    assert!(judged(&text).claims("ima-kernel-policy").is_empty());
    let other = ShippedPolicy::named("appraise").unwrap().digest(HashAlgorithm::Sha256).to_string();
    let refused = judged(&text.replace(&base, &other));
    assert_eq!(refused.claims("ima-kernel-policy"), ["policy of IMA", "/etc/ima/ima-policy"]);
    assert!(refused.messages().contains("Assay's base"), "{}", refused.messages());
}

#[test]
fn without_packages_or_a_device_nothing_is_made() {
    let folder = tempdir().unwrap();
    let (golden, made) = (golden(), folder.path().join("made.json"));
    let [case, file, empty] = [golden.to_str(), made.to_str(), folder.path().to_str()].map(Option::unwrap);
    let (exit, _, why) = init(&[case, "-o", file]);
    assert!(exit == 2 && why.contains("--mirror"), "{why}");
    let (exit, _, why) = init(&["--mirror", empty, "-o", file]);
    assert!(exit == 2 && why.contains("CASE_DIR"), "{why}");
    let (exit, _, why) = init(&[case, "--mirror", empty, "-o", file]);
    assert!(exit != 0 && why.contains("no program was found"), "{why}");
    let (exit, _, why) = init(&[case, "--installed", "--root", empty, "-o", file]);
    assert!(exit != 0 && !made.exists(), "{why}");
}

#[test]
fn ordinary_work_is_no_finding_and_each_attack_is_named() {
    let vectors = golden().join("..");
    let policy = vectors.join("policy.toml");
    let refused = |case: &str| -> Vec<String> {
        let appraisal =
            Appraisal::as_given(&vectors.join(case), &["--policy", policy.to_str().unwrap()], &[]);
        assert_eq!(appraisal.integrity(), "accept");
        let bad = appraisal.findings().iter().filter(|finding| finding["tier"] == "contraindicated");
        // Nobody vouches for the TPM.
        let bad = bad.filter(|finding| finding["check"] != "endorsement-policy");
        bad.map(|finding| finding["claim"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(refused("base-boot"), Vec::<String>::new());
    assert_eq!(refused("base-life"), Vec::<String>::new());
    let attacks = [
        "/dev/shm/implant",
        "/run/preload.so",
        "memfd:m",
        "/dev/shm/evil.ko",
        "/usr/local/bin/unknown",
        "/root/script",
        "/usr/bin/date",
    ];
    assert_eq!(refused("base-attacked"), attacks);
}
