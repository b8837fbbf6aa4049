//! `assay doctor` and `assay gateway doctor`: what is wrong is said once, with what to do, and no secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::assay;
use crate::rollout::Server;

/// How it ended, and what was found.
fn doctor(arguments: &[&str]) -> (i32, Value) {
    let output = assay(arguments.iter().copied().chain(["--json"]));
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// The severity of the findings of a check, and what they say.
fn found<'a>(report: &'a Value, check: &str) -> Vec<(&'a str, &'a str)> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check);
    findings.map(|one| (one["severity"].as_str().unwrap(), one["found"].as_str().unwrap())).collect()
}

fn chmod(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn year_12_doctor_says_of_a_server_what_is_wrong_and_what_to_do() {
    let mut server = Server::start();
    let data = server.at("data");
    let arguments = ["doctor", "--data", data.to_str().unwrap()];
    let (exit, report) = doctor(&arguments);
    assert_eq!(exit, 6, "no policy is set: {report}");
    for (check, count) in
        [("folder", 1), ("key", 4), ("certificate", 2), ("disk", 1), ("database", 1), ("running", 1)]
    {
        let found = found(&report, check);
        assert_eq!(found.len(), count, "{check}: {report}");
        let is_of_this_machine = check == "disk";
        let good = |(severity, _): &(&str, &str)| *severity == "good" || is_of_this_machine;
        assert!(found.iter().all(good), "{check}: {report}");
    }
    assert_eq!(found(&report, "policies"), [("warning", "none is in force")]);
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["severity"] == "good", finding["action"].is_null(), "{finding}");
    }
    // It says where secrets are, and none of them.
    let page = String::from_utf8(assay(arguments).stdout).unwrap();
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    assert!(
        page.contains("operator.token") && !page.contains(token.trim()) && !page.contains("PRIVATE"),
        "{page}"
    );

    chmod(&data.join("keys/root.key"), 0o644);
    let (exit, report) = doctor(&arguments);
    assert_eq!(exit, 1);
    let key = found(&report, "key").into_iter().find(|(severity, _)| *severity == "problem").unwrap().1;
    assert!(key.contains("root.key") && key.contains("644"), "{key}");
    chmod(&data.join("keys/root.key"), 0o600);
    // Stopped, and with a head that nobody signed.
    server.kill();
    let (exit, report) = doctor(&arguments);
    assert_eq!((exit, found(&report, "running")[0].0), (1, "problem"), "{report}");
    assert_eq!(found(&report, "database")[0].0, "good", "{report}");
    std::fs::write(data.join("ledger.head"), "nothing").unwrap();
    let (_, report) = doctor(&arguments);
    assert_eq!(found(&report, "database")[0].0, "problem", "{report}");
}

#[test]
fn year_12_doctor_says_what_a_configuration_has_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    let examine = |text: &str| {
        std::fs::write(&file, text).unwrap();
        doctor(&["doctor", "--config", file.to_str().unwrap()])
    };
    let (exit, report) = examine("atest_interval_seconds = 2");
    assert_eq!(exit, 1);
    assert!(found(&report, "configuration")[0].1.contains("atest_interval_seconds"), "{report}");
    let (exit, report) = examine("data = \"nowhere\"\nek_anchors = [\"gone.pem\"]");
    assert_eq!(exit, 1);
    assert!(found(&report, "configuration").iter().any(|(_, found)| found.contains("gone.pem")), "{report}");
    assert!(found(&report, "folder")[0].1.contains("nowhere"), "{report}");
}

#[test]
fn year_12_doctor_says_of_a_gateway_whether_the_servers_take_it() {
    let mut server = Server::start();
    let data = server.at("data");
    let credentials = server.at("gateway");
    let output = assay([
        "gateway",
        "enroll",
        "--name",
        "edge-1",
        "--out",
        credentials.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let addresses: Value =
        serde_json::from_slice(&std::fs::read(data.join("addresses.json")).unwrap()).unwrap();
    let config = server.at("gateway.toml");
    let text = format!(
        "trust_domain = \"test.assay.example\"\nlisten = \"127.0.0.1:0\"\nservers = [{}]\ncredentials = {:?}\n",
        addresses["edge"], credentials
    );
    std::fs::write(&config, text).unwrap();
    let arguments = ["gateway", "doctor", "--config", config.to_str().unwrap()];
    let (_, report) = doctor(&arguments);
    // How full the disk is that the tests run on is not theirs to say.
    let is_wrong = |one: &&Value| one["severity"] == "warning" || one["severity"] == "problem";
    let findings = report["findings"].as_array().unwrap().iter().filter(is_wrong);
    assert_eq!(findings.filter(|one| one["check"] != "disk").count(), 0, "{report}");
    for check in ["configuration", "key", "certificate", "credentials", "server", "clock"] {
        assert!(found(&report, check).iter().all(|(severity, _)| *severity == "good"), "{check}: {report}");
        assert_eq!(found(&report, check).len(), 1, "{check}: {report}");
    }
    chmod(&credentials.join("key.pem"), 0o604);
    let (exit, report) = doctor(&arguments);
    assert_eq!((exit, found(&report, "key")[0].0), (1, "problem"), "{report}");
    chmod(&credentials.join("key.pem"), 0o640);
    server.kill();
    let (exit, report) = doctor(&arguments);
    assert_eq!((exit, found(&report, "server")[0].0), (1, "problem"), "{report}");
    assert_eq!(report["program"], json!("assay gateway"));
}
