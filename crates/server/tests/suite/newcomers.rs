//! Who may enroll that was never here: automatic, listed, or on an operator's word.

use assay_server::{Config, EnrollmentMode};
use assay_testkit::SoftwareDevice;
use assay_testkit::edge::Edge;
use hyper::Method;
use serde_json::{Value, json};
use tonic::Code;

use crate::assignment::refusal;
use crate::fixture::{Fixture, attach_trusted, code, learned};

fn hash(device: &SoftwareDevice) -> String {
    data_encoding::HEXLOWER.encode(&assay_telemetry::sha256(device.ek.spki()))
}

async fn refused(edge: &Edge, device: &mut SoftwareDevice) -> (Code, String) {
    code(edge.enroll(device).await.unwrap_err())
}

fn approved(config: &mut Config) {
    config.enrollment = EnrollmentMode::Approved;
}

#[tokio::test]
async fn year_10_who_was_never_here_waits_shown_for_what_it_is_and_gets_nothing() {
    let fixture = Fixture::with(approved).await;
    let edge = fixture.edge().await.on_behalf_of("192.0.2.17", None);
    let mut device = fixture.device("press-1");
    let waits = (Code::FailedPrecondition, "admission-pending".to_owned());
    assert_eq!(refused(&edge, &mut device).await, waits);
    assert_eq!(refused(&edge, &mut device).await, waits);
    // Once, with what its makers say of it.
    let pending = fixture.get("/v1/pending").await["pending"].clone();
    assert_eq!(pending.as_array().unwrap().len(), 1, "{pending}");
    let shown = &pending[0];
    let serial = data_encoding::HEXLOWER.encode(&device.ek.certificate_serial());
    for (what, expected) in [
        ("name", json!("press-1")),
        ("ek_sha256", json!(hash(&device))),
        ("address", json!("192.0.2.17")),
        ("word", json!("waiting")),
        ("serial", Value::Null),
    ] {
        assert_eq!(shown[what], expected, "{what}: {shown}");
    }
    assert_eq!(shown["ek_serial"].as_str().unwrap().trim_start_matches('0'), serial.trim_start_matches('0'));
    assert!(shown["ek_manufacturer"].is_string() && shown["ek_issuer"].is_string(), "{shown}");
    assert!(shown["first_at"].as_u64() <= shown["last_at"].as_u64(), "{shown}");
    // It is no device: none is listed, nothing is granted, and it cannot attach.
    assert_eq!(fixture.get("/v1/devices").await["devices"], json!([]));
    let id = format!("spiffe://test.assay.example/spire/agent/tpm/{}", hash(&device));
    let mut stream = edge.attach_as(&id).await.unwrap();
    assert_eq!(code(stream.next().await.unwrap_err()).0, Code::NotFound);
    assert_eq!(fixture.count("SELECT COUNT(*) AS n FROM svids WHERE device_id <> ''").await, 0);
    // The page shows it, with what lets it in.
    let bearer = format!("Bearer {}", fixture.token());
    let headers = [("authorization", bearer.as_str())];
    let page = fixture.call(Method::GET, "/", &headers, String::new()).await;
    let page = String::from_utf8_lossy(page.body()).into_owned();
    let command = format!("assay device admit {}", &hash(&device)[..12]);
    assert!(page.contains(&command) && page.contains("192.0.2.17"), "{page}");

    let said = fixture.post(&format!("/v1/pending/{}/admit", &hash(&device)[..12]), &json!({})).await;
    assert_eq!(said["word"], "admitted");
    edge.enroll(&mut device).await.unwrap();
    assert_eq!(fixture.get("/v1/pending").await["pending"], json!([]));
    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    attach_trusted(&fixture.edge().await, &mut device).await;
    // Known is known: nobody is asked again.
    edge.enroll(&mut device).await.unwrap();
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let said: Vec<&Value> =
        leaves.as_array().unwrap().iter().filter(|leaf| leaf["kind"] == "device.admitted").collect();
    assert_eq!(said.len(), 1);
    assert_eq!((&said[0]["actor"], &said[0]["subject"]), (&json!("operator"), &json!(id)));
}

#[tokio::test]
async fn year_10_a_denied_device_stays_out_in_every_mode_until_it_is_admitted() {
    let mut fixture = Fixture::with(approved).await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    refused(&edge, &mut device).await;
    fixture.post("/v1/pending/press-1/deny", &json!({ "reason": "not ours" })).await;
    let denied = (Code::PermissionDenied, "admission-denied".to_owned());
    assert_eq!(refused(&edge, &mut device).await, denied);
    assert_eq!(fixture.get("/v1/pending").await["pending"][0]["reason"], "not ours");
    fixture.restart_with(|config| config.enrollment = EnrollmentMode::Automatic).await.unwrap();
    let edge = fixture.edge().await;
    assert_eq!(refused(&edge, &mut device).await, denied);
    fixture.post("/v1/pending/press-1/admit", &json!({})).await;
    edge.enroll(&mut device).await.unwrap();
    for (path, body, status) in [
        ("/v1/pending/press-9/admit", "{}", 404),
        ("/v1/pending/press-1/admit", "{}", 404),
        ("/v1/pending/press-1/deny", "{\"reason\":\" \"}", 400),
    ] {
        assert_eq!(refusal(&fixture, Method::POST, path, body).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn year_10_a_manifest_lets_in_whom_it_lists_and_is_read_again_when_it_changes() {
    let mut fixture = Fixture::start().await;
    let [mut listed, mut other, mut machine] =
        ["press-1", "press-2", "press-3"].map(|name| fixture.device(name));
    machine.identity = Some(fixture.maker.identity("PRS-3").unwrap());
    let path = fixture.folder().join("manifest.toml");
    std::fs::write(&path, format!("ek_sha256 = [\"{}\"]\nserials = [\"PRS-3\"]", hash(&listed))).unwrap();
    let anchors = vec![fixture.folder().join("maker.pem")];
    let manifest = path.clone();
    let change = |config: &mut Config| {
        config.enrollment = EnrollmentMode::Listed;
        config.enrollment_manifest = Some(manifest);
        config.idevid_anchors = anchors;
    };
    fixture.restart_with(change).await.unwrap();
    let edge = fixture.edge().await;
    edge.enroll(&mut listed).await.unwrap();
    edge.enroll(&mut machine).await.unwrap();
    let not_listed = (Code::PermissionDenied, "not-listed".to_owned());
    assert_eq!(refused(&edge, &mut other).await, not_listed);
    assert_eq!(fixture.get("/v1/pending").await["pending"], json!([]), "who is on no list does not wait");
    // One that does not read changes nothing; one that does lists whom it lists.
    std::fs::write(&path, "ek_sha256 = 7").unwrap();
    std::fs::write(&path, format!("ek_sha256 = [\"{}\", \"{}\"]", hash(&listed), hash(&other))).unwrap();
    while edge.enroll(&mut other).await.is_err() {
        tokio::task::yield_now().await;
    }
    // Who is in stays in.
    edge.enroll(&mut machine).await.unwrap();
    let nobody = Fixture::try_with(|config| {
        config.enrollment = EnrollmentMode::Listed;
        config.enrollment_manifest = Some("/nowhere/manifest.toml".into());
    });
    assert!(nobody.await.err().unwrap().contains("enrollment manifest"));
}

#[tokio::test]
async fn year_10_those_that_wait_take_a_bounded_room() {
    let fixture = Fixture::with(|config| {
        approved(config);
        config.limits.pending_devices_max = 3;
    })
    .await;
    let edge = fixture.edge().await;
    let mut devices: Vec<SoftwareDevice> = (0..5).map(|n| fixture.device(&format!("press-{n}"))).collect();
    refused(&edge, &mut devices[0]).await;
    fixture.post("/v1/pending/press-0/admit", &json!({})).await;
    for device in &mut devices[1..] {
        assert_eq!(refused(&edge, device).await.1, "admission-pending");
    }
    let pending = fixture.get("/v1/pending").await["pending"].clone();
    let names: Vec<&str> =
        pending.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    // What an operator said stays, and the newest is there; whoever made room comes again.
    assert!(names.len() == 3 && names.contains(&"press-0") && names.contains(&"press-4"), "{names:?}");
    edge.enroll(&mut devices[0]).await.unwrap();
}
