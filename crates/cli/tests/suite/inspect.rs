//! `assay inspect`: what single files say, over evidence of real boots, and over whatever else there is.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use assay_testkit::machine::ImaEntry;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::tempdir;

use crate::{assay, shared_cases, vector};

/// What is said of one file, and the exit code.
pub fn inspect(file: &Path, arguments: &[&str]) -> (i32, Value) {
    let fixed = ["inspect".as_ref(), "--json".as_ref(), file.as_os_str()];
    let output = assay(fixed.into_iter().chain(arguments.iter().map(AsRef::as_ref)));
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), json)
}

fn file(case: &str, name: &str) -> PathBuf {
    vector(case).join(name)
}

/// The kind that a file is found to be.
fn kind(file: &Path) -> String {
    let (exit, json) = inspect(file, &[]);
    assert_eq!(exit, 0, "{json}");
    json["kind"].as_str().unwrap().to_owned()
}

#[test]
fn files_of_a_case_are_told_apart_by_their_content() {
    let folder = tempdir().unwrap();
    for (name, expected) in [
        ("binary_bios_measurements", "boot-log"),
        ("binary_runtime_measurements", "ima-list"),
        ("quote.msg", "quote"),
        ("quote.sig", "signature"),
        ("quote.pcrs", "pcr-values"),
        ("quote.nonce", "hex"),
        ("ak.tpm2b_public", "public-area"),
        ("ek.tpm2b_public", "public-area"),
        ("ak.name", "name"),
        ("ek-cert.der", "ek-certificate"),
        ("ek-issuing-ca.pem", "ca-certificate"),
    ] {
        // Under a name that says nothing.
        let copy = folder.path().join("file");
        std::fs::copy(file("sb-good-1", name), &copy).unwrap();
        assert_eq!(kind(&copy), expected, "{name}");
    }
}

#[test]
fn a_boot_log_says_what_happened_and_what_it_leads_to() {
    let (_, json) = inspect(&file("sb-good-1", "binary_bios_measurements"), &[]);
    let says = &json["says"];
    assert_eq!(says["secure_boot"], "on");
    assert_eq!(
        says["pcrs"]["sha256"]["7"],
        "75677db6f14082d3bfec4d14bdd75c8d72612ef6914ca99cd5a5997b7a21309d"
    );
    let lines: Vec<&str> =
        says["events"].as_array().unwrap().iter().map(|e| e["says"].as_str().unwrap()).collect();
    assert_eq!(lines[4], "Secure Boot is on");
    assert!(lines.iter().any(|line| line.starts_with("GRUB gave the kernel the command line")), "{lines:?}");
    assert_eq!(says["events"][4]["covers"], "data");
    assert_eq!(says["events"][24]["covers"], "elsewhere");
}

#[test]
fn packed_files_and_standard_input_are_read_alike() {
    let log = std::fs::read(file("sb-good-1", "binary_bios_measurements")).unwrap();
    let packed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let folder = tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, packed(&log)).unwrap();
    let (exit, json) = inspect(&path, &[]);
    assert_eq!(
        (exit, json["kind"].as_str(), json["says"]["packed"].as_str()),
        (0, Some("boot-log"), Some("gzip"))
    );
    std::fs::write(&path, packed(&packed(&log))).unwrap();
    let (exit, json) = inspect(&path, &[]);
    assert!(exit == 1 && json["error"].as_str().unwrap().contains("unpack it first"), "{json}");

    let mut child = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["inspect", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&log).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("boot log, crypto-agile, 52 events"));
}

#[test]
fn an_ima_list_is_counted_and_replayed() {
    let (_, json) = inspect(&file("sb-good-1", "binary_runtime_measurements"), &[]);
    let says = &json["says"];
    assert_eq!(says["entries"], 109);
    assert_eq!(says["pcr10"]["sha256"], "644d50d1b3cb086d1281625aa2217b661cc4bc7d8b8bcea9a29464c2d044d7e3");
    let path = file("sb-good-1", "binary_runtime_measurements");
    let output = assay(["inspect".as_ref(), path.as_os_str(), "--entries".as_ref()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("       0  sha256:"), "{text}");
    assert!(text.lines().next().unwrap().ends_with("  boot_aggregate"));
}

/// More than the longest list that is appraised: it is read entry by entry, and what is kept of it does not grow.
#[test]
fn a_list_of_any_length_is_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("list");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let entry =
        ImaEntry::file("/usr/lib/x86_64-linux-gnu/a-library-with-a-long-name.so.1", b"content").binary();
    let count = (65 << 20) / entry.len();
    (0..count).for_each(|_| file.write_all(&entry).unwrap());
    file.write_all(&entry[..40]).unwrap();
    file.into_inner().unwrap();
    let (exit, json) = inspect(&path, &[]);
    let error = json["error"].as_str().unwrap();
    let place = format!("entry {count} at byte {}", count * entry.len());
    assert!(exit == 1 && error.contains(&place), "{error}");
}

#[test]
fn hostile_files_get_an_error_with_its_place() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file");
    let mut log = std::fs::read(file("sb-good-1", "binary_bios_measurements")).unwrap();
    log.truncate(5000);
    let list = std::fs::read(file("sb-good-1", "binary_runtime_measurements")).unwrap();
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n";
    for (bytes, words) in [
        (log.as_slice(), "a boot log, and is none: event"),
        (&list[..list.len() - 1], "entry 108 at byte"),
        (b"{\"a\": ", "line 1 column"),
        (b"name = \"x\"\nversion = 1\n[imma]\n", "imma"),
        (b"\x30\x82\x01\x00abc", "7 of the 260 bytes that it says it has"),
        (&[&b"\x30\x82\x01\x00"[..], &[0; 256]].concat(), "neither a certificate"),
        (b"\xff\x54\x43\x47\x80", "a TPM's statement, and is none"),
        (key.as_bytes(), "a private key, of which nothing is shown"),
        (b"what is this", "it is text"),
        (&[7; 100], "it is binary"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let (exit, json) = inspect(&path, &[]);
        let error = json["error"].as_str().unwrap();
        assert!(exit == 1 && error.contains(words), "{error}, not {words}");
    }
    let output = assay(["inspect"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn text_of_a_file_cannot_steer_the_terminal() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("list");
    std::fs::write(&path, ImaEntry::file("/opt/\u{1b}[2J\u{202e}", b"content").binary()).unwrap();
    for arguments in [&["--entries"][..], &[]] {
        let fixed = ["inspect".as_ref(), path.as_os_str()];
        let output = assay(fixed.into_iter().chain(arguments.iter().map(AsRef::as_ref)));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    }
}

/// What differs, by name.
fn differences(now: &Path, against: &Path) -> (i32, BTreeMap<String, String>) {
    let (exit, json) = inspect(now, &["--against", against.to_str().unwrap()]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named =
        json["differences"].as_array().unwrap().iter().map(|one| (text(&one["what"]), text(&one["message"])));
    (exit, named.collect())
}

#[test]
fn two_files_are_told_apart_by_what_they_mean() {
    let (log, list, pcrs) = ("binary_bios_measurements", "binary_runtime_measurements", "quote.pcrs");
    for (now, before, exit, words) in [
        (file("sb-good-2-rebooted", log), file("sb-good-1", log), 0, ""),
        (file("sb-good-1", log), file("sb-good-1", pcrs), 0, ""),
        (file("sb-good-1", list), file("sb-good-1", pcrs), 0, ""),
        (file("sb-good-2-grown", list), file("sb-good-2-rebooted", list), 1, "/usr/local/bin/report-tool"),
        (file("sb-good-2-grown", list), file("sb-good-2-rebooted", pcrs), 1, "the first 109 of 110 entries"),
        (file("sb-good-2-rebooted", list), file("sb-good-1", pcrs), 1, "no beginning of the list"),
        (file("sb-good-2-rebooted", pcrs), file("sb-good-1", pcrs), 1, ""),
    ] {
        let (found, differences) = differences(&now, &before);
        let all = differences.into_values().collect::<Vec<_>>().join("\n");
        assert!(found == exit && all.contains(words), "{}: {all}", now.display());
    }
    let unlike = assay([
        "inspect".as_ref(),
        file("sb-good-1", "quote.msg").as_os_str(),
        "--against".as_ref(),
        file("sb-good-1", log).as_os_str(),
    ]);
    let error = String::from_utf8_lossy(&unlike.stderr).into_owned();
    assert!(
        unlike.status.code() == Some(2) && error.contains("before it is boot-log, and now quote"),
        "{error}"
    );
}

#[test]
fn policies_and_revocation_lists_are_told_apart_by_what_they_list() {
    let folder = tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let digest = |byte: &str| byte.repeat(32);
    let ours = |byte| {
        format!("name = \"x\"\nversion = 1\n[ima.allow]\n\"/usr/bin/a\" = [\"sha256:{}\"]\n", digest(byte))
    };
    let keylime = |byte| {
        format!("{{\"digests\":{{\"/usr/bin/a\":[\"{}\"]}},\"meta\":{{\"version\":1}}}}", digest(byte))
    };
    let plain = |byte| format!("{}  /usr/bin/a\n", digest(byte));
    let texts: [&dyn Fn(&'static str) -> String; 3] = [&ours, &keylime, &plain];
    for text in texts {
        let (before, after) = (write("before", text("3a").as_bytes()), write("after", text("4b").as_bytes()));
        let (exit, json) = inspect(&after, &["--against", before.to_str().unwrap()]);
        let told = json["differences"].to_string();
        assert!(exit == 1 && told.contains(&digest("3a")) && told.contains(&digest("4b")), "{json}");
        assert_eq!(differences(&after, &after).0, 0);
    }

    let maker = assay_testkit::EkMaker::new().unwrap();
    let before = write("before", &maker.revoke(&[&[1, 0x11]]).unwrap());
    let after = write("after", &maker.revoke(&[&[1, 0x11], &[1, 0x22]]).unwrap());
    let (exit, changed) = differences(&after, &before);
    assert!(exit == 1 && changed.keys().any(|what| what.ends_with("0122")), "{changed:?}");
    assert!(!changed.keys().any(|what| what.ends_with("0111")), "{changed:?}");
}

/// Authorities come and go, and stand in whatever order: a bundle is a set, and one of one authority is its certificate.
#[test]
fn bundles_are_told_apart_by_their_authorities() {
    let folder = tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let read = |name| std::fs::read_to_string(file("sb-good-1", name)).unwrap();
    let (root, issuing) = (read("ek-root-ca.pem"), read("ek-issuing-ca.pem"));
    let one = write("one", &root);
    let both = write("both", &[root.as_str(), &issuing].concat());
    let turned = write("turned", &[issuing.as_str(), &root].concat());
    assert_eq!(kind(&both), "bundle");
    assert_eq!(differences(&turned, &both).0, 0);
    let (exit, json) = inspect(&both, &["--against", one.to_str().unwrap()]);
    let [came] = json["differences"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert!(exit == 1 && came["what"] == "certificate of the authority CN=swtpm-localca", "{json}");
    assert!(
        came["before"].is_null() && came["after"].as_str().unwrap().contains("until 9999-12-31"),
        "{json}"
    );
    let (_, json) = inspect(&one, &["--against", turned.to_str().unwrap()]);
    assert!(json["differences"][0]["after"].is_null() && json["differences"][1].is_null(), "{json}");

    // An authority that signed its own key again is the same one, renewed.
    let key = rcgen::KeyPair::generate().unwrap();
    let signed = |until| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    let before = write("before", &[signed(2027), root.clone()].concat());
    let after = write("after", &[root, signed(2029)].concat());
    let (exit, json) = inspect(&after, &["--against", before.to_str().unwrap()]);
    let [renewed] = json["differences"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert!(exit == 1 && renewed["before"].as_str().unwrap().contains("2027-01-01"), "{json}");
    assert!(renewed["after"].as_str().unwrap().contains("2029-01-01"), "{json}");
}

/// What belongs to no order is the same in any.
#[test]
fn tokens_envelopes_and_keys_are_told_apart_by_what_they_hold() {
    let folder = tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let token = |audiences: &str, exp: u32| {
        let part = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        let claims = format!(r#"{{"sub":"spiffe://a.example/web","aud":[{audiences}],"exp":{exp}}}"#);
        format!("{}.{}.AAAA", part(r#"{"alg":"ES256"}"#), part(&claims))
    };
    let names = |now: &Path, before: &Path| differences(now, before).1.into_keys().collect::<Vec<_>>();
    let first = write("first", token(r#""db","api""#, 1_900_000_000));
    let other = write("other", token(r#""api","mail""#, 1_900_000_300));
    assert_eq!(names(&other, &first), ["claims.aud", "claims.exp"]);
    let (_, json) = inspect(&other, &["--against", first.to_str().unwrap()]);
    assert_eq!(
        (&json["differences"][0]["before"], &json["differences"][0]["after"]),
        (&"db".into(), &"mail".into())
    );

    let key =
        |kid: &str, x: &str| format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"AA"}}"#);
    let set = |keys: &[String]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let two = write("two", set(&[key("1", "AA"), key("2", "BB")]));
    assert_eq!(differences(&write("turned", set(&[key("2", "BB"), key("1", "AA")])), &two).0, 0);
    // The same name for another key.
    assert_eq!(names(&write("exchanged", set(&[key("1", "AA"), key("2", "CC")])), &two), ["keys"]);

    let envelope = |digest: &str, signers: [&str; 2]| {
        let policy = format!(r#"{{"digests":{{"/usr/bin/a":["{}"]}}}}"#, digest.repeat(32));
        let payload = data_encoding::BASE64.encode(policy.as_bytes());
        let signatures = signers.map(|signer| format!(r#"{{"keyid":"{signer}","sig":"AAAA"}}"#)).join(",");
        format!(r#"{{"payloadType":"keylime","payload":"{payload}","signatures":[{signatures}]}}"#)
    };
    let signed = write("signed", envelope("3a", ["a", "b"]));
    let (exit, changed) = differences(&write("again", envelope("3a", ["a", "c"])), &signed);
    assert!(exit == 1 && changed.keys().eq(["signatures"]), "{changed:?}");
    let (_, changed) = differences(&write("more", envelope("4b", ["a", "c"])), &signed);
    assert!(
        changed.contains_key("signatures") && changed.keys().any(|what| what.starts_with("ima.allow")),
        "{changed:?}"
    );
}

/// Where a report does not tell two files apart, they are not said to be the same.
#[test]
fn two_signatures_are_not_one() {
    let signature = |case| file(case, "quote.sig");
    let (exit, changed) = differences(&signature("sb-good-1"), &signature("sb-good-2-rebooted"));
    assert!(exit == 1 && changed["sha256"].contains("differ"), "{changed:?}");
    assert_eq!(differences(&signature("sb-good-1"), &signature("sb-good-1")).0, 0);
    let twice = assay(["inspect", "-", "--against", "-"]);
    assert_eq!(twice.status.code(), Some(2));
}

/// The values as a running TPM is asked for them are enough to see whether a log is of this boot.
#[test]
fn printed_pcr_values_are_compared_with_a_log() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("pcrs");
    let (_, json) = inspect(&file("sb-good-1", "quote.pcrs"), &[]);
    let value = json["says"]["pcrs"]["sha256"]["4"].as_str().unwrap().to_uppercase();
    std::fs::write(&path, format!("  sha1:\n  sha256:\n    4 : 0x{value}\n")).unwrap();
    let log = file("sb-good-1", "binary_bios_measurements");
    assert_eq!(differences(&log, &path).0, 0);
    std::fs::write(&path, format!("  sha256:\n    5 : 0x{value}\n")).unwrap();
    assert_eq!(differences(&log, &path).0, 1);
}

#[test]
fn an_update_is_told_by_its_cause() {
    let Some(cases) = shared_cases() else { return };
    let of = |case: &str| cases.join(case).join("binary_bios_measurements");
    let (exit, kernel) = differences(&of("sb-update-kernel"), &of("sb-good-1"));
    assert!(exit == 1 && kernel["kernel"].contains("6.1.0-56-amd64"), "{kernel:?}");
    let (exit, pcrs) = differences(&of("sb-update-kernel"), &cases.join("sb-good-1/quote.pcrs"));
    assert!(exit == 1 && pcrs["sha256.4"].contains("the log does not lead to this value"), "{pcrs:?}");
}
