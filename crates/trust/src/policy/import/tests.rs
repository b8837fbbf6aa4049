use super::*;
use proptest::prelude::*;

fn imported(read: impl FnOnce(&mut Import) -> Result<(), ImportError>) -> (Policy, Vec<String>) {
    let mut import = Import::new("keylime");
    read(&mut import).unwrap();
    let said = import.remarks.iter().map(|r| format!("{} {}: {}", r.severity, r.field, r.message)).collect();
    (import.policy, said)
}

fn says(said: &[String], start: &str, word: &str) {
    assert!(
        said.iter().any(|line| line.starts_with(start) && line.contains(word)),
        "{start} … {word}: {said:#?}"
    );
}

fn check(regex: &str, expected: &[&str], differences: usize) {
    let converted = exclude::convert(regex).unwrap_or_else(|error| panic!("{regex}: {error}"));
    let patterns: Vec<String> = converted.patterns.iter().map(ToString::to_string).collect();
    assert_eq!(patterns, expected, "{regex}");
    assert_eq!(converted.differences.len(), differences, "{regex}: {:?}", converted.differences);
}

#[test]
fn regular_expressions_become_patterns_of_the_whole_path() {
    check("/var/log/", &["/var/log/"], 0);
    check("^/var/log/.*", &["/var/log/"], 0);
    check("/var/log/.*$", &["/var/log/"], 0);
    check("/etc/a\\.conf$", &["/etc/a.conf"], 0);
    check("/tmp/a", &["/tmp/a**"], 1);
    check("/etc/a.conf$", &["/etc/a.conf"], 1);
    check("/(tmp|var/(a|b))/", &["/tmp/", "/var/a/", "/var/b/"], 0);
    check("/a/|/b/", &["/a/", "/b/"], 0);
    check("/home/[^/]+/\\.cache/", &["/home/?*/.cache/"], 0);
    check("/home/[^/]*[^/]*/a$", &["/home/*/a"], 0);
    check("/srv/.+", &["/srv/?**"], 0);
    check("/srv/.*/a$", &["/srv/**/a"], 1);
    check(".*\\.pyc$", &["/**.pyc"], 1);
    check(".*/cache/.*?", &["/cache/", "/**/cache/"], 1);
}

#[test]
fn what_patterns_cannot_say_is_refused() {
    for regex in [
        "",
        ".*",
        "/",
        "/.*",
        "/[^a]*|/.*a.*",
        "boot_aggregate",
        "(?i)/a",
        "/(a",
        "/a)",
        "/(?=a)b",
        "/(a)\\1",
        "/.**",
        "/a{99999}{999}",
    ] {
        assert!(exclude::convert(regex).is_err(), "{regex}");
    }
    assert!(exclude::convert(&"(a|b)".repeat(20)).is_err());
    assert!(exclude::convert(&"(".repeat(2000)).is_err());
}

#[test]
fn a_runtime_policy_is_taken_over() {
    let (a, b) = ("aa".repeat(32), "bb".repeat(20));
    let json = format!(
        r#"{{"meta": {{"version": 1}}, "release": 0, "excludes": ["/var/log/", "\\w+"], "colour": 1,
        "digests": {{"/bin/a b": ["{a}"], "/bin/old": ["{b}"], "boot_aggregate": ["{a}"], "/c": ["abc"]}},
        "keyrings": {{".ima": ["{a}"]}}, "ima": {{"ignored_keyrings": ["*"], "log_hash_alg": "sha1", "dm_policy": null}},
        "ima-buf": {{"kernel_version": ["{a}"]}}, "verification-keys": ""}}"#
    );
    let (policy, said) = imported(|import| import.runtime_policy(&json));
    let ima = policy.ima.as_ref().unwrap();
    assert_eq!(ima.allow.keys().collect::<Vec<_>>(), ["/bin/a_b", "kernel_version"]);
    assert_eq!(ima.allow.get("/bin/a_b").unwrap().len(), 1);
    assert_eq!(ima.keyrings.keys().collect::<Vec<_>>(), [".ima"]);
    assert_eq!(ima.exclude.len(), 1);
    says(&said, "note digests.boot_aggregate", "by itself");
    says(&said, "error digests.\"/c\"", "hex digits");
    says(&said, "error digests:", "1 SHA-1");
    says(&said, "error excludes[1]", "not imported");
    says(&said, "error colour", "not known");
    says(&said, "error ima.ignored_keyrings", "not imported");
    says(&said, "note ima-buf", "ima.allow");
    assert_eq!(said.len(), 9, "{said:#?}");
    assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap(), policy);
}

#[test]
fn a_signed_policy_is_opened_and_its_signature_left_to_its_reader() {
    let inner = format!(r#"{{"digests": {{"/a": ["{}"]}}}}"#, "aa".repeat(32));
    let payload = data_encoding::BASE64.encode(inner.as_bytes());
    let envelope = format!(r#"{{"payload": "{payload}", "payloadType": "x", "signatures": []}}"#);
    let (policy, said) = imported(|import| import.runtime_policy(&envelope));
    assert_eq!(policy.ima.unwrap().allow.len(), 1);
    says(&said, "warning signatures", "not verified");
    let broken = r#"{"payload": "!", "signatures": []}"#;
    assert_eq!(Import::new("k").runtime_policy(broken), Err(ImportError::Envelope));
    assert_eq!(Import::new("k").runtime_policy("{\n{"), Err(ImportError::Json { line: 2, column: 1 }));
    assert_eq!(Import::new("k").runtime_policy("[]"), Err(ImportError::NotAnObject));
}

/// The verifier kept pairs, answers with policies as text, and people save what it printed.
#[test]
fn whatever_a_policy_comes_in_is_opened() {
    let digest = "aa".repeat(32);
    let inner = format!(r#"{{"digests": {{"/a": ["{digest}"]}}, "meta": {{"version": 1}}}}"#);
    let text = Value::from(inner.as_str());
    let payload = data_encoding::BASE64URL.encode(inner.as_bytes());
    let signed = format!(r#"{{"payload": "{payload}", "payloadType": "x", "signatures": []}}"#);
    let answer = |policy: &str| {
        format!(
            r#"{{"code": 200, "status": "Success", "results": {{"name": "p", "runtime_policy": {policy}}}}}"#
        )
    };
    for (json, remark) in [
        (answer(&text.to_string()), "note results"),
        (answer(&inner), "note results"),
        (answer(&Value::from(signed.as_str()).to_string()), "warning signatures"),
        (signed, "warning signatures"),
        (
            format!(r#"{{"allowlist": {{"hashes": {{"/a": ["{digest}"]}}}}, "exclude": ["/tmp/"]}}"#),
            "note allowlist",
        ),
        (format!("\u{feff}{inner}"), "note digests"),
    ] {
        let (policy, said) = imported(|import| import.runtime_policy(&json));
        let ima = policy.ima.unwrap();
        assert_eq!(
            (ima.allow.len(), ima.exclude.len()),
            (1, usize::from(json.contains("exclude"))),
            "{json}"
        );
        says(&said, remark, "");
        assert!(!said.iter().any(|line| line.starts_with("error")), "{said:#?}");
    }
    let pcrs = Value::from(format!(r#"{{"4": ["{digest}"]}}"#));
    let pinned = answer(&format!(r#"{text}, "tpm_policy": {pcrs}"#));
    assert_eq!(imported(|import| import.runtime_policy(&pinned)).0.pcr.iter().count(), 1);
    for (json, error) in [
        (answer("null"), ImportError::Answer),
        (answer("\"{\""), ImportError::Answer),
        (r#"{"code": 404, "status": "not found", "results": {}}"#.to_owned(), ImportError::Answer),
    ] {
        assert_eq!(Import::new("k").runtime_policy(&json), Err(error), "{json}");
    }
}

/// A member of another type than it has to be is not lost without a word.
#[test]
fn what_is_not_of_its_type_is_said() {
    let digest = "aa".repeat(32);
    for (member, place) in [
        (r#""digests": ["/a"]"#.to_owned(), "error digests"),
        (r#""digests": {"/a": 7}"#.to_owned(), "error digests.\"/a\""),
        (format!(r#""digests": {{"/a": ["{digest}", null]}}"#), "error digests.\"/a\""),
        (format!(r#""digests": {{"/a": {{"sha256": "{digest}"}}}}"#), "error digests.\"/a\""),
        (r#""hashes": ["/a"]"#.to_owned(), "error hashes"),
        (r#""excludes": "/tmp/""#.to_owned(), "error excludes"),
        (r#""keyrings": [".ima"]"#.to_owned(), "error keyrings"),
        (r#""ima-buf": {"kernel_version": [1]}"#.to_owned(), "error ima-buf.kernel_version"),
        (r#""ima": "sha1""#.to_owned(), "error ima"),
        (r#""verification-keys": [1]"#.to_owned(), "error verification-keys"),
    ] {
        let (_, said) = imported(|import| import.runtime_policy(&format!("{{{member}}}")));
        says(&said, place, "not imported");
    }
    let (policy, said) = imported(|import| import.tpm_policy(&format!(r#"{{"4": ["{digest}", 5]}}"#)));
    assert_eq!(policy.pcr.iter().count(), 1);
    says(&said, "error 4", "not imported");
    for member in [r#""dbx": {}, "kernels": "x""#, r#""has_secureboot": "no", "dbx": 1"#] {
        let (_, said) = imported(|import| import.reference_state(&format!("{{{member}}}")));
        says(&said, "error", "not imported");
    }
}

/// Tools list a file by several algorithms; that of them one is weak loses nothing.
#[test]
fn digests_of_several_algorithms_are_each_taken_over() {
    let digests = [20, 32, 48, 64].map(|bytes| "ab".repeat(bytes));
    let json =
        format!(r#"{{"digests": {{"/a": {digests:?}}}, "hashes": {{"/a": ["{}"]}}}}"#, "cd".repeat(32));
    let (policy, said) = imported(|import| import.runtime_policy(&json));
    assert_eq!(policy.ima.unwrap().allow.get("/a").unwrap().len(), 4);
    says(&said, "warning digests", "1 SHA-1 digests were left out beside stronger ones");
    assert!(!said.iter().any(|line| line.starts_with("error")), "{said:#?}");
}

#[test]
fn any_version_is_taken_over_with_a_remark() {
    let digest = "aa".repeat(32);
    for version in ["0", "2", "5", "\"2.1\""] {
        let json =
            format!(r#"{{"meta": {{"version": {version}}}, "digests": {{"/a": ["{digest}"]}}, "new": 1}}"#);
        let (policy, said) = imported(|import| import.runtime_policy(&json));
        assert_eq!(policy.ima.unwrap().allow.len(), 1);
        says(&said, "warning meta.version", "version 1 is known");
        says(&said, "error new", "not known");
    }
}

#[test]
fn lists_of_earlier_versions_are_taken_over_with_a_remark() {
    let digest = "aa".repeat(32);
    let json = format!(
        r#"{{"meta": {{"version": 1}}, "hashes": {{"/a": ["{digest}"], "boot_aggregate": ["00"]}}}}"#
    );
    let (policy, said) = imported(|import| import.runtime_policy(&json));
    assert_eq!(policy.ima.unwrap().allow.keys().collect::<Vec<_>>(), ["/a"]);
    says(&said, "note hashes", "earlier version");

    let text = format!(
        "{digest}  /usr/bin/a\n\n{digest} *\u{2f}opt/my app/run\r\n{digest}\tboot_aggregate\n{}  /old\n",
        "bb".repeat(20)
    );
    let (policy, said) = imported(|import| import.allowlist(&text));
    assert_eq!(policy.ima.unwrap().allow.keys().collect::<Vec<_>>(), ["/opt/my_app/run", "/usr/bin/a"]);
    says(&said, "note :", "plain allowlist");
    says(&said, "error digests:", "1 SHA-1");
    // Keys of a keyring; names that sha256sum writes with backslashes; what an editor put before all; a remark.
    let text = format!(
        "\u{feff}# made by hand\n{digest}  %keyring:.ima\n\\{digest}  /opt/a\\\\b\\nc\n{digest}\t/opt/t\tu é\n"
    );
    let (policy, _) = imported(|import| import.allowlist(&text));
    let ima = policy.ima.unwrap();
    assert_eq!(ima.allow.keys().collect::<Vec<_>>(), ["/opt/a\\\\b\\x0ac", "/opt/t\\x09u_é"]);
    assert_eq!(ima.keyrings.keys().collect::<Vec<_>>(), [".ima"]);
    assert_eq!(
        Import::new("k").allowlist(&format!("\\{digest} /a\\q\n")),
        Err(ImportError::Line { line: 1 })
    );
    for (text, line) in
        [("xyz /a", 1), (&format!("{digest} /a\n{digest}\n"), 2), (&format!("\n{digest}   \n"), 2)]
    {
        assert_eq!(Import::new("k").allowlist(text), Err(ImportError::Line { line }), "{text:?}");
    }
}

#[test]
fn what_wildcards_cannot_say_becomes_an_expression_of_the_whole_path() {
    for (regex, covered, judged) in [
        ("/var/log/app-[0-9]+", "/var/log/app-12.gz", "/var/log/app-x"),
        ("/run/[0-9]{4}/", "/run/2026/a", "/run/26/a"),
        ("/opt/x*/y$", "/opt/xx/y", "/opt/xx/yz"),
        ("/opt(/lib)?/cache/", "/opt/lib/cache/a", "/opt/bin/cache/a"),
        ("/a+b$", "/aab", "/b"),
        ("/(a|b)*/c", "/abab/c", "/abx/c"),
        ("/home/\\w+/tmp/", "/home/user/tmp/x", "/home/a-b/tmp/x"),
    ] {
        let converted = exclude::convert(regex).unwrap();
        let [pattern] = converted.patterns.as_slice() else { panic!("{regex}: {converted:?}") };
        assert!(pattern.matches(covered.as_bytes()), "{regex} is {pattern}");
        assert!(!pattern.matches(judged.as_bytes()), "{regex} is {pattern}");
        // Nothing matches in the middle of a path.
        assert!(!pattern.matches(format!("/evil{covered}").as_bytes()), "{regex} is {pattern}");
    }
}

#[test]
fn verification_keys_become_signing_keys() {
    // A P-256 key, as `openssl ec -pubout -outform DER` writes it.
    let base64 = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEBbEyq7LGMKabcZdZlCJOpfl6xmtgg+57odQZPlXBv8G2sG2OstzRMaB4FU7yl9N+\
                  x6DEGWuUs3q5D6qCVpec0w==";
    let keys = Value::from(format!(
        r#"{{"meta": {{"version": 1}}, "keyids": [1], "pubkeys": ["{base64}", "AAAA"]}}"#
    ));
    // As text, as text in text, and as they are.
    let text = keys.to_string();
    for keys in [&text, &Value::from(text.as_str()).to_string(), keys.as_str().unwrap()] {
        let (policy, said) =
            imported(|import| import.runtime_policy(&format!(r#"{{"verification-keys": {keys}}}"#)));
        assert_eq!(policy.ima.unwrap().signing_keys.len(), 1);
        says(&said, "error verification-keys[1]", "no public key");
    }
}

#[test]
fn pcr_values_are_taken_over_but_for_those_that_prove_nothing() {
    let value = "aa".repeat(32);
    let json = format!(
        r#"{{"0": ["{value}"], "7": "{value}", "10": ["{value}"], "16": ["{value}"], "24": [], "4": ["x"], "mask": "0x1"}}"#
    );
    let (policy, said) = imported(|import| import.tpm_policy(&json));
    assert_eq!(policy.pcr.iter().map(|(_, index, _)| index.get()).collect::<Vec<_>>(), [0, 7]);
    for start in ["error 10", "error 16", "error 24", "error 4", "note mask"] {
        says(&said, start, "");
    }
}

#[test]
fn a_reference_state_is_taken_over_as_far_as_rules_reach() {
    let value = "aa".repeat(32);
    let json = format!(
        r#"{{"has_secureboot": true, "pk": [{{}}], "mokdig": [], "dbx": [{{"SignatureData": "0x{value}"}}, {{"SignatureData": "3082"}}],
        "kernels": [{{"shim_authcode_sha256": "0x{value}", "grub_authcode_sha256": "0x{value}",
        "kernel_authcode_sha256": "0x{value}", "kernel_cmdline": "/vmlinuz\\-6\\.1 ro", "initrd_plain_sha256": "0x{value}"}}]}}"#
    );
    let (policy, said) = imported(|import| import.reference_state(&json));
    assert_eq!(policy.boot.kernel_command_lines.as_deref(), Some(["/vmlinuz-6.1 ro".to_owned()].as_slice()));
    assert_eq!(
        (policy.boot.applications.map(|list| list.len()), policy.boot.dbx_contains.len()),
        (Some(1), 1)
    );
    says(&said, "error dbx[1]", "only SHA-256");
    says(&said, "error pk", "pin PCR 7");
    says(&said, "error kernels[0]", "pin PCR 9");
    let two = r#"{"has_secureboot": false, "kernels": [{"kernel_cmdline": "/a"}, {}]}"#;
    let (policy, said) = imported(|import| import.reference_state(two));
    assert_eq!(
        (policy.boot.kernel_command_lines, policy.boot.secure_boot),
        (None, super::super::Demand::Optional)
    );
    says(&said, "error kernels:", "not every kernel has one");
    says(&said, "warning has_secureboot", "may be on");
}

#[test]
fn what_measures_nothing_is_not_finished() {
    let mut import = Import::new("k");
    import.runtime_policy("{}").unwrap();
    assert_eq!(import.finish().0.unwrap_err(), PolicyError::MeasuresNothing);
}

proptest! {
    #[test]
    fn any_expression_is_converted_or_refused(regex in "[/a.*+?^$()|\\[\\]\\\\{}]{0,24}") {
        let _ = exclude::convert(&regex);
    }

    /// Whatever a pattern covers, the expression covered: nothing is excluded that was not.
    #[test]
    fn nothing_more_is_excluded(names in proptest::collection::vec("[ab.]{1,2}", 1..4), whole in any::<bool>(), path in "(/[ab.]{1,3}){1,4}") {
        let literal = format!("/{}", names.join("/"));
        let regex = format!("{}{}", literal.replace('.', "\\."), if whole { "$" } else { "" });
        let covered = if whole { path == literal } else { path.starts_with(&literal) };
        let converted = exclude::convert(&regex).unwrap();
        prop_assert_eq!(converted.patterns.iter().any(|pattern| pattern.matches(path.as_bytes())), covered);
    }
}

/// Allowlists had their excludes in a file of their own.
#[test]
fn a_file_of_excludes_is_read_line_by_line() {
    let mut import = Import::new("old");
    import.allowlist(&format!("{}  /usr/bin/env\n", "ab".repeat(32))).unwrap();
    import.excludes_file("# logs\n/var/log/\r\n\n/tmp/[0-9]{3}\n(?=a)/b\n");
    let (policy, remarks) = import.finish();
    let exclude = policy.unwrap().ima.unwrap().exclude;
    let is_excluded = |path: &str| exclude.iter().any(|pattern| pattern.matches(path.as_bytes()));
    assert_eq!(
        ["/var/log/a", "/tmp/123", "/tmp/12", "/usr/bin/env", "/b"].map(is_excluded),
        [true, true, false, false, false]
    );
    // What is not taken over is named by its line.
    let refused: Vec<String> = remarks
        .iter()
        .filter(|remark| remark.severity == Severity::Error)
        .map(|r| r.field.to_string())
        .collect();
    assert_eq!(refused, ["excludes[4]"]);
}
