//! Entries as operators live with them: found, changed, made many at a time, and told who has them.

use std::time::Instant;

use assay_identity::{Crl, CrlSet, verify_svid};
use hyper::Method;
use serde_json::{Value, json};

use crate::assignment::refusal;
use crate::fixture::Fixture;
use crate::workloads::ask;

fn entry(parent: &str, uid: u32) -> Value {
    json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": parent, "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
    })
}

/// The ID of a device that has yet to enroll.
fn coming(number: u8) -> String {
    format!("spiffe://test.assay.example/spire/agent/tpm/{}", data_encoding::HEXLOWER.encode(&[number; 32]))
}

fn with(mut entry: Value, member: &str, value: Value) -> Value {
    entry[member] = value;
    entry
}

#[tokio::test]
async fn an_entry_that_changes_takes_back_what_it_gave_under_another_name_and_nothing_else() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let created = fixture.post("/v1/entries", &entry("press-1", 7)).await;
    let (id, path) =
        (created["id"].as_str().unwrap(), format!("/v1/entries/{}", created["id"].as_str().unwrap()));
    assert_eq!((&created["revision"], &fixture.get(&path).await), (&json!(1), &created));
    stream.grants().await.unwrap();
    let request = device.workload_request(stream.place(), id).unwrap();
    let first = ask(&mut stream, request).await;
    assert_eq!(first.denied, "");

    // A hint and a life are about what comes.
    let hinted = with(with(entry("press-1", 7), "hint", json!("internal")), "ttl_seconds", json!(60));
    let updated = fixture.put(&path, &with(hinted.clone(), "revision", json!(1)).to_string()).await;
    assert_eq!(
        (&updated["id"], &updated["revision"], &updated["hint"]),
        (&json!(id), &json!(2), &json!("internal"))
    );
    let grants = stream.grants().await.unwrap();
    assert_eq!((grants.entries[0].hint.as_str(), grants.entries[0].id.as_str()), ("internal", id));
    let now = assay_identity::UnixTime::now();
    let peer = verify_svid(&first.svid, &fixture.bundle(), &CrlSet::bootstrapping(), now).unwrap();
    let serial = peer.serial();
    assert!(!Crl::parse(&grants.crl).unwrap().revokes(serial));

    // Other workloads are not those that hold the key.
    let other = with(hinted, "selectors", json!([{ "type": "unix", "value": "uid:8" }]));
    let stale =
        refusal(&fixture, Method::PUT, &path, &with(other.clone(), "revision", json!(1)).to_string()).await;
    assert_eq!((stale.0, stale.1.as_str()), (409, "conflict"), "{}", stale.2);
    fixture.put(&path, &other.to_string()).await;
    loop {
        let grants = stream.grants().await.unwrap();
        let is_listed = Crl::parse(&grants.crl).unwrap().revokes(serial);
        if is_listed && grants.entries[0].selectors[0].value == "uid:8" {
            break;
        }
    }
    let trail = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let leaf = trail.as_array().unwrap().iter().rfind(|leaf| leaf["kind"] == "entry.updated").unwrap();
    assert_eq!(
        (&leaf["detail"]["before"]["revision"], &leaf["detail"]["after"]["revision"]),
        (&json!(2), &json!(3))
    );

    // Two that say the same are one too many, and what is not there is not changed.
    fixture.post("/v1/entries", &entry("press-1", 9)).await;
    let same = refusal(&fixture, Method::PUT, &path, &entry("press-1", 9).to_string()).await;
    assert_eq!((same.0, same.1.as_str()), (409, "entry-exists"), "{}", same.2);
    let none = refusal(&fixture, Method::PUT, "/v1/entries/none", &entry("press-1", 9).to_string()).await;
    assert_eq!(none.0, 404);
}

#[tokio::test]
async fn a_list_of_entries_is_applied_whole_or_not_at_all() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let list = |entries: &[Value]| json!({ "entries": entries }).to_string();
    let outcomes = |answer: Value| -> Vec<String> {
        let applied = answer["entries"].as_array().unwrap().clone();
        applied.iter().map(|one| one["outcome"].as_str().unwrap().to_owned()).collect()
    };
    let (one, two, three) = (entry("press-1", 1), entry(&coming(2), 2), entry("press-1", 3));
    let apply =
        async |entries: &[Value]| outcomes(fixture.post_text("/v1/entries/apply", &list(entries)).await);
    assert_eq!(apply(&[one.clone(), two.clone()]).await, ["created", "created"]);
    let changed = with(two, "hint", json!("x"));
    assert_eq!(apply(&[three.clone(), changed, one.clone()]).await, ["created", "updated", "unchanged"]);
    assert_eq!(fixture.get("/v1/entries").await["count"], 3);

    let bad = with(one.clone(), "dns_names", json!(["no name"]));
    for (entries, status, says) in [
        (vec![entry("press-1", 8), bad], 400, "entry 2 of the list"),
        (vec![entry("press-1", 8), entry("nobody", 9)], 404, "entry 2 of the list"),
        (vec![entry("press-1", 8), entry("press-1", 8)], 400, "one before it"),
        (vec![json!({ "spiffe_id": 7 })], 400, "entry 1 of the list"),
        (vec![one; 5001], 400, "at most 5000"),
    ] {
        let refused = refusal(&fixture, Method::POST, "/v1/entries/apply", &list(&entries)).await;
        assert_eq!(refused.0, status, "{}", refused.2);
        assert!(refused.2.contains(says), "{}", refused.2);
    }
    assert_eq!(fixture.get("/v1/entries").await["count"], 3);
}

#[tokio::test]
async fn ten_thousand_entries_are_made_and_found_a_page_at_a_time() {
    let fixture = Fixture::start().await;
    let numbered = |number: u32| {
        let entry = entry(&coming(u8::try_from(number % 250).unwrap()), number);
        with(entry, "spiffe_id", json!(format!("spiffe://test.assay.example/site-{}/web", number % 10)))
    };
    let start = Instant::now();
    for half in 0..2 {
        let entries: Vec<Value> = (half * 5000..(half + 1) * 5000).map(numbered).collect();
        fixture.post_text("/v1/entries/apply", &json!({ "entries": entries }).to_string()).await;
    }
    eprintln!("10,000 entries made in {} ms", start.elapsed().as_millis());
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = "spiffe_id=spiffe://test.assay.example/site-3/*&limit=300";
        let page = fixture.get(&format!("/v1/entries?{query}&cursor={cursor}")).await;
        assert_eq!(page["count"], 1000);
        found.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["id"].to_string()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    let distinct: std::collections::HashSet<&String> = found.iter().collect();
    assert_eq!((found.len(), distinct.len()), (1000, 1000));
    let one = fixture.get(&format!("/v1/entries?parent={}&selector=unix:uid:7", coming(7))).await;
    assert_eq!((&one["count"], &one["entries"][0]["parent"]), (&json!(1), &json!(coming(7))));
    for query in ["limit=0", "selector=unix", "cursor=x", "colour=red"] {
        let refused = refusal(&fixture, Method::GET, &format!("/v1/entries?{query}"), "").await;
        assert_eq!((refused.0, refused.1.as_str()), (400, "parameter"), "{query}");
    }
}

#[tokio::test]
async fn who_has_an_entry_is_told_with_what_keeps_others_from_it() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let create = async |entry: Value| {
        let created = fixture.post("/v1/entries", &entry).await;
        format!("/v1/entries/{}", created["id"].as_str().unwrap())
    };
    let held = create(entry("press-1", 7)).await;
    let pcr = json!([{ "type": "unix", "value": "uid:8" }, { "type": "tpm", "value": format!("pcr:15:{}", "ab".repeat(32)) }]);
    let unmet = create(with(entry("press-1", 8), "selectors", pcr)).await;
    let nobodys = create(entry(&coming(3), 9)).await;
    let id = held.rsplit('/').next().unwrap();
    let request = device.workload_request(stream.place(), id).unwrap();
    assert_eq!(ask(&mut stream, request).await.denied, "");

    let who = async |path: &str| fixture.get(&format!("{path}/who")).await;
    let has = who(&held).await;
    assert_eq!(
        (&has["holds"], &has["lacks"], &has["device"]["name"]),
        (&json!(true), &Value::Null, &json!("press-1"))
    );
    assert_eq!(has["svids"].as_array().unwrap().len(), 1);
    let lacks = who(&unmet).await;
    assert!(lacks["holds"] == false && lacks["lacks"].as_str().unwrap().contains("tpm:pcr:15"), "{lacks}");
    let nobody = who(&nobodys).await;
    assert!(
        nobody["device"].is_null() && nobody["lacks"].as_str().unwrap().contains("not enrolled"),
        "{nobody}"
    );

    device.run_program("/opt/implant", b"unknown");
    crate::fixture::attest_again(&mut stream, &mut device).await;
    let fallen = who(&held).await;
    assert!(fallen["lacks"].as_str().unwrap().contains("suspect"), "{fallen}");
    assert_eq!(fallen["svids"], json!([]));
    assert_eq!(refusal(&fixture, Method::GET, "/v1/entries/none/who", "").await.1, "unknown-entry");
}

#[tokio::test]
async fn an_entry_ends_when_it_says_and_takes_back_what_it_gave() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let now = assay_identity::UnixTime::now().as_secs();
    let ending = with(entry("press-1", 7), "expires_at", json!(now + 3));
    let created = fixture.post("/v1/entries", &with(ending, "jwt_ttl_seconds", json!(60))).await;
    assert_eq!((&created["expires_at"], &created["jwt_ttl_seconds"]), (&json!(now + 3), &json!(60)));
    stream.grants().await.unwrap();
    let request = device.workload_request(stream.place(), created["id"].as_str().unwrap()).unwrap();
    let given = ask(&mut stream, request).await;
    assert_eq!(given.denied, "");
    let mut grants = stream.grants().await.unwrap();
    assert_eq!(grants.entries, []);
    let at = assay_identity::UnixTime::now();
    assert!(at.as_secs() >= now + 3);
    let peer = verify_svid(&given.svid, &fixture.bundle(), &CrlSet::bootstrapping(), at).unwrap();
    let removed =
        fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().iter().any(|leaf| {
            leaf["kind"] == "entry.removed"
                && leaf["actor"] == "server"
                && leaf["detail"]["id"] == created["id"]
        });
    assert!(removed);
    while !Crl::parse(&grants.crl).unwrap().revokes(peer.serial()) {
        grants = stream.grants().await.unwrap();
    }
    for (member, bad) in [("expires_at", json!(now)), ("jwt_ttl_seconds", json!(301))] {
        let (status, code, _) = refusal(
            &fixture,
            Method::POST,
            "/v1/entries",
            &with(entry("press-1", 7), member, bad).to_string(),
        )
        .await;
        assert_eq!((status, code.as_str()), (400, "entry"), "{member}");
    }
}
