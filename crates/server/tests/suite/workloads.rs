//! Workload SVIDs: what an entry entitles to, and who may not have it.

use assay_identity::jws::{JwkSet, Usage};
use assay_identity::{Crl, CrlSet, TrustDomain, jwt_svid, verify_svid};
use assay_testkit::edge::protocol::{
    JwtSvidRequest, JwtSvidResponse, WorkloadSvidRequest, WorkloadSvidResponse,
};
use assay_testkit::edge::{Attachment, Message};
use hyper::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, attach_trusted, attest_again};

pub async fn ask(stream: &mut Attachment, request: WorkloadSvidRequest) -> WorkloadSvidResponse {
    stream.request_svid(request).await.unwrap();
    loop {
        if let Message::WorkloadSvid(response) = stream.next().await.unwrap() {
            return response;
        }
    }
}

pub async fn ask_token(stream: &mut Attachment, request: JwtSvidRequest) -> JwtSvidResponse {
    stream.request_token(request).await.unwrap();
    loop {
        if let Message::JwtSvid(response) = stream.next().await.unwrap() {
            return response;
        }
    }
}

fn entry(parent: &str) -> Value {
    json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": parent, "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": "uid:1000" }], "dns_names": ["web.internal"],
    })
}

#[tokio::test]
async fn an_entry_reaches_the_device_and_gives_its_workload_an_svid() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert!(grants.entries.is_empty());
    let created = fixture.post("/v1/entries", &entry(device.device_id.as_ref().unwrap())).await;
    let grants = stream.grants().await.unwrap();
    assert_eq!(grants.entries[0].selectors[0].value, "uid:1000");
    let id = grants.entries[0].id.clone();
    assert_eq!(created["id"], id);

    let request = device.workload_request(stream.place(), &id).unwrap();
    let response = ask(&mut stream, request).await;
    assert_eq!(response.denied, "");
    let now = assay_identity::UnixTime::now();
    let peer = verify_svid(&response.svid, &fixture.bundle(), &CrlSet::bootstrapping(), now).unwrap();
    assert_eq!(peer.spiffe_id().as_str(), "spiffe://test.assay.example/web");
    let status = fixture.get("/trust/status?id=spiffe://test.assay.example/web").await;
    assert_eq!((&status["status"], &status["device"]), (&json!("trusted"), &json!(device.device_id)));

    // The entry goes, and with it what it gave.
    fixture.delete(&format!("/v1/entries/{id}")).await;
    let grants = loop {
        let grants = stream.grants().await.unwrap();
        if grants.entries.is_empty() && Crl::parse(&grants.crl).unwrap().revokes(peer.serial()) {
            break grants;
        }
    };
    assert!(!grants.withdrawn);
    let request = device.workload_request(stream.place(), &id).unwrap();
    let response = ask(&mut stream, request).await;
    assert!(response.svid.is_empty() && response.denied.contains("no such entry"), "{}", response.denied);
}

#[tokio::test]
async fn only_the_device_itself_may_ask_and_only_for_its_own() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    let (mut other_stream, _) = attach_trusted(&edge, &mut other).await;
    let created = fixture.post("/v1/entries", &entry(device.device_id.as_ref().unwrap())).await;
    let id = created["id"].as_str().unwrap();

    let forged = other.workload_request(stream.place(), id).unwrap();
    let response = ask(&mut stream, forged).await;
    assert!(response.svid.is_empty() && response.denied.contains("not signed by the device key"));
    let mut swapped = device.workload_request(stream.place(), id).unwrap();
    swapped.csr = other.workload_request(stream.place(), id).unwrap().csr;
    assert!(ask(&mut stream, swapped).await.svid.is_empty(), "the signature covers the request");
    let request = other.workload_request(other_stream.place(), id).unwrap();
    let response = ask(&mut other_stream, request).await;
    assert!(response.svid.is_empty() && response.denied.contains("no such entry"));
}

#[tokio::test]
async fn an_entry_gives_its_workload_tokens_that_the_announced_keys_verify() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let created = fixture.post("/v1/entries", &entry(device.device_id.as_ref().unwrap())).await;
    let id = created["id"].as_str().unwrap();
    let request = device.token_request(stream.place(), id, &["db", "cache"]).unwrap();
    let answer = ask_token(&mut stream, request.clone()).await;
    assert_eq!(answer.denied, "");
    let keys = JwkSet::from_json(stream.jwt_keys(), Usage::JwtSvid).unwrap();
    let domain = TrustDomain::parse("test.assay.example").unwrap();
    let now = assay_identity::UnixTime::now();
    let svid = jwt_svid::verify(&answer.token, (&domain, &keys), Some("cache"), now).unwrap().svid;
    assert_eq!(svid.spiffe_id.as_str(), "spiffe://test.assay.example/web");
    assert!(svid.expires_at - now.as_secs() <= 300, "a bearer token lives for minutes");
    let trail = fixture.get("/v1/audit?limit=1000").await.to_string();
    assert!(trail.contains("jwt.issued"), "{trail}");

    // One signature, one token; another audience is another request; nobody is no audience.
    let again = ask_token(&mut stream, request.clone()).await;
    assert!(again.token.is_empty() && again.denied.contains("not newer"), "{}", again.denied);
    let JwtSvidRequest { number, .. } = request;
    let widened = JwtSvidRequest { audience: vec!["admin".into()], number: number + 1, ..request };
    assert!(ask_token(&mut stream, widened).await.denied.contains("not signed by the device key"));
    // What is long or cannot be shown is neither signed nor recorded.
    let long = "a".repeat(2000);
    for nobody in [&[][..], &[""], &[&long, &long], &["d\u{1}b"]] {
        let request = device.token_request(stream.place(), id, nobody).unwrap();
        let denied = ask_token(&mut stream, request).await.denied;
        assert!(denied.starts_with("no-audience"), "{denied}");
    }
    let trail = fixture.get("/v1/audit?limit=1000").await.to_string();
    assert_eq!(trail.matches("jwt.issued").count(), 1, "{trail}");
    let request = device.token_request(stream.place(), "other", &["db"]).unwrap();
    assert!(ask_token(&mut stream, request).await.denied.contains("no such entry"));

    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let request = device.token_request(stream.place(), id, &["db"]).unwrap();
    let answer = ask_token(&mut stream, request).await;
    assert!(answer.token.is_empty() && answer.denied.starts_with("not-trusted"), "{}", answer.denied);
}

#[tokio::test]
async fn a_device_that_fell_gets_no_workload_svid_and_loses_those_it_had() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let created = fixture.post("/v1/entries", &entry(device.device_id.as_ref().unwrap())).await;
    let id = created["id"].as_str().unwrap();
    let request = device.workload_request(stream.place(), id).unwrap();
    let held = ask(&mut stream, request).await;
    let now = assay_identity::UnixTime::now();
    let peer = verify_svid(&held.svid, &fixture.bundle(), &CrlSet::bootstrapping(), now).unwrap();

    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let request = device.workload_request(stream.place(), id).unwrap();
    let response = ask(&mut stream, request).await;
    assert!(response.svid.is_empty() && response.denied.starts_with("not-trusted"), "{}", response.denied);
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    assert!(Crl::parse(crl.body()).unwrap().revokes(peer.serial()));
    let status = fixture.get("/trust/status?id=spiffe://test.assay.example/web").await;
    assert_eq!(status["status"], "suspect");
}

#[tokio::test]
async fn entries_that_could_not_be_or_would_reach_too_far_are_refused() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    let parent = edge.enroll(&mut device).await.unwrap().device_id;
    let bearer = format!("Bearer {}", fixture.token());
    let changes = [
        ("spiffe_id", json!("spiffe://test.assay.example/assay/server")),
        ("spiffe_id", json!("spiffe://test.assay.example/spire/agent/tpm/00")),
        ("spiffe_id", json!("spiffe://elsewhere.example/web")),
        ("spiffe_id", json!("web")),
        ("parent", json!("spiffe://test.assay.example/web")),
        ("selectors", json!([])),
        ("selectors", json!([{ "type": "moon", "value": "full" }])),
        ("dns_names", json!(["not a name"])),
        ("ttl_seconds", json!(1)),
        ("unheard_of", json!(1)),
    ];
    for (key, value) in changes {
        let mut body = entry(&parent);
        body[key] = value;
        let headers = [("authorization", bearer.as_str())];
        let answer = fixture.call(Method::POST, "/v1/entries", &headers, body.to_string()).await;
        assert_eq!(answer.status(), 400, "{body}");
    }
    assert_eq!(fixture.get("/v1/entries").await["entries"], json!([]));
}

#[tokio::test]
async fn year_11_an_entry_is_made_once_and_what_is_wrong_with_one_is_named() {
    let fixture = Fixture::start().await;
    let mut device = fixture.device("press-1");
    let parent = fixture.edge().await.enroll(&mut device).await.unwrap().device_id;
    let bearer = format!("Bearer {}", fixture.token());
    let create = async |body: Value| {
        let headers = [("authorization", bearer.as_str())];
        let answer = fixture.call(Method::POST, "/v1/entries", &headers, body.to_string()).await;
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        (answer.status().as_u16(), body["error"]["code"].clone(), body["error"]["message"].to_string())
    };
    assert_eq!(create(entry(&parent)).await.0, 200);
    let (status, code, said) = create(entry(&parent)).await;
    assert_eq!((status, code), (409, json!("entry-exists")), "{said}");
    // By its parent's name it is the same, and a name that is none is not told as too many.
    assert_eq!(create(entry("press-1")).await.0, 409);
    let mut named = entry(&parent);
    named["dns_names"] = json!(["web.internal", "not a name"]);
    let (status, _, said) = create(named).await;
    assert!(status == 400 && said.contains("not a name"), "{status} {said}");
    assert_eq!(fixture.get("/v1/entries").await["entries"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn finding_2_one_signature_gives_one_svid_and_what_stands_is_bounded() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let created = fixture.post("/v1/entries", &entry(device.device_id.as_ref().unwrap())).await;
    let id = created["id"].as_str().unwrap();
    let request = device.workload_request(stream.place(), id).unwrap();
    let first = ask(&mut stream, request.clone()).await;
    assert_eq!(first.denied, "");
    // The same signature again, under another number, and on another stream.
    let response = ask(&mut stream, request.clone()).await;
    assert!(response.svid.is_empty() && response.denied.contains("not newer"), "{}", response.denied);
    let renumbered = WorkloadSvidRequest { number: request.number + 1, ..request.clone() };
    let response = ask(&mut stream, renumbered).await;
    assert!(response.svid.is_empty() && response.denied.contains("not signed"), "{}", response.denied);
    let (mut again, _) = attach_trusted(&edge, &mut device).await;
    let response = ask(&mut again, request).await;
    assert!(response.svid.is_empty() && response.denied.contains("not signed"), "{}", response.denied);

    // The newer supersedes: two stand, the ones before are on the list.
    let now = assay_identity::UnixTime::now();
    let verified = |response: &WorkloadSvidResponse| {
        verify_svid(&response.svid, &fixture.bundle(), &CrlSet::bootstrapping(), now).unwrap()
    };
    let mut issued = vec![verified(&first)];
    while issued.len() < 5 {
        let request = device.workload_request(again.place(), id).unwrap();
        let response = ask(&mut again, request).await;
        assert_eq!(response.denied, "");
        issued.push(verified(&response));
    }
    // The list follows the commit.
    let listed = async {
        loop {
            let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
            let crl = Crl::parse(crl.body()).unwrap();
            let standing: Vec<_> = issued.iter().filter(|peer| !crl.revokes(peer.serial())).collect();
            if standing.len() <= 2 {
                break standing.into_iter().cloned().collect::<Vec<_>>();
            }
        }
    };
    let standing = tokio::time::timeout(std::time::Duration::from_secs(5), listed).await.unwrap();
    assert_eq!(standing, issued[3..]);
}
