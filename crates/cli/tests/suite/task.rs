//! `assay task verify` and `measure`: a result that a real device handed in holds, and nothing else made of it does.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::verbs::{assay, text};

/// A confidential task that echoed its input, on swtpm, with the bundle of its trust domain.
fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/task/attested").join(name)
}

fn result() -> Value {
    serde_json::from_slice(&std::fs::read(vector("result.json")).unwrap()).unwrap()
}

/// Verifies a result in a folder of its own, with these words more.
fn verify(result: &Value, more: &[&str], exit: i32) -> Value {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("result.json"), result.to_string()).unwrap();
    let bundle = vector("bundle.pem");
    let words = ["task", "verify", "result.json", "--json", "--bundle", bundle.to_str().unwrap()];
    let output = assay(&[&words[..], more].concat(), folder.path());
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// The checks that do not hold.
fn broken(verdict: &Value) -> Vec<&str> {
    let checks = verdict.get("checks").and_then(Value::as_array).unwrap();
    let broken = checks.iter().filter(|check| check.get("holds") == Some(&json!(false)));
    broken.filter_map(|check| check.get("check").and_then(Value::as_str)).collect()
}

#[test]
fn a_result_holds_as_it_was_handed_in() {
    let verdict = verify(&result(), &[], 0);
    assert_eq!(verdict.get("holds"), Some(&json!(true)), "{verdict}");
    assert!(broken(&verdict).is_empty());
    let proves = verdict.get("proves").and_then(Value::as_array).unwrap();
    assert!(proves.iter().any(|one| one.as_str().is_some_and(|one| one.contains("extended into the TPM"))));
    assert_eq!(verdict.get("proves_not").and_then(Value::as_array).unwrap().len(), 2);
    let measurement = verdict.get("measurement").and_then(Value::as_str).unwrap();
    verify(&result(), &["--expect", measurement], 0);
    let runtime = verdict.get("runtime").and_then(Value::as_str).unwrap();
    verify(&result(), &["--runtime", runtime], 0);
}

/// One change each, and what finds it.
#[test]
fn whatever_is_changed_of_a_result_is_found_by_the_check_for_it() {
    let flip = |text: &str| {
        let last = if text.ends_with('0') { "1" } else { "0" };
        format!("{}{last}", &text[..text.len() - 1])
    };
    let changed = |pointer: &str| {
        let mut result = result();
        let member = result.pointer_mut(pointer).unwrap();
        *member = json!(flip(member.as_str().unwrap()));
        result
    };
    // The end of an outcome is the hash of the register's statement.
    assert_eq!(broken(&verify(&changed("/outcome"), &[], 1)), ["signature", "register"]);
    assert_eq!(broken(&verify(&changed("/signature"), &[], 1)), ["signature"]);
    assert_eq!(broken(&verify(&changed("/definition"), &[], 1)), ["measurement"]);
    assert_eq!(broken(&verify(&changed("/register/signature"), &[], 1)), ["register"]);
    assert_eq!(broken(&verify(&changed("/register/message"), &[], 1)), ["register", "register"]);
    // The end of a log is the input of its last entry.
    assert_eq!(broken(&verify(&changed("/register/log"), &[], 1)), ["log", "measured"]);
    let mut other = result();
    other["output"] = json!("Zm9yZ2Vk");
    assert_eq!(broken(&verify(&other, &[], 1)), ["output"]);
    let mut other = result();
    other["attempt"] = json!(7);
    assert_eq!(broken(&verify(&other, &[], 1)), ["task"]);
    let mut other = result();
    other["register"] = Value::Null;
    assert_eq!(broken(&verify(&other, &[], 1)), ["register"]);
    let mut late = result();
    late["at"] = json!(late["at"].as_u64().unwrap() + 10 * 365 * 24 * 3600);
    assert_eq!(broken(&verify(&late, &[], 1)), ["certificate"]);
    let mut nobody = result();
    nobody["device_svid"] = json!([]);
    assert_eq!(broken(&verify(&nobody, &[], 1)), ["certificate"]);
}

#[test]
fn what_was_expected_is_told_apart_from_what_was_run() {
    let zeros = "00".repeat(48);
    assert_eq!(broken(&verify(&result(), &["--expect", &zeros], 1)), ["expected"]);
    assert_eq!(broken(&verify(&result(), &["--runtime", &"00".repeat(32)], 1)), ["runtime"]);
    let file = vector("bundle.pem");
    let file = file.to_str().unwrap();
    assert_eq!(broken(&verify(&result(), &["--image", file], 1)), ["image"]);
    assert_eq!(broken(&verify(&result(), &["--input", file], 1)), ["input"]);
    verify(&result(), &["--expect", "00"], 2);
    verify(&json!({}), &[], 2);
    let mut cut = result();
    cut["outcome"] = json!("00");
    verify(&cut, &[], 2);
}

#[test]
fn a_measurement_is_of_the_module_and_of_all_that_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let measure = |more: &[&str], exit: i32| {
        let output = assay(&[&["task", "measure", "module.wasm"], more].concat(), folder.path());
        assert_eq!(output.status.code(), Some(exit), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let plain = measure(&[], 0);
    assert_eq!(plain.len(), 96);
    assert_eq!(measure(&["--name", "another", "--retries", "7"], 0), plain, "not a part of what runs");
    for more in [&["--arg", "x"], &["--env", "A=1"], &["--memory-mb", "65"], &["--capability", "clock"]] {
        assert_ne!(measure(more, 0), plain, "{more:?}");
    }
    measure(&["--capability", "network"], 1);
    measure(&["--memory-mb", "0"], 1);
    measure(&["--env", "A"], 2);
}
