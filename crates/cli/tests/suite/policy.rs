//! The offline policy verbs, from outside.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::tempdir;

use crate::{assay, learn, vector};

/// Runs a policy verb: exit code, standard output, standard error.
fn policy(arguments: &[&str]) -> (i32, String, String) {
    let output = assay(["policy"].iter().chain(arguments));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A policy of one file.
fn one_file(file: &str, byte: &str) -> String {
    format!("name = \"edge\"\nversion = 1\n[ima.allow]\n{file:?} = [\"sha256:{}\"]\n", byte.repeat(32))
}

#[test]
fn lint_says_what_speaks_against_a_policy_and_where() {
    let folder = tempdir().unwrap();
    let good = learn(&vector("sb-good-1"), folder.path(), &[]);
    let (exit, said, _) = policy(&["lint", shown(&good)]);
    assert_eq!((exit, said.contains("nothing speaks against it")), (0, true), "{said}");

    let empty = write(folder.path(), "empty.toml", "name = \"edge\"\nversion = 1\n");
    let (exit, said, _) = policy(&["lint", shown(&empty)]);
    assert_eq!((exit, said.contains("measures nothing")), (1, true), "{said}");

    let text = format!("{}[ima]\nexclude = [\"/tmp/\"]\n", one_file("/bin/a", "ab"));
    let wide = write(folder.path(), "wide.toml", &text);
    let (exit, said, _) = policy(&["lint", shown(&wide)]);
    assert_eq!((exit, said.contains("wide.toml:6: warning: ima.exclude[0]: ")), (1, true), "{said}");
    let (exit, said, _) = policy(&["lint", shown(&wide), "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((exit, &json["ok"], &json["remarks"][0]["line"]), (1, &Value::from(false), &Value::from(6)));

    let (exit, _, why) = policy(&["lint", "/nowhere/policy.toml"]);
    assert_eq!((exit, why.contains("/nowhere/policy.toml")), (2, true), "{why}");
}

#[test]
fn diff_says_what_becomes_allowed_and_what_no_longer_is() {
    let folder = tempdir().unwrap();
    let a = write(folder.path(), "a.toml", &one_file("/bin/a", "ab"));
    let b = write(folder.path(), "b.toml", &one_file("/bin/b", "cd"));
    let (exit, said, _) = policy(&["diff", shown(&a), shown(&a)]);
    assert_eq!((exit, said.contains("say the same")), (0, true), "{said}");
    let (exit, said, _) = policy(&["diff", shown(&a), shown(&b)]);
    for word in ["/bin/a", "/bin/b", "1 now allowed, 1 no longer allowed"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert_eq!(exit, 1);
    let (exit, said, _) = policy(&["diff", shown(&a), shown(&b), "--json"]);
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((exit, json["changes"].as_array().unwrap().len()), (1, 2));
    let (exit, _, why) = policy(&["diff", shown(&a), "/nowhere/b.toml"]);
    assert_eq!((exit, why.contains("/nowhere/b.toml")), (2, true), "{why}");
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
    let text = std::fs::read_to_string(&both).unwrap();
    assert!(text.contains("/bin/a") && text.contains("/bin/b") && text.contains("name = \"both\""), "{text}");
    assert_eq!(policy(&["lint", shown(&both)]).0, 0);
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
    let (exit, said, why) = policy(&[arguments.as_slice(), &[shown(&imported)]].concat());
    assert_eq!(exit, 0, "{why}");
    for word in
        ["1 PCRs and 1 files", "/tmp/a**", "error: excludes[2]", "error: 10: not imported", "note: mask"]
    {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert_eq!(policy(&["diff", shown(&imported), shown(&imported)]).0, 0);

    let (exit, _, why) = policy(&["import", "--keylime-tpm-policy", "{", "-o", shown(&imported)]);
    assert_eq!((exit, why.contains("line 1, column 1")), (1, true), "{why}");
    let (exit, ..) = policy(&["import", "-o", shown(&imported)]);
    assert_eq!(exit, 2);
}
