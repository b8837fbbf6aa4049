//! Who vouches for a TPM, and what becomes of its device when that is taken back.

use std::time::{Duration, Instant};

use assay_testkit::edge::Attachment;
use assay_testkit::software_device::TpmKey;
use assay_testkit::software_device::key::ATTESTATION_KEY;
use assay_testkit::software_device::quote::{Certifying, Signed};
use assay_testkit::{EkMaker, SoftwareDevice};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::Code;

use crate::fixture::{Fixture, attach_trusted, code, learned};

/// The checks of a device's last result.
async fn checks(fixture: &Fixture, name: &str) -> Vec<String> {
    let explained = fixture.get(&format!("/v1/devices/{name}/explain")).await;
    let findings = explained["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
}

/// Waits until everything is withdrawn. Nothing is answered meanwhile, as a device that has something to hide would.
async fn withdrawn(stream: &mut Attachment) -> String {
    loop {
        let grants = timeout(WITHIN, stream.grants()).await.unwrap().unwrap();
        if grants.withdrawn {
            return grants.reason;
        }
    }
}

#[tokio::test]
async fn a_certificate_revoked_later_makes_its_device_fall_without_being_asked() {
    let lists = tempfile::tempdir().unwrap();
    let fixture = Fixture::with(|config| config.ek_crls = vec![lists.path().to_owned()]).await;
    let edge = fixture.edge().await;
    let (victim, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut witness = fixture.device("press-2");
    edge.enroll(&mut witness).await.unwrap();
    let (mut witness_stream, _) = attach_trusted(&edge, &mut witness).await;

    let list = |serials: &[&[u8]]| fixture.maker.revoke(serials).unwrap();
    let written = Instant::now();
    std::fs::write(lists.path().join("maker.crl"), list(&[&victim.ek.certificate_serial()])).unwrap();
    let reason = withdrawn(&mut stream).await;
    // The server looks once a second, and the device falls within one more.
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
    assert!(reason.contains("taken back") && reason.contains("keyCompromise"), "{reason}");
    assert_eq!(fixture.status("press-1").await["status"], "suspect");
    assert_eq!(checks(&fixture, "press-1").await, ["ek-revoked", "endorsement-policy"]);

    // The other one is told of what was withdrawn, and keeps what it has.
    let told = timeout(WITHIN, witness_stream.grants()).await.unwrap().unwrap();
    assert!(!told.withdrawn && !told.crl.is_empty());
    assert_eq!(fixture.status("press-2").await["status"], "trusted");

    // Nor does it come back by attaching or enrolling again.
    let mut victim = victim;
    let mut again = edge.attach(&victim).await.unwrap();
    assert_eq!(again.attest(&mut victim).await.unwrap().tier, "contraindicated");
    let refusal = code(edge.enroll(&mut victim).await.unwrap_err());
    assert_eq!(refusal, (Code::PermissionDenied, "ek-revoked".to_owned()));

    // Its maker gives it back: fresh evidence is asked for and is enough.
    std::fs::write(lists.path().join("maker.crl"), list(&[&[7]])).unwrap();
    let verdict = timeout(WITHIN, again.attest(&mut victim)).await.unwrap().unwrap();
    assert_eq!(verdict.state, "trusted", "{verdict:?}");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_changes_nothing() {
    let lists = tempfile::tempdir().unwrap();
    let file = lists.path().join("maker.crl");
    let fixture = Fixture::with(|config| config.ek_crls = vec![lists.path().to_owned()]).await;
    let edge = fixture.edge().await;
    let (victim, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let list = fixture.maker.revoke(&[&victim.ek.certificate_serial()]).unwrap();
    // Half of it is there, then all of it.
    std::fs::write(&file, &list[..list.len() / 2]).unwrap();
    let early = timeout(Duration::from_millis(1500), stream.grants()).await;
    assert!(early.is_err(), "{early:?}");
    std::fs::write(&file, &list).unwrap();
    withdrawn(&mut stream).await;
    // And half of it again: what it said stands.
    std::fs::write(&file, &list[..list.len() / 2]).unwrap();
    let mut victim = victim;
    let mut again = edge.attach(&victim).await.unwrap();
    assert_eq!(again.attest(&mut victim).await.unwrap().tier, "contraindicated");
    // A server does not start on it.
    let error = Fixture::try_with(|config| config.ek_crls = vec![file.clone()]).await.err().unwrap();
    assert!(error.contains("maker.crl") && error.contains("revocation list"), "{error}");
}

#[tokio::test]
async fn a_policy_that_lists_an_ek_stands_in_for_its_certificate() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    (device.ek_certificate, device.ek_intermediates) = (Vec::new(), Vec::new());
    let refused = |device: &SoftwareDevice| {
        let begin = device.enroll_begin();
        let edge = &edge;
        async move {
            let mut enrollment = edge.begin_enrollment(begin).await.unwrap();
            code(enrollment.challenge().await.unwrap_err())
        }
    };
    let no_certificate = (Code::PermissionDenied, "ek-chain".to_owned());
    assert_eq!(refused(&device).await, no_certificate, "without a policy");
    let ek = data_encoding::HEXLOWER.encode(&assay_telemetry::sha256(device.ek.spki()));
    for (required, hash) in [("certificate", ek.as_str()), ("both", &ek), ("either", &"1".repeat(64))] {
        let section = format!("[endorsement]\nrequired = \"{required}\"\nek_sha256 = [\"{hash}\"]");
        fixture.put("/v1/policy", &learned(&mut device, &section)).await;
        assert_eq!(refused(&device).await, no_certificate, "{required}");
    }
    for required in ["either", "allowlist"] {
        let section = format!("[endorsement]\nrequired = \"{required}\"\nek_sha256 = [\"{ek}\"]");
        fixture.put("/v1/policy", &learned(&mut device, &section)).await;
        let id = edge.enroll(&mut device).await.unwrap().device_id;
        assert!(id.ends_with(&ek), "{id}");
        attach_trusted(&edge, &mut device).await;
    }
    // The list is taken away: who enrolled by it falls.
    let (mut stream, _) = attach_trusted(&edge, &mut device).await;
    fixture.put("/v1/policy?force=true", &learned(&mut device, "")).await;
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "contraindicated");
    assert_eq!(checks(&fixture, "press-1").await, ["endorsement-policy"]);
    let device: Value = fixture.status("press-1").await;
    assert_eq!(device["status"], json!("suspect"));
}

/// A server that trusts the maker with identities, and lists of what it takes back.
async fn with_identities(lists: &std::path::Path) -> Fixture {
    Fixture::with(|config| {
        config.idevid_anchors = config.ek_anchors.clone();
        config.ek_crls = vec![lists.to_owned()];
    })
    .await
}

#[tokio::test]
async fn an_identity_of_the_maker_is_verified_kept_and_shown() {
    let lists = tempfile::tempdir().unwrap();
    let mut fixture = with_identities(lists.path()).await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    device.identity = Some(fixture.maker.identity("id:00001014.77").unwrap());
    edge.enroll(&mut device).await.unwrap();
    let required = "[endorsement]\nidevid = \"required\"";
    fixture.put("/v1/policy", &learned(&mut device, required)).await;
    attach_trusted(&edge, &mut device).await;
    let explained = fixture.get("/v1/devices/press-1/explain").await;
    let identity = &explained["endorsement"]["identity"];
    assert_eq!(
        (&identity["serial"], &identity["issuer"]),
        (&json!("id:00001014.77"), &json!("CN=Example TPM EK CA"))
    );
    // It is kept, and verified again.
    fixture.restart().await;
    let edge = fixture.edge().await;
    let (mut stream, _) = attach_trusted(&edge, &mut device).await;
    let certificate = device.identity.as_ref().unwrap().idevid.certificate_serial();
    std::fs::write(lists.path().join("maker.crl"), fixture.maker.revoke(&[&certificate]).unwrap()).unwrap();
    withdrawn(&mut stream).await;
    assert_eq!(checks(&fixture, "press-1").await, ["idevid-revoked", "endorsement-policy"]);

    // A device without one enrolls, and the policy refuses it.
    let mut plain = fixture.device("press-2");
    edge.enroll(&mut plain).await.unwrap();
    let verdict = edge.attach(&plain).await.unwrap().attest(&mut plain).await.unwrap();
    let found: Vec<&str> = verdict.findings.iter().map(|finding| finding.claim.as_str()).collect();
    assert_eq!((verdict.tier.as_str(), found), ("contraindicated", vec!["IDevID"]));
}

#[tokio::test]
async fn an_identity_that_does_not_hold_ends_the_enrollment() {
    let lists = tempfile::tempdir().unwrap();
    let fixture = with_identities(lists.path()).await;
    let edge = fixture.edge().await;
    let identity = || Some(fixture.maker.identity("id:00001014.77").unwrap());
    let refused = |code: &str| (Code::PermissionDenied, code.to_owned());
    let mut device = fixture.device("press-1");

    // Of a maker that nobody trusts with identities.
    device.identity = Some(EkMaker::new().unwrap().identity("id:00001014.77").unwrap());
    assert_eq!(code(edge.enroll(&mut device).await.unwrap_err()), refused("idevid-chain"));
    // The IAK alone.
    device.identity = identity();
    let mut begin = device.enroll_begin();
    begin.idevid_certificate.clear();
    let mut enrollment = edge.begin_enrollment(begin).await.unwrap();
    assert_eq!(code(enrollment.challenge().await.unwrap_err()), refused("idevid-chain"));
    // Without the IAK's word for this enrollment: none, an older one, one for the device key, one by another IAK.
    for lie in 0..4 {
        let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
        let challenge = enrollment.challenge().await.unwrap();
        let mut proof = device.enroll_proof(&challenge).unwrap();
        let iak = &device.identity.as_ref().unwrap().iak;
        let other = TpmKey::generate(ATTESTATION_KEY).unwrap();
        let nonce = &challenge.nonce;
        let signed = match lie {
            0 => Signed::default(),
            1 => Certifying::of_ak(&device, &[7; 32]).sign(iak).unwrap(),
            2 => Certifying::honest(&device, nonce).sign(iak).unwrap(),
            _ => Certifying::of_ak(&device, nonce).sign(&other).unwrap(),
        };
        (proof.iak_certify_info, proof.iak_certify_signature) = (signed.message, signed.signature);
        assert_eq!(code(enrollment.prove(proof).await.unwrap_err()), refused("iak-certify"), "{lie}");
    }
    assert_eq!(fixture.get("/v1/devices").await["devices"], json!([]));
    edge.enroll(&mut device).await.unwrap();
}

#[tokio::test]
async fn where_nobody_vouches_for_identities_none_is_kept_and_the_binding_still_holds() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    device.identity = Some(fixture.maker.identity("id:00001014.77").unwrap());
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await.unwrap();
    let challenge = enrollment.challenge().await.unwrap();
    let mut proof = device.enroll_proof(&challenge).unwrap();
    proof.iak_certify_signature.clear();
    let refusal = code(enrollment.prove(proof).await.unwrap_err());
    assert_eq!(refusal, (Code::PermissionDenied, "iak-certify".to_owned()));
    edge.enroll(&mut device).await.unwrap();
    let explained = fixture.get("/v1/devices/press-1/explain").await;
    assert_eq!(explained["endorsement"]["identity"], Value::Null);
    assert_eq!(explained["endorsement"]["certificate"]["manufacturer"], json!("id:00001014"));
}

#[tokio::test]
async fn certificates_without_end_are_not_kept() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut begin = fixture.device("press-1").enroll_begin();
    begin.ek_intermediates = vec![vec![0; 40 << 10]; 2];
    let mut enrollment = edge.begin_enrollment(begin).await.unwrap();
    let refusal = code(enrollment.challenge().await.unwrap_err());
    assert_eq!(refusal, (Code::InvalidArgument, "certificates".to_owned()));
}

/// Longer than any of this takes, so that a test that fails ends.
const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn finding_14_a_device_whose_makers_required_list_is_bad_falls_and_comes_back_when_it_is_good() {
    let lists = tempfile::tempdir().unwrap();
    let file = lists.path().join("maker.crl");
    let fixture = Fixture::with(|config| config.ek_crls = vec![lists.path().to_owned()]).await;
    let edge = fixture.edge().await;
    let required = "[endorsement]\ncrl_required = [\"CN=Example TPM EK CA\"]\ncrl_grace_seconds = 0";
    let mut device = fixture.known_device(&edge, "press-1", required).await;
    // Without any list of the maker's nothing is granted, as nobody knows what it took back.
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "contraindicated");
    assert_eq!(checks(&fixture, "press-1").await, ["endorsement-policy"]);
    let trusted_by = async |list: &[u8], stream: &mut Attachment, device: &mut SoftwareDevice| {
        std::fs::write(&file, list).unwrap();
        // What was asked before it was read is judged without it.
        let trusted = async { while stream.attest(device).await.unwrap().state != "trusted" {} };
        timeout(WITHIN, trusted).await.unwrap();
    };
    // Each is taken up while the server runs and the device is attached.
    let good = fixture.maker.revoke(&[&[7]]).unwrap();
    trusted_by(&good, &mut stream, &mut device).await;
    let stale = fixture.maker.stale_revocation_list(&[&[7]]).unwrap();
    std::fs::write(&file, stale).unwrap();
    assert!(withdrawn(&mut stream).await.contains("past its time and its grace"));
    trusted_by(&good, &mut stream, &mut device).await;

    // What cannot be read leaves the good one in force, is told in numbers, and heals without a restart.
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    let failing = async || {
        let metrics = fixture.call(hyper::Method::GET, "/metrics", &[], String::new()).await;
        let text = String::from_utf8(metrics.body().to_vec()).unwrap();
        let line = text.lines().find(|line| line.starts_with("assay_endorsers_failing_seconds ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let told = async {
        while failing().await == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), told).await.unwrap();
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
    std::fs::write(&file, &good).unwrap();
    let healed = async {
        while failing().await != 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), healed).await.unwrap();
}
