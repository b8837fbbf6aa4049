//! `x509pop`: who comes in by a certificate of the operator's authorities, and who does not.

use assay_server::Spire;
use assay_wire::spire::agent::{GetAgentRequest, PostStatusRequest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair};
use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::client::{Node, agents, attest, attest_answering, parsed};
use crate::fixture::{Fixture, TRUST_DOMAIN};

/// What is answered to a challenge.
type Answering<'a> = dyn Fn(&[u8]) -> Vec<u8> + 'a;

/// An authority of an operator's, with one below it.
struct Site {
    root: rcgen::Certificate,
    issuing: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a node has.
struct Machine {
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Site {
    fn new() -> Site {
        let (root_key, issuing_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_params = authority("Site root");
        let root = root_params.self_signed(&root_key).unwrap();
        let params = authority("Site issuing");
        let issuing = params.signed_by(&issuing_key, &Issuer::new(root_params, root_key)).unwrap();
        Site { root, issuing: issuing.der().to_vec(), issuer: Issuer::new(params, issuing_key) }
    }

    fn machine(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Machine {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "press 3");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(vec![0x0a, 0x0b].into());
        params.subject_alt_names =
            vec![SanType::URI(format!("x509pop://{TRUST_DOMAIN}/site/north/3").try_into().unwrap())];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Machine { key, certificate }
    }

    fn payload(&self, machine: &Machine) -> String {
        let chain = [&machine.certificate, &self.issuing].map(|der| BASE64.encode(der));
        json!({ "certificates": chain }).to_string()
    }

    async fn fixture(&self) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.pem");
        std::fs::write(&file, self.root.pem()).unwrap();
        Fixture::with(|config| {
            config.spire = Some(Spire {
                address: ([127, 0, 0, 1], 0).into(),
                x509pop_anchors: vec![file],
                ..Default::default()
            });
        })
        .await
    }
}

impl Machine {
    /// As SPIRE's agent answers.
    fn answer(&self, challenge: &[u8], theirs: &[u8]) -> Vec<u8> {
        let challenge: Value = serde_json::from_slice(challenge).unwrap();
        let nonce = |kind: &str| {
            challenge[kind]["nonce"].as_str().map(|text| BASE64.decode(text.as_bytes()).unwrap())
        };
        let random = SystemRandom::new();
        let answer = match (nonce("rsa_signature"), nonce("ecdsa_signature")) {
            (Some(nonce), None) => {
                let key = RsaKeyPair::from_pkcs8(self.key.serialized_der()).unwrap();
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, &[&nonce, theirs].concat(), &mut signature).unwrap();
                json!({ "rsa_signature": { "nonce": BASE64.encode(theirs), "signature": BASE64.encode(&signature) } })
            }
            (None, Some(nonce)) => {
                let key =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, self.key.serialized_der())
                        .unwrap();
                let signature = key.sign(&random, &[&nonce, theirs].concat()).unwrap();
                let (r, s) = signature.as_ref().split_at(32);
                let [nonce, r, s] = [theirs, r, s].map(|bytes| BASE64.encode(bytes));
                json!({ "ecdsa_signature": { "nonce": nonce, "r": r, "s": s } })
            }
            _ => panic!("{challenge}"),
        };
        answer.to_string().into_bytes()
    }

    async fn attested(&self, fixture: &Fixture, site: &Site) -> Result<Node, Status> {
        let payload = site.payload(self);
        let answer = |challenge: &[u8]| self.answer(challenge, &[9; 32]);
        let (key, svid) = attest_answering(fixture, ("x509pop", payload.as_bytes()), answer).await?;
        Ok(Node::of(&key, svid))
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_of_a_certificate_comes_in_by_its_fingerprint() {
    let site = Site::new();
    let fixture = site.fixture().await;
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    for machine in [site.machine(key(), |_| {}), site.machine(rsa, |_| {})] {
        let node = machine.attested(&fixture, &site).await.unwrap();
        let sha1 = |der: &[u8]| {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der);
            data_encoding::HEXLOWER.encode(hash.as_ref())
        };
        let expected = format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/{}", sha1(&machine.certificate));
        assert_eq!(node.id, expected);
        node.agents(&fixture).await.post_status(PostStatusRequest::default()).await.unwrap();
        let get = GetAgentRequest { id: Some(parsed(&node.id)), output_mask: None };
        let told = agents(&fixture).await.get_agent(get).await.unwrap().into_inner();
        assert_eq!((told.attestation_type.as_str(), told.can_reattest), ("x509pop", true));
        let selectors: Vec<String> = told.selectors.into_iter().map(|selector| selector.value).collect();
        assert_eq!(
            selectors,
            [
                "subject:cn:press 3".to_owned(),
                format!("ca:fingerprint:{}", sha1(&site.issuing)),
                format!("ca:fingerprint:{}", sha1(site.root.der())),
                "serialnumber:0a0b".to_owned(),
                "san:site:north/3".to_owned(),
            ]
        );
        let trail = fixture.get("/v1/audit?limit=1000").await;
        let leaves = trail["leaves"].as_array().unwrap();
        let leaf = leaves.iter().find(|leaf| leaf["subject"] == node.id.as_str()).unwrap();
        assert_eq!(leaf["detail"]["basis"], "x509-pop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stands_no_longer_than_what_it_showed() {
    let site = Site::new();
    let fixture = site.fixture().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let soon = now + 100;
    let machine = site.machine(key(), |params| {
        params.not_after = date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(soon);
    });
    let payload = site.payload(&machine);
    let answer = |challenge: &[u8]| machine.answer(challenge, &[9; 32]);
    let (_, svid) = attest_answering(&fixture, ("x509pop", payload.as_bytes()), answer).await.unwrap();
    assert!(svid.expires_at <= i64::try_from(soon).unwrap(), "{} {soon}", svid.expires_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_name_no_node_of_the_operators_are_refused() {
    let (site, foreign) = (Site::new(), Site::new());
    let fixture = site.fixture().await;
    let refused =
        async |payload: String| attest(&fixture, ("x509pop", payload.as_bytes()), csr()).await.unwrap_err();
    let good = site.machine(key(), |_| {});
    let without_intermediate = json!({ "certificates": [BASE64.encode(&good.certificate)] }).to_string();
    let root_too = json!({ "certificates": [BASE64.encode(&foreign.machine(key(), |_| {}).certificate),
        BASE64.encode(&foreign.issuing), BASE64.encode(foreign.root.der())] });
    let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(2100, 1, 1);
    let ca = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signs = |params: &mut CertificateParams| params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let no_usage = |params: &mut CertificateParams| params.key_usages.clear();
    let enciphers =
        |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    for (payload, said) in [
        (foreign.payload(&foreign.machine(key(), |_| {})), "no valid path"),
        (root_too.to_string(), "no valid path"),
        (without_intermediate, "no valid path"),
        (site.payload(&site.machine(key(), old)), "ended at"),
        (site.payload(&site.machine(key(), early)), "begins at"),
        (site.payload(&site.machine(key(), ca)), "authority's certificate"),
        (site.payload(&site.machine(key(), signs)), "authority's certificate"),
        (json!({ "certificates": [BASE64.encode(&site.issuing)] }).to_string(), "authority's certificate"),
        (site.payload(&site.machine(key(), no_usage)), "digitalSignature"),
        (site.payload(&site.machine(key(), enciphers)), "digitalSignature"),
    ] {
        let refused = refused(payload).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{said}: {refused:?}");
        assert!(refused.message().contains(said), "{said}: {refused:?}");
    }
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let small = vec![BASE64.encode(&good.certificate); 9];
    for payload in [
        site.payload(&site.machine(ed25519, |_| {})),
        json!({ "certificates": small }).to_string(),
        json!({ "certificates": [] }).to_string(),
        json!({ "certificates": [BASE64.encode(b"certificate")] }).to_string(),
        "{}".to_owned(),
    ] {
        let refused = refused(payload).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    // The trust domain's own authorities are none of those.
    let own = super::client::joined(&fixture).await;
    let chain: Vec<String> = own.chain.iter().map(|der| BASE64.encode(der)).collect();
    let refused = refused(json!({ "certificates": chain }).to_string()).await;
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_signed_by_the_certificates_key_over_this_challenge() {
    let site = Site::new();
    let fixture = site.fixture().await;
    let (machine, thief) = (site.machine(key(), |_| {}), site.machine(key(), |_| {}));
    let payload = site.payload(&machine);
    let mut heard = Vec::new();
    let remember = |challenge: &[u8]| {
        heard = machine.answer(challenge, &[9; 32]);
        heard.clone()
    };
    attest_answering(&fixture, ("x509pop", payload.as_bytes()), remember).await.unwrap();
    let rsa = json!({ "rsa_signature": { "nonce": BASE64.encode(&[9; 32]), "signature": BASE64.encode(&[9; 256]) } });
    let zero = json!({ "ecdsa_signature": { "nonce": BASE64.encode(&[9; 32]), "r": "", "s": "" } });
    let answers: [(&Answering<'_>, Code); 6] = [
        (&|_| heard.clone(), Code::Unauthenticated),
        (&|challenge| thief.answer(challenge, &[9; 32]), Code::Unauthenticated),
        (&|challenge| machine.answer(challenge, &[9; 31]), Code::InvalidArgument),
        (&|_| rsa.to_string().into_bytes(), Code::InvalidArgument),
        (&|_| zero.to_string().into_bytes(), Code::Unauthenticated),
        (&|_| b"{}".to_vec(), Code::InvalidArgument),
    ];
    for (answer, code) in answers {
        let refused = attest_answering(&fixture, ("x509pop", payload.as_bytes()), answer).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_with_anchors_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.pem");
    for text in ["", "site", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, text).unwrap();
        let refused = Fixture::try_with(|config| {
            config.spire = Some(Spire {
                address: ([127, 0, 0, 1], 0).into(),
                x509pop_anchors: vec![file.clone()],
                ..Default::default()
            });
        })
        .await;
        assert!(refused.is_err_and(|error| error.contains("site.pem")), "{text}");
    }
}

fn csr() -> Vec<u8> {
    assay_identity::csr::request(&assay_identity::PrivateKey::generate().unwrap()).unwrap()
}
