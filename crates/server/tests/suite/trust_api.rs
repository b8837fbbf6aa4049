//! Trust for other programs: node numbers, certificates, status, and messages that nodes sign, through the real door.

use std::time::Duration;

use assay_identity::signed_message::{NodeId, OnceBy, Outgoing, Request};
use assay_identity::{CrlSet, UnixTime, verify_svid};
use assay_server::TrustApi;
use assay_testkit::SoftwareDevice;
use assay_testkit::edge::Grants;
use data_encoding::{BASE64, HEXLOWER};
use hyper::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::fixture::{Fixture, attest_again};

/// A request as a node makes it.
#[derive(Clone, Copy)]
pub struct Say<'a> {
    /// Whose number.
    pub node: u32,
    /// For whom.
    pub audience: &'a str,
    /// Of the request.
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// As it is sent.
    pub body: &'a str,
    /// What makes it one of its kind.
    pub nonce: [u8; 16],
    /// Seconds since it was said.
    pub ago: u64,
}

/// An honest one.
pub const SAY: Say<'_> = Say {
    node: 0,
    audience: "assay",
    method: "POST",
    path: "/secure/data",
    body: r#"{"speed": 3}"#,
    nonce: [1; 16],
    ago: 0,
};

impl Say<'_> {
    /// What is signed.
    pub fn bytes(&self) -> Vec<u8> {
        let Say { node, audience, method, path, body, nonce, ago } = self;
        let now = UnixTime::now().as_secs() - ago;
        let outgoing = Outgoing {
            from: NodeId::new(*node).unwrap(),
            at: UnixTime::since_unix_epoch(Duration::from_secs(now)),
            data: body,
            about: Request { audience, method, path, body: body.as_bytes() }.about(),
            once: OnceBy::Nonce(nonce),
        };
        outgoing.bytes().unwrap()
    }
}

/// Sends these signed bytes with the request; status and answer.
pub async fn send(
    fixture: &Fixture,
    (say, bytes): (Say<'_>, &[u8]),
    device: &SoftwareDevice,
    certificate: Option<&[u8]>,
) -> (u16, Value) {
    let signature = HEXLOWER.encode(&device.device_key.sign_der(bytes).unwrap());
    let (from, bytes) = (say.node.to_string(), HEXLOWER.encode(bytes));
    let certificate = certificate.map(|der| format!(":{}:", BASE64.encode(der)));
    let mut headers =
        vec![("x-from-node", from.as_str()), ("x-node-auth", &bytes), ("x-signature", &signature)];
    headers.extend(certificate.as_deref().map(|certificate| ("x-node-certificate", certificate)));
    let method = say.method.parse().unwrap();
    let answer = fixture.call(method, say.path, &headers, say.body.to_owned()).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

async fn said(fixture: &Fixture, say: Say<'_>, device: &SoftwareDevice) -> (u16, Value) {
    send(fixture, (say, &say.bytes()), device, None).await
}

async fn with_trust_api() -> Fixture {
    Fixture::with(|config| config.trust_api = Some(TrustApi::default())).await
}

async fn public(fixture: &Fixture, method: Method, path: &str) -> (u16, Value) {
    let answer = fixture.call(method, path, &[], String::new()).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

fn leaf(grants: &Grants) -> &[u8] {
    &grants.device_svid[0]
}

#[tokio::test]
async fn a_message_is_heard_once_and_no_longer_after_the_fall() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let bytes = SAY.bytes();
    let heard = send(&fixture, (SAY, &bytes), &device, None).await;
    assert_eq!(heard, (200, json!({ "status": "received", "from_node": 0, "data": { "speed": 3 } })));
    // The same bytes under another signature of the same key.
    let (status, again) = send(&fixture, (SAY, &bytes), &device, Some(leaf(&grants))).await;
    assert_eq!(
        (status, &again["error"], &again["reason"]),
        (401, &json!("Invalid signature"), &json!("replayed"))
    );
    let next = Say { nonce: [2; 16], ..SAY };
    assert_eq!(send(&fixture, (next, &next.bytes()), &device, Some(leaf(&grants))).await.0, 200);

    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    stream.grants().await.unwrap();
    for (nonce, certificate) in [([3; 16], None), ([4; 16], Some(leaf(&grants)))] {
        let say = Say { nonce, ..SAY };
        let (status, refused) = send(&fixture, (say, &say.bytes()), &device, certificate).await;
        let error = json!("Certificate verification failed");
        assert_eq!((status, &refused["error"]), (401, &error), "{refused}");
    }
}

#[tokio::test]
async fn every_lie_about_a_message_is_refused_at_the_door() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    let (_other_stream, other_grants) = crate::fixture::attach_trusted(&edge, &mut other).await;

    let check = |status: u16, answer: &Value, error: &str, detail: &str| {
        let found = (status, answer["error"].as_str().unwrap_or_default());
        assert_eq!(found, (401, error), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(detail), "{answer}");
    };
    for (say, detail) in
        [(Say { audience: "another", ..SAY }, "another audience"), (Say { ago: 301, ..SAY }, "s old")]
    {
        let (status, answer) = said(&fixture, say, &device).await;
        check(status, &answer, "Invalid signature", detail);
    }
    // Signed for one request, sent with another.
    for (signed, detail) in [
        (Say { method: "PUT", ..SAY }, "another method"),
        (Say { path: "/secure/data?x", ..SAY }, "another path"),
        (Say { body: "{}", ..SAY }, "another body"),
        (Say { node: 1, ..SAY }, "says node"),
    ] {
        let (status, answer) = send(&fixture, (SAY, &signed.bytes()), &device, None).await;
        check(status, &answer, "Invalid signature", detail);
    }
    // Another node's key, another node's certificate, another node's number.
    let (status, answer) = said(&fixture, SAY, &other).await;
    check(status, &answer, "Invalid signature", "does not verify");
    let (status, answer) = send(&fixture, (SAY, &SAY.bytes()), &other, Some(leaf(&other_grants))).await;
    check(status, &answer, "Certificate verification failed", "not that of node 0");
    let nobody = Say { node: 9, ..SAY };
    let (status, answer) = said(&fixture, nobody, &device).await;
    check(status, &answer, "Certificate verification failed", "no node 9");
    let garbage = send(&fixture, (SAY, &SAY.bytes()), &device, Some(&[0x30, 0])).await;
    check(garbage.0, &garbage.1, "Certificate verification failed", "");
    // Three members alone are bound to nothing.
    let now = UnixTime::now().as_secs();
    let seed = format!("{{\"from_node\": 0, \"timestamp\": {now}, \"data\": {}}}", SAY.body);
    let (status, answer) = send(&fixture, (SAY, seed.as_bytes()), &device, None).await;
    check(status, &answer, "Invalid signature", "names no audience");
    // Headers that are no message.
    let (status, answer) = public(&fixture, Method::POST, "/secure/data").await;
    check(status, &answer, "Missing authentication headers", "sign the request");
    for (name, value) in [("x-from-node", "+0"), ("x-node-auth", "zz"), ("x-signature", "0")] {
        let mut headers = vec![("x-from-node", "0"), ("x-node-auth", "00"), ("x-signature", "00")];
        headers.iter_mut().filter(|header| header.0 == name).for_each(|header| header.1 = value);
        let answer = fixture.call(Method::POST, "/secure/data", &headers, String::new()).await;
        assert_eq!(answer.status(), 401, "{name}");
    }
    let twice = [("x-from-node", "0"), ("x-from-node", "0"), ("x-node-auth", "00"), ("x-signature", "00")];
    assert_eq!(fixture.call(Method::POST, "/secure/data", &twice, String::new()).await.status(), 401);
    let tried = fixture.get("/v1/security").await["counts"]["message"].as_u64().unwrap();
    assert!(tried >= 10, "{tried}");
    // And after all of that an honest one is heard.
    assert_eq!(said(&fixture, SAY, &device).await.0, 200);
    drop(grants);
}

#[tokio::test]
async fn messages_of_three_members_are_heard_where_that_is_switched_on() {
    let api = TrustApi { accept_seed_messages: true, ..TrustApi::default() };
    let fixture = Fixture::with(|config| config.trust_api = Some(api)).await;
    let edge = fixture.edge().await;
    let (device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let now = UnixTime::now().as_secs();
    let seed =
        |data: &str| format!("{{\"from_node\": 0, \"timestamp\": {now}, \"data\": {data}}}").into_bytes();
    assert_eq!(send(&fixture, (SAY, &seed(SAY.body)), &device, None).await.0, 200);
    let (status, answer) = send(&fixture, (SAY, &seed(SAY.body)), &device, None).await;
    assert_eq!((status, &answer["reason"]), (401, &json!("replayed")));
    let (status, answer) = send(&fixture, (SAY, &seed("{}")), &device, None).await;
    assert_eq!((status, &answer["reason"]), (401, &json!("message")));
}

#[tokio::test]
async fn what_programs_ask_is_answered_as_they_know_it() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut waiting = fixture.device("press-2");
    edge.enroll(&mut waiting).await.unwrap();

    // Numbers are given in the order of arrival, and shown.
    let numbers =
        [fixture.status("press-1").await["node"].clone(), fixture.status("press-2").await["node"].clone()];
    assert_eq!(numbers, [json!(0), json!(1)]);

    let (status, answer) = public(&fixture, Method::GET, "/trust/ca-certificate").await;
    let bundle = fixture.bundle().to_pem();
    assert_eq!((status, answer["certificate"].as_str()), (200, Some(bundle.as_str())));

    let (status, answer) = public(&fixture, Method::GET, "/trust/certificate/0").await;
    assert_eq!((status, &answer["node_id"]), (200, &json!(0)));
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    let chain =
        [der(answer["certificate"].as_str().unwrap()), der(answer["issuing_certificate"].as_str().unwrap())];
    let crls = CrlSet::from_der([&grants.crl]).unwrap();
    let peer = verify_svid(&chain, &fixture.bundle(), &crls, UnixTime::now()).unwrap();
    assert_eq!(peer.spki(), device.device_key.spki());
    for unknown in ["1", "7", "+0", "press-1", "2147483648"] {
        let (status, answer) = public(&fixture, Method::GET, &format!("/trust/certificate/{unknown}")).await;
        assert_eq!((status, &answer["error"]), (404, &json!("Certificate not found")), "{unknown}");
    }

    // Numbers are for everybody, details for those who may.
    let (_, open) = public(&fixture, Method::GET, "/trust/status").await;
    for (member, value) in [
        ("node_id", json!(0)),
        ("total_nodes", json!(2)),
        ("verified_nodes", json!(1)),
        ("revoked_certificates", json!(0)),
        ("revoked", json!(0)),
        ("ca_certificate", json!("ca-cert.pem")),
        ("trust_domain", json!(crate::fixture::TRUST_DOMAIN)),
    ] {
        assert_eq!(open[member], value, "{member}");
    }
    assert!(open.get("node_details").is_none(), "{open}");
    let timestamp = open["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 26 && timestamp.ends_with(".000000"), "{timestamp}");
    let ask = Say { method: "GET", path: "/trust/status?limit=1", body: "", ..SAY };
    let bytes = Say { body: "null", ..ask }.bytes();
    assert_eq!(send(&fixture, (ask, &bytes), &device, None).await.0, 401, "signed with another body");
    let detailed = fixture.get("/trust/status?limit=1").await;
    let node = &detailed["node_details"]["node-0"];
    assert_eq!(
        (&node["verified"], &node["score"], &detailed["next"]),
        (&json!(true), &json!(100), &json!(0))
    );
    let rest = fixture.get("/trust/status?after=0").await;
    assert_eq!(rest["node_details"]["node-1"]["verified"], json!(false), "{rest}");
    assert_eq!((rest["node_details"].as_object().unwrap().len(), &rest["next"]), (1, &json!(null)));

    // Whether a node is verified: for viewers and nodes.
    assert_eq!(public(&fixture, Method::POST, "/trust/verify/0").await.0, 401);
    let verified = |node: &'static str| {
        let fixture = &fixture;
        async move { fixture.post_text(&format!("/trust/verify/{node}"), "").await["verified"].clone() }
    };
    assert_eq!(
        [verified("0").await, verified("1").await, verified("9").await],
        [json!(true), json!(false), json!(false)]
    );
    let ask = Say { path: "/trust/verify/1", body: "{}", ..SAY };
    let (status, answer) = said(&fixture, ask, &device).await;
    assert_eq!((status, &answer["node_id"], &answer["verified"]), (200, &json!(1), &json!(false)));

    let (status, answer) = public(&fixture, Method::POST, "/event/attestation").await;
    assert_eq!((status, &answer["status"]), (410, &json!("error")));
    let (_, summary) = public(&fixture, Method::GET, "/metrics/summary").await;
    assert_eq!(summary["certificates"], json!({ "total": 2, "verified": 1, "revoked": 0 }), "{summary}");
    assert_eq!(summary["ca"]["valid"], json!(true));
}

#[tokio::test]
async fn an_operators_word_ends_a_node_and_is_on_record() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let (status, answer) = public(&fixture, Method::POST, "/trust/revoke/0").await;
    assert_eq!((status, &answer["error"]), (401, &json!("unauthorized")));
    // A node's own word does not end a node.
    let (status, _) = said(&fixture, Say { path: "/trust/revoke/0", body: "{}", ..SAY }, &device).await;
    assert_eq!(status, 401);
    let token = fixture.token();
    let header = [("x-trust-admin-token", token.as_str())];
    let unknown = fixture.call(Method::POST, "/trust/revoke/9", &header, String::new()).await;
    assert_eq!(unknown.status(), 404);
    let body = json!({ "reason": "stolen" }).to_string();
    let answer = fixture.call(Method::POST, "/trust/revoke/0", &header, body).await;
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((&answer["node_id"], &answer["revoked"]), (&json!(0), &json!(true)));
    // With the answer the list says so, and the message door.
    let (_, status) = public(&fixture, Method::GET, "/trust/status").await;
    assert_eq!(
        (&status["revoked_certificates"], &status["verified_nodes"]),
        (&json!(1), &json!(0)),
        "{status}"
    );
    let (status, answer) = said(&fixture, SAY, &device).await;
    assert_eq!((status, &answer["error"]), (401, &json!("Certificate verification failed")));
    let device = fixture.get("/v1/devices/press-1").await;
    assert!(device["events"][0]["detail"].as_str().unwrap().contains("stolen"), "{device}");
    // The number is nobody else's.
    let mut next = fixture.device("press-2");
    edge.enroll(&mut next).await.unwrap();
    assert_eq!(fixture.status("press-2").await["node"], json!(1));
}

#[tokio::test]
async fn the_revocation_list_is_sent_again_once_it_is_another() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (_, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let ask =
        async |tag: &str| fixture.call(Method::GET, "/crl", &[("if-none-match", tag)], String::new()).await;
    let first = ask("\"0\"").await;
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert!(first.status() == 200 && !first.body().is_empty());
    let same = ask(&tag).await;
    assert!(same.status() == 304 && same.body().is_empty());
    let token = fixture.token();
    let header = [("x-trust-admin-token", token.as_str())];
    assert_eq!(fixture.call(Method::POST, "/trust/revoke/0", &header, String::new()).await.status(), 200);
    let next = ask(&tag).await;
    assert!(next.status() == 200 && next.headers()["etag"] != tag.as_str());
}

#[tokio::test]
async fn without_its_section_nothing_of_it_is_there() {
    let fixture = Fixture::start().await;
    for (method, path) in [
        (Method::GET, "/trust/ca-certificate"),
        (Method::GET, "/trust/certificate/0"),
        (Method::POST, "/secure/data"),
        (Method::GET, "/metrics/summary"),
        (Method::POST, "/event/message"),
    ] {
        assert_eq!(public(&fixture, method, path).await.0, 404, "{path}");
    }
    let token = fixture.token();
    let header = [("x-trust-admin-token", token.as_str())];
    assert_eq!(fixture.call(Method::POST, "/trust/revoke/0", &header, String::new()).await.status(), 401);
    let (_, status) = public(&fixture, Method::GET, "/trust/status").await;
    assert!(status.get("total_nodes").is_none(), "{status}");
}

/// A message as it should not be: the honest one with this put in another's place.
fn instead(of: &str, put: &str) -> Vec<u8> {
    let honest = String::from_utf8(SAY.bytes()).unwrap();
    assert!(honest.contains(of), "{of}: {honest}");
    honest.replace(of, put).into_bytes()
}

#[tokio::test]
async fn what_is_written_in_more_ways_than_one_is_no_message() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let now = UnixTime::now().as_secs();
    let cases = [
        (instead("\"from_node\": 0", "\"from_node\": 0, \"from_node\": 0"), "twice"),
        (instead("\"speed\": 3", "\"speed\": 3, \"speed\": 4"), "twice"),
        (instead("\"from_node\": 0", "\"from_node\": \"0\""), "`from_node` is no whole number"),
        (instead("\"from_node\": 0", "\"from_node\": 0.0"), "`from_node` is no whole number"),
        (instead("\"timestamp\": ", "\"timestamp\": -"), "`timestamp` is no whole number"),
        (instead("\"timestamp\": 1", "\"timestamp\": 1.1e9, \"was\": 1"), "`timestamp` is no whole number"),
        (instead("\"audience\": \"assay\"", "\"audience\": [\"assay\"]"), "`audience` is no text"),
        (instead("\"method\"", "\"methods\""), "not a message: no member `method`"),
        (instead("\"nonce\"", "\"nounce\""), "neither a nonce"),
        (instead("\"nonce\": \"AQEBAQEBAQEBAQEBAQEBAQ\"", "\"nonce\": \"AQEB\""), "neither a nonce"),
        (instead("\"nonce\"", "\"sequence\": 7, \"nonce\""), "both a nonce and a sequence"),
        (
            instead("\"nonce\": \"AQEBAQEBAQEBAQEBAQEBAQ\"", "\"sequence\": \"7\""),
            "`sequence` is no whole number",
        ),
        (instead("\"path\"", "\"more\": 1, \"path\""), "do not have"),
        (instead("}", "} {}"), "JSON"),
        (format!("[{now}]").into_bytes(), "not an object"),
        (b"{\"from_node\"".to_vec(), "JSON"),
        (b"NaN".to_vec(), "JSON"),
    ];
    for (bytes, says) in cases {
        let (status, answer) = send(&fixture, (SAY, &bytes), &device, None).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(status == 401 && detail.contains(says), "{}: {answer}", String::from_utf8_lossy(&bytes));
        assert!(detail.matches(says).count() == 1, "said once: {answer}");
        assert_eq!((&answer["error"], &answer["reason"]), (&json!("Invalid signature"), &json!("message")));
    }
    // From the future; and in another order than the body, which is all the same.
    let bytes =
        instead(&format!("\"timestamp\": {}", now / 1000), &format!("\"timestamp\": {}", now / 1000 + 1));
    let (status, answer) = send(&fixture, (SAY, &bytes), &device, None).await;
    assert!(status == 401 && answer["detail"].as_str().unwrap().contains("ahead"), "{answer}");
    let members = [("from_node", "0"), ("audience", "\"assay\"")];
    let [node, audience] = members.map(|(name, value)| format!("\"{name}\": {value}"));
    let swapped = String::from_utf8(SAY.bytes()).unwrap();
    let swapped = swapped.replace(&node, "@").replace(&audience, &node).replace('@', &audience).into_bytes();
    assert_eq!(send(&fixture, (SAY, &swapped), &device, None).await.0, 200);
}

#[tokio::test]
async fn a_sequence_rises_and_is_never_said_again() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let numbered =
        |number: u64| instead("\"nonce\": \"AQEBAQEBAQEBAQEBAQEBAQ\"", &format!("\"sequence\": {number}"));
    for (number, expected) in [(5, 200), (5, 401), (4, 401), (7, 200), (6, 401), (u64::MAX, 200), (8, 401)] {
        let (status, answer) = send(&fixture, (SAY, &numbered(number)), &device, None).await;
        assert_eq!(status, expected, "{number}: {answer}");
        if status == 401 {
            assert_eq!(answer["reason"], json!("replayed"));
        }
    }
}

#[tokio::test]
async fn certificates_of_others_and_of_the_past_say_nothing() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    // Another trust domain's, with the same names.
    let other = with_trust_api().await;
    let others_edge = other.edge().await;
    let (same, _foreign_stream, foreign) = other.trusted_device(&others_edge, "press-1", "").await;
    let (status, answer) = send(&fixture, (SAY, &SAY.bytes()), &same, Some(leaf(&foreign))).await;
    assert_eq!((status, &answer["error"]), (401, &json!("Certificate verification failed")), "{answer}");
    // The authority's own, and what is none.
    let (_, told) = public(&fixture, Method::GET, "/trust/certificate/0").await;
    let issuing = CertificateDer::from_pem_slice(told["issuing_certificate"].as_str().unwrap().as_bytes());
    for certificate in [issuing.unwrap().to_vec(), vec![0x30, 0x82, 0xff, 0xff], Vec::new()] {
        let (status, answer) = send(&fixture, (SAY, &SAY.bytes()), &device, Some(&certificate)).await;
        assert_eq!((status, &answer["error"]), (401, &json!("Certificate verification failed")), "{answer}");
    }
}

#[tokio::test]
async fn a_node_that_says_too_much_is_told_to_wait_and_others_are_heard() {
    let fixture = with_trust_api().await;
    let edge = fixture.edge().await;
    let (device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    let (_other_stream, other_grants) = crate::fixture::attach_trusted(&edge, &mut other).await;
    let console = fixture.running().console();
    let certificate = format!(":{}:", BASE64.encode(leaf(&grants)));
    let mut last = 0;
    for number in 0..=10_000_u128 {
        let say = Say { nonce: number.to_be_bytes(), ..SAY };
        let bytes = say.bytes();
        let request = axum::http::Request::post(say.path)
            .header("x-from-node", "0")
            .header("x-node-auth", HEXLOWER.encode(&bytes))
            .header("x-signature", HEXLOWER.encode(&device.device_key.sign_der(&bytes).unwrap()))
            .header("x-node-certificate", &certificate)
            .body(axum::body::Body::from(say.body))
            .unwrap();
        last = tower::ServiceExt::oneshot(console.clone(), request).await.unwrap().status().as_u16();
        assert!(last == 200 || number == 10_000, "{number}: {last}");
    }
    assert_eq!(last, 429);
    let say = Say { node: 1, ..SAY };
    assert_eq!(send(&fixture, (say, &say.bytes()), &other, Some(leaf(&other_grants))).await.0, 200);
}
