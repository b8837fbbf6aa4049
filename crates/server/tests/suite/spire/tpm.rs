//! `tpm`: who comes in by a TPM that does not quote, as what, and who does not.

use assay_server::{Config, EnrollmentMode, Spire};
use assay_testkit::SoftwareDevice;
use assay_testkit::software_device::quote::Creating;
use assay_testkit::software_device::{EkKind, EkMaker, EndorsementKey, TpmKey, key};
use assay_wire::spire::agent::{GetAgentRequest, PostStatusRequest, RenewAgentRequest};
use assay_wire::spire::entry::{BatchCreateEntryRequest, GetAuthorizedEntriesRequest};
use assay_wire::spire::svid::{BatchNewX509svidRequest, NewX509svidParams};
use assay_wire::spire::types::permission_denied_details::Reason;
use data_encoding::BASE64;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::client::{Node, agents, attest, attest_answering, entries, entry, parsed, reason};
use crate::fixture::{Fixture, TRUST_DOMAIN, learned};

/// A server that lets nodes in by their TPMs, and knows the authority that issues EK certificates: such an agent sends none
/// between its own and the root.
async fn fixture(change: impl FnOnce(&mut Config)) -> Fixture {
    let mut fixture = Fixture::with(|config| {
        config.spire = Some(Spire { address: ([127, 0, 0, 1], 0).into(), tpm: true, ..Default::default() });
        change(config);
    })
    .await;
    let issuing = fixture.folder().join("issuing.der");
    std::fs::write(&issuing, fixture.maker.issuing_ca()).unwrap();
    fixture.restart_with(|config| config.ek_anchors.push(issuing)).await.unwrap();
    fixture
}

async fn attested(fixture: &Fixture, device: &SoftwareDevice) -> Result<Node, Status> {
    let payload = device.spire_tpm_payload().unwrap();
    shown(fixture, device, &payload).await
}

async fn shown(fixture: &Fixture, device: &SoftwareDevice, payload: &Value) -> Result<Node, Status> {
    let answer = |challenge: &[u8]| device.spire_tpm_answer(challenge).unwrap().to_string().into_bytes();
    let (key, svid) = attest_answering(fixture, ("tpm", payload.to_string().as_bytes()), answer).await?;
    Ok(Node::of(&key, svid))
}

fn id(device: &SoftwareDevice) -> String {
    let hash = data_encoding::HEXLOWER.encode(&assay_testkit::Bank::Sha256.hash(device.ek.spki()));
    format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{hash}")
}

fn rsa(fixture: &Fixture) -> SoftwareDevice {
    let ek = EndorsementKey::generate(EkKind::Rsa2048).unwrap();
    SoftwareDevice::with_ek("press", &fixture.maker, ek).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_names_its_node_which_stands_on_less_than_a_quote() {
    let fixture = fixture(|_| {}).await;
    for device in [rsa(&fixture), fixture.device("press")] {
        let node = attested(&fixture, &device).await.unwrap();
        assert_eq!(node.id, id(&device));
        let hash = node.id.rsplit('/').next().unwrap();
        let get = GetAgentRequest { id: Some(parsed(&node.id)), output_mask: None };
        let told = agents(&fixture).await.get_agent(get).await.unwrap().into_inner();
        assert_eq!((told.attestation_type.as_str(), told.can_reattest, told.banned), ("tpm", true, false));
        assert_eq!(told.selectors.len(), 1);
        assert_eq!(told.selectors[0].value, format!("pub_hash:{hash}"));
        let trail = fixture.get("/v1/audit?limit=1000").await;
        let leaves = trail["leaves"].as_array().unwrap();
        let leaf = leaves.iter().find(|leaf| leaf["subject"] == node.id.as_str()).unwrap();
        assert_eq!(
            (leaf["kind"].as_str(), leaf["detail"]["basis"].as_str()),
            (Some("spire-agent.attested"), Some("ek-activation"))
        );

        // An alias chooses it by its TPM, and no PCR is ever said of it.
        let server = format!("spiffe://{TRUST_DOMAIN}/spire/server");
        let path = format!("/group-{}", &hash[..8]);
        let alias = entry(&server, &path, &[&format!("tpm:pub_hash:{hash}")]);
        let group = format!("spiffe://{TRUST_DOMAIN}{path}");
        let pcr = format!("tpm:pcr:7:{}", "ab".repeat(32));
        let by_group = entry(&group, "/web", &["unix:uid:7"]);
        let asking = entry(&node.id, "/sealed", &["unix:uid:7", &pcr]);
        let create = BatchCreateEntryRequest { entries: vec![alias, by_group, asking], output_mask: None };
        let made = entries(&fixture).await.batch_create_entry(create).await.unwrap().into_inner();
        let codes: Vec<i32> =
            made.results.iter().map(|result| result.status.as_ref().unwrap().code).collect();
        // The TPM may come to quote, and until then nothing is said of its PCRs.
        assert_eq!(codes, [0, 0, 0], "{made:?}");
        let sealed = made.results[2].entry.clone().unwrap().id;
        let request = GetAuthorizedEntriesRequest::default();
        let mine = node.entries(&fixture).await.get_authorized_entries(request).await.unwrap().into_inner();
        let paths: Vec<&str> =
            mine.entries.iter().map(|entry| entry.spiffe_id.as_ref().unwrap().path.as_str()).collect();
        assert_eq!(paths, ["/web"], "{mine:?}");
        let params = vec![NewX509svidParams { entry_id: sealed, csr: csr() }];
        let mut svids = node.svids(&fixture).await;
        let refused =
            svids.batch_new_x509svid(BatchNewX509svidRequest { params }).await.unwrap().into_inner();
        assert_eq!(refused.results[0].status.as_ref().unwrap().code, Code::PermissionDenied as i32);

        // It attests again instead of renewing, and with that the certificate before it is nobody's.
        let renewed = node.agents(&fixture).await.renew_agent(RenewAgentRequest::default()).await;
        assert_eq!(renewed.unwrap_err().code(), Code::InvalidArgument);
        let again = attested(&fixture, &device).await.unwrap();
        again.agents(&fixture).await.post_status(PostStatusRequest::default()).await.unwrap();
        let old = node.agents(&fixture).await.post_status(PostStatusRequest::default()).await.unwrap_err();
        assert_eq!(reason(&old), Reason::AgentNotActive);
    }
    assert_eq!(
        fixture.count("SELECT COUNT(*) AS n FROM devices").await,
        0,
        "none of them counts as a device"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_the_eks_is_refused_in_every_mode() {
    let mut fixture = fixture(|_| {}).await;
    let mut device = fixture.device("press");
    // By a maker that nobody here trusts.
    let stranger = EkMaker::new().unwrap();
    device.ek_certificate = stranger.certify(&device.ek).unwrap();
    let refused = attest(&fixture, ("tpm", payload(&device).as_bytes()), csr()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // None at all, and no policy that lists the EK.
    device.ek_certificate.clear();
    let refused = attest(&fixture, ("tpm", payload(&device).as_bytes()), csr()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // One that makes it a server's key.
    device.ek_certificate = fixture.maker.certify_as_server(&device.ek).unwrap();
    let refused = attest(&fixture, ("tpm", payload(&device).as_bytes()), csr()).await.unwrap_err();
    assert!(refused.message().contains("extended key usage"), "{refused:?}");
    // Another EK's, where this one's hash alone would do.
    let hash = id(&device).rsplit('/').next().unwrap().to_owned();
    let section = format!("[endorsement]\nrequired = \"either\"\nek_sha256 = [\"{hash}\"]");
    fixture.put("/v1/policy", &learned(&mut device, &section)).await;
    device.ek_certificate = fixture.maker.certify(&EndorsementKey::generate(EkKind::P256).unwrap()).unwrap();
    let refused = attest(&fixture, ("tpm", payload(&device).as_bytes()), csr()).await.unwrap_err();
    assert!(refused.message().contains("not the EK's"), "{refused:?}");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    device.ek_certificate.clear();
    attested(&fixture, &device).await.unwrap();
    // What an authority took back is not good here either.
    let other = fixture.device("revoked");
    let list = fixture.folder().join("list.crl");
    std::fs::write(&list, fixture.maker.revoke(&[&other.ek.certificate_serial()]).unwrap()).unwrap();
    fixture.restart_with(|config| config.ek_crls.push(list)).await.unwrap();
    let refused = attest(&fixture, ("tpm", payload(&other).as_bytes()), csr()).await.unwrap_err();
    assert!(refused.message().contains("revoked") || refused.message().contains("taken back"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_for_its_challenge_its_tpm_and_its_ak() {
    let fixture = fixture(|_| {}).await;
    let device = fixture.device("press");
    let shown = payload(&device);
    // What was a good answer a moment ago.
    let mut heard = Vec::new();
    let remember = |challenge: &[u8]| {
        heard = device.spire_tpm_answer(challenge).unwrap().to_string().into_bytes();
        heard.clone()
    };
    attest_answering(&fixture, ("tpm", shown.as_bytes()), remember).await.unwrap();
    let secret = |bytes: &[u8]| json!({ "Secret": BASE64.encode(bytes) }).to_string().into_bytes();
    for (answer, code) in [
        (heard.clone(), Code::Unauthenticated),
        (secret(&[7; 32]), Code::Unauthenticated),
        (secret(&[]), Code::Unauthenticated),
        (b"{}".to_vec(), Code::Unauthenticated),
        (Vec::new(), Code::InvalidArgument),
    ] {
        let refused = attest_answering(&fixture, ("tpm", shown.as_bytes()), |_| answer).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    // A TPM that is asked about an AK which is not its own opens nothing.
    let mut other = fixture.device("other");
    std::mem::swap(&mut other.ak, &mut fixture.device("third").ak);
    let open = |challenge: &[u8]| {
        assert!(other.spire_tpm_answer(challenge).is_err());
        secret(&[0; 32])
    };
    assert!(attest_answering(&fixture, ("tpm", shown.as_bytes()), open).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ak_is_one_that_a_tpm_made_for_attesting() {
    let fixture = fixture(|_| {}).await;
    let refused = async |device: &SoftwareDevice, creating: &Creating| {
        let payload = device.spire_tpm_payload_with(creating).unwrap().to_string();
        attest(&fixture, ("tpm", payload.as_bytes()), csr()).await.unwrap_err()
    };
    let device = fixture.device("press");
    let good = Creating::honest(&device);
    for bad in [
        Creating { magic: 1, ..good.clone() },
        Creating { name: fixture.device("other").ak.name(), ..good.clone() },
        Creating { hash: vec![0; 32], ..good.clone() },
    ] {
        let refused = refused(&device, &bad).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
    // One that signs whatever it is given.
    let mut free = fixture.device("free");
    free.ak = TpmKey::generate(key::DEVICE_KEY).unwrap();
    let refused = refused(&free, &Creating::honest(&free)).await;
    assert!(refused.message().contains("restricted"), "{refused:?}");
    for bad in ["{}", "null", r#"{"EK":"","AK":{"Public":""}}"#, r#"{"EK":"%","AK":{"Public":""}}"#] {
        let refused = attest(&fixture, ("tpm", bad.as_bytes()), csr()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}: {refused:?}");
    }
    let mut no_ak: Value = serde_json::from_str(&payload(&device)).unwrap();
    no_ak["AK"]["Public"] = json!(BASE64.encode(&[0; 70_000]));
    let refused = attest(&fixture, ("tpm", no_ak.to_string().as_bytes()), csr()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_enroll_does_not_come_in_without_quotes_and_who_quotes_is_nothing_less() {
    let fixture = fixture(|config| config.enrollment = EnrollmentMode::Approved).await;
    let device = fixture.device("press");
    let waits = attested(&fixture, &device).await.unwrap_err();
    assert!(waits.message().contains("waits for an operator"), "{waits:?}");
    let hash = id(&device).rsplit('/').next().unwrap().to_owned();
    fixture.post(&format!("/v1/pending/{hash}/admit"), &json!({ "reason": "known" })).await;
    let node = attested(&fixture, &device).await.unwrap();
    // Let in once, it comes again without a word.
    attested(&fixture, &device).await.unwrap();
    // What comes with quotes takes the place of what came without, and is nothing less from then on.
    let edge = fixture.edge().await;
    let mut same = SoftwareDevice::with_ek("press", &fixture.maker, device.ek).unwrap();
    edge.enroll(&mut same).await.unwrap_err();
    fixture.post(&format!("/v1/pending/{hash}/admit"), &json!({ "reason": "known" })).await;
    edge.enroll(&mut same).await.unwrap();
    let gone = node.agents(&fixture).await.post_status(PostStatusRequest::default()).await.unwrap_err();
    assert_eq!(reason(&gone), Reason::AgentNotAttested);
    let refused = attested(&fixture, &same).await.unwrap_err();
    assert!(refused.message().contains("enrolled as a device that quotes"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_not_configured_nobody_attests_by_it() {
    let fixture = super::client::fixture().await;
    for kind in ["tpm", "x509pop"] {
        let refused = attest(&fixture, (kind, b"{}"), csr()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().ends_with("what does is join_token"), "{refused:?}");
    }
}

fn payload(device: &SoftwareDevice) -> String {
    device.spire_tpm_payload().unwrap().to_string()
}

fn csr() -> Vec<u8> {
    assay_identity::csr::request(&assay_identity::PrivateKey::generate().unwrap()).unwrap()
}
