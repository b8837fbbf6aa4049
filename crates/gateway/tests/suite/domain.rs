//! A trust domain that lives now, and credentials of it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assay_identity::authority::{AuthorityTemplate, sign_issuing, sign_root};
use assay_identity::bundle::pem_certificates;
use assay_identity::crl::{self, RevocationReason, RevokedSerial};
use assay_identity::tls::{Trust, TrustSource, certified_key};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{Bundle, CrlSet, Issuer, PrivateKey, Serial, TrustDomain, UnixTime};
use rustls::sign::CertifiedKey;

pub struct Domain {
    pub name: TrustDomain,
    root: Issuer,
    issuing: Issuer,
}

impl Domain {
    pub fn new() -> Self {
        let name = TrustDomain::parse("example.org").unwrap();
        let template = |title: &str, serial| AuthorityTemplate {
            trust_domain: name.clone(),
            name: title.to_owned(),
            serial: Serial::from_random([serial; 16]),
            not_before: seconds_from_now(-60),
            not_after: seconds_from_now(7200),
        };
        let key = PrivateKey::generate().unwrap();
        let root = Issuer::new(sign_root(&template("Root", 1), &key).unwrap(), key).unwrap();
        let key = PrivateKey::generate().unwrap();
        let issuing = sign_issuing(&template("Issuing", 2), &key.spki(), &root).unwrap();
        Domain { name, root, issuing: Issuer::new(issuing, key).unwrap() }
    }

    fn bundle(&self) -> Bundle {
        Bundle::new(self.name.clone(), [self.root.certificate()]).unwrap()
    }

    pub fn trust(&self) -> Arc<TrustSource> {
        TrustSource::new(Trust { bundle: self.bundle(), crls: CrlSet::bootstrapping() })
    }

    fn svid(&self, path: &str) -> (Vec<Vec<u8>>, PrivateKey) {
        let key = PrivateKey::generate().unwrap();
        let template = SvidTemplate {
            spiffe_id: self.name.with_path(path).unwrap(),
            dns_names: vec!["localhost".to_owned()],
            ip_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            spki: key.spki(),
            serial: serial(path),
            not_before: seconds_from_now(-10),
            not_after: seconds_from_now(3600),
        };
        let leaf = issue(&template, &self.issuing).unwrap();
        (vec![leaf.der().to_vec(), self.issuing.certificate().to_vec()], key)
    }

    /// The revocation list of this number, which names the certificates of these paths.
    pub fn list(&self, number: u64, paths: &[&str]) -> Vec<u8> {
        let revoked: Vec<_> = paths
            .iter()
            .map(|path| RevokedSerial {
                serial: serial(path),
                at: seconds_from_now(-1),
                reason: RevocationReason::PrivilegeWithdrawn,
            })
            .collect();
        crl::sign(&revoked, number, seconds_from_now(-10), seconds_from_now(3600), &self.issuing).unwrap()
    }

    /// Credentials for TLS.
    pub fn key(&self, path: &str) -> Arc<CertifiedKey> {
        let (chain, key) = self.svid(path);
        certified_key(chain, key.pkcs8()).unwrap()
    }

    /// Credentials as the files of a gateway.
    pub fn write_credentials(&self, path: &str, folder: &Path) {
        let (chain, key) = self.svid(path);
        std::fs::write(folder.join("bundle.pem"), self.bundle().to_pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.to_pem()).unwrap();
        std::fs::set_permissions(folder.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(folder.join("credentials.pem"), pem_certificates(&chain)).unwrap();
    }
}

/// One for each path.
fn serial(path: &str) -> Serial {
    let sum = path.bytes().fold(3u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    Serial::from_random([sum; 16])
}

fn seconds_from_now(seconds: i64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now.saturating_add_signed(seconds)))
}
