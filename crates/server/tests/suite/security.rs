//! Who tries what they may not leaves a trace: counted by cause, on record with who and from where, and never with what was shown.

use assay_server::EnrollmentMode;
use assay_testkit::EkMaker;
use assay_testkit::edge::Edge;
use assay_testkit::software_device::lie::Lie;
use hyper::Method;
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// What is on record of a cause, the newest first, once there is something.
async fn on_record(fixture: &Fixture, cause: &str) -> Vec<Value> {
    for _ in 0..200 {
        let answer = fixture.get("/v1/security").await;
        let refusals = answer["refusals"].as_array().unwrap().clone();
        let found: Vec<Value> = refusals.into_iter().filter(|one| one["cause"] == cause).collect();
        if !found.is_empty() {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("nothing on record of {cause}");
}

async fn count(fixture: &Fixture, cause: &str) -> u64 {
    fixture.get("/v1/security").await["counts"][cause].as_u64().unwrap()
}

#[tokio::test]
async fn year_6_tokens_that_are_not_the_operators_are_counted_and_on_record_and_never_shown() {
    let fixture = Fixture::start().await;
    let guess = "a-token-that-was-guessed";
    let bearer = format!("Bearer {guess}");
    for _ in 0..5 {
        let headers = [("authorization", bearer.as_str())];
        let answer = fixture.call(Method::GET, "/v1/devices", &headers, String::new()).await;
        assert_eq!(answer.status(), 401);
    }
    fixture.call(Method::POST, "/sign-in", &[], format!("token={guess}")).await;
    // Who shows none has forgotten it.
    fixture.call(Method::GET, "/v1/devices", &[], String::new()).await;
    assert_eq!(count(&fixture, "operator-token").await, 6);
    let refusals = on_record(&fixture, "operator-token").await;
    assert_eq!(refusals.len(), 1, "once an hour of one address: {refusals:?}");
    assert_eq!((&refusals[0]["from"], &refusals[0]["who"]), (&json!("127.0.0.1"), &json!("")));
    assert_eq!(refusals[0]["why"], "at /v1/devices");
    // It is a leaf like any other, and what was shown is nowhere.
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].to_string();
    assert!(leaves.contains("security.refused") && !leaves.contains(guess), "{leaves}");
    let bearer = format!("Bearer {}", fixture.token());
    let page = fixture.call(Method::GET, "/", &[("authorization", bearer.as_str())], String::new()).await;
    let page = String::from_utf8_lossy(page.body()).into_owned();
    assert!(page.contains("operator-token") && page.contains("127.0.0.1"), "{page}");
}

#[tokio::test]
async fn year_6_what_comes_in_a_devices_name_and_is_not_from_it_is_on_record() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let id = device.device_id.clone().unwrap();
    drop(stream);
    // Another machine with the state folder of this one: it says its name, and its TPM cannot sign for it.
    let thief = edge.on_behalf_of("192.0.2.66", None);
    let mut other = fixture.device("press-2");
    other.device_id = Some(id.clone());
    let mut stolen = thief.attach(&other).await.unwrap();
    stolen.attest(&mut other).await.unwrap_err();
    let refusals = on_record(&fixture, "evidence").await;
    assert_eq!((&refusals[0]["who"], &refusals[0]["from"]), (&json!(id), &json!("192.0.2.66")));
    // A log that was stripped on the way.
    let mut device = device;
    let mut stream = edge.attach(&device).await.unwrap();
    stream.lie(&mut device, Lie::ImaEntryLeftOut).await.ok();
    // And a batch that another key signed.
    let statement = device.statement(b"payload", None);
    let mut batch = device.submit(&statement, b"payload").unwrap();
    let last = batch.signature.len() - 1;
    batch.signature[last] ^= 1;
    thief.submit(batch).await.unwrap_err();
    let refusals = on_record(&fixture, "telemetry").await;
    assert_eq!((&refusals[0]["who"], &refusals[0]["why"]), (&json!(id), &json!("device-signature")));
    // A device that was ended, and comes again.
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    let mut stream = thief.attach(&device).await.unwrap();
    while stream.next().await.is_ok() {}
    assert_eq!(on_record(&fixture, "revoked-device").await[0]["who"], json!(id));
}

#[tokio::test]
async fn year_6_enrollments_and_gateways_that_are_refused_are_on_record() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await.on_behalf_of("192.0.2.9", None);
    let stranger = EkMaker::new().unwrap();
    let mut device = assay_testkit::SoftwareDevice::new("stranger", &stranger).unwrap();
    edge.enroll(&mut device).await.unwrap_err();
    let refusals = on_record(&fixture, "enrollment").await;
    let why = refusals[0]["why"].as_str().unwrap();
    assert!(why.starts_with("ek-chain: ") && refusals[0]["from"] == "192.0.2.9", "{refusals:?}");
    assert!(refusals[0]["who"].as_str().unwrap().contains("/spire/agent/tpm/"), "{refusals:?}");
    // Nobody is a gateway without a certificate; a lost connection is no attempt.
    drop(tokio::net::TcpStream::connect(fixture.running().addresses().edge).await.unwrap());
    if let Ok(edge) = Edge::connect(&fixture.door_showing(None)).await {
        edge.attach_as("x").await.unwrap_err();
    }
    let refusals = on_record(&fixture, "gateway").await;
    assert_eq!((refusals.len(), &refusals[0]["from"]), (1, &json!("127.0.0.1")));
    assert_eq!(count(&fixture, "gateway").await, 1);
}

#[tokio::test]
async fn year_6_a_device_that_begins_to_wait_is_on_record_once_and_counted() {
    let fixture = Fixture::with(|config| config.enrollment = EnrollmentMode::Approved).await;
    let edge = fixture.edge().await.on_behalf_of("192.0.2.17", None);
    let mut device = fixture.device("press-1");
    for _ in 0..3 {
        edge.enroll(&mut device).await.unwrap_err();
    }
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let waiting: Vec<&Value> =
        leaves.as_array().unwrap().iter().filter(|leaf| leaf["kind"] == "device.waiting").collect();
    assert_eq!(waiting.len(), 1, "{leaves}");
    assert!(waiting[0]["detail"].to_string().contains("192.0.2.17"), "{waiting:?}");
    // To wait is no offence.
    assert_eq!(count(&fixture, "enrollment").await, 0);
    for _ in 0..1000 {
        let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
        if String::from_utf8_lossy(metrics.body()).contains("assay_devices_waiting 1\n") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("who waits is not counted");
}

/// Many of one cause do not grow the trail without bound.
#[tokio::test]
async fn year_6_a_thousand_attempts_take_a_bounded_room_on_record() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let stranger = EkMaker::new().unwrap();
    for number in 0..100_u32 {
        let mut device = assay_testkit::SoftwareDevice::new("stranger", &stranger).unwrap();
        let edge = edge.on_behalf_of(&format!("198.51.100.{number}"), None);
        edge.enroll(&mut device).await.unwrap_err();
    }
    assert_eq!(count(&fixture, "enrollment").await, 100);
    let on_record = on_record(&fixture, "enrollment").await.len();
    assert!((30..=62).contains(&on_record), "{on_record}");
}
