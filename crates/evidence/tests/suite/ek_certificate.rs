//! EK certificates: recorded ones chain, and each thing wrong with one is its own failure.

use assay_evidence::digest::HashAlgorithm;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{
    CertificateError, EkCertificate, Endorsers, TrustAnchor, verify_ek_certificate,
};
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{Check, Failure};
use assay_testkit::software_device::{EkKind, EkMaker, EndorsementKey};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::case::Case;
use crate::files::recorded_cases;

fn at(text: &str) -> UnixTime {
    UnixTime::from_rfc3339(text).unwrap()
}

fn checks(result: Result<EkCertificate, Vec<Failure>>) -> Vec<Check> {
    result
        .map(|_| Vec::new())
        .unwrap_or_else(|failures| failures.iter().map(|failure| failure.check).collect())
}

/// Whoever has these certificates, and no revocation lists.
fn anchors(pem_or_der: &[u8]) -> Endorsers {
    Endorsers::new(TrustAnchor::from_pem_or_der(pem_or_der).unwrap(), Vec::new())
}

/// The recorded certificate `file` with its issuing CA as intermediate and its root as anchor.
fn recorded_endorsement(case: &Case, file: &str) -> EkCertificate {
    let issuing = der(&case.file("ek-issuing-ca.pem"));
    let anchors = anchors(&case.file("ek-root-ca.pem"));
    verify_ek_certificate(&case.file(file), &[&issuing], &anchors, at("2026-11-23T12:00:00Z")).unwrap()
}

fn der(pem: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pem).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    data_encoding::BASE64.decode(body.as_bytes()).unwrap()
}

#[test]
fn recorded_certificates_endorse_their_ek() {
    let mut cases = vec![Case::vector("sb-good-1")];
    cases.extend(recorded_cases("ek-cert.der").iter().map(|folder| Case::read(folder)));
    for case in cases {
        let endorsement = recorded_endorsement(&case, "ek-cert.der");
        let ek = PublicArea::parse_tpm2b(&case.file("ek.tpm2b_public")).unwrap();
        assert_eq!(endorsement.matches(&ek), None);
        assert_eq!(endorsement.spki(), ek.spki_der());
        assert_eq!(endorsement.manufacturer(), Some("id:00001014"));
        assert_eq!((endorsement.model(), endorsement.version()), (Some("swtpm"), Some("id:20191023")));
        assert_eq!(
            (endorsement.issuer(), endorsement.anchor()),
            ("CN=swtpm-localca", "CN=swtpm-localca-rootca")
        );
        assert_eq!(endorsement.valid_until(), at("9999-12-31T23:59:59Z"));
        let sha256 = HashAlgorithm::Sha256.hash(&[&case.file("ek-cert.der")]);
        assert_eq!(endorsement.certificate_sha256(), sha256);

        // The P-384 EK of the same TPM is another key.
        let other = recorded_endorsement(&case, "ek-ecc-p384-cert.der");
        assert_eq!(other.matches(&ek).unwrap().check, Check::EkCertificateKey);
    }
}

#[test]
fn an_issuing_ca_may_be_the_anchor() {
    let case = Case::vector("sb-good-1");
    let anchors = anchors(&case.file("ek-issuing-ca.pem"));
    let endorsement =
        verify_ek_certificate(&case.file("ek-cert.der"), &[], &anchors, at("2027-01-01T00:00:00Z"));
    assert_eq!(endorsement.unwrap().anchor(), "CN=swtpm-localca");
}

#[test]
fn a_recorded_certificate_fails_in_the_check_it_is_about() {
    let case = Case::vector("sb-good-1");
    let (leaf, issuing) = (case.file("ek-cert.der"), der(&case.file("ek-issuing-ca.pem")));
    let anchors = anchors(&case.file("ek-root-ca.pem"));
    let now = at("2026-11-23T12:00:00Z");
    let verify = |leaf: &[u8], intermediates: &[&[u8]], anchors: &Endorsers, at| {
        checks(verify_ek_certificate(leaf, intermediates, anchors, at))
    };
    assert_eq!(verify(&leaf, &[&issuing], &anchors, now), []);
    assert_eq!(verify(&leaf, &[], &anchors, now), [Check::EkChain]);
    assert_eq!(verify(&leaf, &[&issuing], &Endorsers::default(), now), [Check::EkChain]);
    // Before the leaf and both CAs.
    let validity = [Check::EkValidity; 3];
    assert_eq!(verify(&leaf, &[&issuing], &anchors, at("2026-11-22T00:00:00Z")), validity);
    // Between the CAs and the leaf.
    assert_eq!(verify(&leaf, &[&issuing], &anchors, at("2026-11-22T10:30:00Z")), [Check::EkValidity]);
    for position in [40, 500, leaf.len() - 1] {
        let mut changed = leaf.clone();
        changed[position] ^= 1;
        assert!(!verify(&changed, &[&issuing], &anchors, now).is_empty(), "{position}");
    }
    assert_eq!(verify(&leaf[..500], &[&issuing], &anchors, now), [Check::EkChain]);
    // The same CA's certificate for the platform, and the CA itself.
    assert_eq!(verify(&case.file("platform-cert.der"), &[&issuing], &anchors, now), [Check::EkEku]);
    assert_eq!(verify(&issuing, &[], &anchors, now), [Check::EkEku, Check::EkChain, Check::EkEku]);
    // As read from an NV index with room to spare.
    assert_eq!(verify(&[leaf.clone(), vec![0xff; 80]].concat(), &[&issuing], &anchors, now), []);
    // With the header of a TPM 1.2's store before it as well, and with a length.
    for header in [&[0x10, 1, 0, 3, 0xb8, 0x10, 2][..], &[3, 0xb6], &[0; 16]] {
        let stored = [header, &leaf, &[0; 30]].concat();
        assert_eq!(verify(&stored, &[&issuing], &anchors, now), [], "{header:02x?}");
        assert!(!verify(&[header, &[7; 20], &leaf].concat(), &[&issuing], &anchors, now).is_empty());
    }
    assert_eq!(verify(&[leaf, vec![1]].concat(), &[&issuing], &anchors, now), [Check::EkChain]);
}

#[test]
fn another_devices_certificate_is_another_key() {
    let maker = EkMaker::new().unwrap();
    let (mine, other) = (ek(), ek());
    let anchors = anchors(maker.root_ca_pem().as_bytes());
    let swapped = maker.certify(&other).unwrap();
    let endorsement =
        verify_ek_certificate(&swapped, &[maker.issuing_ca()], &anchors, at("2026-01-01T00:00:00Z")).unwrap();
    let mine = PublicArea::parse_tpm2b(mine.public_area()).unwrap();
    assert_eq!(endorsement.matches(&mine).unwrap().check, Check::EkCertificateKey);
    let other = PublicArea::parse_tpm2b(other.public_area()).unwrap();
    assert_eq!(endorsement.matches(&other), None);
}

fn ek() -> EndorsementKey {
    EndorsementKey::generate(EkKind::P256).unwrap()
}

/// A CA and what it issues, to be made wrong in one point.
struct Chain {
    root: CertificateParams,
    issuing: CertificateParams,
    leaf: CertificateParams,
}

impl Chain {
    fn new() -> Self {
        let mut leaf = named("EK");
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 1])];
        Chain { root: authority("root", 1), issuing: authority("issuing", 0), leaf }
    }

    fn checks(&self) -> Vec<Check> {
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let [root_key, issuing_key, leaf_key] = &keys;
        let root = self.root.self_signed(root_key).unwrap();
        let by_root = Issuer::from_params(&self.root, root_key);
        let issuing = self.issuing.signed_by(issuing_key, &by_root).unwrap();
        let by_issuing = Issuer::from_params(&self.issuing, issuing_key);
        let leaf = self.leaf.signed_by(leaf_key, &by_issuing).unwrap();
        let anchors = anchors(root.der());
        checks(verify_ek_certificate(leaf.der(), &[issuing.der()], &anchors, at("2026-06-01T00:00:00Z")))
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

#[test]
fn each_rule_of_a_chain_matters() {
    let check = |expected: &[Check], change: &dyn Fn(&mut Chain)| {
        let mut chain = Chain::new();
        change(&mut chain);
        assert_eq!(chain.checks(), expected);
    };
    let unknown = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    check(&[], &|_| {});
    check(&[Check::EkEku], &|chain| chain.leaf.extended_key_usages.clear());
    check(&[Check::EkEku], &|chain| {
        chain.leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    check(&[Check::EkEku], &|chain| chain.leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    check(&[Check::EkValidity], &|chain| chain.leaf.not_after = date_time_ymd(2026, 5, 1));
    check(&[Check::EkValidity], &|chain| chain.issuing.not_after = date_time_ymd(2026, 5, 1));
    check(&[Check::EkValidity], &|chain| chain.root.not_before = date_time_ymd(2026, 7, 1));
    check(&[Check::EkEku, Check::EkValidity], &|chain| {
        chain.leaf.extended_key_usages.clear();
        chain.leaf.not_after = date_time_ymd(2026, 5, 1);
    });
    check(&[], &|chain| chain.leaf.custom_extensions.push(unknown(false)));
    check(&[Check::EkChain], &|chain| chain.leaf.custom_extensions.push(unknown(true)));
    check(&[Check::EkChain], &|chain| chain.issuing.custom_extensions.push(unknown(true)));
    check(&[Check::EkChain], &|chain| {
        chain.leaf.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    check(&[Check::EkChain], &|chain| chain.issuing.is_ca = IsCa::ExplicitNoCa);
    check(&[Check::EkChain], &|chain| chain.issuing.is_ca = IsCa::NoCa);
    check(&[Check::EkChain], &|chain| chain.root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    check(&[Check::EkChain], &|chain| chain.issuing.key_usages = vec![KeyUsagePurpose::CrlSign]);
    check(&[Check::EkChain], &|chain| chain.root.key_usages.clear());
}

#[test]
fn a_flood_of_intermediates_ends() {
    // Many CAs of one name and no way out: the budget ends the search.
    let keys: Vec<KeyPair> = (0..8).map(|_| KeyPair::generate().unwrap()).collect();
    let mut same = authority("same", 7);
    same.use_authority_key_identifier_extension = false;
    let by_first = Issuer::from_params(&same, &keys[0]);
    let cross: Vec<Vec<u8>> =
        keys.iter().map(|key| same.signed_by(key, &by_first).unwrap().der().to_vec()).collect();
    let mut leaf = Chain::new().leaf;
    leaf.use_authority_key_identifier_extension = false;
    let leaf = leaf.signed_by(&keys[0], &by_first).unwrap();
    let anchors = anchors(EkMaker::new().unwrap().root_ca());
    let intermediates: Vec<&[u8]> = cross.iter().map(Vec::as_slice).collect();
    let result = verify_ek_certificate(leaf.der(), &intermediates, &anchors, at("2026-06-01T00:00:00Z"));
    assert_eq!(checks(result), [Check::EkChain]);
}

#[test]
fn anchors_are_read_from_der_and_pem() {
    let case = Case::vector("sb-good-1");
    let (root, issuing) = (case.file("ek-root-ca.pem"), case.file("ek-issuing-ca.pem"));
    let both = TrustAnchor::from_pem_or_der(&[root.clone(), issuing].concat()).unwrap();
    assert_eq!(both.iter().map(TrustAnchor::subject).count(), 2);
    assert_eq!(TrustAnchor::from_pem_or_der(&der(&root)).unwrap()[0], both[0]);
    for bytes in [&b""[..], b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(TrustAnchor::from_pem_or_der(bytes).is_err());
    }
    let key = b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n";
    assert_eq!(TrustAnchor::from_pem_or_der(key), Err(CertificateError::Pem));
}

proptest! {
    #[test]
    fn no_bytes_make_a_certificate_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = verify_ek_certificate(&bytes, &[&bytes], &Endorsers::default(), UnixTime(0));
        let _ = TrustAnchor::from_pem_or_der(&bytes);
    }

    #[test]
    fn no_changed_certificate_is_believed(position in 0usize..1019, value in any::<u8>()) {
        let case = Case::vector("sb-good-1");
        let mut leaf = case.file("ek-cert.der");
        let anchors = anchors(&case.file("ek-issuing-ca.pem"));
        let same = leaf[position] == value;
        leaf[position] = value;
        let result = verify_ek_certificate(&leaf, &[], &anchors, at("2027-01-01T00:00:00Z"));
        prop_assert_eq!(result.is_ok(), same);
    }
}
