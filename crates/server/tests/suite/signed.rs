//! Signed policies: with signers configured, nothing comes into force on the server's or its store's word alone.

use assay_testkit::{SoftwareDevice, System};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64;
use hyper::Method;
use serde_json::json;
use sqlx::Connection;

use crate::assignment::refusal;
use crate::fixture::{Fixture, attach_trusted, learned};

const POLICY: &str = "/v1/policy";
const START: &str = "/v1/policies/rollouts?percent=100";

/// Somebody who signs policies.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        Signer(Ed25519KeyPair::generate().unwrap())
    }

    fn public(&self) -> Vec<u8> {
        self.0.public_key().as_der().unwrap().as_ref().to_vec()
    }

    /// An envelope, made here by the letter of DSSE.
    fn sign(&self, text: &str) -> String {
        let kind = "application/vnd.assay.policy.v1";
        let signed = format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len());
        let signature = BASE64.encode(self.0.sign(signed.as_bytes()).as_ref());
        let payload = BASE64.encode(text.as_bytes());
        json!({ "payloadType": kind, "payload": payload, "signatures": [{ "sig": signature }] }).to_string()
    }
}

/// A server that wants every policy signed by this signer.
async fn strict(signer: &Signer) -> Fixture {
    let public = signer.public();
    Fixture::with(|config| {
        let folder = config.data.with_file_name("signers");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("signer.der"), public).unwrap();
        config.policy_signers = vec![folder];
    })
    .await
}

fn version(text: &str, version: u64) -> String {
    let mut table: toml::Table = text.parse().unwrap();
    table.insert("version".into(), toml::Value::Integer(version.try_into().unwrap()));
    table.to_string()
}

async fn enrolled(fixture: &Fixture) -> SoftwareDevice {
    let mut device = fixture.device("press-1");
    fixture.edge().await.enroll(&mut device).await.unwrap();
    device
}

/// What the server makes of the device now: state and policy.
async fn judged(fixture: &Fixture, device: &mut SoftwareDevice) -> String {
    let mut stream = fixture.edge().await.attach(device).await.unwrap();
    let verdict = stream.attest(device).await.unwrap();
    format!("{} {}", verdict.state, verdict.policy)
}

/// Changes the database behind the stopped server's back.
async fn tamper(fixture: &mut Fixture, sql: &str) {
    fixture.stop().await;
    let file = format!("sqlite://{}", fixture.data().join("assay.db").display());
    let mut database = sqlx::SqliteConnection::connect(&file).await.unwrap();
    let changed = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut database).await.unwrap();
    assert_eq!(changed.rows_affected(), 1, "{sql}");
    database.close().await.unwrap();
    fixture.restart().await;
}

#[tokio::test]
async fn only_what_an_accepted_key_signed_comes_into_force() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let mut fixture = strict(&signer).await;
    let mut device = enrolled(&fixture).await;
    let text = learned(&mut device, "");
    for refused in [text.clone(), stranger.sign(&text)] {
        let (status, code, message) = refusal(&fixture, Method::PUT, POLICY, &refused).await;
        assert_eq!((status, code.as_str()), (403, "policy-signature"), "{message}");
        assert!(message.contains("sign"), "{message}");
    }
    assert_eq!(fixture.get(POLICY).await["name"], json!(null));
    let (status, code, _) = refusal(&fixture, Method::PUT, POLICY, "{\"payloadType\": \"other\"}").await;
    assert_eq!((status, code.as_str()), (400, "policy-envelope"));

    fixture.put(POLICY, &signer.sign(&text)).await;
    assert_eq!(fixture.get(POLICY).await["signed"], json!(true));
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v1");
    fixture.restart().await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v1");
}

#[tokio::test]
async fn a_signed_policy_keeps_its_version_and_an_older_one_does_not_come_back() {
    let signer = Signer::new();
    let fixture = strict(&signer).await;
    let text = learned(&mut enrolled(&fixture).await, "");
    let third = signer.sign(&version(&text, 3));
    assert_eq!(fixture.put(POLICY, &third).await["version"], 3);
    for spent in [
        signer.sign(&version(&text, 2)),
        signer.sign(&version(
            &learned(&mut fixture.device("other"), "[boot]\nsecure_boot = \"optional\"\n"),
            3,
        )),
    ] {
        let (status, code, message) = refusal(&fixture, Method::PUT, POLICY, &spent).await;
        assert_eq!((status, code.as_str()), (409, "version-spent"));
        assert!(message.contains("sign it as version = 4 or higher"), "{message}");
    }
    // The very same one, for others.
    assert_eq!(fixture.put(&format!("{POLICY}?selector=line%3D3"), &third).await["version"], 3);
    assert_eq!(fixture.put(POLICY, &signer.sign(&version(&text, 9))).await["version"], 9);
}

#[tokio::test]
async fn a_stored_policy_that_was_changed_is_not_in_force() {
    let signer = Signer::new();
    for change in [
        "UPDATE policies SET text = replace(text, 'secure_boot = \"required\"', 'secure_boot = \"optional\"')",
        "UPDATE policies SET envelope = NULL",
        "UPDATE policies SET envelope = replace(envelope, '\"sig\":\"', '\"sig\":\"AAAA')",
    ] {
        let mut fixture = strict(&signer).await;
        let mut device = enrolled(&fixture).await;
        let text = learned(&mut device, "");
        fixture.put(POLICY, &signer.sign(&text)).await;
        assert_eq!(judged(&fixture, &mut device).await, "trusted base v1");
        tamper(&mut fixture, change).await;
        assert_eq!(fixture.get("/v1/policies").await["assignments"][0]["in_force"], json!(false), "{change}");
        assert!(!judged(&fixture, &mut device).await.starts_with("trusted"), "{change}");
        // The server runs, and takes a signed one.
        fixture.put(POLICY, &signer.sign(&version(&text, 2))).await;
        assert_eq!(judged(&fixture, &mut device).await, "trusted base v2", "{change}");
        assert_eq!(fixture.get("/v1/policies").await["assignments"][0]["in_force"], json!(true));
    }
}

#[tokio::test]
async fn what_was_set_before_anybody_had_to_sign_is_not_in_force() {
    let signer = Signer::new();
    let mut fixture = Fixture::start().await;
    let mut device = enrolled(&fixture).await;
    let text = learned(&mut device, "");
    fixture.put(POLICY, &text).await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v1");
    let key = fixture.folder().join("signer.der");
    std::fs::write(&key, signer.public()).unwrap();
    fixture.restart_with(|config| config.policy_signers = vec![key]).await.unwrap();
    assert!(!judged(&fixture, &mut device).await.starts_with("trusted"));
    let next = signer.sign(&version(&text, 4));
    let (status, code, message) = refusal(&fixture, Method::POST, START, &next).await;
    assert_eq!((status, code.as_str()), (409, "policy-not-vouched"), "{message}");
    fixture.put(POLICY, &next).await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v4");
    // Without signers again, what was signed is a policy like any other.
    fixture.restart_with(|config| config.policy_signers.clear()).await.unwrap();
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v4");
    fixture.put(POLICY, &signer.sign(&text)).await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v5");
}

#[tokio::test]
async fn the_union_of_a_roll_out_stands_on_the_signatures_around_it() {
    let signer = Signer::new();
    let mut fixture = strict(&signer).await;
    let mut device = enrolled(&fixture).await;
    fixture.put(POLICY, &signer.sign(&learned(&mut device, ""))).await;
    let mut updated = fixture.device("sample");
    updated.boot(&System { kernel: "6.12.10-amd64".into(), ..System::default() });
    let next = learned(&mut updated, "");
    let (status, code, message) = refusal(&fixture, Method::POST, START, &next).await;
    assert_eq!((status, code.as_str()), (403, "policy-signature"), "{message}");
    // One number is for the union.
    let (status, code, message) =
        refusal(&fixture, Method::POST, START, &signer.sign(&version(&next, 2))).await;
    assert_eq!((status, code.as_str()), (409, "version-spent"));
    assert!(message.contains("version = 3 or higher"), "{message}");
    fixture.post_text(START, &signer.sign(&version(&next, 3))).await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v2");
    fixture.restart().await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v2");
    let widen =
        "UPDATE policies SET text = replace(text, 'secure_boot = \"required\"', 'secure_boot = \"optional\"')
        WHERE version = 2";
    tamper(&mut fixture, widen).await;
    assert!(!judged(&fixture, &mut device).await.starts_with("trusted"));
    fixture.post("/v1/policies/rollouts/base/abort", &json!({})).await;
    assert_eq!(judged(&fixture, &mut device).await, "trusted base v1");
}

#[tokio::test]
async fn an_approval_does_not_change_a_signed_policy() {
    let signer = Signer::new();
    let fixture = strict(&signer).await;
    let mut device = enrolled(&fixture).await;
    fixture.put(POLICY, &signer.sign(&learned(&mut device, ""))).await;
    let edge = fixture.edge().await;
    let (mut stream, _) = attach_trusted(&edge, &mut device).await;
    device.run_program("/opt/tool", b"a tool");
    stream.changed().await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "suspect");
    let approve = "/v1/devices/press-1/approve";
    let approval = fixture.approval("press-1").await.to_string();
    let (status, code, message) = refusal(&fixture, Method::POST, approve, &approval).await;
    assert_eq!((status, code.as_str()), (403, "policy-signature"));
    assert!(message.contains("assay policy sign") && message.contains("base"), "{message}");
    assert_eq!(fixture.get(POLICY).await["version"], 1);
}

#[tokio::test]
async fn signers_that_are_none_stop_the_server() {
    let mut fixture = Fixture::start().await;
    let empty = fixture.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = fixture.restart_with(|config| config.policy_signers = vec![empty]).await.unwrap_err();
    assert!(error.to_string().contains("0 keys are there"), "{error}");
    let junk = fixture.folder().join("maker.pem");
    std::fs::write(&junk, "junk").unwrap();
    let signers = vec![junk];
    let config = assay_server::Config {
        policy_signers: signers,
        data: fixture.folder().join("other"),
        ..Default::default()
    };
    let error = assay_server::Running::start(config).await.unwrap_err();
    assert!(error.to_string().contains("maker.pem: not a key that can sign policies"), "{error}");
}
