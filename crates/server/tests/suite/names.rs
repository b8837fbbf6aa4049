//! Names are one device's and stay with it, and the fleet is looked through a page at a time.

use hyper::Method;
use serde_json::{Value, json};

use crate::assignment::refusal;
use crate::fixture::Fixture;

async fn names(fixture: &Fixture, query: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = fixture.get(&format!("/v1/devices?{query}&cursor={cursor}")).await;
        let devices = page["devices"].as_array().unwrap().iter();
        names.extend(devices.map(|device| device["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return names,
        }
    }
}

#[tokio::test]
async fn year_9_a_name_is_kept_when_its_device_enrolls_again() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    let id = edge.enroll(&mut device).await.unwrap().device_id;
    device.name = "press-9".to_owned();
    edge.enroll(&mut device).await.unwrap();
    assert_eq!(fixture.status("press-1").await["id"], id);
    // What an operator calls it stays as well, and is on record.
    fixture.post("/v1/devices/press-1/labels", &json!({ "set": ["site=paris"] })).await;
    let renamed = fixture.post("/v1/devices/press-1/name", &json!({ "name": "press-3" })).await;
    assert_eq!(renamed["device"]["name"], "press-3");
    edge.enroll(&mut device).await.unwrap();
    assert_eq!(fixture.status("press-3").await["id"], id);
    assert_eq!(names(&fixture, "label=site%3Dparis").await, ["press-3"]);
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let leaf = leaves.as_array().unwrap().iter().find(|leaf| leaf["kind"] == "device.renamed").unwrap();
    assert_eq!(leaf["detail"], json!({ "from": "press-1", "to": "press-3" }));
    // The name that nobody has any more is free.
    let mut other = fixture.device("press-1");
    let other_id = edge.enroll(&mut other).await.unwrap().device_id;
    assert_eq!(fixture.status("press-1").await["id"], other_id);
    let cases = [("press-1", 409, "name-taken"), ("-x", 400, "name"), (&"ab".repeat(32), 400, "name")];
    for (name, status, code) in cases {
        let body = json!({ "name": name }).to_string();
        let refused = refusal(&fixture, Method::POST, "/v1/devices/press-3/name", &body).await;
        assert_eq!((refused.0, refused.1.as_str()), (status, code), "{}", refused.2);
    }
}

#[tokio::test]
async fn year_9_nobody_takes_the_name_that_another_would_get() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut second = fixture.device("press-1");
    let hash = data_encoding::HEXLOWER.encode(&assay_telemetry::sha256(second.ek.spki()));
    for name in ["press-1".to_owned(), format!("press-1-{}", &hash[..12])] {
        edge.enroll(&mut fixture.device(&name)).await.unwrap();
    }
    let id = edge.enroll(&mut second).await.unwrap().device_id;
    assert_eq!(fixture.status(&format!("press-1-{hash}")).await["id"], id);
}

#[tokio::test]
async fn year_9_a_device_is_known_by_name_id_hash_and_its_start() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    let id = edge.enroll(&mut device).await.unwrap().device_id;
    let hash = id.rsplit('/').next().unwrap();
    let encoded = id.replace('/', "%2F").replace(':', "%3A");
    for known_by in ["press-1", &encoded, hash, &hash.to_uppercase(), &hash[..12]] {
        assert_eq!(fixture.status(known_by).await["id"], id, "{known_by}");
    }
    let (status, code, _) = refusal(&fixture, Method::GET, &format!("/v1/devices/{}", &hash[..11]), "").await;
    assert_eq!((status, code.as_str()), (404, "unknown-device"));
    assert_eq!(fixture.get("/trust/status?id=press-1").await["device"], id);
    let stranger = fixture.call(Method::GET, "/trust/status?id=press-1", &[], String::new()).await;
    assert_eq!(stranger.status(), 400, "names are the operator's");
    // An entry's parent is told in the same ways, and one that has yet to enroll by its ID.
    let entry = |parent: &str, uid: u32| {
        json!({
            "spiffe_id": "spiffe://test.assay.example/web", "parent": parent,
            "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
        })
    };
    for (uid, parent) in ["press-1", hash, &id].into_iter().enumerate() {
        let created = fixture.post("/v1/entries", &entry(parent, u32::try_from(uid).unwrap())).await;
        assert_eq!(created["parent"], id);
    }
    let nobody = entry("press-7", 7).to_string();
    let (status, code, _) = refusal(&fixture, Method::POST, "/v1/entries", &nobody).await;
    assert_eq!((status, code.as_str()), (404, "unknown-device"));
    let coming = format!("spiffe://test.assay.example/spire/agent/tpm/{}", "0a".repeat(32));
    assert_eq!(fixture.post("/v1/entries", &entry(&coming, 8)).await["parent"], coming);
}

#[tokio::test]
async fn year_9_ten_thousand_devices_are_found_a_page_at_a_time() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    fixture.stop().await;
    // As if so many more had enrolled, a few of which fell.
    fixture
        .tamper(
            "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 10000)
             INSERT INTO devices SELECT 'spiffe://test.assay.example/spire/agent/tpm/' || PRINTF('%064x', n.value),
                 PRINTF('robot-%05d', n.value), ek_public, ek_certificate, ek_intermediates, ak_public, device_key_public,
                 device_key_spki, agent_version, enrolled_at, CASE n.value % 1000 WHEN 7 THEN 'suspect' ELSE 'enrolled' END,
                 tier, valid_until, evidence_at, reset_count, state_version, trust,
                 CASE n.value % 2 WHEN 0 THEN 'line=3,site=paris' ELSE 'site=lyon' END, iak_public, iak_certificate,
                 idevid_public, idevid_certificate, idevid_intermediates, n.value
             FROM devices, n;
             INSERT INTO device_labels SELECT 'site=paris', name FROM devices WHERE labels LIKE '%paris';
             INSERT INTO device_labels SELECT 'line=3', name FROM devices WHERE labels LIKE 'line%';
             INSERT INTO device_labels SELECT 'site=lyon', name FROM devices WHERE labels LIKE '%lyon';",
        )
        .await;
    fixture.restart().await;
    let all = names(&fixture, "limit=1000").await;
    assert_eq!(all.len(), 10_001);
    assert!(all.is_sorted() && all[0] == "press-1");
    assert_eq!(fixture.get("/v1/devices").await["devices"].as_array().unwrap().len(), 500);
    assert_eq!(names(&fixture, "status=suspect&limit=3").await.len(), 10);
    assert_eq!(names(&fixture, "label=site%3Dparis&limit=1000").await.len(), 5000);
    assert_eq!(names(&fixture, "label=line%3D3%2Csite%3Dparis&name=robot-0000*").await.len(), 4);
    assert_eq!(names(&fixture, "label=site%3Dlyon&status=suspect").await.len(), 10);
    assert_eq!(names(&fixture, "label=site%3Dparis&status=suspect").await, Vec::<String>::new());
    assert_eq!(names(&fixture, "name=robot-00042").await, ["robot-00042"]);
    assert_eq!(names(&fixture, "name=robot-0004*&limit=4").await.len(), 10);
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-2");
    edge.enroll(&mut device).await.unwrap();
    let _stream = edge.attach(&device).await.unwrap();
    // A stream that has proven nothing is nobody's.
    assert_eq!(names(&fixture, "attached=true").await, Vec::<String>::new());
    assert_eq!(names(&fixture, "attached=false&limit=1000").await.len(), 10_002);
}

#[tokio::test]
async fn year_9_the_page_shows_those_that_are_looked_for() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    for name in ["press-1", "press-2", "robot-1"] {
        edge.enroll(&mut fixture.device(name)).await.unwrap();
    }
    let bearer = format!("Bearer {}", fixture.token());
    let page = async |query: &str| {
        let headers = [("authorization", bearer.as_str())];
        let page = fixture.call(Method::GET, &format!("/?{query}"), &headers, String::new()).await;
        String::from_utf8(page.body().to_vec()).unwrap()
    };
    let shown = page("name=press-*&limit=1").await;
    let (devices, events) = shown.split_once("<h2>Events</h2>").unwrap();
    assert!(devices.contains("<b>press-1</b>") && !devices.contains("<b>press-2</b>"), "{shown}");
    assert!(
        events.contains("<b>robot-1</b>"),
        "what happens is told by name, whomever the page is about: {events}"
    );
    let link = shown.split("href=\"/?").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
    let shown = page(&link).await;
    let (devices, _) = shown.split_once("<h2>Events</h2>").unwrap();
    assert!(devices.contains("<b>press-2</b>") && !devices.contains("<b>robot-1</b>"), "{shown}");
    let listed: Value = fixture.get("/v1/devices?name=robot-*").await;
    assert_eq!((&listed["devices"][0]["name"], &listed["next"]), (&json!("robot-1"), &Value::Null));
}
