//! Attestation results for others: what is signed, what verifies it, and when there is nothing to say.

use std::process::Command;

use assay_evidence::time::UnixTime;
use assay_identity::jws::{JwkSet, JwsError, Usage};
use assay_trust::ear::{Appraisal, EarClaims, SUBMODULE, TOKEN_TYPE};
use assay_trust::{Status, Tier};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hyper::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, attest_again, header_text, learned};

fn now() -> UnixTime {
    UnixTime(assay_identity::UnixTime::now().as_secs())
}

async fn jwks(fixture: &Fixture) -> Value {
    let answer = fixture.call(Method::GET, "/jwks.json", &[], String::new()).await;
    assert_eq!(header_text(answer.headers(), "content-type"), "application/jwk-set+json");
    serde_json::from_slice(answer.body()).unwrap()
}

async fn token(fixture: &Fixture, path: &str) -> String {
    fixture.get(path).await["ear"].as_str().unwrap().to_owned()
}

/// Fetches, verifies and reads a token.
async fn claims(fixture: &Fixture, path: &str) -> EarClaims {
    let keys = JwkSet::from_json(jwks(fixture).await.to_string().as_bytes(), Usage::Signature).unwrap();
    let payload = keys.verify(&token(fixture, path).await, TOKEN_TYPE).unwrap();
    EarClaims::read(&payload, now()).unwrap()
}

fn about_tpm(claims: &EarClaims) -> &Appraisal {
    &claims.submods[SUBMODULE]
}

/// There is no token, for this reason.
async fn check_none(fixture: &Fixture, path: &str, status: u16, code: &str) {
    let operator = format!("Bearer {}", fixture.token());
    let answer = fixture.call(Method::GET, path, &[("authorization", &operator)], String::new()).await;
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((answer.status().as_u16(), &body["error"]["code"]), (status, &json!(code)), "{body}");
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
}

const PATH: &str = "/v1/devices/press-1/ear";

#[tokio::test]
async fn a_relying_party_learns_what_was_judged_and_nobody_can_change_it() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;

    let good = claims(&fixture, &format!("{PATH}?nonce=b25jZS1vbmx5")).await;
    assert_eq!(Some(&good.sub), device.device_id.as_ref());
    assert_eq!(good.iss, "spiffe://test.assay.example/assay/server");
    assert_eq!(good.eat_nonce.clone().map(String::from).as_deref(), Some("b25jZS1vbmx5"));
    let appraisal = about_tpm(&good);
    assert_eq!(appraisal.ear_status, Tier::Affirming);
    assert_eq!(appraisal.ear_trustworthiness_vector.instance_identity.value(), 2);
    assert_eq!(appraisal.ear_trustworthiness_vector.executables.value(), 2);
    assert_eq!(appraisal.ear_appraisal_policy_ids, ["base v1"]);
    let status = fixture.status("press-1").await;
    assert_eq!(json!(good.exp), status["valid_until"], "as long as the evidence carries trust");
    assert!(good.iat <= now());

    // The key stays; what was signed before a restart verifies after it.
    let (before, keys) = (token(&fixture, PATH).await, jwks(&fixture).await);
    fixture.restart().await;
    assert_eq!(jwks(&fixture).await, keys);
    let keys = JwkSet::from_json(keys.to_string().as_bytes(), Usage::Signature).unwrap();
    keys.verify(&before, TOKEN_TYPE).unwrap();
    let [header, payload, signature] = before.split('.').collect::<Vec<_>>()[..] else { panic!("{before}") };
    let payload = String::from_utf8(BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap();
    let other = payload.replace(&good.sub, &good.iss);
    assert_ne!(payload, other);
    let forged = format!("{header}.{}.{signature}", BASE64URL_NOPAD.encode(other.as_bytes()));
    assert_eq!(keys.verify(&forged, TOKEN_TYPE), Err(JwsError::Signature));

    // The device falls, and so does what is said of it.
    let edge = fixture.edge().await;
    drop(stream);
    stream = edge.attach(&device).await.unwrap();
    stream.attest(&mut device).await.unwrap();
    device.run_program("/tmp/implant", b"evil");
    attest_again(&mut stream, &mut device).await;
    let bad = claims(&fixture, PATH).await;
    let appraisal = about_tpm(&bad);
    assert_eq!(appraisal.ear_status, Tier::Contraindicated);
    assert_eq!(appraisal.ear_trustworthiness_vector.executables.tier(), Tier::Contraindicated);
    assert_eq!(appraisal.ear_trustworthiness_vector.instance_identity.tier(), Tier::Affirming);
    let details = appraisal.ear_assay_appraisal.as_ref().unwrap();
    assert_eq!((details.device_status, details.findings_count), (Status::Suspect, 1));
    assert!(details.findings[0].message.contains("/tmp/implant"), "{details:?}");
    assert!(bad.exp <= now().plus(300), "bad news is soon asked about again");
}

#[tokio::test]
async fn where_there_is_nothing_to_say_the_reason_is_said() {
    let fixture = Fixture::start().await;
    check_none(&fixture, PATH, 404, "unknown-device").await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    check_none(&fixture, PATH, 404, "not-appraised").await;
    check_none(&fixture, &format!("{PATH}?nonce=short"), 400, "nonce").await;

    // Evidence that nobody judged is no good news.
    let mut stream = edge.attach(&device).await.unwrap();
    stream.attest(&mut device).await.unwrap();
    let unjudged = claims(&fixture, PATH).await;
    assert_eq!(about_tpm(&unjudged).ear_status, Tier::None);
    assert_eq!(about_tpm(&unjudged).ear_appraisal_policy_ids, [""; 0]);

    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    stream.grants().await.unwrap();
    stream.attest(&mut device).await.unwrap();
    assert_eq!(about_tpm(&claims(&fixture, PATH).await).ear_status, Tier::Affirming);
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    check_none(&fixture, PATH, 404, "revoked").await;
}

/// A second opinion; skipped, in so many words, where it is not installed.
#[tokio::test]
async fn openssl_accepts_the_signature_under_the_published_key() {
    if !Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: openssl is not installed");
        return;
    }
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let _device = fixture.trusted_device(&edge, "press-1", "").await;
    let token = token(&fixture, PATH).await;
    let jwk = jwks(&fixture).await["keys"][0].clone();
    assert_eq!((&jwk["use"], &jwk["alg"]), (&json!("sig"), &json!("ES256")));
    let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let member = |name: &str| bytes(jwk[name].as_str().unwrap());

    // RFC 5480 §2: a P-256 key's SubjectPublicKeyInfo is this, then both coordinates.
    let prefix = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let spki = [BASE64.decode(prefix.as_bytes()).unwrap(), member("x"), member("y")].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = bytes(signature);
    let (r, s) = signature.split_at(32);
    let der = [integer(r), integer(s)].concat();
    let der = [vec![0x30, u8::try_from(der.len()).unwrap()], der].concat();
    let header: Value = serde_json::from_slice(&bytes(token.split('.').next().unwrap())).unwrap();
    assert_eq!(header, json!({ "alg": "ES256", "typ": "eat+jwt", "kid": jwk["kid"] }));

    let folder = tempfile::tempdir().unwrap();
    let verifies = |signed: &str| {
        for (name, content) in
            [("key.der", spki.as_slice()), ("signature", &der), ("signed", signed.as_bytes())]
        {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let arguments = "dgst -sha256 -verify key.der -keyform DER -signature signature signed";
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        output.status.success()
    };
    assert!(verifies(signed));
    assert!(!verifies(&signed[1..]));
}

/// DER: no leading zeros, but one before a high bit.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap();
    let mut content = bytes[start..].to_vec();
    if content[0] >= 0x80 {
        content.insert(0, 0);
    }
    [vec![0x02, u8::try_from(content.len()).unwrap()], content].concat()
}
