//! Signed messages: what holds, and every way to say something twice, late, elsewhere or as somebody else.

use assay_identity::signed_message::{
    Accept, FormError, MESSAGE_BYTES_MAX, MessageError, NodeId, Once, OnceBy, Opened, Outgoing, Peers,
    ReplayError, Replays, Request, Signed, open,
};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{CrlSet, PrivateKey, SvidError, UnixTime, VerifiedPeer, verify_svid};
use proptest::prelude::*;
use serde_json::json;

use crate::authority::{Domain, NOW, at};
use crate::openssl::OpenSsl;

const REQUEST: Request<'_> =
    Request { audience: "press-2", method: "POST", path: "/secure/data?x=1", body: br#"{"speed": 3}"# };

struct Node {
    key: PrivateKey,
    peer: VerifiedPeer,
}

impl Node {
    fn new() -> Node {
        let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
        let chain = domain.chain("/spire/agent/tpm/aa", &key);
        let peer = verify_svid(&chain, &domain.bundle(), &CrlSet::bootstrapping(), NOW).unwrap();
        Node { key, peer }
    }

    /// What comes of these bytes, signed by this node as node 7.
    fn said(&self, bytes: &[u8], accept: Accept, now: UnixTime) -> Result<Opened, MessageError> {
        let signature = self.key.sign_message(bytes).unwrap();
        let signed = Signed { from: node(7), bytes, signature: &signature };
        open(signed, &self.peer, &REQUEST, accept, now)
    }

    fn strictly(&self, text: &str) -> Result<Opened, MessageError> {
        self.said(text.as_bytes(), Accept::Strict, NOW)
    }
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn outgoing<'a>() -> Outgoing<'a> {
    Outgoing {
        from: node(7),
        at: NOW,
        data: r#"{"speed": 3}"#,
        about: REQUEST.about(),
        once: OnceBy::Nonce(&[5; 16]),
    }
}

fn text() -> String {
    String::from_utf8(outgoing().bytes().unwrap()).unwrap()
}

#[test]
fn what_is_said_is_heard() {
    let opened = Node::new().strictly(&text()).unwrap();
    assert_eq!((opened.from, opened.said_at, opened.data), (node(7), NOW, json!({ "speed": 3 })));
    assert!(matches!(opened.once, Once::Bytes(_)));
    let numbered = Outgoing { once: OnceBy::Sequence(u64::MAX), ..outgoing() }.bytes().unwrap();
    let opened = Node::new().said(&numbered, Accept::Strict, NOW).unwrap();
    assert_eq!(opened.once, Once::Sequence(u64::MAX));
}

#[test]
fn the_first_three_members_are_those_of_the_earlier_form() {
    let expected = concat!(
        r#"{"from_node": 7, "timestamp": 1893499200, "data": {"speed": 3}, "nonce": "BQUFBQUFBQUFBQUFBQUFBQ", "#,
        r#""audience": "press-2", "method": "POST", "path": "/secure/data?x=1", "body_sha256": ""#,
        "6db8a363fa44a3b46cdbe45a38b2b46cd8c6e4695a83d73ab3ba81645dd6073a\"}"
    );
    assert_eq!(text(), expected);
}

#[test]
fn every_lie_is_refused_for_its_own_reason() {
    let node_7 = Node::new();
    let check = |from: &str, to: &str, expected: MessageError| {
        assert!(text().contains(from), "{from}");
        assert_eq!(node_7.strictly(&text().replacen(from, to, 1)), Err(expected), "{to}");
    };
    check("\"from_node\": 7", "\"from_node\": 8", MessageError::From { header: node(7), signed: node(8) });
    check("\"from_node\": 7", "\"from_node\": 2147483648", MessageError::NodeId);
    check("1893499200", "1893498899", MessageError::Stale { seconds: 301 });
    check("1893499200", "1893499501", MessageError::Early { seconds: 301 });
    check("press-2", "press-3", MessageError::Audience);
    check("POST", "post", MessageError::Method);
    check("x=1", "x=2", MessageError::Path);
    check("6db8a3", "6DB8A3", MessageError::Body);
    check("BQUFBQUFBQUFBQUFBQUFBQ", "BQUFBQUFBQUFBQUFBQUF", MessageError::NoNonce);
    check("BQUFBQUFBQUFBQUFBQUFBQ", "BQUFBQUFBQUFBQUFBQUFB=", MessageError::NoNonce);
    check("\"nonce\": \"BQUFBQUFBQUFBQUFBQUFBQ\", ", "", MessageError::NoNonce);
    let malformed = |from: &str, to: &str| {
        assert!(text().contains(from), "{from}");
        let refused = node_7.strictly(&text().replacen(from, to, 1));
        assert!(matches!(refused, Err(MessageError::Form(_))), "{to}: {refused:?}");
    };
    for (from, to) in [
        ("\"from_node\": 7", "\"from_node\": \"7\""),
        ("\"from_node\": 7", "\"from_node\": 7.0"),
        ("\"from_node\": 7", "\"from_node\": 07"),
        ("\"from_node\": 7", "\"from_node\": 8, \"from_node\": 7"),
        ("\"from_node\": 7, ", ""),
        ("1893499200", "\"1893499200\""),
        ("1893499200", "1893499200.5"),
        ("1893499200", "true"),
        ("{\"speed\": 3}", "{\"speed\": 3, \"speed\": 4}"),
        ("{\"speed\": 3}", "NaN"),
        ("\"data\": {\"speed\": 3}, ", ""),
        ("\"nonce\": ", "\"sequence\": 5, \"nonce\": "),
        ("\"audience\": \"press-2\"", "\"audience\": null"),
        ("\"method\": \"POST\", ", ""),
        ("\"}", "\", \"more\": 1}"),
        ("\"}", "\"} {}"),
    ] {
        malformed(from, to);
    }
}

#[test]
fn what_is_no_message_is_told_by_its_place_and_never_repeated() {
    let node = Node::new();
    let check = |bytes: &str, expected: FormError| {
        assert_eq!(node.strictly(bytes), Err(MessageError::Form(expected)), "{bytes}");
    };
    check("", FormError::Json { line: 1, column: 0 });
    check("{\"a\": 1,\n\"a\": 2}", FormError::Twice { line: 2, column: 7 });
    check("[]", FormError::NoObject);
    check("{}", FormError::Missing("from_node"));
    check(&text().replace("\"}", "\", \"<script>\": 1}"), FormError::Unknown);
    check(&text().replace("1893499200", "\"x\""), FormError::Number("timestamp"));
    check(&text().replace("\"press-2\"", "7"), FormError::Text("audience"));
}

#[test]
fn another_signer_is_another() {
    let (one, other) = (Node::new(), Node::new());
    let bytes = text().into_bytes();
    let signature = other.key.sign_message(&bytes).unwrap();
    for (bytes, signature) in [(bytes.as_slice(), signature.as_slice()), (&bytes, &[]), (&[], &signature)] {
        let signed = Signed { from: node(7), bytes, signature };
        assert_eq!(open(signed, &one.peer, &REQUEST, Accept::Strict, NOW), Err(MessageError::Signature));
    }
    let long = vec![b' '; MESSAGE_BYTES_MAX + 1];
    assert_eq!(
        one.said(&long, Accept::Strict, NOW),
        Err(MessageError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 })
    );
}

#[test]
fn a_message_is_good_for_five_minutes_around_its_time() {
    let node = Node::new();
    let bytes = text().into_bytes();
    for seconds in [-300, 0, 300] {
        assert!(node.said(&bytes, Accept::Strict, at(seconds)).is_ok(), "{seconds}");
    }
    for seconds in [-301, 301] {
        assert!(node.said(&bytes, Accept::Strict, at(seconds)).is_err(), "{seconds}");
    }
}

#[test]
fn three_members_are_taken_where_that_is_switched_on_and_the_body_is_what_was_signed() {
    let node = Node::new();
    let said = |data: &str| {
        format!("{{\"from_node\": 7, \"timestamp\": {}, \"data\": {data}}}", NOW.as_secs()).into_bytes()
    };
    let seed = said(r#"{"speed":   3}"#);
    assert_eq!(node.said(&seed, Accept::Strict, NOW), Err(MessageError::Unbound));
    assert_eq!(node.said(&seed, Accept::SeedToo, NOW).unwrap().data, json!({ "speed": 3 }));
    for other in [r#"{"speed": 3.0}"#, r#"{"speed": true}"#, "null", "[]"] {
        assert_eq!(node.said(&said(other), Accept::SeedToo, NOW), Err(MessageError::Body), "{other}");
    }
    // What binds only in part binds nothing.
    let part = [&seed[..seed.len() - 1], br#", "audience": "press-2"}"#].concat();
    assert_eq!(node.said(&part, Accept::SeedToo, NOW), Err(MessageError::NoNonce));
    let signature = node.key.sign_message(&seed).unwrap();
    let signed = Signed { from: self::node(7), bytes: &seed, signature: &signature };
    // Where the body does not count for the earlier form, there may be none.
    let with_body = Request { method: "DELETE", ..REQUEST };
    assert_eq!(open(signed, &node.peer, &with_body, Accept::SeedToo, NOW), Err(MessageError::Body));
    let without = Request { body: &[], ..with_body };
    assert!(open(signed, &node.peer, &without, Accept::SeedToo, NOW).is_ok());
}

#[test]
fn what_is_no_json_of_one_reading_is_not_sealed() {
    for data in ["{\"a\": 1, \"a\": 2}", "NaN", "1} {", "", "\u{1}"] {
        let sealed = Outgoing { data, ..outgoing() }.bytes();
        assert!(matches!(sealed, Err(MessageError::Form(_))), "{data}: {sealed:?}");
    }
    let short = Outgoing { once: OnceBy::Nonce(&[1; 15]), ..outgoing() }.bytes();
    assert_eq!(short, Err(MessageError::NoNonce));
}

#[test]
fn node_ids_have_one_way_to_be_written() {
    for good in ["0", "7", "2147483647"] {
        assert_eq!(good.parse::<NodeId>().unwrap().to_string(), good);
    }
    for bad in ["", "+1", "01", "-0", "0_1", " 1", "1 ", "2147483648", "4294967296", "1.0", "١"] {
        assert_eq!(bad.parse::<NodeId>(), Err(MessageError::NodeId), "{bad}");
    }
}

/// RSA keys as TPMs and as programs in Python use them: OpenSSL signs, with salt as long as the hash and as long as it can be.
#[test]
fn rsa_signatures_of_either_salt_hold() {
    let Some(openssl) = OpenSsl::new() else { return };
    let (made, printed) =
        openssl.run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem -quiet");
    assert!(made, "{printed}");
    openssl.run("pkey -in key.pem -pubout -outform DER -out spki.der");
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let spki = std::fs::read(openssl.path().join("spki.der")).unwrap();
    let template = SvidTemplate { spki, ..domain.template("/spire/agent/tpm/aa", &key) };
    let leaf = issue(&template, &domain.issuing).unwrap();
    let chain = [leaf.der(), domain.issuing.certificate()];
    let peer = verify_svid(&chain, &domain.bundle(), &CrlSet::bootstrapping(), NOW).unwrap();
    openssl.file("message", text());
    let by = |options: &str| {
        let (signed, printed) = openssl.run(&format!("dgst -sha256 -sign key.pem{options} -out sig message"));
        assert!(signed, "{printed}");
        let signature = std::fs::read(openssl.path().join("sig")).unwrap();
        let bytes = text().into_bytes();
        let signed = Signed { from: node(7), bytes: &bytes, signature: &signature };
        open(signed, &peer, &REQUEST, Accept::Strict, NOW)
    };
    for salt in ["digest", "max"] {
        let options = format!(" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{salt}");
        assert!(by(&options).is_ok(), "{salt}: {:?}", by(&options));
    }
    assert_eq!(by(""), Err(MessageError::Signature), "PKCS #1 v1.5");
}

fn opened(from: u32, said_at: UnixTime, once: Once) -> Opened {
    Opened { from: node(from), said_at, data: json!(null), once }
}

#[test]
fn a_message_counts_once() {
    let mut replays = Replays::new(at(-10));
    let message = opened(7, NOW, Once::Bytes([1; 32]));
    assert_eq!(replays.take(&message, NOW), Ok(()));
    assert_eq!(replays.take(&message, at(299)), Err(ReplayError::Again));
    // Another node's, and another.
    assert_eq!(replays.take(&opened(8, NOW, Once::Bytes([1; 32])), NOW), Ok(()));
    assert_eq!(replays.take(&opened(7, NOW, Once::Bytes([2; 32])), NOW), Ok(()));
    let before = opened(7, at(-11), Once::Bytes([3; 32]));
    assert_eq!(replays.take(&before, NOW), Err(ReplayError::BeforeMemory));
    // A message dated ahead can be said again for longer, and is remembered for longer.
    let ahead = opened(7, at(250), Once::Bytes([4; 32]));
    assert_eq!(replays.take(&ahead, NOW), Ok(()));
    assert_eq!(replays.take(&ahead, at(550)), Err(ReplayError::Again));
    assert_eq!(replays.len(), 1);
    replays.take(&opened(9, at(551), Once::Bytes([5; 32])), at(551)).unwrap();
    assert_eq!(replays.len(), 1);
}

#[test]
fn numbers_rise() {
    let mut replays = Replays::new(NOW);
    let said = |number| opened(7, NOW, Once::Sequence(number));
    assert_eq!(replays.take(&said(5), NOW), Ok(()));
    assert_eq!(replays.take(&said(9), NOW), Ok(()));
    for late in [9, 6, 5] {
        let refused = replays.take(&said(late), at(3600));
        assert_eq!(refused, Err(ReplayError::Order { before: 9, found: late }));
    }
    assert_eq!(replays.take(&opened(8, NOW, Once::Sequence(1)), NOW), Ok(()));
    assert_eq!(replays.take(&said(10), NOW), Ok(()));
}

#[test]
fn one_node_cannot_fill_the_memory() {
    let mut replays = Replays::new(NOW);
    let said = |number: u32| {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        opened(7, NOW, Once::Bytes(digest))
    };
    for number in 0..10_000 {
        replays.take(&said(number), NOW).unwrap();
    }
    assert_eq!(replays.take(&said(10_000), NOW), Err(ReplayError::NodeIsFull(node(7))));
    assert_eq!(replays.take(&opened(8, NOW, Once::Bytes([9; 32])), NOW), Ok(()));
    assert_eq!(replays.take(&opened(7, at(301), Once::Bytes([9; 32])), at(301)), Ok(()));
}

#[test]
fn a_chain_is_remembered_and_no_verdict() {
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let (chain, bundle) = (domain.chain("/spire/agent/tpm/aa", &key), domain.bundle());
    let list = |der: Vec<u8>| CrlSet::from_der([der]).unwrap();
    let good = list(domain.crl(1, &[]));
    let mut peers = Peers::default();
    let first = peers.verify(&chain, (&bundle, &good), NOW).unwrap();
    assert_eq!(peers.verify(&chain, (&bundle, &good), at(1)).unwrap(), first);
    assert_eq!(peers.hits_and_misses(), (1, 1));
    // Each of these is told of a chain that is remembered.
    let revoked = list(domain.crl(2, &[first.serial()]));
    assert_eq!(peers.verify(&chain, (&bundle, &revoked), at(2)), Err(SvidError::Revoked));
    let old = peers.verify(&chain, (&bundle, &good), at(600));
    assert!(matches!(old, Err(SvidError::OldRevocationList { .. })), "{old:?}");
    let none = peers.verify(&chain, (&bundle, &CrlSet::default()), at(2));
    assert_eq!(none, Err(SvidError::NoRevocationList));
    assert_eq!(peers.hits_and_misses(), (1, 1));
    // An hour later, and where the certificate has ended, it is looked at again.
    assert!(peers.verify(&chain, (&bundle, &CrlSet::bootstrapping()), at(3601)).is_err());
    assert_eq!(peers.hits_and_misses(), (1, 2));
    let stranger = Domain::new("example.org").chain("/spire/agent/tpm/aa", &key);
    for misses in [3, 4] {
        assert!(peers.verify(&stranger, (&bundle, &good), NOW).is_err());
        assert_eq!(peers.hits_and_misses(), (1, misses));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_node_signs_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let node = Node::new();
        prop_assert!(node.said(&bytes, Accept::SeedToo, NOW).is_err());
    }

    #[test]
    fn what_is_sealed_opens_as_it_was_meant(
        audience in ".{0,20}", path in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..50), number in any::<u64>(),
    ) {
        let node = Node::new();
        let request = Request { audience: &audience, method: "PUT", path: &path, body: &body };
        let sealed = Outgoing { about: request.about(), once: OnceBy::Sequence(number), ..outgoing() }.bytes().unwrap();
        let signature = node.key.sign_message(&sealed).unwrap();
        let signed = Signed { from: self::node(7), bytes: &sealed, signature: &signature };
        let opened = open(signed, &node.peer, &request, Accept::Strict, NOW).unwrap();
        prop_assert_eq!(opened.once, Once::Sequence(number));
    }
}
