//! A new TPM in a device's place: one step takes over what operators said of the old one, and ends it.

use assay_testkit::edge::Edge;
use hyper::Method;
use serde_json::{Value, json};

use crate::assignment::refusal;
use crate::fixture::{Fixture, attach_trusted, code, learned};

fn entry(parent: &str) -> Value {
    json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": parent, "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": "uid:1000" }],
    })
}

/// A trusted device with labels and an entry, and a new one of the same name.
async fn old_and_new(fixture: &Fixture, edge: &Edge) -> (String, String) {
    let (old, _stream, _) = fixture.trusted_device(edge, "press-1", "").await;
    fixture.post("/v1/devices/press-1/labels", &json!({ "set": ["site=paris"] })).await;
    fixture.post("/v1/entries", &entry("press-1")).await;
    let new = edge.enroll(&mut fixture.device("press-1")).await.unwrap().device_id;
    (old.device_id.unwrap(), new)
}

#[tokio::test]
async fn year_10_a_new_tpm_takes_over_name_labels_and_entries_and_the_old_one_ends() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut old, mut stream, held) = fixture.trusted_device(&edge, "press-1", "").await;
    fixture.post("/v1/devices/press-1/labels", &json!({ "set": ["site=paris"] })).await;
    fixture.post("/v1/entries", &entry("press-1")).await;
    assert_eq!(stream.grants().await.unwrap().entries.len(), 1);
    let mut new = fixture.device("press-1");
    let new_id = edge.enroll(&mut new).await.unwrap().device_id;
    let (mut new_stream, granted) = attach_trusted(&edge, &mut new).await;
    assert!(granted.entries.is_empty());

    let body = json!({ "by": new_id });
    let answer = fixture.post("/v1/devices/press-1/replace", &body).await;
    assert_eq!((&answer["device"]["id"], &answer["device"]["name"]), (&json!(new_id), &json!("press-1")));
    assert_eq!((&answer["device"]["labels"], &answer["entries"]), (&json!({ "site": "paris" }), &json!(1)));
    assert_eq!(new_stream.grants().await.unwrap().entries.len(), 1, "it has what the old one had");
    assert!(stream.grants().await.unwrap().withdrawn, "which has nothing any more");
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    let crl = assay_identity::Crl::parse(crl.body()).unwrap();
    let bundle = fixture.bundle();
    let lists = assay_identity::CrlSet::bootstrapping();
    let peer =
        assay_identity::verify_svid(&held.device_svid, &bundle, &lists, assay_identity::UnixTime::now());
    assert!(crl.revokes(peer.unwrap().serial()));
    // It is there under a name that says so, and does not come back.
    let name = answer["replaced"]["name"].as_str().unwrap();
    assert!(name.starts_with("press-1-"), "{name}");
    let ended = fixture.status(name).await;
    assert_eq!((&ended["id"], &ended["status"]), (&json!(old.device_id), &json!("revoked")));
    assert!(ended["reason"].as_str().unwrap().contains(&new_id), "{ended}");
    let refused = code(edge.enroll(&mut old).await.unwrap_err());
    assert_eq!(refused.1, "revoked");
    // On record, and in the new device's own history.
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let leaf = leaves.as_array().unwrap().iter().find(|leaf| leaf["kind"] == "device.replaced").unwrap();
    assert_eq!((&leaf["subject"], &leaf["detail"]["device"]), (&json!(new_id), &json!(old.device_id)));
    let explained = fixture.get("/v1/devices/press-1").await;
    let events = explained["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["kind"] == "device.replaced"), "{explained}");
}

#[tokio::test]
async fn year_10_only_a_device_that_stands_replaces_another() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (old, new) = old_and_new(&fixture, &edge).await;
    let path = "/v1/devices/press-1/replace";
    let replace = async |by: &str| {
        let (status, code, _) = refusal(&fixture, Method::POST, path, &json!({ "by": by }).to_string()).await;
        (status, code)
    };
    assert_eq!(replace("press-1").await, (400, "itself".to_owned()));
    assert_eq!(replace("press-9").await, (404, "unknown-device".to_owned()));
    let hash = new.rsplit('/').next().unwrap();
    fixture.post(&format!("/v1/devices/{hash}/revoke"), &json!({ "reason": "stolen" })).await;
    assert_eq!(replace(hash).await, (409, "revoked".to_owned()));
    // Nothing of it happened. What is ended already can be replaced all the same.
    assert_eq!(fixture.status("press-1").await["id"], old);
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    let newer = edge.enroll(&mut fixture.device("press-2")).await.unwrap().device_id;
    fixture.post(path, &json!({ "by": "press-2" })).await;
    assert_eq!(fixture.status("press-1").await["id"], newer);
    assert_eq!(fixture.get("/v1/entries").await["entries"][0]["parent"], newer);
}

#[tokio::test]
async fn year_10_no_device_falls_by_what_it_takes_over_without_a_word_more() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    old_and_new(&fixture, &edge).await;
    let mut new = fixture.device("press-2");
    edge.enroll(&mut new).await.unwrap();
    let _stream = attach_trusted(&edge, &mut new).await;
    let other = learned(&mut new, "").replace("/usr/bin/bash", "/usr/bin/zsh");
    fixture.put("/v1/policy?selector=site%3Dparis&force=true", &other).await;
    let path = "/v1/devices/press-1/replace";
    let body = json!({ "by": "press-2" }).to_string();
    let (status, code, message) = refusal(&fixture, Method::POST, path, &body).await;
    assert_eq!((status, code.as_str()), (409, "would-fall"), "{message}");
    assert!(message.contains("press-2: `/usr/bin/bash`"), "{message}");
    fixture.post(path, &json!({ "by": "press-2", "force": true })).await;
    assert_eq!(fixture.status("press-1").await["id"], json!(new.device_id));
}
