//! What operators decide about a device: on what they saw, by a name that is one device's, and with a way back.

use std::time::Duration;

use assay_identity::Crl;
use assay_testkit::{SoftwareDevice, System};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Code;

use crate::fixture::{Fixture, attach_trusted, attest_again, code};

async fn refused(fixture: &Fixture, path: &str, body: &Value) -> (u16, String) {
    let bearer = format!("Bearer {}", fixture.token());
    let answer = fixture.call(Method::POST, path, &[("authorization", &bearer)], body.to_string()).await;
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    (answer.status().as_u16(), body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn finding_6_an_approval_is_of_what_the_operator_saw() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    device.run_program("/opt/tool", b"what the operator looks at");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let seen = fixture.approval("press-1").await;
    assert_eq!(seen["files"][0]["path"], "/opt/tool");

    // The same path, with another content, before the operator says yes.
    device.run_program("/opt/tool", b"what nobody looked at");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let approve = "/v1/devices/press-1/approve";
    assert_eq!(refused(&fixture, approve, &seen).await, (409, "other-result".to_owned()));
    assert_eq!(fixture.get("/v1/policy").await["version"], 1, "nothing was accepted");

    // Nor is it if the result is the last one, but the content is the one before it.
    let mut mixed = fixture.approval("press-1").await;
    assert_ne!(mixed["files"], seen["files"]);
    let both = mixed["files"].as_array().unwrap().clone();
    mixed["files"] = json!([{ "path": "/opt/tool", "digest": "sha256:00" }]);
    assert_eq!(refused(&fixture, approve, &mixed).await, (400, "not-refused".to_owned()));
    // By path alone nothing is approved.
    assert_eq!(refused(&fixture, approve, &json!({ "paths": ["/opt/tool"] })).await.0, 400);
    assert_eq!(fixture.get("/v1/policy").await["version"], 1);

    let approved = fixture.approve("press-1").await;
    assert_eq!(approved["approved"], json!(both));
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "trusted");
}

/// What approves the boot that the last result refused, as it names it.
async fn boot_approval(fixture: &Fixture, name: &str) -> Value {
    let device = fixture.get(&format!("/v1/devices/{name}")).await;
    let findings = device["findings"].as_array().unwrap().iter();
    let boot: Vec<Value> = findings.filter_map(|finding| finding.get("accept").cloned()).collect();
    json!({ "result": device["result"], "boot": boot })
}

#[tokio::test]
async fn an_accepted_boot_is_the_one_that_the_operator_saw() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    drop(stream);
    let line = |line: &str| System { command_line: line.into(), ..System::default() };
    let approve = "/v1/devices/press-1/approve";
    let boot = async |device: &mut SoftwareDevice, with: &str| {
        device.boot(&line(with));
        let mut stream = edge.attach(device).await.unwrap();
        stream.attest(device).await.unwrap().state
    };
    assert_eq!(boot(&mut device, "ro audit=1").await, "suspect");
    let seen = boot_approval(&fixture, "press-1").await;
    assert!(!seen["boot"].as_array().unwrap().is_empty(), "{seen}");

    // Another line, before the operator says yes.
    assert_eq!(boot(&mut device, "ro init=/bin/sh").await, "suspect");
    assert_eq!(refused(&fixture, approve, &seen).await, (409, "other-result".to_owned()));
    let mut mixed = boot_approval(&fixture, "press-1").await;
    assert_ne!(mixed["boot"], seen["boot"]);
    mixed["boot"] = seen["boot"].clone();
    assert_eq!(refused(&fixture, approve, &mixed).await, (400, "not-refused".to_owned()));
    assert_eq!(fixture.get("/v1/policy").await["version"], 1, "nothing was accepted");

    assert_eq!(boot(&mut device, "ro audit=1").await, "suspect");
    let approval = boot_approval(&fixture, "press-1").await;
    let answer = fixture.post(approve, &approval).await;
    assert_eq!((&answer["boot"], &answer["policy"]["version"]), (&approval["boot"], &json!(2)));
    assert_eq!(boot(&mut device, "ro audit=1").await, "trusted");
    assert_eq!(boot(&mut device, "ro init=/bin/sh").await, "suspect");
    device.boot(&System::default());
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "trusted", "the old boot is good as well");
}

#[tokio::test]
async fn a_boot_is_accepted_by_the_policy_that_refused_it_alone() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    drop(stream);
    device.boot(&System { command_line: "ro audit=1".into(), ..System::default() });
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "suspect");
    let approval = boot_approval(&fixture, "press-1").await;
    let mut policy: toml::Table = fixture.get("/v1/policy").await["text"].as_str().unwrap().parse().unwrap();
    policy.insert("version".to_owned(), 2.into());
    policy.insert("freshness".to_owned(), toml::toml! { evidence_age_max_seconds = 200 }.into());
    fixture.put("/v1/policy?force=true", &policy.to_string()).await;
    let answer = refused(&fixture, "/v1/devices/press-1/approve", &approval).await;
    assert_eq!(answer, (409, "other-policy-judged".to_owned()));
}

#[tokio::test]
async fn finding_17_a_tpm_whose_counters_went_back_needs_an_operators_word() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    for _ in 0..5 {
        device.boot(&System::default());
    }
    drop(stream);
    attach_trusted(&edge, &mut device).await;
    // TPM2_Clear: the counters begin anew, and every key below the EK is another.
    device.clear_tpm().unwrap();
    edge.enroll(&mut device).await.unwrap();
    // That alone does not let it pass: a TPM that was set back to an earlier state can enroll as well.
    let mut stream = edge.attach(&device).await.unwrap();
    let verdict = stream.attest(&mut device).await.unwrap();
    assert_eq!((verdict.state.as_str(), verdict.findings[0].check.as_str()), ("suspect", "reset-counter"));
    assert!(verdict.findings[0].message.contains("assay device readmit"), "{:?}", verdict.findings);
    // Who cleared it says so.
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "TPM cleared" })).await;
    fixture.post("/v1/devices/press-1/readmit", &json!({})).await;
    edge.enroll(&mut device).await.unwrap();
    let (_stream, grants) = attach_trusted(&edge, &mut device).await;
    assert!(!grants.device_svid.is_empty());
}

#[tokio::test]
async fn a_counter_that_goes_back_without_enrolling_again_is_a_fall() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    device.boot(&System::default());
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
    device.clock.reset_count -= 1;
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
}

#[tokio::test]
async fn finding_17_a_revoked_device_is_readmitted_and_enrolls_again() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, held) = fixture.trusted_device(&edge, "press-1", "").await;
    let readmit = "/v1/devices/press-1/readmit";
    assert_eq!(refused(&fixture, readmit, &json!({})).await, (409, "not-revoked".to_owned()));
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "lost" })).await;
    assert_eq!(code(edge.enroll(&mut device).await.unwrap_err()).1, "revoked");

    let answer = fixture.post(readmit, &json!({})).await;
    assert_eq!(answer["device"]["status"], "pending");
    assert_eq!(answer["events"][0]["kind"], "device.readmitted");
    // What it held stays withdrawn, and it holds nothing until it has enrolled and attested.
    let peer = assay_identity::verify_svid(
        &held.device_svid,
        &fixture.bundle(),
        &assay_identity::CrlSet::bootstrapping(),
        assay_identity::UnixTime::now(),
    );
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    assert!(Crl::parse(crl.body()).unwrap().revokes(peer.unwrap().serial()));
    edge.enroll(&mut device).await.unwrap();
    let (_stream, _) = attach_trusted(&edge, &mut device).await;
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
}

#[tokio::test]
async fn finding_17_a_name_is_one_devices() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut first = fixture.device("press-1");
    let mut second = fixture.device("press-1");
    let first_id = edge.enroll(&mut first).await.unwrap().device_id;
    let second_id = edge.enroll(&mut second).await.unwrap().device_id;
    // The name is the first's still, and the other has one that says so.
    assert_eq!(fixture.status("press-1").await["id"], first_id);
    let devices = fixture.get("/v1/devices").await["devices"].clone();
    let other = devices.as_array().unwrap().iter().find(|device| device["id"] == second_id.as_str()).unwrap();
    let name = other["name"].as_str().unwrap();
    assert!(name.starts_with("press-1-") && second_id.contains(&name["press-1-".len()..]), "{name}");
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    assert_eq!(fixture.get(&format!("/v1/devices/{name}")).await["device"]["status"], "enrolled");
    // Each keeps its own however often it enrolls.
    edge.enroll(&mut second).await.unwrap();
    assert_eq!(fixture.get(&format!("/v1/devices/{name}")).await["device"]["id"], second_id);
}

#[tokio::test]
async fn finding_18_a_trust_record_that_cannot_be_read_is_a_fault_and_grants_nothing() {
    let policy = "[freshness]\nevidence_age_max_seconds = 2";
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, held) = fixture.trusted_device(&edge, "press-1", policy).await;
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    let (_other_stream, _) = attach_trusted(&edge, &mut other).await;
    fixture.stop().await;
    fixture.tamper("UPDATE devices SET trust = '' WHERE name = 'press-1'").await;
    fixture.restart().await;
    let edge = fixture.edge().await;
    let mut stream = edge.attach(&device).await.unwrap();
    let refusal = code(stream.attest(&mut device).await.unwrap_err());
    assert_eq!(refusal, (Code::Internal, "store".to_owned()), "not an empty state, not busy");
    // It is in the list for what it is, and both expire: neither waits for the other.
    let listed = fixture.get("/v1/devices").await["devices"].clone();
    assert!(listed.as_array().unwrap().iter().any(|one| one["status"] == "unreadable"), "{listed}");
    let peer = assay_identity::verify_svid(
        &held.device_svid,
        &fixture.bundle(),
        &assay_identity::CrlSet::bootstrapping(),
        assay_identity::UnixTime::now(),
    );
    let serial = peer.unwrap().serial().clone();
    let fallen = async {
        loop {
            let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
            let expired = fixture.status("press-2").await["status"] == "expired";
            if expired && Crl::parse(crl.body()).unwrap().revokes(&serial) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), fallen).await.unwrap();
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(
        metrics.contains("assay_faults_total ") && !metrics.contains("assay_faults_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn finding_5_memory_that_is_not_as_the_store_has_it_is_mended_and_counted() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let entry = json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": device.device_id, "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": "uid:1000" }],
    });
    fixture.post("/v1/entries", &entry).await;
    assert_eq!(stream.grants().await.unwrap().entries.len(), 1);
    // Behind the back of the server's one writer.
    fixture.tamper_running("DELETE FROM entries".to_owned()).await;
    let told = timeout(Duration::from_secs(20), stream.grants()).await.unwrap().unwrap();
    assert!(told.entries.is_empty());
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    assert!(String::from_utf8_lossy(metrics.body()).contains("assay_mended_total 1"));
}

#[tokio::test]
async fn year_11_there_is_nothing_to_approve_of_a_device_that_nothing_is_wrong_with() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let approval = fixture.approval("press-1").await;
    let path = "/v1/devices/press-1/approve";
    let (status, code, message) =
        crate::assignment::refusal(&fixture, Method::POST, path, &approval.to_string()).await;
    assert_eq!((status, code.as_str()), (409, "nothing-to-approve"), "{message}");
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
}
