//! The invariants of grants, over arbitrary states, and each reason for a denial.

use assay_evidence::time::UnixTime;
use assay_identity::{Csr, PrivateKey, Selector, SpiffeId, csr};
use assay_telemetry::position::{Accuracy, Doubt, Point, Position, Source};
use assay_telemetry::{
    BootEpoch, Freshness, Location, LocationMethod, OTLP_METRICS, Opened, Statement, open, seal, sha256,
    to_be_signed,
};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use proptest::prelude::*;

use super::jwt::JwtRequest;
use super::svid::SvidRequest;
use super::telemetry::TelemetryRequest;
use super::*;
use crate::condition::Holding;
use crate::finding::Tier;
use crate::place::Fence;
use crate::policy::LocationSection;
use crate::policy::Recovery;
use crate::state::{Appraised, EventRecord, key_fingerprint};

struct Device {
    id: SpiffeId,
    key: PrivateKey,
}

impl Device {
    fn new() -> Self {
        let id = format!("spiffe://example.org/spire/agent/tpm/{}", "1".repeat(64));
        Device { id: SpiffeId::parse(&id).unwrap(), key: PrivateKey::generate().unwrap() }
    }

    fn state(&self, events: &[EventRecord]) -> TrustState {
        let device_key = key_fingerprint(&self.key.spki());
        let enrolled = EventRecord::Enrolled { at: UnixTime(1), device_key: Some(device_key) };
        TrustState::fold(self.id.clone(), std::iter::once(&enrolled).chain(events))
    }

    fn trusted(&self) -> TrustState {
        self.state(&[appraised(2, Tier::Affirming)])
    }

    fn batch(&self, reset_count: u32, country: Option<&str>) -> Opened {
        self.batch_at(reset_count, country, None)
    }

    fn position(&self, latitude: f64, longitude: f64) -> Position {
        Position {
            point: Point::from_degrees(latitude, longitude).unwrap(),
            accuracy: Accuracy::from_metres(5.0).unwrap(),
            fixed_at: Some(NOW.0),
            source: Source::Receiver,
            doubts: Vec::new(),
        }
    }

    fn batch_at(&self, reset_count: u32, country: Option<&str>, position: Option<Position>) -> Opened {
        let payload = b"metrics";
        let statement = seal(&Statement {
            device_id: self.id.clone(),
            key_id: sha256(&self.key.spki()),
            boot_epoch: BootEpoch { reset_count, restart_count: 0 },
            sequence: 1,
            previous: [0; 32],
            payload_type: OTLP_METRICS.to_owned(),
            payload_sha256: sha256(payload),
            items: 1,
            first_time_unix_nano: 1,
            last_time_unix_nano: 1,
            wall_clock_unix_nano: 1,
            freshness: Freshness::Chained,
            location: (country.is_some() || position.is_some()).then(|| Location {
                method: LocationMethod::Configured,
                country: country.unwrap_or_default().to_owned(),
                subdivision: String::new(),
                city: String::new(),
                position: position.clone(),
            }),
            policy: "edge v1".to_owned(),
            agent_version: "1".to_owned(),
        });
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, self.key.pkcs8()).unwrap();
        let signature = signer.sign(&SystemRandom::new(), &to_be_signed(&statement)).unwrap();
        open(&statement, signature.as_ref(), payload, &self.key.spki()).unwrap()
    }

    fn entitlement(&self, spiffe_id: &str) -> Entitlement {
        Entitlement {
            spiffe_id: SpiffeId::parse(spiffe_id).unwrap(),
            parent: self.id.clone(),
            unquoted: false,
            jwt_ttl_seconds: 0,
            ttl_seconds: 60,
            dns_names: vec!["web.example.org".to_owned()],
            selectors: vec!["unix:uid:7".parse().unwrap()],
        }
    }
}

fn appraised(at: u64, tier: Tier) -> EventRecord {
    EventRecord::Appraised(Appraised {
        at: UnixTime(at),
        tier,
        valid_until: UnixTime(at + AGE),
        policy: Some("edge v1".to_owned()),
        reset_count: Some(BOOT),
        restart_count: Some(0),
        recovery: Recovery::Automatic,
        reason: "because".to_owned(),
        holding: Holding::default(),
    })
}

fn workload_csr() -> Csr {
    Csr::parse(&csr::request(&PrivateKey::generate().unwrap()).unwrap()).unwrap()
}

#[test]
fn a_device_gets_an_svid_for_its_certified_key_alone() {
    let device = Device::new();
    let key = device.key.spki();
    let request = SvidRequest::Device { key: &key, ttl_seconds: 600 };
    let grant = svid::decide(&device.trusted(), request, NOW).unwrap();
    assert_eq!((grant.spiffe_id(), grant.public_key_spki()), (&device.id, key.as_slice()));
    assert_eq!(grant.not_after(), NOW.plus(600));
    assert_eq!(grant.state_version(), device.trusted().version());

    let other = PrivateKey::generate().unwrap().spki();
    let request = SvidRequest::Device { key: &other, ttl_seconds: 600 };
    assert_eq!(svid::decide(&device.trusted(), request, NOW), Err(Denied::KeyNotBound));
}

#[test]
fn no_svid_outlives_a_day() {
    let device = Device::new();
    let key = device.key.spki();
    let request = SvidRequest::Device { key: &key, ttl_seconds: u64::MAX };
    assert_eq!(svid::decide(&device.trusted(), request, NOW).unwrap().not_after(), NOW.plus(24 * 3600));
}

#[test]
fn a_workload_gets_what_its_entry_says() {
    let device = Device::new();
    let (csr, entitlement) = (workload_csr(), device.entitlement("spiffe://example.org/web"));
    let request = SvidRequest::Workload { entitlement: &entitlement, csr: &csr };
    let grant = svid::decide(&device.trusted(), request, NOW).unwrap();
    assert_eq!(
        (grant.spiffe_id(), grant.dns_names()),
        (&entitlement.spiffe_id, entitlement.dns_names.as_slice())
    );
}

#[test]
fn nothing_is_granted_whose_condition_the_last_good_evidence_does_not_fulfil() {
    let (device, csr) = (Device::new(), workload_csr());
    let pcr = |byte: &str| format!("tpm:pcr:15:{}", byte.repeat(32)).parse::<Selector>().unwrap();
    let [expected, other] = ["ab", "cd"].map(pcr);
    let measured: Selector = format!("ima:sha256:{}", "ef".repeat(32)).parse().unwrap();
    let of = |conditions: &[&Selector]| Entitlement {
        selectors: conditions.iter().map(|one| (*one).clone()).collect(),
        ..device.entitlement("spiffe://example.org/web")
    };
    let holding = |conditions: &[&Selector]| {
        let EventRecord::Appraised(appraised) = appraised(3, Tier::Affirming) else { panic!() };
        let holding = serde_json::from_value(serde_json::json!(conditions)).unwrap();
        EventRecord::Appraised(Appraised { holding, ..appraised })
    };
    let code = |state: &TrustState, entitlement: &Entitlement| {
        let x509 = svid::decide(state, SvidRequest::Workload { entitlement, csr: &csr }, NOW).err();
        let jwt = jwt::decide(state, JwtRequest { entitlement, audience: &["db".into()] }, NOW).err();
        assert_eq!(x509, jwt, "both kinds ask the same");
        x509.map(|denied| denied.code())
    };
    let state = device.state(&[holding(&[&expected, &measured])]);
    assert_eq!(code(&state, &of(&[&expected, &measured])), None);
    assert_eq!(code(&state, &of(&[&expected, &other])), Some("condition-unmet"));
    assert_eq!(code(&device.trusted(), &of(&[&measured])), Some("condition-unmet"));
    let hash = |digit: &str| format!("tpm:pub_hash:{}", digit.repeat(64)).parse::<Selector>().unwrap();
    assert_eq!(code(&state, &of(&[&hash("1")])), None);
    assert_eq!(code(&state, &of(&[&hash("2")])), Some("condition-unmet"));
    // The next result takes away what it does not fulfil, and a bad one everything.
    let state = device.state(&[holding(&[&expected, &measured]), holding(&[&measured])]);
    assert_eq!(code(&state, &of(&[&expected])), Some("condition-unmet"));
    assert!(state.unmet(std::slice::from_ref(&measured)).is_none());
    let state = device.state(&[holding(&[&measured]), appraised(4, Tier::Contraindicated)]);
    assert!(state.holding().is_empty());
}

#[test]
fn entries_make_no_authorities() {
    let device = Device::new();
    let csr = workload_csr();
    let refused = |entitlement: &Entitlement| {
        let request = SvidRequest::Workload { entitlement, csr: &csr };
        svid::decide(&device.trusted(), request, NOW).unwrap_err().code()
    };
    for id in ["assay/server", "assay/gateway/one", "spire/agent/tpm/x", "spire/server"] {
        assert_eq!(
            refused(&device.entitlement(&format!("spiffe://example.org/{id}"))),
            "not-a-workload",
            "{id}"
        );
    }
    assert_eq!(refused(&device.entitlement("spiffe://example.org")), "not-a-workload");
    assert_eq!(refused(&device.entitlement("spiffe://elsewhere.org/web")), "not-a-workload");
    let parent =
        SpiffeId::parse(&format!("spiffe://example.org/spire/agent/tpm/{}", "2".repeat(64))).unwrap();
    assert_eq!(
        refused(&Entitlement { parent, ..device.entitlement("spiffe://example.org/web") }),
        "wrong-parent"
    );
}

#[test]
fn telemetry_is_accepted_from_the_allowed_region() {
    let device = Device::new();
    let regions = fence("allow_countries = ['DE']");
    let code = |batch: &Opened, location| {
        let request = TelemetryRequest { batch, location };
        telemetry::decide(&device.trusted(), request, NOW)
            .map_err(|denied| denied.code())
            .map(|grant| grant.sequence())
    };
    assert_eq!(code(&device.batch(BOOT, Some("DE")), Some(&regions)), Ok(1));
    assert_eq!(code(&device.batch(BOOT, Some("FR")), Some(&regions)), Err("location-refused"));
    assert_eq!(code(&device.batch(BOOT, None), Some(&regions)), Err("location-refused"));
    assert_eq!(code(&device.batch(BOOT, None), None), Ok(1));
}

fn fence(section: &str) -> Fence {
    toml::from_str::<LocationSection>(section).unwrap().fence()
}

#[test]
fn a_position_is_a_demand_of_its_own_beside_the_region() {
    const SITE: &str =
        "[[allow_areas]]\nname = 'plant'\ncircle = { latitude = 52.52, longitude = 13.405, radius_m = 500 }";
    let device = Device::new();
    let answer = |batch: &Opened, section: &str| {
        let fence = fence(section);
        telemetry::decide(&device.trusted(), TelemetryRequest { batch, location: Some(&fence) }, NOW)
            .map(|grant| grant.place().unwrap_or_default().to_owned())
            .map_err(|denied| {
                (denied.code(), denied.to_string(), denied.finding().map(|finding| finding.found))
            })
    };
    let there = device.position(52.521, 13.405);
    let batch = device.batch_at(BOOT, Some("DE"), Some(there.clone()));
    assert_eq!(answer(&batch, SITE), Ok("DE, within plant (sensed)".to_owned()));
    assert_eq!(
        answer(&batch, &format!("allow_countries = ['FR']\n{SITE}")).unwrap_err().0,
        "location-refused",
        "both have to hold"
    );
    // Of the coordinates nothing goes on record.
    let elsewhere = device.batch_at(BOOT, Some("DE"), Some(device.position(53.0, 13.405)));
    let (code, reason, found) = answer(&elsewhere, SITE).unwrap_err();
    assert_eq!((code, found.as_deref()), ("position-refused", Some("outside")));
    assert_eq!(
        reason,
        "the position is outside of the allowed area plant, the nearest: 52 km to its border, and the position may be 5 m off"
    );
    assert_eq!(answer(&device.batch(BOOT, Some("DE")), SITE).unwrap_err().2.as_deref(), Some("none"));
    let stated = Position { source: Source::Configured, fixed_at: None, ..there.clone() };
    let stated = device.batch_at(BOOT, None, Some(stated));
    assert_eq!(answer(&stated, SITE).unwrap_err().2.as_deref(), Some("stated"));
    let lenient = format!("assurance = 'stated'\n{SITE}");
    assert_eq!(answer(&stated, &lenient), Ok("within plant (stated)".to_owned()));
    let doubted = Position { doubts: vec![Doubt::Spoofing], ..there };
    let doubted = device.batch_at(BOOT, None, Some(doubted));
    let (_, reason, _) = answer(&doubted, SITE).unwrap_err();
    assert!(reason.contains("in doubt (spoofing)"), "{reason}");
}

#[test]
fn telemetry_of_a_boot_that_was_not_attested_waits() {
    let device = Device::new();
    let code = |reset_count| {
        let batch = device.batch(reset_count, None);
        let request = TelemetryRequest { batch: &batch, location: None };
        telemetry::decide(&device.trusted(), request, NOW).err().map(|denied| denied.code())
    };
    assert_eq!([code(BOOT - 1), code(BOOT), code(BOOT + 1)], [None, None, Some("boot-not-attested")]);
}

#[test]
fn a_batch_of_another_device_or_key_is_refused() {
    let (device, other) = (Device::new(), Device::new());
    let batch = other.batch(BOOT, None);
    let request = TelemetryRequest { batch: &batch, location: None };
    // The same name under another key: its old binding, or a forger's.
    assert_eq!(telemetry::decide(&device.trusted(), request, NOW), Err(Denied::KeyNotBound));
    let id = SpiffeId::parse("spiffe://example.org/spire/agent/tpm/another").unwrap();
    let batch = Device { id, key: other.key }.batch(BOOT, None);
    let request = TelemetryRequest { batch: &batch, location: None };
    assert_eq!(telemetry::decide(&device.trusted(), request, NOW).unwrap_err().code(), "wrong-device");
}

#[test]
fn a_denial_says_where_the_device_stands() {
    let device = Device::new();
    let key = device.key.spki();
    let code = |state: &TrustState, now| {
        let request = SvidRequest::Device { key: &key, ttl_seconds: 60 };
        svid::decide(state, request, now).unwrap_err().code()
    };
    assert_eq!(code(&device.state(&[]), NOW), "not-trusted");
    assert_eq!(code(&device.state(&[appraised(2, Tier::Warning)]), NOW), "not-trusted");
    assert_eq!(code(&device.trusted(), UnixTime(2 + AGE)), "expired");
    let revoked = EventRecord::Revoked { at: UnixTime(3), by: "op".into(), reason: "lost".into() };
    assert_eq!(code(&device.state(&[appraised(2, Tier::Affirming), revoked]), NOW), "revoked");
}

fn any_event() -> impl Strategy<Value = EventRecord> {
    let tier = prop_oneof![3 => Just(Tier::Affirming), 1 => Just(Tier::None), 1 => Just(Tier::Warning),
        1 => Just(Tier::Contraindicated)];
    let by = || "op".to_owned();
    let at = || (1..HORIZON).prop_map(UnixTime);
    prop_oneof![
        4 => (1..HORIZON, tier).prop_map(|(at, tier)| appraised(at, tier)),
        1 => at().prop_map(|at| EventRecord::Expired { at }),
        1 => at().prop_map(move |at| EventRecord::Revoked { at, by: by(), reason: by() }),
        1 => at().prop_map(move |at| EventRecord::Approved { at, by: "op".to_owned() }),
    ]
}

proptest! {
    #[test]
    fn no_grant_without_fresh_affirming_result(
        history in proptest::collection::vec(any_event(), 0..12),
        now in 0..2 * HORIZON,
    ) {
        let device = Device::new();
        let (state, key) = (device.state(&history), device.key.spki());
        let now = UnixTime(now);
        let svid = svid::decide(&state, SvidRequest::Device { key: &key, ttl_seconds: 60 }, now);
        let batch = device.batch(BOOT, None);
        let telemetry = telemetry::decide(&state, TelemetryRequest { batch: &batch, location: None }, now);
        let last = history.iter().rev().find_map(|event| match event {
            EventRecord::Appraised(result) => Some(result),
            _ => None,
        });
        let fresh = history.iter().any(|event| matches!(event, EventRecord::Appraised(result)
            if result.tier == Tier::Affirming && now < result.valid_until));
        let revoked = history.iter().any(|event| matches!(event, EventRecord::Revoked { .. }));
        let fallen = last.is_some_and(|last| last.tier != Tier::Affirming);
        if !fresh || revoked || fallen {
            prop_assert!(svid.is_err() && telemetry.is_err());
        }
        prop_assert_eq!(svid.is_ok(), state.carries(state.version(), now));
        prop_assert_eq!(svid.is_ok(), telemetry.is_ok());
    }
}

const NOW: UnixTime = UnixTime(5);
const AGE: u64 = 10;
const BOOT: u32 = 3;
const HORIZON: u64 = 40;

#[test]
fn a_token_is_for_an_entitled_workload_and_an_audience_and_ends_with_the_evidence() {
    let device = Device::new();
    let entitlement = Entitlement { ttl_seconds: 5, ..device.entitlement("spiffe://example.org/web") };
    let audience = ["db".to_owned()];
    let decide = |state: &TrustState, audience: &[String], now| {
        jwt::decide(state, JwtRequest { entitlement: &entitlement, audience }, UnixTime(now))
    };
    let trusted = device.trusted();
    let grant = decide(&trusted, &audience, 3).unwrap();
    assert_eq!(grant.svid().spiffe_id, entitlement.spiffe_id);
    assert_eq!((grant.svid().issued_at, grant.svid().expires_at), (3, 8));
    assert_eq!(grant.state_version(), trusted.version());
    let until = trusted.valid_until().unwrap().0;
    assert_eq!(decide(&trusted, &audience, until - 2).unwrap().svid().expires_at, until);
    assert!(matches!(decide(&trusted, &audience, until), Err(Denied::NotTrusted { .. })));
    let fallen = device.state(&[appraised(2, Tier::Affirming), appraised(3, Tier::Contraindicated)]);
    assert!(matches!(decide(&fallen, &audience, 3), Err(Denied::NotTrusted { .. })));
    for nobody in [vec![], vec![String::new()], vec!["a".repeat(2049)], vec!["a".to_owned(); 17]] {
        assert_eq!(decide(&trusted, &nobody, 3), Err(Denied::NoAudience));
    }
    let others =
        Entitlement { parent: SpiffeId::parse("spiffe://example.org/other").unwrap(), ..entitlement };
    let request = JwtRequest { entitlement: &others, audience: &audience };
    let denied = jwt::decide(&trusted, request, UnixTime(3));
    assert!(matches!(denied, Err(Denied::WrongParent { .. })), "{denied:?}");
}

#[test]
fn a_node_that_does_not_quote_gets_what_an_entry_says_is_for_such_and_nothing_that_a_quote_says() {
    let (device, csr) = (Device::new(), workload_csr());
    let vouched = |basis| {
        let device_key = key_fingerprint(&device.key.spki());
        let event = EventRecord::Vouched { at: UnixTime(1), basis, device_key, until: NOW.plus(100) };
        TrustState::fold(device.id.clone(), [&event])
    };
    let code = |state: &TrustState, entitlement: &Entitlement| {
        let x509 = svid::decide(state, SvidRequest::Workload { entitlement, csr: &csr }, NOW).err();
        let jwt = jwt::decide(state, JwtRequest { entitlement, audience: &["db".into()] }, NOW).err();
        assert_eq!(x509, jwt, "both kinds ask the same");
        x509.map(|denied| denied.code())
    };
    let silent = device.entitlement("spiffe://example.org/web");
    let said = Entitlement { unquoted: true, ..silent.clone() };
    let own = format!("tpm:pub_hash:{}", "1".repeat(64));
    let asking = |selector: &str| Entitlement { selectors: vec![selector.parse().unwrap()], ..said.clone() };
    for basis in [crate::Basis::JoinToken, crate::Basis::X509Pop, crate::Basis::EkActivation] {
        let state = vouched(basis);
        assert_eq!(code(&state, &silent), Some("unquoted"), "{basis}");
        assert_eq!(code(&state, &said), None, "{basis}");
        for selector in [format!("tpm:pcr:7:{}", "ab".repeat(32)), format!("ima:sha256:{}", "ab".repeat(32))]
        {
            assert_eq!(code(&state, &asking(&selector)), Some("condition-unmet"), "{basis} {selector}");
        }
        let grant =
            svid::decide(&state, SvidRequest::Workload { entitlement: &said, csr: &csr }, NOW).unwrap();
        assert_eq!(grant.basis(), basis);
        let telemetry = TelemetryRequest { batch: &device.batch(0, None), location: None };
        assert_eq!(telemetry::decide(&state, telemetry, NOW).unwrap_err().code(), "unquoted");
    }
    assert_eq!(code(&vouched(crate::Basis::EkActivation), &asking(&own)), None, "its TPM has proven that");
    assert_eq!(code(&vouched(crate::Basis::JoinToken), &asking(&own)), Some("condition-unmet"));
    assert_eq!(code(&device.trusted(), &said), None, "a device that quotes is more than that");
}
