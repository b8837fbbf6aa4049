//! Handshakes between two ends in memory.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::crl::{self, RevocationReason, RevokedSerial};
use assay_identity::tls::{self, AcceptPeer, ClientIdentity, Trust, TrustSource};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{Bundle, CrlSet, Issuer, PrivateKey, Serial, TrustDomain, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConnection, ServerConnection};

/// TLS asks the system clock here, so this domain lives now.
struct Live {
    domain: TrustDomain,
    root: Issuer,
    now: UnixTime,
}

impl Live {
    fn new() -> Self {
        let domain = TrustDomain::parse("example.org").unwrap();
        let now = UnixTime::now();
        let template = AuthorityTemplate {
            trust_domain: domain.clone(),
            name: "Root".to_owned(),
            serial: Serial::from_random([1; 16]),
            not_before: now,
            not_after: later(now, 7200),
        };
        let key = PrivateKey::generate().unwrap();
        let root = Issuer::new(sign_root(&template, &key).unwrap(), key).unwrap();
        Live { domain, root, now }
    }

    fn key(&self, path: &str, serial: u8) -> Arc<CertifiedKey> {
        let key = PrivateKey::generate().unwrap();
        let template = SvidTemplate {
            spiffe_id: self.domain.with_path(path).unwrap(),
            dns_names: vec![],
            ip_addresses: vec![],
            spki: key.spki(),
            serial: Serial::from_random([serial; 16]),
            not_before: self.now,
            not_after: later(self.now, 3600),
        };
        let leaf = issue(&template, &self.root).unwrap();
        tls::certified_key(vec![leaf.der().to_vec()], key.pkcs8()).unwrap()
    }

    fn trust(&self, revoked: &[u8]) -> Trust {
        let bundle = Bundle::new(self.domain.clone(), [self.root.certificate()]).unwrap();
        let revoked: Vec<_> = revoked
            .iter()
            .map(|serial| RevokedSerial {
                serial: Serial::from_random([*serial; 16]),
                at: self.now,
                reason: RevocationReason::PrivilegeWithdrawn,
            })
            .collect();
        let list = crl::sign(&revoked, 1, self.now, later(self.now, 60), &self.root).unwrap();
        Trust { bundle, crls: CrlSet::from_der([list]).unwrap() }
    }
}

fn later(time: UnixTime, seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs() + seconds))
}

fn now() -> Arc<dyn TimeProvider> {
    Arc::new(DefaultTimeProvider)
}

fn anyone() -> AcceptPeer {
    Arc::new(|_| true)
}

fn only(path: &'static str) -> AcceptPeer {
    Arc::new(move |id| id.path() == path)
}

/// Runs both ends until nothing moves and a byte went each way; the first refusal otherwise.
fn shake(client: rustls::ClientConfig, server: rustls::ServerConfig) -> Result<(), String> {
    let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    client.writer().write_all(b"c").unwrap();
    server.writer().write_all(b"s").unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {error:?}"))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(|error| format!("client: {error:?}"))?;
        }
    }
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    let mut byte = [0];
    server.reader().read_exact(&mut byte).map_err(|error| error.to_string())?;
    client.reader().read_exact(&mut byte).map_err(|error| error.to_string())
}

#[test]
fn both_ends_see_who_the_other_is() {
    let live = Live::new();
    let trust = TrustSource::new(live.trust(&[]));
    let (server_key, client_key) = (live.key("/server", 1), live.key("/client", 2));
    let attempt = |client_accepts: AcceptPeer, server_accepts: ClientIdentity, shown: bool| {
        let shown = shown.then(|| client_key.clone());
        shake(
            tls::client_config(shown, trust.clone(), client_accepts, now()).unwrap(),
            tls::server_config(server_key.clone(), trust.clone(), server_accepts, now()).unwrap(),
        )
    };
    let refused = |result: Result<(), String>, by: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(by), "{error}");
    };
    assert_eq!(attempt(only("/server"), ClientIdentity::Required(only("/client")), true), Ok(()));
    assert_eq!(attempt(anyone(), ClientIdentity::None, true), Ok(()));
    assert_eq!(attempt(anyone(), ClientIdentity::Optional(anyone()), false), Ok(()));
    refused(attempt(only("/other"), ClientIdentity::None, true), "client: InvalidCertificate");
    refused(attempt(anyone(), ClientIdentity::Required(only("/other")), true), "server: InvalidCertificate");
    refused(attempt(anyone(), ClientIdentity::Optional(only("/other")), true), "server: InvalidCertificate");
    refused(attempt(anyone(), ClientIdentity::Required(anyone()), false), "server: NoCertificatesPresented");
}

#[test]
fn a_revocation_counts_from_the_next_handshake() {
    let live = Live::new();
    let trust = TrustSource::new(live.trust(&[]));
    let (server_key, client_key) = (live.key("/server", 1), live.key("/client", 2));
    let attempt = || {
        shake(
            tls::client_config(Some(client_key.clone()), trust.clone(), anyone(), now()).unwrap(),
            tls::server_config(server_key.clone(), trust.clone(), ClientIdentity::Required(anyone()), now())
                .unwrap(),
        )
    };
    assert_eq!(attempt(), Ok(()));
    trust.replace(live.trust(&[2]));
    assert!(attempt().unwrap_err().contains("server: InvalidCertificate(Revoked)"));
    trust.replace(live.trust(&[1]));
    assert!(attempt().unwrap_err().contains("client: InvalidCertificate(Revoked)"));
    trust.replace(Live::new().trust(&[]));
    assert!(attempt().unwrap_err().contains("InvalidCertificate"));
}

#[test]
fn a_stolen_certificate_needs_its_key() {
    let live = Live::new();
    let own = live.key("/client", 2);
    let stranger = PrivateKey::generate().unwrap();
    let chain = own.cert.iter().map(|der| der.to_vec()).collect();
    assert!(tls::certified_key(chain, stranger.pkcs8()).is_err());

    // The same, past our own check: the other end must notice.
    let signer = live.key("/other", 3).key.clone();
    let stolen = Arc::new(CertifiedKey::new(own.cert.clone(), signer));
    let trust = TrustSource::new(live.trust(&[]));
    let result = shake(
        tls::client_config(Some(stolen), trust.clone(), anyone(), now()).unwrap(),
        tls::server_config(live.key("/server", 1), trust, ClientIdentity::Required(anyone()), now()).unwrap(),
    );
    assert!(result.unwrap_err().contains("server: InvalidCertificate(BadSignature)"));
}
