//! Issuing, inspecting and verifying X.509-SVIDs.

use assay_identity::authority::IssueError;
use assay_identity::x509_svid::{InspectError, SvidTemplate, inspect, issue};
use assay_identity::{Bundle, CrlSet, Moment, PrivateKey, Serial, SvidError, UnixTime, verify_svid};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose as Purpose, IsCa,
    KeyPair, KeyUsagePurpose as Usage, SanType,
};

use crate::authority::{Domain, NOW, at};

fn verify(chain: &[Vec<u8>], bundle: &Bundle, now: UnixTime) -> Result<String, SvidError> {
    verify_svid(chain, bundle, &CrlSet::bootstrapping(), now).map(|peer| peer.spiffe_id().to_string())
}

#[test]
fn what_is_issued_verifies() {
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let chain = domain.chain("/workload", &key);
    let peer = verify_svid(&chain, &domain.bundle(), &CrlSet::bootstrapping(), NOW).unwrap();
    assert_eq!(peer.spiffe_id().as_str(), "spiffe://example.org/workload");
    assert_eq!(*peer.serial(), Serial::from_random([0x5e; 16]));
    assert_eq!(peer.not_after(), at(3600));
    assert_eq!(peer.spki(), key.spki());
}

#[test]
fn dates_end_where_they_say() {
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let chain = domain.chain("/workload", &key);
    assert!(verify(&chain, &domain.bundle(), at(-10)).is_ok());
    assert!(verify(&chain, &domain.bundle(), at(3600)).is_ok());
    let ended = verify(&chain, &domain.bundle(), at(3601));
    assert_eq!(ended, Err(SvidError::Ended { ended: Moment(at(3600)), now: Moment(at(3601)) }));
    let early = verify(&chain, &domain.bundle(), at(-11));
    assert_eq!(early, Err(SvidError::NotYet { begins: Moment(at(-10)), now: Moment(at(-11)) }));
    // What is said has both clocks in it.
    let said = early.unwrap_err().to_string();
    assert!(said.contains(&Moment(at(-11)).to_string()) && said.contains("clock is behind"), "{said}");
}

#[test]
fn an_expired_root_verifies_nothing() {
    let domain = Domain::starting("example.org", at(-864_000 + 1800));
    let key = PrivateKey::generate().unwrap();
    let template = SvidTemplate { not_after: at(1000), ..domain.template("/a", &key) };
    let leaf = issue(&template, &domain.issuing).unwrap();
    let chain = vec![leaf.der().to_vec(), domain.issuing.certificate().to_vec()];
    assert!(verify(&chain, &domain.bundle(), NOW).is_ok());
    // Root and issuing CA end together; the leaf cannot be issued beyond them.
    let late = SvidTemplate { not_after: at(1801), ..template };
    let refused = issue(&late, &domain.issuing);
    assert!(matches!(refused, Err(IssueError::Inspection(InspectError::Dates))), "{refused:?}");
}

#[test]
fn other_peoples_chains_are_refused() {
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let namesake = Domain::new("example.org");
    let foreign = Domain::new("example.com");
    let chain = domain.chain("/a", &key);
    assert_eq!(verify(&[], &domain.bundle(), NOW), Err(SvidError::Empty));
    assert!(matches!(verify(&chain, &namesake.bundle(), NOW), Err(SvidError::Path(_))));
    assert!(matches!(verify(&chain, &foreign.bundle(), NOW), Err(SvidError::TrustDomain { .. })));
    assert!(matches!(verify(&chain[..1], &domain.bundle(), NOW), Err(SvidError::Path(_))));
    let long = vec![chain[0].clone(); 9];
    assert_eq!(verify(&long, &domain.bundle(), NOW), Err(SvidError::ChainTooLong { count: 9 }));
    let empty = Bundle::new(domain.name.clone(), Vec::<Vec<u8>>::new()).unwrap();
    assert!(matches!(verify(&chain, &empty, NOW), Err(SvidError::Path(_))));
}

#[test]
fn an_authority_does_not_authenticate() {
    let domain = Domain::new("example.org");
    let chain = [domain.issuing.certificate().to_vec()];
    assert_eq!(verify(&chain, &domain.bundle(), NOW), Err(SvidError::SigningCertificate));
}

/// A leaf with the issuing CA's signature on something it should never sign.
fn check_leaf(change: impl Fn(&mut CertificateParams), expected: SvidError) {
    let domain = Domain::new("example.org");
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.not_before = rcgen::date_time_ymd(2029, 12, 31);
    leaf.not_after = rcgen::date_time_ymd(2030, 1, 2);
    leaf.distinguished_name = DistinguishedName::new();
    leaf.subject_alt_names = vec![uri("spiffe://example.org/a")];
    leaf.key_usages = vec![Usage::DigitalSignature];
    leaf.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
    change(&mut leaf);

    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![Usage::KeyCertSign];
    let root_der = root.self_signed(&root_key).unwrap();
    let signed = leaf.signed_by(&key, &rcgen::Issuer::new(root, root_key)).unwrap();
    let bundle = Bundle::new(domain.name, [root_der.der()]).unwrap();
    assert_eq!(verify(&[signed.der().to_vec()], &bundle, NOW), Err(expected));
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn leaf_rules_of_the_standard() {
    use assay_identity::spiffe_id::SpiffeIdError;
    check_leaf(|leaf| leaf.subject_alt_names.clear(), SvidError::UriNames);
    check_leaf(|leaf| leaf.subject_alt_names.push(uri("spiffe://example.org/b")), SvidError::UriNames);
    check_leaf(|leaf| leaf.subject_alt_names.push(uri("https://example.org/b")), SvidError::UriNames);
    let not_spiffe = SvidError::SpiffeId(SpiffeIdError::Scheme);
    check_leaf(|leaf| leaf.subject_alt_names = vec![uri("https://example.org/a")], not_spiffe);
    check_leaf(
        |leaf| leaf.subject_alt_names = vec![uri("spiffe://example.org")],
        SvidError::SigningCertificate,
    );
    check_leaf(|leaf| leaf.key_usages.clear(), SvidError::KeyUsage);
    check_leaf(|leaf| leaf.key_usages = vec![Usage::KeyAgreement], SvidError::KeyUsage);
    check_leaf(|leaf| leaf.key_usages.push(Usage::KeyCertSign), SvidError::SigningCertificate);
    check_leaf(|leaf| leaf.key_usages.push(Usage::CrlSign), SvidError::SigningCertificate);
    check_leaf(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), SvidError::SigningCertificate);
    check_leaf(|leaf| leaf.extended_key_usages = vec![Purpose::ServerAuth], SvidError::ExtendedKeyUsage);
}

#[test]
fn inspection_finds_each_difference() {
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let template = domain.template("/a", &key);
    let signed = issue(&template, &domain.issuing).unwrap();
    let check = |change: &dyn Fn(&mut SvidTemplate), expected| {
        let mut asked = template.clone();
        change(&mut asked);
        let found = inspect(signed.der(), &asked, domain.issuing.certificate());
        assert_eq!(found.map(|_| ()), expected);
    };
    check(&|_| {}, Ok(()));
    check(&|asked| asked.spiffe_id = domain.id("/b"), Err(InspectError::Names));
    check(&|asked| asked.dns_names.clear(), Err(InspectError::Names));
    check(&|asked| asked.ip_addresses.reverse(), Err(InspectError::Names));
    check(&|asked| asked.serial = Serial::from_random([1; 16]), Err(InspectError::Serial));
    check(&|asked| asked.not_before = NOW, Err(InspectError::Dates));
    check(&|asked| asked.not_after = at(3599), Err(InspectError::Dates));
    check(&|asked| asked.spki.push(0), Err(InspectError::PublicKey));

    let by_other = |issuer: &[u8]| inspect(signed.der(), &template, issuer).map(|_| ());
    assert_eq!(by_other(domain.root.certificate()), Err(InspectError::IssuerName));
    let namesake = Domain::new("example.org");
    assert_eq!(by_other(namesake.issuing.certificate()), Err(InspectError::Signature));
    assert_eq!(by_other(signed.der()), Err(InspectError::NotAnAuthority));
    let longer = [signed.der(), &[0]].concat();
    let found = inspect(&longer, &template, domain.issuing.certificate());
    assert_eq!(found, Err(InspectError::Malformed));
}

#[test]
fn templates_that_cannot_be_signed() {
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let template = domain.template("/a", &key);
    let name = "not a name".to_owned();
    let asked = SvidTemplate { dns_names: vec![name.clone()], ..template.clone() };
    assert!(
        matches!(issue(&asked, &domain.issuing), Err(IssueError::DnsName { name: found }) if found == name)
    );
    let asked = SvidTemplate { spki: vec![1, 2, 3], ..template.clone() };
    assert!(matches!(issue(&asked, &domain.issuing), Err(IssueError::PublicKey)));
    let asked = SvidTemplate { not_after: at(-10), ..template };
    assert!(matches!(issue(&asked, &domain.issuing), Err(IssueError::Dates)));
}
