//! Labels choose the policy: who is judged by what, who is asked again, and what is refused.

use std::time::Duration;

use assay_testkit::SoftwareDevice;
use assay_testkit::edge::{Attachment, Edge};
use assay_testkit::software_device::telemetry::Place;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fixture::{Fixture, attach_trusted, learned};

const PARIS: &str = "/v1/policy?selector=site%3Dparis";

/// An enrolled device with a label.
async fn labelled(fixture: &Fixture, edge: &Edge, name: &str, label: &str) -> SoftwareDevice {
    let mut device = fixture.device(name);
    edge.enroll(&mut device).await.unwrap();
    fixture.post(&format!("/v1/devices/{name}/labels"), &json!({ "set": [label] })).await;
    device
}

/// What an operator is told who asks for something that cannot be.
pub async fn refusal(fixture: &Fixture, method: Method, path: &str, body: &str) -> (u16, String, String) {
    let bearer = format!("Bearer {}", fixture.token());
    let answer = fixture.call(method, path, &[("authorization", &bearer)], body.to_owned()).await;
    let value: Value = serde_json::from_slice(answer.body()).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (code, message) = match &value["error"] {
        // As the protocol of old says it.
        Value::String(_) => (text(&value["reason"]), text(&value["detail"])),
        error => (text(&error["code"]), text(&error["message"])),
    };
    (answer.status().as_u16(), code, message)
}

/// Not challenged: long enough for one that was on its way.
pub async fn is_left_alone(stream: &mut Attachment) -> bool {
    timeout(Duration::from_millis(300), stream.challenge()).await.is_err()
}

#[tokio::test]
async fn the_policy_with_the_most_labels_judges_and_only_who_is_concerned_is_asked_again() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut paris = labelled(&fixture, &edge, "press-paris", "site=paris").await;
    let mut lyon = labelled(&fixture, &edge, "press-lyon", "site=lyon").await;
    fixture.put("/v1/policy", &learned(&mut lyon, "")).await;
    let (mut paris_stream, _) = attach_trusted(&edge, &mut paris).await;
    let (mut lyon_stream, _) = attach_trusted(&edge, &mut lyon).await;

    let set = fixture.put(PARIS, &learned(&mut paris, "")).await;
    assert_eq!((&set["version"], &set["selector"]), (&json!(2), &json!("site=paris")));
    assert_eq!(paris_stream.attest(&mut paris).await.unwrap().policy, "base v2");
    assert!(is_left_alone(&mut lyon_stream).await);
    let plan = fixture.get("/v1/policies").await;
    let rows: Vec<Value> = plan["assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!([row["selector"], row["version"], row["devices"], row["trusted"]]))
        .collect();
    assert_eq!(rows, [json!(["", 1, 1, 1]), json!(["site=paris", 2, 1, 1])]);

    // A device that moves is judged by what is in force where it is now.
    fixture.post("/v1/devices/press-lyon/labels", &json!({ "set": ["site=paris"] })).await;
    assert_eq!(lyon_stream.attest(&mut lyon).await.unwrap().policy, "base v2");
    assert!(is_left_alone(&mut paris_stream).await);
    let moved = fixture.status("press-lyon").await;
    assert_eq!(
        (&moved["labels"], &moved["policy_in_force"]),
        (&json!({ "site": "paris" }), &json!("base v2"))
    );
    fixture.post("/v1/policies/unassign", &json!({ "selector": "site=paris" })).await;
    assert_eq!(lyon_stream.attest(&mut lyon).await.unwrap().policy, "base v1");
    assert_eq!(paris_stream.attest(&mut paris).await.unwrap().policy, "base v1");
}

#[tokio::test]
async fn a_device_without_a_policy_gets_nothing() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut paris = labelled(&fixture, &edge, "press-paris", "site=paris").await;
    let mut other = fixture.device("press-other");
    edge.enroll(&mut other).await.unwrap();
    fixture.put(PARIS, &learned(&mut paris, "")).await;
    let (mut stream, _) = attach_trusted(&edge, &mut paris).await;
    let mut other_stream = edge.attach(&other).await.unwrap();
    let verdict = other_stream.attest(&mut other).await.unwrap();
    assert_eq!((verdict.tier.as_str(), verdict.findings[0].check.as_str()), ("none", "policy-present"));
    assert_eq!(fixture.get("/v1/policies").await["devices_without_policy"], 1);
    assert_eq!(fixture.get("/v1/policy").await["name"], Value::Null);
    // Taken back, it leaves nothing behind.
    fixture.post("/v1/policies/unassign", &json!({ "selector": "site=paris", "force": true })).await;
    assert_ne!(stream.attest(&mut paris).await.unwrap().state, "trusted");
    assert!(stream.grants().await.unwrap().withdrawn);
}

#[tokio::test]
async fn labels_given_while_a_stream_has_yet_to_prove_itself_count() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    fixture.put(PARIS, &learned(&mut device, "")).await;
    let mut stream = edge.attach(&device).await.unwrap();
    let challenge = stream.challenge().await.unwrap();
    fixture.post("/v1/devices/press-1/labels", &json!({ "set": ["site=paris"] })).await;
    stream.answer(device.evidence(&challenge).unwrap()).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().policy, "base v1");
    assert_eq!(stream.attest(&mut device).await.unwrap().policy, "base v2");
}

#[tokio::test]
async fn telemetry_is_fenced_by_the_devices_own_policy() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut paris = labelled(&fixture, &edge, "press-paris", "site=paris").await;
    let fence = |country: &str| format!("[location]\nallow_countries = [{country:?}]");
    let (mut other, _stream, _) = fixture.trusted_device(&edge, "press-other", &fence("DE")).await;
    fixture.put(PARIS, &learned(&mut paris, &fence("FR"))).await;
    let (_paris_stream, _) = attach_trusted(&edge, &mut paris).await;
    for (device, mine, theirs) in [(&mut paris, "FR", "DE"), (&mut other, "DE", "FR")] {
        for (country, accepted) in [(theirs, false), (mine, true)] {
            let statement = device.statement(b"metrics", Some(Place::configured(country, "", "")));
            let answer = edge.submit(device.submit(&statement, b"metrics").unwrap()).await.unwrap();
            assert_eq!(answer.accepted, accepted, "{}: {country}", device.name);
        }
    }
}

#[tokio::test]
async fn labels_outlive_a_restart_and_a_new_enrollment() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = labelled(&fixture, &edge, "press-1", "site=paris").await;
    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    fixture.put(PARIS, &learned(&mut device, "")).await;
    fixture.restart().await;
    let edge = fixture.edge().await;
    edge.enroll(&mut device).await.unwrap();
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().policy, "base v2");
    let shown = fixture.get("/v1/policy?device=press-1").await;
    assert_eq!((&shown["version"], &shown["name"]), (&json!(2), &json!("base")));
    let labels = json!({ "set": ["line=3"], "remove": ["site"] });
    let answer = fixture.post("/v1/devices/press-1/labels", &labels).await;
    assert_eq!(answer["device"]["labels"], json!({ "line": "3" }));
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let labelled: Vec<&Value> =
        leaves.as_array().unwrap().iter().filter(|leaf| leaf["kind"] == "device.labelled").collect();
    assert_eq!(labelled.len(), 2);
    assert_eq!(labelled[1]["detail"], json!({ "from": "site=paris", "to": "line=3" }));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_do() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let _device = fixture.known_device(&edge, "press-1", "").await;
    let text = fixture.get("/v1/policy").await["text"].as_str().unwrap().to_owned();
    fixture.put(PARIS, &text).await;
    let labels = "/v1/devices/press-1/labels";
    let many: Vec<String> = (0..17).map(|number| format!("k{number}=v")).collect();
    let many = json!({ "set": many }).to_string();
    let cases = [
        (Method::POST, labels, r#"{"set":["site"]}"#, 400, "label", "write key=value"),
        (Method::POST, labels, r#"{"set":["a b=c"]}"#, 400, "label", "letters, digits"),
        (Method::POST, labels, r#"{"remove":["site"]}"#, 400, "no-label", "has no label"),
        (Method::POST, labels, many.as_str(), 400, "label", "16 labels"),
        (Method::POST, labels, r#"{"labels":{}}"#, 400, "json", "unknown field"),
        (Method::PUT, "/v1/policy?selector=line%3D3", text.as_str(), 409, "ambiguous", "line=3,site=paris"),
        (Method::PUT, "/v1/policy?selector=line", text.as_str(), 400, "label", "write key=value"),
        (Method::GET, "/v1/policy?selector=line%3D3", "", 404, "not-assigned", "devices with line=3"),
        (Method::GET, "/v1/policy?name=base", "", 409, "ambiguous", "devices with site=paris"),
        (Method::GET, "/v1/policy?name=edge", "", 404, "unknown-policy", "policy list"),
        (Method::GET, "/v1/policy?name=base&version=9", "", 404, "unknown", "policy"),
        (Method::GET, "/v1/policy?version=1", "", 400, "query", "version only beside name"),
        (Method::POST, "/v1/policies/unassign", r#"{"selector":"a=b"}"#, 404, "not-assigned", "policy list"),
        (Method::POST, "/v1/policies/unassign", "{}", 400, "json", "selector"),
    ];
    for (method, path, body, status, code, says) in cases {
        let (found_status, found_code, message) = refusal(&fixture, method, path, body).await;
        assert_eq!((found_status, found_code.as_str()), (status, code), "{path} {body}: {message}");
        assert!(message.contains(says), "{path}: {message}");
    }
    assert_eq!(fixture.status("press-1").await["labels"], json!({}));
    assert_eq!(fixture.get("/v1/policy?name=base&version=1").await["text"], text);
}

#[tokio::test]
async fn of_two_policies_set_at_once_both_are_published_and_one_is_in_force() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    let text = learned(&mut device, "");
    let put = || fixture.put("/v1/policy", &text);
    let (one, two, three, four) = tokio::join!(put(), put(), put(), put());
    let mut versions = [one, two, three, four].map(|answer| answer["version"].as_u64().unwrap());
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert_eq!(fixture.get("/v1/policy").await["version"], 4);
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().policy, "base v4", "what is stored is what judges");
}
