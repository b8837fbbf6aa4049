//! One set of rules for every verb: `docs/verbs.md`. The verbs are found by asking the program, so that none is left out.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::rollout::Server;

pub fn assay(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay")).args(arguments).current_dir(folder).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every verb without others below it, with its help.
fn verbs(above: &[String], folder: &Path) -> Vec<(Vec<String>, String)> {
    let arguments: Vec<&str> = above.iter().map(String::as_str).chain(["--help"]).collect();
    let output = assay(&arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    let help = text(&output.stdout);
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return vec![(above.to_vec(), help)] };
    let names = listed.lines().take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.flat_map(|name| verbs(&[above, &[name.to_owned()]].concat(), folder)).collect()
}

/// What runs until it is stopped, or prints what has a form of its own.
const WITHOUT_JSON: [&str; 10] = [
    "server",
    "gateway run",
    "completion",
    "ear jwks",
    "policy merge",
    "policy import",
    "policy learn",
    "policy from-deb",
    "policy from-rootfs",
    "policy from-initrd",
];

#[test]
fn year_11_every_verb_that_answers_does_so_in_json_too() {
    let folder = TempDir::new().unwrap();
    let verbs = verbs(&[], folder.path());
    assert!(verbs.len() > 40, "{}", verbs.len());
    let without: Vec<String> = verbs
        .iter()
        .filter(|(_, help)| !help.contains("--json"))
        .map(|(verb, _)| verb.join(" "))
        .filter(|verb| !WITHOUT_JSON.contains(&verb.as_str()))
        .collect();
    assert_eq!(without, Vec::<String>::new());
}

/// Verbs that ask the console, with arguments that are well-formed and name things that are not there.
const ASKING: [(&[&str], i32); 47] = [
    (&["operator", "list"], 0),
    (&["operator", "revoke", "nobody", "--reason", "left"], 3),
    (&["device", "list"], 0),
    (&["device", "show", "nobody"], 3),
    (&["device", "explain", "nobody"], 3),
    (&["device", "results", "nobody"], 3),
    (&["device", "ear", "nobody"], 3),
    (&["device", "label", "nobody", "site=paris"], 3),
    (&["device", "list", "--status", "happy"], 2),
    (&["device", "pending"], 0),
    (&["device", "admit", "nobody"], 3),
    (&["device", "deny", "nobody", "--reason", "not ours"], 3),
    (&["device", "rename", "nobody", "press-2"], 3),
    (&["device", "replace", "nobody", "press-2"], 3),
    (
        &[
            "entry",
            "create",
            "--spiffe-id",
            "spiffe://x/web",
            "--parent",
            "nobody",
            "--selector",
            "unix:uid:7",
        ],
        3,
    ),
    (&["device", "revoke", "nobody", "--reason", "stolen"], 3),
    (&["device", "readmit", "nobody"], 3),
    (&["device", "approve", "nobody", "--yes"], 3),
    (&["policy", "list"], 0),
    (&["policy", "show", "none"], 3),
    (&["policy", "unassign", "--selector", "site=paris"], 3),
    (&["policy", "rollout", "finish", "none"], 3),
    (&["policy", "rollout", "abort", "none"], 3),
    (&["trust", "status"], 0),
    (&["security"], 0),
    (&["entry", "list"], 0),
    (&["entry", "list", "--parent", "nobody"], 3),
    (&["entry", "show", "none"], 3),
    (&["entry", "who", "none"], 3),
    (&["entry", "update", "none", "--hint", "x"], 3),
    (&["entry", "delete", "none"], 3),
    (&["gateway", "list"], 0),
    (&["telemetry", "list"], 0),
    (&["telemetry", "list", "--device", "nobody"], 3),
    (&["telemetry", "show", "7/1"], 3),
    (&["telemetry", "export", "7/1", "--out", "batch"], 3),
    (&["telemetry", "key", "list"], 0),
    (&["telemetry", "key", "list", "--device", "nobody"], 3),
    (&["telemetry", "key", "remove", "none"], 3),
    (&["gateway", "revoke", "none", "--reason", "stolen"], 3),
    (&["task", "list"], 0),
    (&["task", "list", "--status", "happy"], 2),
    (&["task", "show", "none"], 3),
    (&["task", "explain", "none"], 3),
    (&["task", "logs", "none"], 3),
    (&["task", "result", "none"], 3),
    (&["task", "cancel", "none", "--reason", "not needed"], 3),
];

/// Why a verb did nothing, as it says in JSON.
fn refused(arguments: &[&str], more: &[&str], folder: &Path, exit: i32) -> String {
    let output = assay(&[arguments, more, &["--json"]].concat(), folder);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", text(&output.stderr));
    let said = text(&output.stderr);
    let error: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"));
    assert_eq!(error["error"]["exit"], exit, "{error}");
    assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
    error["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn year_11_a_script_can_tell_why_a_verb_did_nothing() {
    let usage = refused(&["device", "show"], &[], Path::new("."), 2);
    assert_eq!(usage, "usage");
    let server = Server::start();
    let data = server.at("data").to_str().unwrap().to_owned();
    let folder = TempDir::new().unwrap();
    let wrong = folder.path().join("wrong.token");
    std::fs::write(&wrong, "not the token of anyone, though as long as one").unwrap();
    for (arguments, exit) in ASKING {
        let with = ["--data", data.as_str()];
        if exit == 0 {
            let output = assay(&[arguments, &with].concat(), folder.path());
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        } else {
            refused(arguments, &with, folder.path(), exit);
        }
        if arguments != ["trust", "status"] {
            let with = ["--data", data.as_str(), "--token-file", wrong.to_str().unwrap()];
            assert_eq!(refused(arguments, &with, folder.path(), 4), "token", "{arguments:?}");
        }
        let nowhere = ["--data", data.as_str(), "--console", "127.0.0.1:1"];
        assert_eq!(refused(arguments, &nowhere, folder.path(), 5), "unreachable", "{arguments:?}");
    }
}

/// A program that is told nonsense by its surroundings says so and does nothing.
#[test]
fn year_11_nothing_that_is_set_is_passed_over_in_silence() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "data = \"here\"").unwrap();
    let config = ["server", "--config", "server.toml"];
    let start = |name: &str, value: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_assay"));
        program.args(config).env(name, value).current_dir(folder.path()).output().unwrap()
    };
    for (name, value, says) in [
        ("ASSAY_LOG", "x=[[", "does not say what to log"),
        ("ASSAY_DATA", "elsewhere", "unset the variable"),
        ("ASSAY_TRUST_DOMAIN", "other.example", "unset the variable"),
    ] {
        let output = start(name, value);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says) && said.contains(name), "{said}");
        assert_eq!(said.matches("assay:").count(), 1, "said once: {said}");
    }
    assert!(!folder.path().join("elsewhere").exists() && !folder.path().join("here").exists());
}
