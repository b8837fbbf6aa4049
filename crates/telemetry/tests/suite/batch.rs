//! Sealing and opening.

use assay_identity::{PrivateKey, TrustDomain};
use assay_telemetry::position::{Accuracy, Doubt, Point, Position, Source};
use assay_telemetry::{
    BootEpoch, Freshness, Location, LocationMethod, OTLP_METRICS, OpenError, Opened, PAYLOAD_BYTES_MAX,
    STATEMENT_TYPE, Statement, StatementError, open, seal, sha256, to_be_signed, verify_device_signature,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use proptest::prelude::*;

/// A device key outside a TPM.
pub struct Device {
    key: PrivateKey,
    signer: EcdsaKeyPair,
}

impl Device {
    pub fn new() -> Self {
        let key = PrivateKey::generate().unwrap();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.pkcs8()).unwrap();
        Device { key, signer }
    }

    pub fn spki(&self) -> Vec<u8> {
        self.key.spki()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub fn statement(&self, payload: &[u8]) -> Statement {
        Statement {
            device_id: TrustDomain::parse("example.org").unwrap().with_path("/device").unwrap(),
            key_id: sha256(&self.spki()),
            boot_epoch: BootEpoch { reset_count: 7, restart_count: 1 },
            sequence: 1,
            previous: [0; 32],
            payload_type: OTLP_METRICS.to_owned(),
            payload_sha256: sha256(payload),
            items: 3,
            first_time_unix_nano: 1,
            last_time_unix_nano: 2,
            wall_clock_unix_nano: 3,
            freshness: Freshness::Chained,
            location: None,
            policy: "edge-base 7".to_owned(),
            agent_version: "0.1.0".to_owned(),
        }
    }

    pub fn opened(&self, statement: &Statement, payload: &[u8]) -> Result<Opened, OpenError> {
        let sealed = seal(statement);
        open(&sealed, &self.sign(&to_be_signed(&sealed)), payload, &self.spki())
    }
}

fn check(change: impl Fn(&mut Statement), expected: Result<(), OpenError>) {
    let (device, payload) = (Device::new(), b"payload");
    let mut statement = device.statement(payload);
    change(&mut statement);
    let opened = device.opened(&statement, payload);
    assert_eq!(opened.as_ref().map(|_| ()).map_err(|error| *error), expected);
    if let Ok(opened) = opened {
        assert_eq!(*opened.statement(), statement);
        assert_eq!(opened.statement_sha256(), sha256(&seal(&statement)));
    }
}

fn field(field: &'static str) -> Result<(), OpenError> {
    Err(OpenError::Statement(StatementError::Field { field }))
}

#[test]
fn a_signed_statement_opens_and_a_signed_lie_does_not() {
    check(|_| {}, Ok(()));
    check(|statement| statement.freshness = Freshness::Nonce(vec![1; 32]), Ok(()));
    check(|statement| statement.freshness = Freshness::Nonce(vec![]), field("freshness"));
    check(|statement| statement.freshness = Freshness::Nonce(vec![1; 65]), field("freshness"));
    check(|statement| statement.sequence = 0, field("sequence"));
    check(|statement| statement.policy = "p".repeat(257), field("policy"));
    check(|statement| statement.key_id = [0; 32], Err(OpenError::KeyId));
    check(|statement| statement.payload_sha256 = [0; 32], Err(OpenError::Payload));
}

#[test]
fn bounds_are_kept_before_anything_is_verified() {
    let device = Device::new();
    let long = vec![0; PAYLOAD_BYTES_MAX + 1];
    let refused = open(&seal(&device.statement(&long)), &[], &long, &device.spki());
    assert_eq!(refused, Err(OpenError::PayloadTooLong { length: long.len() }));
    let refused = open(&[0; 8193], &[], &[], &device.spki());
    assert_eq!(refused, Err(OpenError::Statement(StatementError::TooLong { length: 8193 })));
}

#[test]
fn a_signature_for_another_type_is_no_statement() {
    let device = Device::new();
    let sealed = seal(&device.statement(b""));
    let signature = device.sign(&assay_telemetry::pae("application/vnd.assay.other", &sealed));
    assert!(matches!(open(&sealed, &signature, b"", &device.spki()), Err(OpenError::Signature(_))));
    assert!(verify_device_signature(&device.spki(), STATEMENT_TYPE, &sealed, &signature).is_err());
}

#[test]
fn signed_bytes_that_are_no_statement_are_refused() {
    let device = Device::new();
    for bytes in [&b"\xff"[..], b""] {
        let refused = open(bytes, &device.sign(&to_be_signed(bytes)), b"", &device.spki());
        assert!(matches!(refused, Err(OpenError::Statement(_))), "{refused:?}");
    }
}

#[test]
fn every_changed_byte_refuses() {
    let (device, payload) = (Device::new(), b"some payload".to_vec());
    let sealed = seal(&device.statement(&payload));
    let signature = device.sign(&to_be_signed(&sealed));
    let parts = [sealed, signature, payload, device.spki()];
    let opens = |parts: &[Vec<u8>; 4]| open(&parts[0], &parts[1], &parts[2], &parts[3]).is_ok();
    assert!(opens(&parts));
    for part in 0..parts.len() {
        for index in 0..parts[part].len() {
            let mut changed = parts.clone();
            changed[part][index] ^= 0x40;
            assert!(!opens(&changed), "part {part}, byte {index}");
        }
        let mut shorter = parts.clone();
        shorter[part].pop();
        assert!(!opens(&shorter), "part {part} shortened");
    }
}

fn statements() -> impl Strategy<Value = (Statement, Vec<u8>)> {
    let numbers = (any::<[u32; 2]>(), 1u64.., any::<[u64; 4]>(), any::<[u8; 32]>());
    let texts = ("[a-z]{1,40}", "[a-zA-Z0-9 .]{0,64}", ".{0,40}");
    let freshness = prop_oneof![
        Just(Freshness::Chained),
        prop::collection::vec(any::<u8>(), 1..=64).prop_map(Freshness::Nonce)
    ];
    let location = prop::option::of(("[A-Z]{2}", "[A-Z-]{0,6}", ".{0,30}", prop::option::of(positions())));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (numbers, texts, freshness, location, payload).prop_map(
        |((boot, sequence, numbers, previous), texts, freshness, location, payload)| {
            let statement = Statement {
                device_id: TrustDomain::parse(&texts.0).unwrap().with_path("/d").unwrap(),
                key_id: [0; 32],
                boot_epoch: BootEpoch { reset_count: boot[0], restart_count: boot[1] },
                sequence,
                previous,
                payload_type: texts.1.clone(),
                payload_sha256: sha256(&payload),
                items: numbers[0],
                first_time_unix_nano: numbers[1],
                last_time_unix_nano: numbers[2],
                wall_clock_unix_nano: numbers[3],
                freshness,
                location: location.map(|(country, subdivision, city, position)| Location {
                    method: LocationMethod::Configured,
                    country,
                    subdivision,
                    city,
                    position,
                }),
                policy: texts.2,
                agent_version: texts.1,
            };
            (statement, payload)
        },
    )
}

fn positions() -> impl Strategy<Value = Position> {
    let point = (-900_000_000i32..=900_000_000, -1_800_000_000i32..=1_800_000_000);
    let source = prop_oneof![Just(Source::Configured), Just(Source::Receiver)];
    let doubts = prop::sample::subsequence(Doubt::NAMED.to_vec(), 0..=Doubt::NAMED.len());
    (point, 1u32..=2_000_000_000, any::<Option<u64>>(), source, doubts).prop_map(
        |((north, east), accuracy, fixed_at, source, doubts)| Position {
            point: Point::from_e7(north, east).unwrap(),
            accuracy: Accuracy::from_centimetres(accuracy).unwrap(),
            fixed_at,
            source,
            doubts,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn open_after_seal_is_identity((mut statement, payload) in statements()) {
        let device = Device::new();
        statement.key_id = sha256(&device.spki());
        let opened = device.opened(&statement, &payload);
        prop_assert_eq!(opened.map(|opened| opened.statement().clone()), Ok(statement));
    }

    #[test]
    fn any_signed_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let device = Device::new();
        prop_assert!(open(&bytes, &device.sign(&to_be_signed(&bytes)), b"", &device.spki()).is_err());
    }
}
