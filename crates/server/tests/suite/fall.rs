//! A change of the plan with which trusted devices would fall is refused, says whom and why, and needs a word more.

use axum::http::Method;
use serde_json::{Value, json};

use crate::assignment::refusal;
use crate::fixture::{Fixture, learned};

const POLICY: &str = "/v1/policy";
const ROLLOUTS: &str = "/v1/policies/rollouts";

/// Refused as a whole: the plan, the trail and the device are as they were.
async fn refused(fixture: &Fixture, method: Method, path: &str, body: &str, reason: &str) {
    let before = (fixture.get("/v1/policies").await, fixture.get("/v1/audit?limit=1000").await);
    let (status, code, message) = refusal(fixture, method, path, body).await;
    assert_eq!((status, code.as_str()), (409, "would-fall"), "{path}: {message}");
    assert!(message.contains(reason) && message.contains("--force"), "{path}: {message}");
    assert_eq!((fixture.get("/v1/policies").await, fixture.get("/v1/audit?limit=1000").await), before);
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
}

async fn last_leaf(fixture: &Fixture, kind: &str) -> Value {
    let trail = fixture.get("/v1/audit?limit=1000").await;
    let leaves = trail["leaves"].as_array().unwrap();
    leaves.iter().rev().find(|leaf| leaf["kind"] == kind).unwrap_or_else(|| panic!("{kind}: {trail}")).clone()
}

#[tokio::test]
async fn year_8_no_policy_takes_devices_down_without_a_word_more() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let good = learned(&mut device, "");
    let bad = good.replace("/usr/bin/bash", "/usr/bin/zsh");
    assert_ne!(good, bad);

    refused(&fixture, Method::PUT, POLICY, &bad, "press-1: `/usr/bin/bash`").await;
    let by_label = format!("{POLICY}?selector=hall%3D3");
    fixture.put(&by_label, &bad).await; // It is nobody's yet.
    refused(
        &fixture,
        Method::POST,
        "/v1/policies/unassign",
        r#"{"selector":""}"#,
        "no policy would judge it",
    )
    .await;

    fixture.put(&format!("{POLICY}?force=true"), &bad).await;
    assert_eq!(last_leaf(&fixture, "policy.set").await["detail"]["forced"], true);
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "contraindicated");
    // Who is down already does not stand in the way of the cure, nor of anything else.
    fixture.put(POLICY, &bad.replace("/usr/bin/zsh", "/usr/bin/dash")).await;
    fixture.put(POLICY, &good).await;
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "affirming");
}

#[tokio::test]
async fn year_8_an_abort_takes_no_updated_device_down_without_a_word_more() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let good = learned(&mut device, "");
    device.run_program("/usr/bin/new", b"a program of the next version");
    let next = learned(&mut device, "");
    assert_ne!(good, next);
    fixture.post_text(&format!("{ROLLOUTS}?percent=100"), &next).await;
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "trusted");
    let abort = format!("{ROLLOUTS}/base/abort");
    refused(&fixture, Method::POST, &abort, "", "press-1: `/usr/bin/new`").await;
    fixture.post(&abort, &json!({ "force": true })).await;
    assert_eq!(last_leaf(&fixture, "rollout.aborted").await["detail"]["forced"], true);
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "contraindicated");
}

#[tokio::test]
async fn year_8_no_label_takes_a_device_to_a_policy_that_it_fails_without_a_word_more() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let good = learned(&mut device, "");
    fixture.put(&format!("{POLICY}?selector=hall%3D3"), &good.replace("/usr/bin/bash", "/usr/bin/zsh")).await;
    fixture.put(&format!("{POLICY}?selector=hall%3D4"), &good).await;
    let labels = "/v1/devices/press-1/labels";
    refused(&fixture, Method::POST, labels, r#"{"set":["hall=3"]}"#, "press-1: `/usr/bin/bash`").await;
    // One under which it stays is its own, and so is one that changes no policy.
    fixture.post(labels, &json!({ "set": ["hall=4"] })).await;
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "affirming");
    fixture.post(labels, &json!({ "set": ["line=1"] })).await;
    refused(&fixture, Method::POST, labels, r#"{"set":["hall=3"]}"#, "press-1: `/usr/bin/bash`").await;

    fixture.post(labels, &json!({ "set": ["hall=3"], "force": true })).await;
    assert_eq!(last_leaf(&fixture, "device.labelled").await["detail"]["forced"], true);
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "contraindicated");
    // The cure needs no such word.
    fixture.post(labels, &json!({ "set": ["hall=4"] })).await;
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "affirming");
}
