//! Names of files of every kind: each way to make a policy lists them as the kernel logs them, so that all of them agree.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::initrd::{Cpio, PROGRAM};
use crate::policy::{policy, shown, write};

/// Spaces in every place, other white space, letters of other scripts, and what quoting trips over.
const NAMES: [&str; 10] = [
    "my app",
    "two  spaces",
    " leading",
    "trailing ",
    "a\ttab and a space",
    "line\nbreak here",
    "ünïcode naïve",
    "日本 語",
    "back\\slash here",
    "quote's \"x\" $(y)",
];

/// As the kernel logs them (a space is an underscore), and as a policy writes what does not print.
const LISTED: [&str; 10] = [
    "/opt/my_app",
    "/opt/two__spaces",
    "/opt/_leading",
    "/opt/trailing_",
    "/opt/a\\x09tab_and_a_space",
    "/opt/line\\x0abreak_here",
    "/opt/ünïcode_naïve",
    "/opt/日本_語",
    "/opt/back\\\\slash_here",
    "/opt/quote's_\"x\"_$(y)",
];

/// The paths that a policy lists, which a verb makes of these arguments.
fn listed(folder: &TempDir, arguments: &[&str]) -> BTreeSet<String> {
    let made = folder.path().join("made.json");
    let (exit, _, why) = policy(&[arguments, &["-o", shown(&made)]].concat());
    assert_eq!(exit, 0, "{arguments:?}: {why}");
    let json: Value = serde_json::from_slice(&std::fs::read(&made).unwrap()).unwrap();
    json["ima"]["allow"].as_object().unwrap().keys().cloned().collect()
}

fn tree(root: &Path) {
    std::fs::create_dir_all(root.join("opt")).unwrap();
    for name in NAMES {
        std::fs::write(root.join("opt").join(name), [b"\x7fELF", name.as_bytes()].concat()).unwrap();
    }
}

#[test]
fn every_source_lists_names_as_the_kernel_logs_them() {
    let folder = tempdir().unwrap();
    let expected: BTreeSet<String> = LISTED.map(str::to_owned).into();

    let root = folder.path().join("root");
    tree(&root);
    assert_eq!(listed(&folder, &["from-rootfs", shown(&root)]), expected);

    let archive = NAMES.iter().fold(Cpio::default(), |archive, name| {
        archive.file(&format!("opt/{name}"), PROGRAM, b"\x7fELF and more")
    });
    let image = folder.path().join("initrd.img");
    std::fs::write(&image, archive.finish()).unwrap();
    assert_eq!(listed(&folder, &["from-initrd", shown(&image)]), expected);

    let digest = "ab".repeat(32);
    let digests = NAMES.map(|name| (format!("/opt/{name}"), Value::from(vec![digest.clone()])));
    let json = serde_json::json!({ "digests": serde_json::Map::from_iter(digests) }).to_string();
    // As an editor of another system saves it.
    let file = write(folder.path(), "runtime.json", &format!("\u{feff}{json}"));
    assert_eq!(listed(&folder, &["import", "--keylime-runtime-policy", shown(&file)]), expected);

    // As sha256sum of coreutils writes its lines.
    let line = |name: &str| match name.contains(['\\', '\n']) {
        true => format!("\\{digest}  /opt/{}\n", name.replace('\\', "\\\\").replace('\n', "\\n")),
        false => format!("{digest}  /opt/{name}\n"),
    };
    let file = write(folder.path(), "allowlist.txt", &NAMES.map(line).concat());
    assert_eq!(listed(&folder, &["import", "--keylime-runtime-policy", shown(&file)]), expected);
}

#[test]
fn packages_list_names_as_the_kernel_logs_them() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("package");
    tree(&root);
    let control = "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example>\nDescription: a\n";
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    write(&root, "DEBIAN/control", control);
    let package = folder.path().join("tool.deb");
    let built =
        Command::new("dpkg-deb").args(["--root-owner-group", "-b", shown(&root), shown(&package)]).output();
    if !built.is_ok_and(|output| output.status.success()) {
        println!("dpkg-deb is not installed");
        return;
    }
    assert_eq!(listed(&folder, &["from-deb", shown(&package)]), LISTED.map(str::to_owned).into());
}
