//! Enrollment: what binds a device, every way to lie about it, and that a refusal leaves nothing behind.

use assay_testkit::edge::Edge;
use assay_testkit::edge::protocol::{EnrollBegin, EnrollProof};
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::software_device::quote::Certifying;
use assay_testkit::{EkMaker, SoftwareDevice, software_device::TpmKey};
use serde_json::json;
use tonic::Code;

use assay_wire::binding::enroll_proof_body;

use crate::fixture::{Fixture, TRUST_DOMAIN, code};

/// What a device did that must be refused, and how.
async fn refused_begin(change: impl FnOnce(&mut EnrollBegin), expected: (Code, &str)) {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut begin = fixture.device("press-1").enroll_begin();
    change(&mut begin);
    let mut enrollment = edge.begin_enrollment(begin).await.unwrap();
    let (found, reason) = code(enrollment.challenge().await.unwrap_err());
    assert_eq!((found, reason.as_str()), expected);
    nothing_stored(&fixture).await;
}

async fn refused_proof(
    change: impl FnOnce(&SoftwareDevice, &[u8], &mut EnrollProof),
    expected: (Code, &str),
) {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let device = fixture.device("press-1");
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    let challenge = enrollment.challenge().await.unwrap();
    let mut proof = device.enroll_proof(&challenge).unwrap();
    change(&device, &challenge.nonce, &mut proof);
    let (found, reason) = code(enrollment.prove(proof).await.unwrap_err());
    assert_eq!((found, reason.as_str()), expected);
    nothing_stored(&fixture).await;
}

async fn nothing_stored(fixture: &Fixture) {
    assert_eq!(fixture.get("/v1/devices").await["devices"], json!([]));
    let leaves = fixture.get("/v1/audit").await["leaves"].as_array().unwrap().clone();
    assert!(leaves.iter().all(|leaf| !leaf["kind"].as_str().unwrap().starts_with("device.")));
}

async fn enroll_anew(edge: &Edge, device: &mut SoftwareDevice) -> Result<(), (Code, String)> {
    edge.enroll(device).await.map(|_| ()).map_err(code)
}

#[tokio::test]
async fn a_device_is_bound_under_the_hash_of_its_ek() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    let result = edge.enroll(&mut device).await.unwrap();
    let hash = data_encoding::HEXLOWER.encode(&assay_telemetry::sha256(device.ek.spki()));
    assert_eq!(result.device_id, format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{hash}"));
    assert_eq!(result.bundle, fixture.bundle().to_der());
    for name in ["press-1", &hash] {
        let status = fixture.status(name).await;
        assert_eq!((status["status"].as_str(), status["svids"].as_u64()), (Some("enrolled"), Some(0)));
    }
}

#[tokio::test]
async fn an_rsa_ek_enrolls_too() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let ek = assay_testkit::software_device::EndorsementKey::generate(
        assay_testkit::software_device::EkKind::Rsa2048,
    );
    let mut device = SoftwareDevice::with_ek("press-1", &fixture.maker, ek.unwrap()).unwrap();
    edge.enroll(&mut device).await.unwrap();
}

#[tokio::test]
async fn an_ek_certificate_of_another_ek_is_refused() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut begin = fixture.device("press-1").enroll_begin();
    begin.ek_certificate = fixture.device("press-2").ek_certificate;
    let mut enrollment = edge.begin_enrollment(begin).await.unwrap();
    let refusal = code(enrollment.challenge().await.unwrap_err());
    assert_eq!(refusal, (Code::PermissionDenied, "ek-certificate-key".to_owned()));
    nothing_stored(&fixture).await;
}

#[tokio::test]
async fn a_maker_nobody_trusts_is_refused() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let stranger = EkMaker::new().unwrap();
    let mut device = SoftwareDevice::new("press-1", &stranger).unwrap();
    let refusal = enroll_anew(&edge, &mut device).await.unwrap_err();
    assert_eq!(refusal, (Code::PermissionDenied, "ek-chain".to_owned()));
}

#[tokio::test]
async fn an_unrestricted_ak_is_refused() {
    let unrestricted = TpmKey::generate(DEVICE_KEY).unwrap().public_area();
    refused_begin(|begin| begin.ak_public = unrestricted, (Code::PermissionDenied, "ak-attributes")).await;
}

#[tokio::test]
async fn a_restricted_device_key_is_refused() {
    let restricted = TpmKey::generate(ATTESTATION_KEY).unwrap().public_area();
    refused_begin(
        |begin| begin.device_key_public = restricted,
        (Code::PermissionDenied, "device-key-certify"),
    )
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_key_are_malformed() {
    refused_begin(|begin| begin.ak_public = vec![0; 40], (Code::InvalidArgument, "ak-parse")).await;
    refused_begin(|begin| begin.ek_public = Vec::new(), (Code::InvalidArgument, "ek-public")).await;
}

#[tokio::test]
async fn a_name_that_cannot_be_shown_is_malformed() {
    refused_begin(|begin| begin.name = "<b>".to_owned(), (Code::InvalidArgument, "name")).await;
    refused_begin(|begin| begin.name = "a".repeat(254), (Code::InvalidArgument, "name")).await;
}

#[tokio::test]
async fn an_oversized_message_is_refused() {
    refused_begin(|begin| begin.ek_certificate = vec![0; 33 << 20], (Code::ResourceExhausted, "size")).await;
}

#[tokio::test]
async fn a_secret_that_was_not_opened_is_refused() {
    let expected = (Code::Unauthenticated, "credential-activation");
    refused_proof(|_, _, proof| proof.proof = vec![0; 32], expected).await;
    refused_proof(|_, _, proof| proof.proof.truncate(16), expected).await;
}

#[tokio::test]
async fn a_request_put_in_by_another_breaks_the_proof() {
    let other = |device: &SoftwareDevice| SoftwareDevice::csr(device).unwrap();
    // A new request by the same key has another signature, and the proof covers every byte of it.
    refused_proof(
        |device, _, proof| proof.csr = other(device),
        (Code::Unauthenticated, "credential-activation"),
    )
    .await;
}

#[tokio::test]
async fn a_certification_for_another_nonce_is_refused() {
    refused_proof(
        |device, _, proof| {
            let signed = Certifying::honest(device, &[9; 32]).sign(&device.ak).unwrap();
            (proof.certify_info, proof.certify_signature) = (signed.message, signed.signature);
        },
        (Code::PermissionDenied, "device-key-certify"),
    )
    .await;
}

#[tokio::test]
async fn a_certification_by_another_key_is_refused() {
    refused_proof(
        |device, nonce, proof| {
            let other = TpmKey::generate(ATTESTATION_KEY).unwrap();
            let signed = Certifying::honest(device, nonce).sign(&other).unwrap();
            (proof.certify_info, proof.certify_signature) = (signed.message, signed.signature);
        },
        (Code::PermissionDenied, "device-key-certify"),
    )
    .await;
}

#[tokio::test]
async fn a_request_for_a_key_that_was_not_certified_is_refused() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    let challenge = enrollment.challenge().await.unwrap();
    // The device certifies one key to the server and asks for a certificate for another.
    let certified = Certifying::honest(&device, &challenge.nonce).sign(&device.ak).unwrap();
    let presented = device.device_key.public_area();
    device.device_key = TpmKey::generate(DEVICE_KEY).unwrap();
    let csr = device.csr().unwrap();
    let secret = device
        .ek
        .activate(&device.ak.name(), &challenge.credential_blob, &challenge.encrypted_secret)
        .unwrap();
    let body = enroll_proof_body(&challenge.nonce, &device.ak.public_area(), &presented, &csr, &device.name);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let proof = EnrollProof {
        proof: aws_lc_rs::hmac::sign(&key, &assay_telemetry::sha256(&body)).as_ref().to_vec(),
        certify_info: certified.message,
        certify_signature: certified.signature,
        csr,
        ..EnrollProof::default()
    };
    let refusal = code(enrollment.prove(proof).await.unwrap_err());
    assert_eq!(refusal, (Code::PermissionDenied, "device-key-csr".to_owned()));
    nothing_stored(&fixture).await;
}

#[tokio::test]
async fn a_challenge_is_answered_once() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let device = fixture.device("press-1");
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    let challenge = enrollment.challenge().await.unwrap();
    let proof = device.enroll_proof(&challenge).unwrap();
    enrollment.prove(proof.clone()).await.unwrap();
    let again = code(enrollment.prove(proof.clone()).await.unwrap_err());
    assert_eq!(again, (Code::FailedPrecondition, "out-of-turn".to_owned()));
    // Nor does the proof serve another enrollment, whose secret is another.
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    enrollment.challenge().await.unwrap();
    let replayed = code(enrollment.prove(proof).await.unwrap_err());
    assert_eq!(replayed, (Code::Unauthenticated, "credential-activation".to_owned()));
}

#[tokio::test]
async fn a_restart_in_the_middle_leaves_nothing_and_the_next_attempt_works() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    let challenge = enrollment.challenge().await.unwrap();
    let proof = device.enroll_proof(&challenge).unwrap();
    fixture.restart().await;
    assert!(enrollment.prove(proof).await.is_err());
    nothing_stored(&fixture).await;
    fixture.edge().await.enroll(&mut device).await.unwrap();
    assert_eq!(fixture.status("press-1").await["status"], "enrolled");
}

#[tokio::test]
async fn a_revoked_device_does_not_come_back_by_enrolling() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    let refusal = enroll_anew(&edge, &mut device).await.unwrap_err();
    assert_eq!(refusal, (Code::PermissionDenied, "revoked".to_owned()));
    assert_eq!(fixture.status("press-1").await["status"], "revoked");
}

#[tokio::test]
async fn so_many_enrollments_at_once_and_no_more() {
    let fixture = Fixture::with(|config| config.limits.enrollments_max = 1).await;
    let edge = fixture.edge().await;
    let device = fixture.device("press-1");
    let mut first = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    first.challenge().await.unwrap();
    let mut second = edge.begin_enrollment(fixture.device("press-2").enroll_begin()).await.unwrap();
    let refusal = code(second.challenge().await.unwrap_err());
    assert_eq!(refusal, (Code::ResourceExhausted, "no-room".to_owned()));
}

#[tokio::test]
async fn whoever_carries_an_enrollment_cannot_call_the_device_something_else() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let device = fixture.device("press-1");
    let mut begin = device.enroll_begin();
    begin.name = "press-2".to_owned();
    let mut enrollment = edge.begin_enrollment(begin).await.unwrap();
    let challenge = enrollment.challenge().await.unwrap();
    let proof = device.enroll_proof(&challenge).unwrap();
    let refusal = code(enrollment.prove(proof).await.unwrap_err());
    assert_eq!(refusal, (Code::Unauthenticated, "credential-activation".to_owned()));
    nothing_stored(&fixture).await;
}
