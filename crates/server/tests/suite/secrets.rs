//! Secrets: who is trusted and meant gets them, sealed to its TPM; who falls, is not meant any more, or lies, does not.

use assay_identity::hpke::{self, Plain, Sealed};
use assay_testkit::edge::protocol::{SecretRef, SecretRequest, SecretResponse};
use assay_testkit::edge::{Attachment, Grants, Message};
use assay_testkit::software_device::quote::Certifying;
use assay_testkit::{Bank, SoftwareDevice};
use assay_wire::binding::{secret_info, secret_nonce};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use data_encoding::BASE64;
use hyper::Method;
use serde_json::{Value, json};

use crate::fixture::{Fixture, attest_again};

/// The key in the TPM that secrets are sealed to.
struct ExchangeKey {
    key: PrivateKey,
    point: Vec<u8>,
}

impl ExchangeKey {
    fn new() -> ExchangeKey {
        let key = PrivateKey::generate(&ECDH_P256).unwrap();
        let point = key.compute_public_key().unwrap().as_ref().to_vec();
        ExchangeKey { key, point }
    }

    /// A TPMT_PUBLIC of it with these attributes.
    fn area(&self, attributes: u32) -> Vec<u8> {
        let (x, y) = self.point[1..].split_at(32);
        let parts: [&[u8]; 6] = [
            &[0, 0x23, 0, 0x0b],
            &attributes.to_be_bytes(),
            &[0, 0],
            &[0, 0x10, 0, 0x10, 0, 3, 0, 0x10],
            &[0, 32],
            x,
        ];
        [parts.concat(), [&[0, 32], y].concat()].concat()
    }

    fn open(&self, response: &SecretResponse, device_id: &str, stream: &[u8]) -> Option<Plain> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, response.encapsulated.as_slice());
        let x = agree(&self.key, peer, (), |x| Ok(x.to_vec())).ok()?;
        let info = secret_info(device_id, stream, &response.name, response.version);
        let (encapsulated, ciphertext) = (response.encapsulated.clone(), response.ciphertext.clone());
        hpke::open(&x, &self.point, &info, &Sealed { encapsulated, ciphertext }).ok()
    }
}

fn request(
    signer: &SoftwareDevice,
    area: &[u8],
    (name, version): (&str, u64),
    (stream, number): (&[u8], u64),
) -> SecretRequest {
    let public = [&u16::try_from(area.len()).unwrap().to_be_bytes(), area].concat();
    let nonce = secret_nonce(stream, number, name, &public);
    let object = [&[0, 0x0b], Bank::Sha256.hash(area).as_slice()].concat();
    let certified =
        Certifying { name: object, ..Certifying::honest(signer, &nonce) }.sign(&signer.ak).unwrap();
    let (certify_info, certify_signature) = (certified.message, certified.signature);
    SecretRequest { name: name.to_owned(), version, public, certify_info, certify_signature, number }
}

async fn ask(stream: &mut Attachment, request: SecretRequest) -> SecretResponse {
    stream.request_secret(request).await.unwrap();
    loop {
        if let Message::Secret(response) = stream.next().await.unwrap() {
            return response;
        }
    }
}

async fn honest(
    (device, stream): (&SoftwareDevice, &mut Attachment),
    key: &ExchangeKey,
    secret: (&str, u64),
) -> (SecretResponse, Option<Vec<u8>>) {
    let place = stream.place();
    let asked = request(device, &key.area(RESIDENT), secret, (&place.stream, place.number));
    let response = ask(stream, asked).await;
    let plain = key
        .open(&response, device.device_id.as_deref().unwrap(), &place.stream)
        .map(|plain| plain.bytes().to_vec());
    (response, plain)
}

async fn put(fixture: &Fixture, name: &str, content: &[u8], to: Value) -> Value {
    let body = json!({ "name": name, "content": BASE64.encode(content), "to": to });
    fixture.post("/v1/secrets", &body).await
}

fn named(grants: &Grants) -> Vec<(&str, u64)> {
    grants.secrets.iter().map(|SecretRef { name, version }| (name.as_str(), *version)).collect()
}

#[tokio::test]
async fn a_secret_is_its_devices_for_as_long_as_it_is_trusted_and_meant() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert!(grants.secrets.is_empty());
    let answer = put(&fixture, "db", b"hunter2", json!({ "labels": "site=paris" })).await;
    assert_eq!(answer["version"], 1);
    // Not meant yet.
    let key = ExchangeKey::new();
    let (denied, _) = honest((&device, &mut stream), &key, ("db", 1)).await;
    assert!(denied.denied.starts_with("other-labels") && denied.ciphertext.is_empty(), "{}", denied.denied);

    fixture.post("/v1/devices/press-1/labels", &json!({ "set": ["site=paris"] })).await;
    let grants = stream.grants().await.unwrap();
    assert_eq!(named(&grants), [("db", 1)]);
    let (_, plain) = honest((&device, &mut stream), &key, ("db", 1)).await;
    assert_eq!(plain.unwrap(), b"hunter2");
    let shown = fixture.get("/v1/secrets/db").await;
    assert_eq!(shown["held_by"][0]["device"], device.device_id.clone().unwrap());

    // Another content is another version, and the old one is nobody's.
    fixture.post("/v1/secrets/db/rotate", &json!({ "content": BASE64.encode(b"correct horse") })).await;
    assert_eq!(named(&stream.grants().await.unwrap()), [("db", 2)]);
    let (old, _) = honest((&device, &mut stream), &key, ("db", 1)).await;
    assert!(old.denied.contains("no such secret"), "{}", old.denied);
    let (_, plain) = honest((&device, &mut stream), &key, ("db", 2)).await;
    assert_eq!(plain.unwrap(), b"correct horse");

    // It falls with the state, and comes back with it.
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let fallen = stream.grants().await.unwrap();
    assert!(fallen.withdrawn && fallen.secrets.is_empty());
    let (denied, _) = honest((&device, &mut stream), &key, ("db", 2)).await;
    assert!(denied.denied.starts_with("not-trusted"), "{}", denied.denied);
    assert_eq!(fixture.get("/v1/secrets/db").await["held_by"], json!([]));
    fixture.approve("press-1").await;
    while attest_again(&mut stream, &mut device).await.state != "trusted" {}
    let grants = stream.grants().await.unwrap();
    assert_eq!(named(&grants), [("db", 2)]);
    honest((&device, &mut stream), &key, ("db", 2)).await.1.unwrap();

    // Other labels, and it is gone, on record; the same when it is revoked.
    fixture.post("/v1/devices/press-1/labels", &json!({ "remove": ["site"] })).await;
    assert!(stream.grants().await.unwrap().secrets.is_empty());
    assert_eq!(fixture.get("/v1/secrets/db").await["held_by"], json!([]));
    fixture.post("/v1/secrets/db/assign", &json!({ "to": { "labels": "" } })).await;
    assert_eq!(named(&stream.grants().await.unwrap()), [("db", 2)]);
    honest((&device, &mut stream), &key, ("db", 2)).await.1.unwrap();
    assert_eq!(fixture.delete("/v1/secrets/db").await["devices"], 1);
    assert!(stream.grants().await.unwrap().secrets.is_empty());
    // Put in again, it is no version that anybody had.
    assert_eq!(put(&fixture, "db", b"third", json!({ "labels": "" })).await["version"], 3);

    let trail = fixture.get("/v1/audit?limit=1000").await.to_string();
    let kinds = [
        "secret.put",
        "secret.rotated",
        "secret.assigned",
        "secret.released",
        "secret.withdrawn",
        "secret.revoked",
    ];
    for kind in kinds {
        assert!(trail.contains(kind), "{kind}");
    }
    // Nothing that was ever answered or recorded has a secret in it, in whichever form.
    for secret in ["hunter2", "correct horse", &BASE64.encode(b"hunter2")] {
        assert!(!trail.contains(secret) && !fixture.get("/v1/secrets").await.to_string().contains(secret));
    }
}

#[tokio::test]
async fn what_is_on_the_disk_does_not_tell_a_secret_and_opens_with_its_key_alone() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    put(&fixture, "db", b"a-secret-that-is-looked-for", json!({ "labels": "" })).await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let key = ExchangeKey::new();
    honest((&device, &mut stream), &key, ("db", 1)).await.1.unwrap();
    drop(stream);
    fixture.stop().await;
    for entry in std::fs::read_dir(fixture.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(27).any(|window| window == b"a-secret-that-is-looked-for"), "{path:?}");
        }
    }
    let path = fixture.data().join("keys/secrets.key");
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = fixture.start_again().await.unwrap_err().to_string();
    assert!(error.contains("secrets.key"), "{error}");
    std::fs::write(&path, kept).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fixture.start_again().await.unwrap();
}

/// A request on a stream with a number.
type Lie<'a> = dyn Fn(&[u8], u64) -> SecretRequest + 'a;

#[tokio::test]
async fn every_lie_about_the_key_is_refused() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    put(&fixture, "db", b"hunter2", json!({ "labels": "" })).await;
    put(&fixture, "other", b"hunter3", json!({ "labels": "", "policy": "elsewhere" })).await;
    put(&fixture, "nobodys", b"hunter4", Value::Null).await;
    let (device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert_eq!(named(&grants), [("db", 1)]);
    let other = fixture.device("press-2");
    let key = ExchangeKey::new();
    let area = |attributes| key.area(attributes);
    let of = |name: &'static str, version| {
        move |signer: &SoftwareDevice, area: &[u8], place: (&[u8], u64)| {
            request(signer, area, (name, version), place)
        }
    };
    let db = of("db", 1);
    let cases: [(&str, &Lie<'_>); 13] = [
        ("not certified", &|_, number| db(&device, &area(RESIDENT), (&[7; 32], number))),
        ("not certified", &|stream, number| SecretRequest {
            number,
            ..db(&device, &area(RESIDENT), (stream, number + 1))
        }),
        // A key that was certified for another secret, and one of another TPM.
        ("not certified", &|stream, number| {
            let name = "db".to_owned();
            SecretRequest { name, ..request(&device, &area(RESIDENT), ("dc", 1), (stream, number)) }
        }),
        ("not certified", &|stream, number| db(&other, &area(RESIDENT), (stream, number))),
        // One that may leave its TPM, one that was brought there, one that signs, and one for the TPM's own use.
        ("not certified", &|stream, number| db(&device, &area(RESIDENT & !(1 << 1)), (stream, number))),
        ("not certified", &|stream, number| db(&device, &area(RESIDENT & !(1 << 5)), (stream, number))),
        ("not certified", &|stream, number| db(&device, &area(RESIDENT | 1 << 18), (stream, number))),
        ("not certified", &|stream, number| db(&device, &area(RESIDENT | 1 << 16), (stream, number))),
        ("not read", &|stream, number| SecretRequest {
            public: vec![0, 1, 2],
            ..db(&device, &area(RESIDENT), (stream, number))
        }),
        ("not newer", &|stream, _| db(&device, &area(RESIDENT), (stream, 1))),
        ("other-policy", &|stream, number| of("other", 1)(&device, &area(RESIDENT), (stream, number))),
        ("no such secret", &|stream, number| of("nobodys", 1)(&device, &area(RESIDENT), (stream, number))),
        ("no such secret", &|stream, number| of("../db", 1)(&device, &area(RESIDENT), (stream, number))),
    ];
    for (says, lie) in cases {
        let place = stream.place();
        let answer = ask(&mut stream, lie(&place.stream, place.number)).await;
        assert!(answer.ciphertext.is_empty() && answer.denied.contains(says), "{says}: {}", answer.denied);
    }
    assert_eq!(fixture.get("/v1/secrets/db").await["held_by"], json!([]));
}

#[tokio::test]
async fn bad_requests_of_operators_change_nothing() {
    let fixture = Fixture::start().await;
    put(&fixture, "db", b"hunter2", Value::Null).await;
    let content = BASE64.encode(b"x");
    let large = BASE64.encode(&vec![0; 1024 * 1024 + 1]);
    let post = async |path: &str, body: Value| {
        let bearer = format!("Bearer {}", fixture.token());
        let headers = [("authorization", bearer.as_str())];
        let answer = fixture.call(Method::POST, path, &headers, body.to_string()).await;
        let refusal: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status().as_u16(), refusal["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let cases = [
        ("/v1/secrets", json!({ "name": "db", "content": content }), (409, "secret-exists")),
        ("/v1/secrets", json!({ "name": "../db", "content": content }), (400, "secret-name")),
        ("/v1/secrets", json!({ "name": "a", "content": "%" }), (400, "content")),
        ("/v1/secrets", json!({ "name": "a", "content": "" }), (400, "secret-bytes")),
        ("/v1/secrets", json!({ "name": "a", "content": large }), (400, "secret-bytes")),
        ("/v1/secrets", json!({ "name": "a", "content": content, "to": { "labels": "x" } }), (400, "labels")),
        ("/v1/secrets/none/rotate", json!({ "content": content }), (404, "unknown-secret")),
        ("/v1/secrets/none/assign", json!({ "to": null }), (404, "unknown-secret")),
    ];
    for (path, body, (status, code)) in cases {
        assert_eq!(post(path, body).await, (status, code.to_owned()), "{path} {code}");
    }
    let secrets = fixture.get("/v1/secrets").await;
    assert_eq!(
        (&secrets["secrets"][0]["name"], &secrets["secrets"][0]["version"]),
        (&json!("db"), &json!(1))
    );
    assert_eq!(secrets["secrets"].as_array().unwrap().len(), 1);
}

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, decrypt.
const RESIDENT: u32 = 0x0002_0472;
