//! Every shared case: its integrity, and what a policy learned from `sb-good-1` says of it.

use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::{Appraisal, learn, shared_cases, vector};

/// The case's `expected.json`.
fn expectation(case: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(case.join("expected.json")).unwrap()).unwrap()
}

fn folders(shared: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(shared).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries.filter(|path| path.join("expected.json").is_file()).collect();
    cases.sort();
    cases
}

#[test]
fn integrity_is_as_expected() {
    let Some(shared) = shared_cases() else { return };
    let cases = folders(&shared);
    assert_eq!(cases.len(), 19);
    for case in cases {
        let expected = expectation(&case);
        let appraisal = Appraisal::of(&case, &[]);
        assert!(
            expected["integrity"].as_str().unwrap().starts_with(appraisal.integrity()),
            "{}",
            case.display()
        );
        assert_eq!((appraisal.exit, appraisal.tier()), (0, "none"), "{}", case.display());
    }
}

/// Appraises a shared case by a policy learned from the baseline case.
fn by_baseline(case: &str, change: impl FnOnce(String) -> String) -> Option<Appraisal> {
    let shared = shared_cases()?;
    let folder = tempdir().unwrap();
    let policy = learn(&shared.join("sb-good-1"), folder.path(), &[]);
    let text = change(std::fs::read_to_string(&policy).unwrap());
    std::fs::write(&policy, text).unwrap();
    Some(Appraisal::of(&shared.join(case), &["--policy", policy.to_str().unwrap()]))
}

#[test]
fn clean_boots_are_affirming() {
    for case in ["sb-good-1", "sb-good-2-rebooted"] {
        let Some(appraisal) = by_baseline(case, |policy| policy) else { return };
        assert_eq!((appraisal.exit, appraisal.tier()), (0, "affirming"), "{case}: {}", appraisal.messages());
        assert_eq!(appraisal.findings().len(), 0);
    }
}

#[test]
fn a_new_file_is_named() {
    let Some(appraisal) = by_baseline("sb-good-2-grown", |policy| policy) else { return };
    assert_eq!((appraisal.exit, appraisal.tier()), (1, "contraindicated"));
    assert_eq!(appraisal.claims("ima-policy"), ["/usr/local/bin/report-tool"]);
    assert_eq!(appraisal.findings().len(), 1);
}

#[test]
fn what_is_past_the_quote_is_undecided() {
    let Some(appraisal) = by_baseline("sb-ima-list-longer-than-quote", |policy| policy) else { return };
    assert_eq!(appraisal.claims("ima-policy"), ["/usr/local/bin/report-tool"]);
    assert_eq!(appraisal.claims("ima-undecided").len(), 1);
    assert_eq!(appraisal.json["ima"], serde_json::json!({ "attested": 110, "good": 109, "undecided": 1 }));
}

#[test]
fn unexpected_programs_are_named() {
    let Some(appraisal) = by_baseline("sb-ima-unexpected-exec", |policy| policy) else { return };
    assert_eq!(appraisal.exit, 1);
    assert_eq!(
        appraisal.claims("ima-policy"),
        ["/opt/unexpected.sh", "/usr/bin/dash", "/opt/unexpected-bin"]
    );
}

#[test]
fn violations_weigh_what_the_policy_says() {
    let files = ["/var/lib/ev/tomtou.txt", "/var/lib/ev/writers.txt"];
    let with = |line: &'static str| {
        let change = move |policy: String| policy.replace("violations = \"by-path\"", line);
        by_baseline("sb-ima-violations", change)
    };
    let tiers = |appraisal: &Appraisal| -> Vec<String> {
        let of_violations = appraisal.findings().iter().filter(|finding| finding["check"] == "ima-violation");
        of_violations.map(|finding| finding["tier"].as_str().unwrap().to_owned()).collect()
    };
    let Some(refused) = with("violations = \"refuse\"") else { return };
    assert_eq!((refused.exit, refused.claims("ima-violation")), (1, files.to_vec()));
    assert_eq!(tiers(&refused), ["contraindicated", "contraindicated"]);
    let reported = with("violations = \"report\"").unwrap();
    assert_eq!(
        (reported.claims("ima-violation"), tiers(&reported)),
        (files.to_vec(), vec!["affirming".to_owned(); 2])
    );
    assert!(with("violations = \"ignore\"").unwrap().claims("ima-violation").is_empty());
    // What is learned weighs them by what they touch, and so does a policy that says nothing.
    for line in ["violations = \"by-path\"", ""] {
        assert_eq!(tiers(&with(line).unwrap()), ["affirming", "affirming"]);
    }
    assert!(with("exclude = [\"/var/lib/ev/\"]").unwrap().claims("ima-violation").is_empty());
    // Where every violation is refused, no exclusion covers one: nothing vouches for its path.
    let excluded = with("violations = \"refuse\"\nexclude = [\"/var/lib/ev/\"]").unwrap();
    assert_eq!(excluded.claims("ima-violation"), files);
    assert!(!excluded.claims("ima-policy").contains(&"/var/lib/ev/tomtou.txt"));
}

#[test]
fn updates_are_refused_in_exactly_their_pcrs() {
    let Some(shared) = shared_cases() else { return };
    for case in folders(&shared) {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = expectation(&case);
        let differing = expected["sha256_pcrs_differing_from_baseline"].as_array().unwrap();
        let expected: Vec<String> =
            differing.iter().filter(|pcr| **pcr != 10).map(|pcr| format!("PCR {pcr}")).collect();
        let appraisal = by_baseline(&name, |policy| policy).unwrap();
        assert_eq!(appraisal.claims("pcr-policy"), expected, "{name}");
        let is_refused = !expected.is_empty() || !appraisal.claims("ima-policy").is_empty();
        assert_eq!(appraisal.exit, i32::from(is_refused), "{name}");
    }
}

/// The finding that refuses an update says in words what was updated.
fn check_words(case: &str, words: &[&str]) {
    let Some(appraisal) = by_baseline(case, |policy| policy) else { return };
    let messages = appraisal.messages();
    for word in words {
        assert!(messages.contains(word), "{case}: {word} is not in {messages}");
    }
}

#[test]
fn updates_are_told_in_words() {
    check_words("sb-update-cmdline", &["it adds `panic=30 audit=1`", "kernel command line"]);
    check_words("sb-update-kernel", &["/vmlinuz-6.1.0-56-amd64", "instead of `/vmlinuz-6.1.0-55-amd64`"]);
    check_words("sb-update-firmware", &["firmware code", "2025.02-8+deb13u1"]);
    check_words("sb-update-dbx", &["Secure Boot configuration", "`dbx` with 212 entries"]);
    check_words("sb-systemd-full-boot", &["it lacks `quiet init=/sbin/ev-init`"]);
}

#[test]
fn without_secure_boot_the_demand_is_named() {
    let Some(shared) = shared_cases() else { return };
    for case in folders(&shared) {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let appraisal = by_baseline(&name, |policy| policy).unwrap();
        let is_refused = appraisal.claims("boot-policy").contains(&"Secure Boot");
        assert_eq!(is_refused, name.starts_with("nosb-"), "{name}");
        let has_no_log = !appraisal.claims("event-log-present").is_empty();
        assert_eq!(has_no_log, name == "nosb-ima-ng-no-eventlog");
    }
}

#[test]
fn weak_file_digests_are_refused() {
    let Some(appraisal) = by_baseline("nosb-direct-ima-legacy-sha1", |policy| policy) else { return };
    assert_eq!(appraisal.claims("algorithm-policy"), ["IMA list"]);
}

#[test]
fn an_absent_boot_log_is_the_policys_matter() {
    let Some(shared) = shared_cases() else { return };
    let case = shared.join("nosb-ima-ng-no-eventlog");
    let without_policy = Appraisal::of(&case, &[]);
    assert_eq!((without_policy.exit, without_policy.claims("event-log-present")), (0, vec!["boot log"]));
    let folder = tempdir().unwrap();
    let policy = learn(&case, folder.path(), &[]);
    let by_its_own = Appraisal::of(&case, &["--policy", policy.to_str().unwrap()]);
    assert_eq!((by_its_own.exit, by_its_own.claims("event-log-present")), (0, vec!["boot log"]));
}

#[test]
fn files_are_accepted_by_signature_where_the_certificate_is_given() {
    let Some(shared) = shared_cases() else { return };
    let (case, folder) = (shared.join("sb-ima-signed-files"), tempdir().unwrap());
    let signed = ["/usr/local/bin/signed-date", "/usr/local/bin/signed-df", "/usr/local/bin/signed-wc"];
    let signers = [
        "/usr/bin/evmctl",
        "/usr/lib/x86_64-linux-gnu/libimaevm.so.3.0.0",
        "/root/ima-key.pem",
        "/usr/bin/setfattr",
    ];
    let without = learn(&shared.join("sb-good-1"), folder.path(), &[]);
    let refused = Appraisal::of(&case, &["--policy", without.to_str().unwrap()]);
    assert_eq!(refused.claims("ima-policy"), [signers.as_slice(), &signed].concat());

    let certificate = case.join("ima-signing-cert.pem");
    let given = ["--ima-signing-cert", certificate.to_str().unwrap()];
    let with = learn(&shared.join("sb-good-1"), folder.path(), &given);
    let by_signature = Appraisal::of(&case, &["--policy", with.to_str().unwrap()]);
    // The tools that made the signatures are not signed themselves, and not in the baseline.
    assert_eq!(by_signature.claims("ima-policy"), signers);

    let allowed: String = signers.iter().fold(std::fs::read_to_string(&with).unwrap(), |policy, path| {
        let digest = by_signature.findings().iter().find(|finding| finding["claim"] == *path).unwrap();
        policy + &format!("{path:?} = [{}]\n", digest["found"])
    });
    std::fs::write(&with, allowed).unwrap();
    let affirming = Appraisal::of(&case, &["--policy", with.to_str().unwrap()]);
    assert_eq!((affirming.exit, affirming.tier()), (0, "affirming"), "{}", affirming.messages());
}

#[test]
fn a_policy_learned_from_every_good_case_affirms_them_all() {
    let folder = tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let cases = ["sb-good-1", "sb-good-2-rebooted"].map(vector);
    let arguments = cases.iter().map(|case| case.as_os_str()).chain(["-o".as_ref(), policy.as_os_str()]);
    let output = crate::assay(["policy".as_ref(), "learn".as_ref()].into_iter().chain(arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&policy).unwrap();
    assert!(!text.contains("boot_aggregate") && !text.contains("\n10 = "));
    let appraisal = Appraisal::of(&vector("sb-good-1"), &["--policy", policy.to_str().unwrap()]);
    assert_eq!((appraisal.exit, appraisal.tier()), (0, "affirming"), "{}", appraisal.messages());
}
