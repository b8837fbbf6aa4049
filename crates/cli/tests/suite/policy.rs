//! The offline policy verbs, from outside.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::tempdir;

use crate::{Appraisal, assay, learn, vector};

/// Runs a policy verb: exit code, standard output, standard error.
pub fn policy(arguments: &[&str]) -> (i32, String, String) {
    let output = assay(["policy"].iter().chain(arguments));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

pub fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Of a policy of files alone, lint says that the boot is open, and nothing else.
fn assert_only_the_boot_is_open(file: &Path) {
    let (exit, said, _) = policy(&["lint", shown(file), "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    let fields: Vec<_> =
        json["remarks"].as_array().unwrap().iter().map(|remark| remark["field"].clone()).collect();
    assert_eq!((exit, fields), (1, vec![Value::from("ima"), Value::from("")]), "{said}");
}

/// That the coverage table is there, whole, with these rows.
pub fn assert_covers(said: &str, rows: &[(&str, &str)]) {
    let cover = |row: &str| {
        let mut rests = said.lines().filter_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
        rests.find_map(|rest| rest.split_whitespace().next().map(str::to_owned))
    };
    for row in ROWS {
        assert!(matches!(cover(row).as_deref(), Some("pinned" | "ruled" | "open")), "{row}: {said}");
    }
    for (row, expected) in rows {
        assert_eq!(cover(row).as_deref(), Some(*expected), "{row}: {said}");
    }
}

/// What every table has.
const ROWS: [&str; 15] = [
    "firmware code",
    "PCR banks",
    "firmware settings",
    "Secure Boot keys",
    "revocations",
    "boot loader",
    "signer chain",
    "kernel",
    "command line",
    "initial ramdisk",
    "machine-owner keys",
    "run-time PCRs",
    "files",
    "endorsement",
    "place",
];

/// A policy of one file.
fn one_file(file: &str, byte: &str) -> String {
    format!("name = \"edge\"\nversion = 1\n[ima.allow]\n{file:?} = [\"sha256:{}1f\"]\n", byte.repeat(31))
}

#[test]
fn lint_says_what_speaks_against_a_policy_and_where() {
    let folder = tempdir().unwrap();
    let good = learn(&vector("sb-good-1"), folder.path(), &[]);
    let (exit, said, _) = policy(&["lint", shown(&good)]);
    assert_eq!((exit, said.contains("nothing speaks against it")), (0, true), "{said}");
    assert_covers(&said, &[("kernel", "pinned"), ("files", "ruled"), ("place", "open")]);

    let empty = write(folder.path(), "empty.toml", "name = \"edge\"\nversion = 1\n");
    let (exit, said, _) = policy(&["lint", shown(&empty)]);
    assert_eq!((exit, said.contains("measures nothing")), (1, true), "{said}");

    let text = format!("{}[ima]\nexclude = [\"/tmp/\"]\n", one_file("/bin/a", "ab"));
    let wide = write(folder.path(), "wide.toml", &text);
    let (exit, said, _) = policy(&["lint", shown(&wide)]);
    assert_eq!((exit, said.contains("wide.toml:6: warning: ima.exclude[0]: ")), (1, true), "{said}");
    let (exit, said, _) = policy(&["lint", shown(&wide), "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    let lines: Vec<_> =
        json["remarks"].as_array().unwrap().iter().map(|remark| remark["line"].as_u64()).collect();
    assert_eq!((exit, &json["ok"]), (1, &Value::from(false)));
    // The list of files, whose kernel may be any; the exclusion; and what else is open.
    assert_eq!(lines, [Some(5), Some(6), None], "{said}");
    assert_eq!(json["coverage"].as_array().unwrap().len(), ROWS.len());

    let (exit, _, why) = policy(&["lint", "/nowhere/policy.toml"]);
    assert_eq!((exit, why.contains("/nowhere/policy.toml")), (2, true), "{why}");
}

#[test]
fn diff_says_what_becomes_allowed_and_what_no_longer_is() {
    let folder = tempdir().unwrap();
    let a = write(folder.path(), "a.toml", &one_file("/bin/a", "ab"));
    let b = write(folder.path(), "b.toml", &one_file("/bin/b", "cd"));
    let (exit, said, _) = policy(&["diff", shown(&a), shown(&a)]);
    assert_eq!((exit, said.contains("say the same. Both cover")), (0, true), "{said}");
    assert_covers(&said, &[("files", "open"), ("endorsement", "ruled")]);
    let (exit, said, _) = policy(&["diff", shown(&a), shown(&b)]);
    for word in ["/bin/a", "/bin/b", "1 now allowed, 1 no longer allowed"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert_eq!((exit, said.contains("edge v1 covers the same")), (1, true), "{said}");
    assert_covers(&said, &[("kernel", "open"), ("files", "open")]);
    let pins = format!("[pcr.sha256]\n14 = [\"{0}\"]\n4 = [\"{0}\"]\n", "ef".repeat(32));
    let pinned = write(folder.path(), "pinned.toml", &(one_file("/bin/a", "ab") + &pins));
    let (_, said, _) = policy(&["diff", shown(&pinned), shown(&a)]);
    assert!(said.contains("kernel was pinned") && said.contains("machine-owner keys was pinned"), "{said}");
    assert_covers(&said, &[("kernel", "open")]);
    let (exit, said, _) = policy(&["diff", shown(&a), shown(&b), "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((exit, json["changes"].as_array().unwrap().len()), (1, 2));
    let (exit, _, why) = policy(&["diff", shown(&a), "/nowhere/b.toml"]);
    assert_eq!((exit, why.contains("/nowhere/b.toml")), (2, true), "{why}");
}

#[test]
fn endorsement_keys_are_vouched_for_by_their_hash() {
    let folder = tempdir().unwrap();
    let before = write(folder.path(), "a.toml", &one_file("/bin/a", "ab"));
    let list = write(folder.path(), "eks.txt", &format!("# plant 7\n{}  # press\n\n", "CD".repeat(32)));
    let public = vector("sb-good-1").join("ek.tpm2b_public");
    let after = folder.path().join("b.toml");
    let arguments = ["allow-eks", shown(&before), shown(&list), shown(&public), "--require", "either", "-o"];
    let (exit, said, why) = policy(&[&arguments[..], &[shown(&after)]].concat());
    assert_eq!(
        (exit, said.contains("policy edge v2") && said.contains("2 EKs are listed, 2 of them new")),
        (0, true),
        "{said}{why}"
    );
    let text = std::fs::read_to_string(&after).unwrap();
    assert!(text.contains(&"cd".repeat(32)) && text.contains("required = \"either\""), "{text}");

    let refused = |file: &Path, says: &str| {
        let (exit, _, why) = policy(&["allow-eks", shown(&before), shown(file), "-o", shown(&after)]);
        assert_eq!((exit, why.contains(says)), (1, true), "{why}");
    };
    refused(&write(folder.path(), "short.txt", "abcd\n"), "line 1: \"abcd\" is no EK's hash");
    refused(&vector("sb-good-1").join("ak.tpm2b_public"), "not an endorsement key");
    refused(&folder.path().join("none"), "is not there");
    assert_eq!(std::fs::read_to_string(&after).unwrap(), text);
}

#[test]
fn a_listed_ek_needs_no_certificate() {
    let (folder, copy) = (tempdir().unwrap(), tempdir().unwrap());
    for entry in std::fs::read_dir(vector("sb-good-1")).unwrap() {
        let file = entry.unwrap().path();
        std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let learned = learn(copy.path(), folder.path(), &[]);
    for certificate in ["ek-cert.der", "ek-ecc-p384-cert.der"] {
        std::fs::remove_file(copy.path().join(certificate)).unwrap();
    }
    let appraised = |policy: &Path| Appraisal::of(copy.path(), &["--policy", shown(policy)]);
    let refused = appraised(&learned);
    assert_eq!((refused.exit, refused.claims("endorsement-policy").as_slice()), (1, &["EK certificate"][..]));
    let listed = folder.path().join("listed.toml");
    let ek = copy.path().join("ek.tpm2b_public");
    let (exit, _, why) =
        policy(&["allow-eks", shown(&learned), shown(&ek), "--require", "allowlist", "-o", shown(&listed)]);
    assert_eq!(exit, 0, "{why}");
    let accepted = appraised(&listed);
    assert_eq!(accepted.exit, 0, "{}", accepted.messages());
}

#[test]
fn merge_joins_lists_and_says_whose_demand_holds() {
    let folder = tempdir().unwrap();
    let a =
        write(folder.path(), "a.toml", &format!("{}[ima]\nlist = \"optional\"\n", one_file("/bin/a", "ab")));
    let b = write(folder.path(), "b.toml", &one_file("/bin/b", "cd"));
    let both = folder.path().join("both.toml");
    let (exit, said, why) = policy(&["merge", shown(&a), shown(&b), "-o", shown(&both), "--name", "both"]);
    assert_eq!((exit, said.contains("ima.list: required, as edge v1 says")), (0, true), "{said}{why}");
    assert_covers(&said, &[("kernel", "open"), ("files", "open")]);
    let text = std::fs::read_to_string(&both).unwrap();
    assert!(text.contains("/bin/a") && text.contains("/bin/b") && text.contains("name = \"both\""), "{text}");
    assert_only_the_boot_is_open(&both);
    // A policy learned from a device, and files it has not run yet.
    let learned = learn(&vector("sb-good-1"), folder.path(), &[]);
    let (exit, _, why) = policy(&["merge", shown(&learned), shown(&b), "-o", shown(&both)]);
    assert_eq!(exit, 0, "{why}");
    let (_, said, _) = policy(&["diff", shown(&learned), shown(&both)]);
    assert!(said.ends_with(": 1 now allowed\n"), "{said}");
}

#[test]
fn import_takes_keylimes_policies_over_and_says_what_differs() {
    let folder = tempdir().unwrap();
    let digest = "ab".repeat(32);
    let json =
        format!(r#"{{"digests": {{"/bin/a": ["{digest}"]}}, "excludes": ["/var/log/.*", "/tmp/a", "\\w"]}}"#);
    let runtime = write(folder.path(), "runtime.json", &json);
    let pcrs = format!(r#"{{"7": ["{digest}"], "10": ["{digest}"], "mask": "0x80"}}"#);
    let imported = folder.path().join("imported.toml");
    let arguments =
        ["import", "--keylime-runtime-policy", shown(&runtime), "--keylime-tpm-policy", &pcrs, "-o"];
    // What is lost is an error, unless one means it.
    let (exit, _, why) = policy(&[arguments.as_slice(), &[shown(&imported)]].concat());
    assert!(exit == 1 && why.contains("error: excludes[2]") && why.contains("2 of its demands"), "{why}");
    assert!(!imported.exists());
    let (exit, said, why) = policy(&[arguments.as_slice(), &[shown(&imported), "--lossy"]].concat());
    assert_eq!(exit, 0, "{why}");
    assert_covers(&said, &[("Secure Boot keys", "pinned"), ("kernel", "open"), ("files", "open")]);
    for word in
        ["1 PCRs and 1 files", "/tmp/a**", "error: excludes[2]", "error: 10: not imported", "note: mask"]
    {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert_eq!(policy(&["diff", shown(&imported), shown(&imported)]).0, 0);

    // What was left out is why there is no policy.
    let weak = r#"{"meta":{"version":1},"digests":{"/bin/sh":["c90333979f56f38bbd41b81806015b0de502f3cc"]}}"#;
    let weak = write(folder.path(), "weak.json", weak);
    let nothing = folder.path().join("nothing.toml");
    let (exit, _, why) = policy(&["import", "--keylime-runtime-policy", shown(&weak), "-o", shown(&nothing)]);
    assert!(exit == 1 && why.contains("1 SHA-1 digest") && why.contains("measures nothing"), "{why}");
    assert!(!nothing.exists());

    let (exit, _, why) = policy(&["import", "--keylime-tpm-policy", "{", "-o", shown(&imported)]);
    assert_eq!((exit, why.contains("line 1, column 1")), (1, true), "{why}");
    let (exit, ..) = policy(&["import", "-o", shown(&imported)]);
    assert_eq!(exit, 2);
}

/// A package of one program, one page of text and a hard link, or `None` and a line where dpkg-deb is absent.
fn package(folder: &Path, compression: &str) -> Option<PathBuf> {
    let tree = folder.join(format!("tree-{compression}"));
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    write(
        &tree,
        "DEBIAN/control",
        "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example>\nDescription: a\n",
    );
    let tool = write(&tree, "bin/tool", "#!/bin/sh\n");
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::hard_link(&tool, tree.join("bin/utensil")).unwrap();
    let long = "long-".repeat(40);
    std::fs::create_dir_all(tree.join("usr").join(&long)).unwrap();
    std::fs::copy(&tool, tree.join("usr").join(&long).join("tool")).unwrap();
    write(&tree, "bin/readme", "read me\n");
    let package = folder.join(format!("tool-{compression}.deb"));
    let built = std::process::Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Z", compression, "-b", shown(&tree), shown(&package)])
        .output();
    match built {
        Ok(output) if output.status.success() => Some(package),
        _ => {
            eprintln!("skipped: dpkg-deb with {compression} is absent");
            None
        }
    }
}

/// SHA-256 of `#!/bin/sh` and a line break.
fn tool_digest() -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let digest = digest(&SHA256, b"#!/bin/sh\n");
    format!("sha256:{}", data_encoding::HEXLOWER.encode(digest.as_ref()))
}

#[test]
fn from_deb_lists_the_programs_of_packages_however_they_are_packed() {
    let folder = tempdir().unwrap();
    let made = folder.path().join("made.json");
    for compression in ["none", "gzip", "xz", "zstd"] {
        let Some(package) = package(folder.path(), compression) else { continue };
        let (exit, said, why) = policy(&["from-deb", shown(&package), "-o", shown(&made)]);
        assert_eq!((exit, said.contains("3 files")), (0, true), "{compression}: {said}{why}");
        let json: Value = serde_json::from_slice(&std::fs::read(&made).unwrap()).unwrap();
        let allow = &json["ima"]["allow"];
        assert_eq!(allow["/usr/bin/tool"][0], tool_digest().as_str(), "{allow}");
        assert_eq!(allow["/usr/bin/utensil"], allow["/usr/bin/tool"]);
        assert_only_the_boot_is_open(&made);
        let (_, said, _) =
            policy(&["from-deb", shown(&package), "-o", shown(&made), "--all-files", "--no-usr-merge"]);
        assert!(
            said.contains("4 files") && std::fs::read_to_string(&made).unwrap().contains("\"/bin/tool\""),
            "{said}"
        );
    }
    // A folder is a repository, but for what in it is no package.
    let repository = tempdir().unwrap();
    if let Some(package) = package(repository.path(), "xz") {
        let (exit, said, why) = policy(&["from-deb", shown(repository.path()), "-o", shown(&made)]);
        assert_eq!((exit, said.contains("3 files")), (0, true), "{said}{why}");
        let whole = std::fs::read(package).unwrap();
        for length in [0, 7, 60, 100, whole.len() - 200] {
            let cut = folder.path().join("cut.deb");
            std::fs::write(&cut, whole.get(..length).unwrap()).unwrap();
            let (exit, _, why) = policy(&["from-deb", shown(&cut), "-o", shown(&made)]);
            assert_eq!((exit, why.contains("cut.deb")), (1, true), "{length}: {why}");
        }
    }
}

#[test]
fn from_rootfs_lists_programs_where_they_really_are() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("root");
    for inside in ["usr/bin", "usr/lib/modules", "proc", "opt/cache"] {
        std::fs::create_dir_all(root.join(inside)).unwrap();
    }
    let outside = write(folder.path(), "outside", "#!/bin/sh\n");
    for inside in ["usr/bin/tool", "proc/tool", "opt/cache/tool", "../outside"] {
        let program = write(&root, inside, "#!/bin/sh\n");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    write(&root, "usr/bin/readme", "read me\n");
    write(&root, "usr/lib/modules/a.ko.xz", "module");
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    std::os::unix::fs::symlink(folder.path(), root.join("away")).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("usr/bin/away")).unwrap();
    let made = folder.path().join("made.json");
    let arguments = ["from-rootfs", shown(&root), "-o", shown(&made), "--exclude", "/opt/*/"];
    let (exit, said, why) = policy(&arguments);
    assert_eq!((exit, said.contains("2 files")), (0, true), "{said}{why}");
    let json: Value = serde_json::from_slice(&std::fs::read(&made).unwrap()).unwrap();
    let allow = json["ima"]["allow"].as_object().unwrap();
    assert_eq!(allow.keys().collect::<Vec<_>>(), ["/usr/bin/tool", "/usr/lib/modules/a.ko.xz"]);
    assert_eq!(allow["/usr/bin/tool"][0], tool_digest().as_str());
    let (exit, _, why) = policy(&["from-rootfs", "/nowhere", "-o", shown(&made)]);
    assert_eq!((exit, why.contains("not a folder")), (1, true), "{why}");
}

/// The kernel logs a space in a path as an underscore, so that is what every list has.
#[test]
fn a_space_in_a_path_import_and_from_rootfs_list_as_the_kernel_logs_it() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("root");
    for name in ["opt/my app/run", "opt/my app/cache/run", "opt/my_app/other"] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"\x7fELF").unwrap();
    }
    let made = folder.path().join("made.json");
    let listed = || {
        let json: Value = serde_json::from_slice(&std::fs::read(&made).unwrap()).unwrap();
        json["ima"]["allow"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let excluded = ["--exclude", "/opt/my app/cache/"];
    let (exit, _, why) =
        policy(&[&["from-rootfs", shown(&root), "-o", shown(&made)][..], &excluded].concat());
    assert_eq!(
        (exit, listed()),
        (0, vec!["/opt/my_app/other".to_owned(), "/opt/my_app/run".to_owned()]),
        "{why}"
    );
    let list = write(folder.path(), "allowlist.txt", &format!("{}  /opt/my app/run\n", "ab".repeat(32)));
    let (exit, _, why) = policy(&["import", "--keylime-runtime-policy", shown(&list), "-o", shown(&made)]);
    assert_eq!((exit, listed()), (0, vec!["/opt/my_app/run".to_owned()]), "{why}");
}

/// A key pair of this kind, as files.
fn key_files(folder: &Path, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let private = write(folder, &format!("{name}.key.pem"), &key.serialize_pem());
    (private, write(folder, &format!("{name}.pub.pem"), &key.public_key_pem()))
}

#[test]
fn a_signed_policy_says_who_signed_it_and_is_read_like_any_other() {
    let folder = tempdir().unwrap();
    let plain = write(folder.path(), "edge.toml", &one_file("/bin/a", "ab"));
    let kinds = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384];
    let signed = folder.path().join("edge.dsse.json");
    for (number, kind) in kinds.into_iter().enumerate() {
        let (private, public) = key_files(folder.path(), &number.to_string(), kind);
        let (exit, said, why) = policy(&["sign", shown(&plain), "--key", shown(&private)]);
        assert_eq!(
            (exit, said.contains("edge.dsse.json: policy edge v1 signed by sha256:")),
            (0, true),
            "{said}{why}"
        );
        let (exit, said, why) = policy(&["verify", shown(&signed), "--signer", shown(&public)]);
        assert_eq!((exit, said.contains("policy edge v1 is signed by sha256:")), (0, true), "{said}{why}");
        let (_, other) = key_files(folder.path(), "other", kind);
        let (exit, _, why) = policy(&["verify", shown(&signed), "--signer", shown(&other)]);
        assert_eq!((exit, why.contains("none of its 1 signature(s)")), (1, true), "{why}");
    }
    // A second signature, and then either signer will do.
    let (private, public) = key_files(folder.path(), "second", &rcgen::PKCS_ED25519);
    let both = folder.path().join("both.json");
    let (exit, _, why) = policy(&["sign", shown(&signed), "--key", shown(&private), "-o", shown(&both)]);
    assert_eq!(exit, 0, "{why}");
    let first = folder.path().join("2.pub.pem");
    for signer in [&public, &first] {
        let (exit, said, why) = policy(&["verify", shown(&both), "--signer", shown(signer), "--json"]);
        assert_eq!(exit, 0, "{why}");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (said["policy"].as_str(), said["signers"].as_array().unwrap().len()),
            (Some("edge v1"), 1)
        );
    }
    let (exit, said, why) = policy(&["diff", shown(&plain), shown(&both)]);
    assert_eq!((exit, said.contains("say the same")), (0, true), "{said}{why}");
    assert_only_the_boot_is_open(&both);
    let case = vector("sb-good-1");
    let with = ["appraise".as_ref(), case.as_os_str(), "--policy".as_ref(), both.as_os_str()];
    assert!(String::from_utf8_lossy(&assay(with).stdout).contains("contraindicated by policy edge v1"));
}

#[test]
fn what_cannot_be_signed_is_refused_with_its_reason() {
    let folder = tempdir().unwrap();
    let (private, public) = key_files(folder.path(), "key", &rcgen::PKCS_ED25519);
    let empty = write(folder.path(), "empty.toml", "name = \"edge\"\nversion = 1\n");
    let good = write(folder.path(), "good.toml", &one_file("/bin/a", "ab"));
    let check = |arguments: &[&str], expected: &str| {
        let (exit, _, why) = policy(arguments);
        assert_eq!((exit, why.contains(expected)), (1, true), "{why}");
    };
    check(&["sign", shown(&empty), "--key", shown(&private)], "measures nothing");
    check(&["sign", shown(&good), "--key", shown(&public)], "no PKCS#8 private key in PEM");
    check(&["sign", shown(&good), "--key", shown(&good)], "no PKCS#8 private key in PEM");
    check(&["verify", shown(&good), "--signer", shown(&public)], "it is not signed");
    check(&["verify", shown(&good), "--signer", shown(&good)], "neither a certificate nor a public key");
    assert!(!folder.path().join("good.dsse.json").exists());
}

#[test]
fn what_was_made_is_said_as_json_where_that_is_asked_for() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let tool = write(&root, "tool", "#!/bin/sh\n");
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let one = write(folder.path(), "one.toml", &one_file("/bin/a", "ab"));
    let runtime = write(
        folder.path(),
        "runtime.json",
        &format!(r#"{{"digests": {{"/bin/a": ["{}"]}}, "excludes": ["\\w"]}}"#, "ab".repeat(32)),
    );
    let case = vector("sb-good-1");
    let made = folder.path().join("made.toml");
    let check = |arguments: &[&str], files: u64, remarks: usize| {
        let (exit, said, why) = policy(&[arguments, &["--json", "-o", shown(&made)]].concat());
        assert_eq!(exit, 0, "{why}");
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{arguments:?}: {said}"));
        assert_eq!((said["file"].as_str(), &said["version"]), (made.to_str(), &Value::from(1)), "{said}");
        assert_eq!(
            (&said["files"], said["remarks"].as_array().unwrap().len()),
            (&files.into(), remarks),
            "{said}"
        );
    };
    check(&["learn", shown(&case)], 108, 0);
    check(&["merge", shown(&one), shown(&one)], 1, 0);
    check(&["import", "--lossy", "--keylime-runtime-policy", shown(&runtime)], 1, 3);
    check(&["from-rootfs", shown(&root)], 1, 0);
    if let Some(package) = package(folder.path(), "none") {
        check(&["from-deb", shown(&package)], 3, 0);
    }
}
