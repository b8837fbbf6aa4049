//! Long input with one mistake, and files that are not what they should be: the message says where.

use std::path::Path;

use assay_testkit::machine::ImaEntry;
use assay_testkit::tamper::ima_entries;
use tempfile::tempdir;

use crate::tampered::Copy;
use crate::{Appraisal, assay};

/// A list of 100,000 entries.
fn long_list() -> Vec<ImaEntry> {
    (0..100_000).map(|number| ImaEntry::file(&format!("/usr/lib/part-{number}"), b"content")).collect()
}

/// What is said of the list that the copy has.
fn said(copy: &Copy) -> String {
    let appraisal = Appraisal::of(copy.path(), &[]);
    assert_eq!(appraisal.claims("ima-parse"), ["IMA list"], "{}", appraisal.messages());
    appraisal.messages()
}

#[test]
fn the_bad_entry_of_a_long_list_is_named() {
    let entries = long_list();
    let copy = Copy::new();
    let mut binary: Vec<u8> = entries.iter().flat_map(ImaEntry::binary).collect();
    let bad = ima_entries(&binary)[70_000].start;
    binary[bad] = 24;
    copy.write("binary_runtime_measurements", binary);
    let message = said(&copy);
    assert!(message.contains("entry 70000 at byte") && message.contains("PCR 24"), "{message}");

    let mut ascii: Vec<String> = entries.iter().map(ImaEntry::ascii_line).collect();
    ascii[70_000] = ascii[70_000].replace("sha256:", "sha256;");
    copy.write("ascii_runtime_measurements", ascii.concat());
    std::fs::remove_file(copy.path().join("binary_runtime_measurements")).unwrap();
    let message = said(&copy);
    assert!(message.contains("entry 70000 at byte"), "{message}");
}

/// What a verb says of a policy that it refuses.
fn refused(verb: &[&str], policy: &Path, exit: i32) -> String {
    let arguments = verb.iter().map(AsRef::as_ref).chain([policy.as_os_str()]);
    let output = assay(arguments);
    assert_eq!(output.status.code(), Some(exit), "{}", String::from_utf8_lossy(&output.stdout));
    [output.stdout, output.stderr].iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

#[test]
fn a_policy_that_is_none_is_refused_with_its_line() {
    let folder = tempdir().unwrap();
    let digest = format!("sha256:{}", "ab".repeat(32));
    let heading = "name = \"edge\"\nversion = 1\n";
    let allow = format!("[ima.allow]\n\"/bin/a\" = [\"{digest}\"]\n");
    let many: String = (0..100_000).map(|number| format!("\"/bin/{number}\" = [\"{digest}\"]\n")).collect();
    let pattern = format!("/a{}", "*b".repeat(64));
    for (name, text, place, word) in [
        ("twice.toml", format!("{heading}{allow}{many}\"/bin/a\" = []\n"), "100005", "duplicate key"),
        ("twice.json", json_twice(&digest), "3", "\"/bin/a\" appears twice"),
        ("unknown.toml", format!("{heading}{allow}{many}[imo]\n"), "100005", "unknown field `imo`"),
        (
            "bad.toml",
            format!("{heading}{allow}{many}\"/bin/b\" = [\"sha256:ab\"]\n"),
            "100005",
            "is not a digest",
        ),
        (
            "pattern.toml",
            format!("{heading}[ima]\nexclude = [\"{pattern}\"]\n{allow}"),
            "4",
            "after its first wildcard",
        ),
        (
            "key.toml",
            format!("{heading}[ima]\nsigning_keys = [\"MIIB\"]\n{allow}"),
            "4",
            "ima.signing_keys[0]",
        ),
    ] {
        let policy = folder.path().join(name);
        std::fs::write(&policy, text).unwrap();
        let message = refused(&["policy", "lint"], &policy, 1);
        assert!(
            message.contains(&format!("{name}:{place}:")) && message.contains(word),
            "{name}: {message:.300}"
        );
    }
    let policy = folder.path().join("long.toml");
    std::fs::write(&policy, format!("{heading}{allow}#{}", " ".repeat(32 << 20))).unwrap();
    let message = refused(&["policy", "lint"], &policy, 1);
    assert!(message.contains("long.toml") && message.contains("at most 33554432"), "{message}");
}

fn json_twice(digest: &str) -> String {
    format!(
        "{{\"name\": \"edge\", \"version\": 1, \"ima\": {{\"allow\": {{\n\"/bin/a\": [\"{digest}\"],\n\"/bin/a\": []}}}}}}"
    )
}

#[test]
fn a_trust_anchor_that_is_no_certificate_is_named() {
    let (copy, folder) = (Copy::new(), tempdir().unwrap());
    let anchor = folder.path().join("maker.pem");
    std::fs::write(&anchor, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let output =
        assay(["appraise".as_ref(), copy.path().as_os_str(), "--trust-anchor".as_ref(), anchor.as_os_str()]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("maker.pem"), "{message}");
}
