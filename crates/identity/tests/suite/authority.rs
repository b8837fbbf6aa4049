//! A trust domain for tests: root, issuing CA, and what it issues.

use std::time::Duration;

use assay_identity::authority::{AuthorityTemplate, IssueError, sign_issuing, sign_root};
use assay_identity::crl::{self, RevocationReason, RevokedSerial};
use assay_identity::x509_svid::{IssuedSvid, SvidTemplate, issue};
use assay_identity::{Bundle, Issuer, PrivateKey, Serial, SpiffeId, TrustDomain, UnixTime};

/// Noon, 1 January 2030.
pub const NOW: UnixTime = at(0);
const DAY: i64 = 86_400;

/// So many seconds from [`NOW`].
pub const fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs((1_893_499_200 + seconds) as u64))
}

pub struct Domain {
    pub name: TrustDomain,
    pub root: Issuer,
    pub issuing: Issuer,
}

impl Domain {
    pub fn new(name: &str) -> Self {
        Self::starting(name, at(-DAY))
    }

    /// A domain whose root and issuing CA live ten days from `start`.
    pub fn starting(name: &str, start: UnixTime) -> Self {
        let name = TrustDomain::parse(name).unwrap();
        let template = |title: &str, serial| AuthorityTemplate {
            trust_domain: name.clone(),
            name: title.to_owned(),
            serial: Serial::from_random([serial; 16]),
            not_before: start,
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(start.as_secs() + 10 * DAY as u64)),
        };
        let key = PrivateKey::generate().unwrap();
        let root = Issuer::new(sign_root(&template("Root", 1), &key).unwrap(), key).unwrap();
        let key = PrivateKey::generate().unwrap();
        let issuing = sign_issuing(&template("Issuing", 2), &key.spki(), &root).unwrap();
        let issuing = Issuer::new(issuing, key).unwrap();
        Domain { name, root, issuing }
    }

    pub fn bundle(&self) -> Bundle {
        Bundle::new(self.name.clone(), [self.root.certificate()]).unwrap()
    }

    pub fn id(&self, path: &str) -> SpiffeId {
        self.name.with_path(path).unwrap()
    }

    pub fn template(&self, path: &str, key: &PrivateKey) -> SvidTemplate {
        SvidTemplate {
            spiffe_id: self.id(path),
            dns_names: vec!["device.example.org".to_owned()],
            ip_addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            spki: key.spki(),
            serial: Serial::from_random([0x5e; 16]),
            not_before: at(-10),
            not_after: at(3600),
        }
    }

    pub fn svid(&self, path: &str, key: &PrivateKey) -> IssuedSvid {
        issue(&self.template(path, key), &self.issuing).unwrap()
    }

    /// Leaf and issuing CA.
    pub fn chain(&self, path: &str, key: &PrivateKey) -> Vec<Vec<u8>> {
        vec![self.svid(path, key).der().to_vec(), self.issuing.certificate().to_vec()]
    }

    pub fn crl(&self, number: u64, serials: &[&Serial]) -> Vec<u8> {
        let revoked: Vec<_> = serials
            .iter()
            .map(|serial| RevokedSerial {
                serial: (*serial).clone(),
                at: at(-60),
                reason: RevocationReason::PrivilegeWithdrawn,
            })
            .collect();
        crl::sign(&revoked, number, at(-60), at(600), &self.issuing).unwrap()
    }
}

#[test]
fn an_issuer_holds_its_certificates_key() {
    let domain = Domain::new("example.org");
    let stranger = PrivateKey::generate().unwrap();
    let refused = Issuer::new(domain.root.certificate().to_vec(), stranger);
    assert!(matches!(refused, Err(IssueError::KeyMismatch)));

    let key = PrivateKey::generate().unwrap();
    let leaf = domain.svid("/a", &key).der().to_vec();
    assert!(matches!(Issuer::new(leaf, key), Err(IssueError::NotAnAuthority)));
}

#[test]
fn an_issuing_authority_does_not_outlive_its_root() {
    let domain = Domain::new("example.org");
    let template = AuthorityTemplate {
        trust_domain: domain.name.clone(),
        name: "Issuing".to_owned(),
        serial: Serial::from_random([3; 16]),
        not_before: NOW,
        not_after: at(10 * DAY),
    };
    let key = PrivateKey::generate().unwrap();
    assert!(matches!(sign_issuing(&template, &key.spki(), &domain.root), Err(IssueError::Dates)));
    let backwards = AuthorityTemplate { not_after: at(-1), ..template };
    assert!(matches!(sign_root(&backwards, &key), Err(IssueError::Dates)));
}

#[test]
fn keys_travel_as_pem() {
    let key = PrivateKey::generate().unwrap();
    assert_eq!(PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap().pkcs8(), key.pkcs8());
    assert!(PrivateKey::from_pem(b"-----BEGIN PRIVATE KEY-----").is_err());
    assert!(PrivateKey::from_pkcs8(&key.spki()).is_err());
    assert_eq!(format!("{key:?}"), "PrivateKey");
}
