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
