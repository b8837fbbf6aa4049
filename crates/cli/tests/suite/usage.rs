//! Arguments and folders that are of no use: exit 2, and a message that says what to do.

use std::fs::File;
use std::path::Path;

use tempfile::tempdir;

use crate::{Appraisal, assay, vector};

/// The exit code is 2 and the message says each of these.
fn check(folder: &Path, arguments: &[&str], says: &[&str]) {
    let fixed = ["appraise".as_ref(), folder.as_os_str()];
    let output = assay(fixed.into_iter().chain(arguments.iter().map(AsRef::as_ref)));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in says {
        assert!(message.contains(word), "{word} is not in {message}");
    }
}

#[test]
fn arguments_of_no_use() {
    let case = vector("sb-good-1");
    check(&case, &["--nonce", "xyz"], &["--nonce", "not hex"]);
    check(&case, &["--at", "yesterday"], &["--at", "2027-01-31T12:00:00Z"]);
    check(&case, &["--last-reset-count", "many"], &["--last-reset-count"]);
    check(&case, &["--trust-anchor", "/nowhere/ca.pem"], &["/nowhere/ca.pem"]);
    check(&case, &["--ek-crl", "/nowhere/ca.crl"], &["--ek-crl", "/nowhere/ca.crl"]);
    let not_a_list = case.join("ek-root-ca.pem");
    check(&case, &["--ek-crl", not_a_list.to_str().unwrap()], &["ek-root-ca.pem", "X509 CRL"]);
    check(&case, &["--policy", "/nowhere/policy.toml"], &["/nowhere/policy.toml"]);
}

#[test]
fn a_policy_of_no_use_is_refused_with_its_place() {
    let folder = tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "name = \"edge\"\nversion = 1\ncolour = 3\n").unwrap();
    check(
        &vector("sb-good-1"),
        &["--policy", policy.to_str().unwrap()],
        &["policy.toml", "line 3, column 1", "colour"],
    );
    std::fs::write(&policy, "name = \"edge\"\nversion = 1\n").unwrap();
    check(
        &vector("sb-good-1"),
        &["--policy", policy.to_str().unwrap()],
        &["measures nothing", "assay policy learn"],
    );
}

#[test]
fn folders_of_no_use() {
    check(Path::new("/nowhere"), &[], &["/nowhere", "not a folder"]);
    let folder = tempdir().unwrap();
    check(folder.path(), &[], &["quote.msg", "is missing"]);
    let copy = |name: &str| std::fs::copy(vector("sb-good-1").join(name), folder.path().join(name)).unwrap();
    copy("quote.msg");
    check(folder.path(), &[], &["quote.sig", "is missing"]);
    copy("quote.sig");
    copy("quote.pcrs");
    check(folder.path(), &[], &["ak.tpm2b_public", "is missing"]);
    copy("ak.tpm2b_public");
    check(folder.path(), &[], &["quote.nonce", "--nonce"]);
    std::fs::write(folder.path().join("quote.nonce"), "xyz").unwrap();
    check(folder.path(), &[], &["quote.nonce", "not hex"]);
    copy("quote.nonce");
    // A quote and its key are enough.
    assert_eq!(Appraisal::of(folder.path(), &[]).exit, 0);
}

#[test]
fn files_far_too_long_are_not_read() {
    let folder = tempdir().unwrap();
    for name in ["quote.msg", "quote.sig", "quote.pcrs", "quote.nonce", "ak.tpm2b_public"] {
        std::fs::copy(vector("sb-good-1").join(name), folder.path().join(name)).unwrap();
    }
    let make_long = |name: &str| File::create(folder.path().join(name)).unwrap().set_len(4 << 30).unwrap();
    make_long("binary_bios_measurements");
    let appraisal = Appraisal::of(folder.path(), &[]);
    assert_eq!((appraisal.exit, appraisal.claims("event-log-parse").len()), (1, 1));
    make_long("ek-cert.der");
    check(folder.path(), &[], &["ek-cert.der", "more than"]);
}

#[test]
fn people_get_a_report() {
    let output = assay(["appraise".as_ref(), vector("sb-good-1").as_os_str()]);
    let report = String::from_utf8_lossy(&output.stdout);
    for word in ["integrity  accept", "109 IMA entries", "not judged"] {
        assert!(report.contains(word), "{word} is not in {report}");
    }
}
