//! Enrollment: who gets in, and every way not to.

use anyhow::Result;
use assay_testkit::edge::protocol::EnrollProof;
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::software_device::quote::Certifying;
use assay_testkit::software_device::{EkKind, EndorsementKey, TpmKey};
use assay_testkit::{EkMaker, SoftwareDevice};
use tonic::Code;

use crate::stage::{Stage, refused, within};

#[tokio::test]
async fn a_device_enrolls_with_an_ecc_or_an_rsa_ek() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    for kind in [EkKind::P256, EkKind::Rsa2048] {
        let name = format!("{kind:?}").to_lowercase();
        let mut device = SoftwareDevice::with_ek(&name, &stage.maker, EndorsementKey::generate(kind)?)?;
        let result = edge.enroll(&mut device).await?;
        assert!(result.device_id.starts_with("spiffe://test.assay.example/spire/agent/tpm/"));
        assert_eq!(stage.status(&device).await?, "enrolled");
    }
    Ok(())
}

#[tokio::test]
async fn enrolling_again_binds_new_keys_to_the_same_identity() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("again")?;
    let first = edge.enroll(&mut device).await?.device_id;
    device.ak = TpmKey::generate(ATTESTATION_KEY)?;
    device.device_key = TpmKey::generate(DEVICE_KEY)?;
    assert_eq!(edge.enroll(&mut device).await?.device_id, first);
    Ok(())
}

#[tokio::test]
async fn a_revoked_device_does_not_enroll_again() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("gone")?;
    edge.enroll(&mut device).await?;
    let revoke = serde_json::json!({ "reason": "stolen" });
    stage.console()?.post("/v1/devices/gone/revoke", &revoke).await?;
    let before = stage.everything().await?;
    refused(edge.enroll(&mut device).await, Code::PermissionDenied, "revoked")?;
    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn what_is_presented_is_checked_before_anything_else() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let before = stage.everything().await?;
    let other = stage.device("other")?;
    let stranger = EkMaker::new()?;

    let mut device = stage.device("stranger")?;
    device.ek_certificate = stranger.certify(&device.ek)?;
    device.ek_intermediates = vec![stranger.issuing_ca().to_vec()];
    refused(edge.enroll(&mut device).await, Code::PermissionDenied, "ek-chain")?;

    let mut device = stage.device("borrowed")?;
    device.ek_certificate = other.ek_certificate.clone();
    refused(edge.enroll(&mut device).await, Code::PermissionDenied, "ek-certificate-key")?;

    // An AK that signs anything can be made to sign a forged quote.
    let mut device = stage.device("unrestricted")?;
    device.ak = TpmKey::generate(DEVICE_KEY)?;
    refused(edge.enroll(&mut device).await, Code::PermissionDenied, "ak-attributes")?;

    let mut begin = stage.device("garbled")?.enroll_begin();
    begin.ak_public.truncate(20);
    let mut enrollment = edge.begin_enrollment(begin).await?;
    refused(enrollment.challenge().await, Code::InvalidArgument, "ak-parse")?;

    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn the_proof_has_to_come_from_the_tpm() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let before = stage.everything().await?;
    type Alter = fn(&mut SoftwareDevice, &[u8], &mut EnrollProof) -> Result<()>;
    let alterations: [(Alter, Code, &str); 5] = [
        (
            |_, _, proof| {
                proof.proof.fill(0);
                Ok(())
            },
            Code::Unauthenticated,
            "credential-activation",
        ),
        (
            // The certification answers another challenge.
            |device, _, proof| {
                let signed = Certifying::honest(device, &[9; 32]).sign(&device.ak)?;
                (proof.certify_info, proof.certify_signature) = (signed.message, signed.signature);
                Ok(())
            },
            Code::PermissionDenied,
            "device-key-certify",
        ),
        (
            // A key outside the TPM, certified by itself.
            |device, nonce, proof| {
                let signed = Certifying::honest(device, nonce).sign(&device.device_key)?;
                (proof.certify_info, proof.certify_signature) = (signed.message, signed.signature);
                Ok(())
            },
            Code::PermissionDenied,
            "device-key-certify",
        ),
        (
            // The name of another key.
            |device, nonce, proof| {
                let name = TpmKey::generate(DEVICE_KEY)?.name();
                let signed = Certifying { name, ..Certifying::honest(device, nonce) }.sign(&device.ak)?;
                (proof.certify_info, proof.certify_signature) = (signed.message, signed.signature);
                Ok(())
            },
            Code::PermissionDenied,
            "device-key-certify",
        ),
        (
            |_, _, proof| {
                proof.csr.truncate(40);
                Ok(())
            },
            Code::Unauthenticated,
            "credential-activation",
        ),
    ];
    for (number, (alter, code, reason)) in alterations.into_iter().enumerate() {
        let mut device = stage.device("liar")?;
        let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await?;
        let challenge = enrollment.challenge().await?;
        let mut proof = device.enroll_proof(&challenge)?;
        alter(&mut device, &challenge.nonce, &mut proof)?;
        refused(enrollment.prove(proof).await, code, reason)
            .map_err(|error| error.context(format!("alteration {number}")))?;
    }
    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn the_request_has_to_be_for_the_certified_key() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let before = stage.everything().await?;
    let mut device = stage.device("swapped")?;
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await?;
    let challenge = enrollment.challenge().await?;
    // The certification is of the key in the TPM; the request, and so the proof over it, is for another.
    let certified = Certifying::honest(&device, &challenge.nonce).sign(&device.ak)?;
    let in_tpm = std::mem::replace(&mut device.device_key, TpmKey::generate(DEVICE_KEY)?);
    let csr = device.csr()?;
    device.device_key = in_tpm;
    let proof = device.enroll_proof_with(&challenge, certified, csr)?;
    refused(enrollment.prove(proof).await, Code::PermissionDenied, "device-key-csr")?;
    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_challenge_is_good_for_one_activation() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let device = stage.device("twice")?;
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await?;
    let challenge = enrollment.challenge().await?;
    let proof = device.enroll_proof(&challenge)?;
    enrollment.prove(proof.clone()).await?;
    let before = stage.everything().await?;

    // Again on the same stream, and on another that waits for its own proof.
    refused(within(5, enrollment.prove(proof.clone())).await?, Code::FailedPrecondition, "out-of-turn")?;
    let mut another = edge.begin_enrollment(device.enroll_begin()).await?;
    another.challenge().await?;
    refused(another.prove(proof.clone()).await, Code::Unauthenticated, "credential-activation")?;
    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_proof_without_a_beginning_is_out_of_turn() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut enrollment = edge.open_enrollment().await?;
    refused(enrollment.prove(EnrollProof::default()).await, Code::FailedPrecondition, "out-of-turn")
}
