//! Certificates of AKs: for a device that is trusted and whose TPM somebody vouches for, until it falls.

use assay_identity::ak_certificate::names;
use assay_identity::bundle::{certifies, life, names_issuer, serial};
use assay_identity::{Crl, CrlSet, UnixTime, verify_svid};
use assay_server::AkCertificates;
use data_encoding::HEXLOWER;
use hyper::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::fixture::{Fixture, attach_trusted, attest_again, header_text, learned};

async fn with_ak_certificates() -> Fixture {
    let section =
        AkCertificates { crl_url: Some("http://crl.example.org/ak".to_owned()), ..AkCertificates::default() };
    Fixture::with(|config| config.ak_certificates = Some(section)).await
}

async fn bytes(fixture: &Fixture, path: &str) -> (u16, Vec<u8>) {
    let answer = fixture.call(Method::GET, path, &[], String::new()).await;
    (answer.status().as_u16(), answer.body().to_vec())
}

async fn list(fixture: &Fixture) -> Crl {
    let (status, der) = bytes(fixture, "/ak/crl").await;
    assert_eq!(status, 200);
    Crl::parse(&der).unwrap()
}

#[tokio::test]
async fn a_trusted_device_has_one_for_its_ak_until_it_falls() {
    let fixture = with_ak_certificates().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let [certificate, root] = grants.ak_certificate.as_slice() else { panic!("{}", grants.ak_denied) };
    assert!(certifies(certificate, &device.ak.spki()));
    let says = names(certificate).unwrap();
    assert_eq!(says.manufacturer, "id:00001014");
    let id = fixture.get("/v1/devices/press-1").await["device"]["id"].as_str().unwrap().to_owned();
    assert!(id.ends_with(&says.identifier), "{id} {says:?}");
    assert_eq!(says.identifier, HEXLOWER.encode(&assay_telemetry::sha256(device.ek.spki())));
    let (from, until) = life(certificate).unwrap();
    assert_eq!(until.as_secs() - from.as_secs(), 24 * 3600 + 300);

    // The root is what the console gives out, and none of the trust domain's.
    let (status, pem) = bytes(&fixture, "/ak/ca.pem").await;
    assert_eq!((status, CertificateDer::from_pem_slice(&pem).unwrap().as_ref()), (200, root.as_slice()));
    assert!(names_issuer(certificate, root) && !fixture.bundle().authorities().any(|one| one == root));
    let crls = CrlSet::from_der([&grants.crl]).unwrap();
    let chain = [certificate.as_slice(), root.as_slice()];
    assert!(verify_svid(&chain, &fixture.bundle(), &crls, UnixTime::now()).is_err());
    list(&fixture).await.verify(root).unwrap();

    // It is on record, under the device's name.
    let number = serial(certificate).unwrap();
    let leaves = fixture.get("/v1/audit?limit=100").await.to_string();
    assert!(leaves.contains(&number.to_string()), "{leaves}");

    let listed = fixture.get(&format!("/v1/certificates?serial={number}")).await;
    assert_eq!(listed["certificates"][0]["kind"], "ak", "{listed}");

    // What it has is good until half of its life; a result that changes nothing brings nothing new.
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");

    // It falls with the state, on a list of its own, and another comes with the trust.
    assert!(!list(&fixture).await.revokes(&number));
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let fallen = stream.grants().await.unwrap();
    assert!(fallen.withdrawn && fallen.ak_certificate.is_empty());
    assert!(list(&fixture).await.revokes(&number));
    assert!(!Crl::parse(&fallen.crl).unwrap().revokes(&number));
    fixture.approve("press-1").await;
    attest_again(&mut stream, &mut device).await;
    let again = stream.grants().await.unwrap();
    let other = serial(&again.ak_certificate[0]).unwrap();
    assert_ne!(other, number);
    let list = list(&fixture).await;
    assert!(list.revokes(&number) && !list.revokes(&other));
}

#[tokio::test]
async fn an_operators_word_takes_it_back_and_a_restart_forgets_nothing() {
    let mut fixture = with_ak_certificates().await;
    let edge = fixture.edge().await;
    let (device, stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let first = serial(&grants.ak_certificate[0]).unwrap();
    drop((stream, edge));
    fixture.restart().await;
    let mut device = device;
    let edge = fixture.edge().await;
    let (_stream, again) = attach_trusted(&edge, &mut device).await;
    assert_eq!(again.ak_certificate, grants.ak_certificate, "it is good for hours");
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    assert!(list(&fixture).await.revokes(&first));
    fixture.restart().await;
    assert!(list(&fixture).await.revokes(&first));
}

#[tokio::test]
async fn a_tpm_that_nobody_vouches_for_has_none_and_is_told_why() {
    let fixture = with_ak_certificates().await;
    let edge = fixture.edge().await;
    // Enrolled on a policy's word, without a certificate of its EK.
    let mut device = fixture.device("press-1");
    device.ek_certificate.clear();
    let ek = HEXLOWER.encode(&assay_telemetry::sha256(device.ek.spki()));
    let vouched = format!("[endorsement]\nrequired = \"allowlist\"\nek_sha256 = [{ek:?}]\n");
    let policy = learned(&mut device, &vouched);
    fixture.put("/v1/policy", &policy).await;
    edge.enroll(&mut device).await.unwrap();
    let (_stream, grants) = attach_trusted(&edge, &mut device).await;
    assert!(!grants.device_svid.is_empty() && grants.ak_certificate.is_empty());
    assert!(grants.ak_denied.starts_with("no-ek-certificate: "), "{}", grants.ak_denied);
}

#[tokio::test]
async fn without_the_section_there_is_none_and_its_addresses_say_so() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert!(grants.ak_certificate.is_empty() && grants.ak_denied.is_empty());
    for path in ["/ak/ca.pem", "/ak/crl"] {
        let answer = fixture.call(Method::GET, path, &[], String::new()).await;
        assert_eq!(answer.status(), 404);
        let told: Value = serde_json::from_slice(answer.body()).unwrap();
        assert!(told.to_string().contains("[ak_certificates]"), "{told}");
        assert!(header_text(answer.headers(), "content-type").contains("json"));
    }
}
