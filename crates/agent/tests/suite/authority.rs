//! A small authority: a root that signs SVIDs and revocation lists, made anew for each test.

use assay_agent::holding::{Announced, Signed};
use assay_telemetry::pae;
use assay_wire::binding::{DEVICE_STATEMENTS_TYPE, TRUST_STATEMENT_TYPE};
use assay_wire::together::Tree;
use std::time::Duration;

use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::crl::{self, RevocationReason, RevokedSerial};
use assay_identity::jws::{JwkSet, Usage, VerifyingKey};
use assay_identity::jwt_svid::JwtSvid;
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{Bundle, Issuer, PrivateKey, Serial, SpiffeId, TrustDomain, UnixTime};
use std::sync::atomic::{AtomicU8, Ordering};

pub struct Authority {
    issuer: Issuer,
    /// Speaks for the authority: the key and its certificate.
    voice: (PrivateKey, Vec<u8>),
    serials: AtomicU8,
}

pub fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

pub fn after(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + seconds))
}

fn earlier() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() - 60))
}

impl Authority {
    pub fn new() -> Self {
        let key = PrivateKey::generate().unwrap();
        let template = AuthorityTemplate {
            trust_domain: trust_domain(),
            name: "test root".into(),
            serial: Serial::from_random([1; 16]),
            not_before: earlier(),
            not_after: after(36_000),
        };
        let certificate = sign_root(&template, &key).unwrap();
        let issuer = Issuer::new(certificate, key).unwrap();
        let voice = (PrivateKey::generate().unwrap(), Vec::new());
        let mut authority = Authority { issuer, voice, serials: AtomicU8::new(2) };
        authority.voice.1 = authority.svid("/assay/statements", &authority.voice.0.spki(), 3600).0;
        authority
    }

    /// What everybody is told, signed for the authority.
    pub fn trust(&self, statement: &[u8]) -> Signed {
        Signed {
            statement: statement.to_vec(),
            signature: self.voice.0.sign_message(&pae(TRUST_STATEMENT_TYPE, statement)).unwrap(),
            signer: vec![self.voice.1.clone()],
            ..Signed::default()
        }
    }

    /// What one device is told, signed together with what others are.
    pub fn signed(&self, statement: &[u8]) -> Signed {
        let tree = Tree::over([b"of another".as_slice(), b"of a third", statement]).unwrap();
        let root = pae(DEVICE_STATEMENTS_TYPE, &tree.root());
        Signed {
            statement: statement.to_vec(),
            signature: self.voice.0.sign_message(&root).unwrap(),
            signer: vec![self.voice.1.clone()],
            place: (2, 3),
            path: tree.path(2),
        }
    }

    /// What is announced with these serials revoked, and its bytes, which here are the list's.
    pub fn announced(&self, revoked: &[Serial], number: u64) -> (Signed, Announced) {
        let crl = self.crl(revoked, number);
        (
            self.trust(&crl),
            Announced { number, bundle: self.bundle().to_der(), crl, jwt_keys: self.jwt_keys() },
        )
    }

    /// The JWK set of the key that signs tokens.
    pub fn jwt_keys(&self) -> Vec<u8> {
        let keys = JwkSet::new([VerifyingKey::of(&self.voice.0)]);
        keys.to_json(Usage::JwtSvid).to_string().into_bytes()
    }

    /// A token for this identity and audience that lives for so many seconds.
    pub fn token(&self, path: &str, audience: &[&str], seconds: u64) -> String {
        let spiffe_id = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
        let audience = audience.iter().map(|one| (*one).to_owned()).collect();
        let issued_at = UnixTime::now().as_secs();
        let svid = JwtSvid { spiffe_id, audience, issued_at, expires_at: issued_at + seconds };
        svid.sign(&self.voice.0).unwrap()
    }

    pub fn bundle(&self) -> Bundle {
        Bundle::new(trust_domain(), [self.issuer.certificate()]).unwrap()
    }

    /// An SVID that lives for so many seconds, and its serial.
    pub fn svid(&self, path: &str, spki: &[u8], seconds: u64) -> (Vec<u8>, Serial) {
        let serial = Serial::from_random([self.serials.fetch_add(1, Ordering::Relaxed); 16]);
        let template = SvidTemplate {
            spiffe_id: SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            spki: spki.to_vec(),
            serial: serial.clone(),
            not_before: earlier(),
            not_after: after(seconds),
        };
        (issue(&template, &self.issuer).unwrap().der().to_vec(), serial)
    }

    pub fn crl(&self, revoked: &[Serial], number: u64) -> Vec<u8> {
        let listed = |serial: &Serial| RevokedSerial {
            serial: serial.clone(),
            at: earlier(),
            reason: RevocationReason::PrivilegeWithdrawn,
        };
        let revoked: Vec<_> = revoked.iter().map(listed).collect();
        crl::sign(&revoked, number, earlier(), after(3600), &self.issuer).unwrap()
    }
}
