//! What a node may have signed: read without a panic, and good for one request alone.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::signed_message::{Accept, NodeId, Request, Signed, open};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{
    Bundle, CrlSet, Issuer, PrivateKey, Serial, TrustDomain, UnixTime, VerifiedPeer, verify_svid,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (key, peer) = &*NODE;
    let signature = key.sign_message(data).expect("a key that signs");
    let signed = Signed { from: NodeId::new(7).expect("a node id"), bytes: data, signature: &signature };
    let request = Request { audience: "b", method: "POST", path: "/c", body: b"{}" };
    let now = at(1_800_000_000);
    if open(signed, peer, &request, Accept::Strict, now).is_ok() {
        let other = Request { path: "/d", ..request };
        assert!(open(signed, peer, &other, Accept::Strict, now).is_err());
    }
    let _ = open(signed, peer, &request, Accept::SeedToo, now);
});

static NODE: LazyLock<(PrivateKey, VerifiedPeer)> = LazyLock::new(|| {
    let (trust_domain, key) = (TrustDomain::parse("example.org").expect("a good name"), key());
    let (not_before, not_after) = (at(1_700_000_000), at(1_900_000_000));
    let root = AuthorityTemplate {
        trust_domain: trust_domain.clone(),
        name: "Root".to_owned(),
        serial: Serial::from_random([1; 16]),
        not_before,
        not_after,
    };
    let root_key = self::key();
    let root = Issuer::new(sign_root(&root, &root_key).expect("a root"), root_key).expect("an issuer");
    let leaf = SvidTemplate {
        spiffe_id: trust_domain.with_path("/a").expect("a good path"),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        spki: key.spki(),
        serial: Serial::from_random([2; 16]),
        not_before,
        not_after,
    };
    let leaf = issue(&leaf, &root).expect("a certificate");
    let bundle = Bundle::new(trust_domain, [root.certificate()]).expect("a bundle");
    let peer = verify_svid(&[leaf.der()], &bundle, &CrlSet::bootstrapping(), at(1_800_000_000));
    (key, peer.expect("a good certificate"))
});

fn key() -> PrivateKey {
    PrivateKey::generate().expect("a key")
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
