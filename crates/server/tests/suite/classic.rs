//! Classic certificates: whoever asks for one for a key that its AK did not certify here and now gets none.

use assay_identity::bundle::{certifies, names_issuer};
use assay_identity::{Bundle, CrlSet, UnixTime, verify_svid};
use assay_server::TrustApi;
use assay_testkit::edge::protocol::{ClassicRequest, ClassicResponse};
use assay_testkit::edge::{Attachment, Message};
use assay_testkit::software_device::quote::Certifying;
use assay_testkit::{Bank, SoftwareDevice};
use assay_wire::binding::classic_nonce;
use hyper::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::fixture::{Fixture, TRUST_DOMAIN, attest_again};

async fn ask(stream: &mut Attachment, request: ClassicRequest) -> ClassicResponse {
    stream.request_classic(request).await.unwrap();
    loop {
        if let Message::Classic(response) = stream.next().await.unwrap() {
            return response;
        }
    }
}

/// A TPMT_PUBLIC of RSA-2048 with these attributes.
fn rsa(attributes: u32) -> Vec<u8> {
    let fixed =
        [&[0, 1, 0, 0x0b][..], &attributes.to_be_bytes(), &[0, 0, 0, 0x10, 0, 0x10, 8, 0, 0, 0, 0, 0, 1, 0]];
    [fixed.concat(), vec![0xc5; 256]].concat()
}

fn tpm2b(area: &[u8]) -> Vec<u8> {
    [&u16::try_from(area.len()).unwrap().to_be_bytes(), area].concat()
}

/// What an honest agent asks with for a key of this public area, on this stream with this number.
fn request(signer: &SoftwareDevice, area: &[u8], stream: &[u8], number: u64) -> ClassicRequest {
    let public = tpm2b(area);
    let nonce = classic_nonce(stream, number, &public);
    let name = [&[0, 0x0b], Bank::Sha256.hash(area).as_slice()].concat();
    let certified = Certifying { name, ..Certifying::honest(signer, &nonce) }.sign(&signer.ak).unwrap();
    ClassicRequest { public, certify_info: certified.message, certify_signature: certified.signature, number }
}

/// A request on a stream with a number.
type Lie<'a> = dyn Fn(&[u8], u64) -> ClassicRequest + 'a;

async fn with_classic() -> Fixture {
    let api = TrustApi { classic: true, ..TrustApi::default() };
    Fixture::with(|config| config.trust_api = Some(api)).await
}

async fn get(fixture: &Fixture, path: &str) -> (u16, Value) {
    let answer = fixture.call(Method::GET, path, &[], String::new()).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

#[tokio::test]
async fn a_key_that_the_ak_certified_here_gets_a_certificate_and_the_same_again() {
    let fixture = with_classic().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert_eq!(get(&fixture, "/trust/certificate/0?profile=classic").await.0, 404, "none was asked for");
    let place = stream.place();
    let given = ask(&mut stream, request(&device, &rsa(RESIDENT), &place.stream, place.number)).await;
    assert_eq!(given.denied, "");
    let place = stream.place();
    let again = ask(&mut stream, request(&device, &rsa(RESIDENT), &place.stream, place.number)).await;
    assert_eq!(again.certificate, given.certificate, "what it has is good for months");

    let der =
        |pem: &Value| CertificateDer::from_pem_slice(pem.as_str().unwrap().as_bytes()).unwrap().to_vec();
    let (_, root) = get(&fixture, "/trust/ca-certificate?profile=classic").await;
    let (_, shown) = get(&fixture, "/trust/certificate/0?profile=classic").await;
    let root = der(&root["certificate"]);
    assert_eq!(der(&shown["certificate"]), given.certificate);
    assert_eq!(der(&shown["issuing_certificate"]), root);
    assert!(names_issuer(&given.certificate, &root));
    let (status, refused) = get(&fixture, "/trust/ca-certificate?profile=other").await;
    assert_eq!((status, &refused["reason"]), (400, &json!("profile")));

    // It is no SVID of the trust domain, whatever it says.
    let now = UnixTime::now();
    let chain = [given.certificate.as_slice()];
    assert!(verify_svid(&chain, &fixture.bundle(), &CrlSet::from_der([&grants.crl]).unwrap(), now).is_err());
    let list =
        async || fixture.call(Method::GET, "/trust/classic.crl", &[], String::new()).await.body().to_vec();
    let bundle = Bundle::new(fixture.bundle().trust_domain().clone(), [&root]).unwrap();
    let peer = verify_svid(&chain, &bundle, &CrlSet::from_der([&list().await]).unwrap(), now).unwrap();
    assert!(peer.spiffe_id().as_str().starts_with(&format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/")));
    assert!(certifies(&given.certificate, peer.spki()) && peer.serial().is_classic());

    // It falls with the state, on a list of its own.
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let fallen = stream.grants().await.unwrap();
    assert!(verify_svid(&chain, &bundle, &CrlSet::from_der([&list().await]).unwrap(), now).is_err());
    assert!(!assay_identity::Crl::parse(&fallen.crl).unwrap().revokes(peer.serial()));
    let place = stream.place();
    let denied = ask(&mut stream, request(&device, &rsa(RESIDENT), &place.stream, place.number)).await;
    assert!(denied.certificate.is_empty() && denied.denied.starts_with("not-trusted"), "{}", denied.denied);
}

#[tokio::test]
async fn every_lie_about_a_key_is_refused() {
    let fixture = with_classic().await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let other = fixture.device("press-2");
    let honest = |stream: &[u8], number| request(&device, &rsa(RESIDENT), stream, number);
    let cases: [(&str, &Lie<'_>); 8] = [
        ("not certified", &|_, number| honest(&[7; 32], number)),
        ("not certified", &|stream, number| ClassicRequest { number, ..honest(stream, number + 1) }),
        ("not certified", &|stream, number| request(&other, &rsa(RESIDENT), stream, number)),
        // A key that could decrypt what others send it, and one that may leave its TPM.
        ("not certified", &|stream, number| request(&device, &rsa(RESIDENT | 1 << 17), stream, number)),
        ("not certified", &|stream, number| request(&device, &rsa(RESIDENT & !2), stream, number)),
        ("not-rsa", &|stream, number| {
            request(&device, &device.device_key.public_area()[2..], stream, number)
        }),
        ("not read", &|stream, number| ClassicRequest { public: vec![0, 1, 2], ..honest(stream, number) }),
        ("not newer", &|stream, _| honest(stream, 1)),
    ];
    for (says, lie) in cases {
        let place = stream.place();
        let answer = ask(&mut stream, lie(&place.stream, place.number)).await;
        assert!(answer.certificate.is_empty() && answer.denied.contains(says), "{says}: {}", answer.denied);
    }
    assert_eq!(get(&fixture, "/trust/certificate/0?profile=classic").await.0, 404);

    let without = Fixture::start().await;
    let edge = without.edge().await;
    let (device, mut stream, _) = without.trusted_device(&edge, "press-1", "").await;
    let place = stream.place();
    let answer = ask(&mut stream, request(&device, &rsa(RESIDENT), &place.stream, place.number)).await;
    assert!(answer.denied.contains("classic certificates are off"), "{}", answer.denied);
    assert_eq!(get(&without, "/trust/classic.crl").await.0, 404);
}

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign.
const RESIDENT: u32 = 0x0004_0472;
