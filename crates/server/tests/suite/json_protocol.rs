//! The JSON protocol at the collector: what an agent of the original gets for what it sends, strictly and as the original has it.

use std::sync::atomic::{AtomicUsize, Ordering};

use assay_server::{Compatibility, JsonProtocol};
use assay_telemetry::json_protocol::{Acceptance, HashAlgorithm, Submission, key_hash};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair};
use data_encoding::{BASE64, HEXLOWER};
use hyper::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, attest_again};

const FENCE: &str = "[location]\nallow_subdivisions = [\"US-CA\", \"US-TX\"]";

/// An agent of the original, as far as the wire shows it.
struct Agent<'f> {
    fixture: &'f Fixture,
    key: RsaKeyPair,
    names_itself: bool,
}

impl<'f> Agent<'f> {
    fn new(fixture: &'f Fixture) -> Agent<'f> {
        Agent { fixture, key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), names_itself: true }
    }

    fn spki(&self) -> Vec<u8> {
        self.key.public_key().as_der().unwrap().as_ref().to_vec()
    }

    /// Has the operator tie the key to a device.
    async fn signs_for(&self, device: &str) {
        let body = json!({ "device": device, "key": BASE64.encode(&self.spki()) });
        let added = self.fixture.post("/v1/telemetry-keys", &body).await;
        assert_eq!(added["hash"], key_hash(&self.spki()));
    }

    async fn call(&self, method: Method, path: &str, body: String) -> (u16, Value) {
        let door = self.fixture.running().addresses().json_protocol.unwrap();
        let json = [("content-type", "application/json")];
        let answer = self.fixture.call_at(door, method, path, &json, body).await;
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    async fn nonce(&self) -> String {
        let path = match self.names_itself {
            true => format!("/nonce?public_key_hash={}", key_hash(&self.spki())),
            false => "/nonce".to_owned(),
        };
        let (status, body) = self.call(Method::GET, &path, String::new()).await;
        assert_eq!((status, &body["expires_in"]), (200, &json!("5 minutes")), "{body}");
        body["nonce"].as_str().unwrap().to_owned()
    }

    /// A body, signed.
    fn signed(&self, nonce: &str, algorithm: HashAlgorithm, region: &str) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = algorithm.name();
        let body = |signature: &str| {
            format!(
                r#"{{"metrics": {{"timestamp": "2025-08-15T10:00:00.123456", "metrics": {{"cpu_percent": 1e-05, "n": {number}}},
                "service": {{"name": "opentelemetry-agent"}}}}, "geographic_region": {region}, "nonce": "{nonce}",
                "signature": "{signature}", "algorithm": "{name}", "timestamp": "2025-08-15T10:00:01"}}"#
            )
        };
        let message = Submission::read(body("").as_bytes()).unwrap().signed_bytes();
        let padding = match algorithm {
            HashAlgorithm::Sha256 => &RSA_PKCS1_SHA256,
            HashAlgorithm::Sha384 => &RSA_PKCS1_SHA384,
            HashAlgorithm::Sha512 => &RSA_PKCS1_SHA512,
        };
        let mut signature = vec![0; 256];
        self.key.sign(padding, &SystemRandom::new(), &message, &mut signature).unwrap();
        body(&HEXLOWER.encode(&signature))
    }

    async fn submit(&self, body: String) -> (u16, String) {
        let (status, body) = self.call(Method::POST, "/metrics", body).await;
        let said = body["error"].as_str().or_else(|| body["status"].as_str()).unwrap_or_default();
        (status, said.to_owned())
    }

    async fn sends(&self, region: &str) -> (u16, String) {
        self.submit(self.signed(&self.nonce().await, HashAlgorithm::Sha256, region)).await
    }
}

const AUSTIN: &str = r#"{"region": "US", "state": "Texas", "city": "Austin"}"#;

async fn served(ways: &[Compatibility]) -> Fixture {
    let json = JsonProtocol {
        listen: Some(([127, 0, 0, 1], 0).into()),
        dangerous_compatibility: ways.to_vec(),
        ..JsonProtocol::default()
    };
    Fixture::with(|config| config.json_protocol = Some(json)).await
}

fn error(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn a_submission_is_accepted_recorded_and_verifies_by_hand() {
    let fixture = served(&[]).await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", FENCE).await;
    let agent = Agent::new(&fixture);
    let unknown = agent.call(Method::GET, "/nonce?public_key_hash=ab", String::new()).await;
    assert_eq!(unknown, (403, json!({ "error": "Agent not found in allowlist" })));
    agent.signs_for("press-1").await;
    for algorithm in HashAlgorithm::ALL {
        let body = agent.signed(&agent.nonce().await, algorithm, AUSTIN);
        assert_eq!(agent.submit(body.clone()).await, (200, "success".to_owned()), "{algorithm:?}");
        assert_eq!(agent.submit(body).await, error(400, "Invalid or expired nonce"));
    }
    // One run, each statement naming the one before.
    let records = fixture.get("/v1/telemetry?device=press-1").await["records"].clone();
    assert_eq!(records.as_array().unwrap().len(), 3);
    let mut previous = [0; 32];
    for sequence in 1..=3 {
        let leaf = &records[0]["leaf"];
        let batch = fixture.get(&format!("/v1/telemetry/{leaf}/{sequence}")).await;
        let bytes = |member: &str| BASE64.decode(batch[member].as_str().unwrap().as_bytes()).unwrap();
        let (statement, key) = (bytes("statement"), bytes("device_key"));
        let (acceptance, _) =
            Acceptance::open(&statement, &bytes("signature"), &bytes("payload"), &key).unwrap();
        assert_eq!((acceptance.sequence, acceptance.previous, acceptance.items), (sequence, previous, 2));
        previous = assay_telemetry::sha256(&statement);
    }
    assert_eq!(records[0]["location"], "US-TX/Austin");
    let leaf = records[0]["leaf"].as_u64().unwrap();
    let leaves = fixture.get(&format!("/v1/audit?after={}&limit=1", leaf - 1)).await;
    assert_eq!(
        (&leaves["leaves"][0]["kind"], &leaves["leaves"][0]["detail"]["protocol"]),
        (&json!("telemetry.accepted"), &json!("json"))
    );
    assay_server::ledger::verify(fixture.data(), None, None).await.unwrap();
}

#[tokio::test]
async fn each_check_refuses_in_its_order_and_says_so_as_the_original_does() {
    let fixture = served(&[]).await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", FENCE).await;
    let agent = Agent::new(&fixture);
    agent.signs_for("press-1").await;
    let submit = async |body: &str| agent.submit(body.to_owned()).await;
    assert_eq!(submit("{").await, error(500, "Failed to process metrics"));
    assert_eq!(submit("{}").await, error(400, "No payload provided"));
    let long = format!("{{\"metrics\": \"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(submit(&long).await, error(413, "Payload too large"));
    let deep = format!("{}{}", "[".repeat(1 << 19), "]".repeat(1 << 19));
    assert_eq!(submit(&deep).await, error(500, "Failed to process metrics"));
    assert_eq!(submit("{\"metrics\": null}").await, error(400, "Invalid payload structure"));
    let nonce = agent.nonce().await;
    let body = agent.signed(&nonce, HashAlgorithm::Sha256, AUSTIN);
    let unsigned = body.replace("\"n\":", "\"m\":");
    assert_eq!(submit(&unsigned).await, error(400, "Signature verification failed"));
    // Nobody tries a nonce twice.
    assert_eq!(submit(&body).await, error(400, "Invalid or expired nonce"));
    let algorithm =
        agent.signed(&agent.nonce().await, HashAlgorithm::Sha256, AUSTIN).replace("sha256", "sha512");
    assert_eq!(submit(&algorithm).await, error(400, "Signature verification failed"));
    let digest = agent.signed(&agent.nonce().await, HashAlgorithm::Sha256, AUSTIN);
    let digest = digest.replacen('{', "{\"digest\": \"00\", ", 1);
    assert_eq!(submit(&digest).await, error(400, "Signature verification failed"));
    let elsewhere = "Geographic region verification failed";
    for region in [
        r#"{"region": "US", "state": "New York", "city": "New York"}"#,
        r#"{"region": "US"}"#,
        r#"{"region": "US", "state": "Texas"}"#,
        r#"{"region": "DE", "state": "Texas", "city": "Austin"}"#,
        r#"{"region": "US", "state": "Atlantis", "city": "Austin"}"#,
        "{}",
    ] {
        assert_eq!(agent.sends(region).await, error(400, elsewhere), "{region}");
    }
    let record = fixture.get("/v1/telemetry?device=press-1").await["records"][0].clone();
    assert_eq!((&record["accepted"], &record["code"]), (&json!(false), &json!("location-refused")));
    // Another device's nonce is of no use to it.
    let other = Agent::new(&fixture);
    let stolen = agent.nonce().await;
    assert_eq!(
        submit(&other.signed(&stolen, HashAlgorithm::Sha256, AUSTIN)).await,
        error(400, "Signature verification failed")
    );
    let whose = agent.call(Method::GET, "/nonce", String::new()).await;
    assert_eq!(whose, (400, json!({ "error": "public_key_hash parameter is required" })));
    let nothing = agent.call(Method::GET, "/v1/devices", String::new()).await;
    assert_eq!(nothing, (404, json!({ "error": "Endpoint not found" })));
    let (status, health) = agent.call(Method::GET, "/health", String::new()).await;
    assert_eq!(
        (status, &health["status"], &health["active_nonces"]),
        (200, &json!("healthy"), &json!(0)),
        "{health}"
    );
    let (_, cleaned) = agent.call(Method::POST, "/nonces/cleanup", String::new()).await;
    assert_eq!(cleaned, json!({ "status": "success", "cleaned_count": 0, "remaining_count": 0 }));
    let (_, of_metrics) = agent.call(Method::GET, "/metrics/status", String::new()).await;
    assert_eq!(of_metrics["tpm2_available"], true);
}

#[tokio::test]
async fn a_device_that_falls_submits_nothing_and_a_key_that_is_removed_signs_nothing() {
    let fixture = served(&[]).await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let agent = Agent::new(&fixture);
    agent.signs_for("press-1").await;
    assert_eq!(agent.sends("{}").await.0, 200);
    device.run_program("/tmp/implant", b"evil");
    attest_again(&mut stream, &mut device).await;
    assert_eq!(agent.sends("{}").await, error(400, "Agent verification failed"));
    let nonce = agent.nonce().await;
    fixture.delete(&format!("/v1/telemetry-keys/{}", key_hash(&agent.spki()))).await;
    let body = agent.signed(&nonce, HashAlgorithm::Sha256, "{}");
    assert_eq!(agent.submit(body).await, error(400, "Signature verification failed"));
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    let kinds: Vec<_> =
        leaves.as_array().unwrap().iter().map(|leaf| leaf["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"telemetry.key-added") && kinds.contains(&"telemetry.key-removed"), "{kinds:?}");
}

#[tokio::test]
async fn what_is_unsafe_in_the_original_works_where_it_is_asked_for_by_name() {
    use Compatibility::{LateNonce, PartialRegion, UnboundNonce, UnsignedDigest};
    let fixture = served(&[LateNonce, PartialRegion, UnboundNonce, UnsignedDigest]).await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) =
        fixture.trusted_device(&edge, "press-1", "[location]\nallow_countries = [\"US\"]").await;
    let agent = Agent { names_itself: false, ..Agent::new(&fixture) };
    agent.signs_for("press-1").await;
    let nonce = agent.nonce().await;
    let body = agent.signed(&nonce, HashAlgorithm::Sha256, r#"{"region": "US"}"#);
    let forged = body.replace("\"n\":", "\"m\":");
    assert_eq!(agent.submit(forged).await, error(400, "Signature verification failed"));
    // The nonce is still good, and its label says what it likes.
    let relabelled = body.replace("sha256", "sha512");
    assert_eq!(agent.submit(relabelled).await, (200, "success".to_owned()));
    assert_eq!(agent.submit(body).await, error(400, "Invalid or expired nonce"));
}

#[tokio::test]
async fn the_lists_of_the_original_hold_beside_the_policy() {
    let fixture = served(&[]).await;
    let mut json = fixture.config().json_protocol.unwrap();
    json.allowed_regions = vec!["US".to_owned()];
    json.allowed_states = vec!["California".to_owned(), "Texas".to_owned()];
    json.allowed_cities = vec!["Austin".to_owned()];
    let mut fixture = fixture;
    fixture.restart_with(|config| config.json_protocol = Some(json)).await.unwrap();
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let agent = Agent::new(&fixture);
    agent.signs_for("press-1").await;
    assert_eq!(agent.sends(AUSTIN).await.0, 200);
    for region in [
        r#"{"region": "US", "state": "Texas", "city": "Dallas"}"#,
        r#"{"region": "US", "state": "Texas"}"#,
        r#"{"region": "US", "state": "TX", "city": "Austin"}"#,
    ] {
        assert_eq!(agent.sends(region).await.0, 400, "{region}");
    }
}

#[tokio::test]
async fn what_comes_at_once_is_taken_in_one_after_the_other_and_each_once() {
    let fixture = served(&[]).await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let agent = Agent::new(&fixture);
    agent.signs_for("press-1").await;
    let body = agent.signed(&agent.nonce().await, HashAlgorithm::Sha256, "{}");
    let copies = tokio::join!(agent.submit(body.clone()), agent.submit(body.clone()), agent.submit(body));
    let accepted = [copies.0, copies.1, copies.2].iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(accepted, 1);
    let all = tokio::join!(agent.sends("{}"), agent.sends("{}"), agent.sends("{}"), agent.sends("{}"));
    assert_eq!([all.0.0, all.1.0, all.2.0, all.3.0], [200; 4]);
    let records = fixture.get("/v1/telemetry?device=press-1").await["records"].clone();
    assert_eq!(records.as_array().unwrap().len(), 5);
}
