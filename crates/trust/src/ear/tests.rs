use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::policy::Recovery;
use crate::state::{Appraised, EventRecord};

const NOW: UnixTime = UnixTime(1_800_000_000);
const AGE: u64 = 600;

fn server() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/assay/server").unwrap()
}

fn device() -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/spire/agent/tpm/{}", "0".repeat(64))).unwrap()
}

fn enrolled() -> EventRecord {
    EventRecord::Enrolled { at: NOW, device_key: Some("k".to_owned()) }
}

fn appraised(tier: Tier, recovery: Recovery) -> EventRecord {
    EventRecord::Appraised(Appraised {
        at: NOW,
        tier,
        valid_until: NOW.plus(AGE),
        policy: Some("edge v1".to_owned()),
        reset_count: Some(1),
        restart_count: Some(0),
        recovery,
        reason: "because".to_owned(),
        holding: Default::default(),
    })
}

fn state(events: &[EventRecord]) -> TrustState {
    TrustState::fold(device(), events)
}

fn after(tier: Tier) -> TrustState {
    state(&[enrolled(), appraised(tier, Recovery::Automatic)])
}

fn vector(executables: i8) -> TrustVector {
    serde_json::from_value(json!({ "instance-identity": 2, "executables": executables })).unwrap()
}

fn result(tier: Tier, executables: i8) -> RecordedResult {
    RecordedResult {
        tier,
        vector: vector(executables),
        policy: Some("edge v1".to_owned()),
        findings: Vec::new(),
    }
}

fn claims(state: &TrustState, result: RecordedResult) -> EarClaims {
    Ear::of(state, result, &server(), None, NOW).unwrap().claims().clone()
}

fn status(claims: &EarClaims) -> Tier {
    claims.submods[SUBMODULE].ear_status
}

fn read(claims: &Value, now: UnixTime) -> Result<EarClaims, EarError> {
    EarClaims::read(claims.to_string().as_bytes(), now)
}

#[test]
fn the_claims_are_spelled_as_the_draft_has_them() {
    let nonce = Nonce::parse("YWJjZGVmZ2g").unwrap();
    let ear =
        Ear::of(&after(Tier::Affirming), result(Tier::Affirming, 2), &server(), Some(nonce), NOW).unwrap();
    let expected = json!({
        "eat_profile": "tag:ietf.org,2026:rats/ear#04",
        "iss": "spiffe://example.org/assay/server",
        "sub": device().to_string(),
        "iat": NOW,
        "exp": NOW.plus(AGE),
        "eat_nonce": "YWJjZGVmZ2g",
        "ear_verifier_id": {
            "developer": "Assay",
            "build": format!("assay-server {}", env!("CARGO_PKG_VERSION")),
        },
        "submods": { "tpm": {
            "ear_status": "affirming",
            "ear_trustworthiness_vector": {
                "instance-identity": 2, "configuration": 0, "executables": 2, "file-system": 0,
                "hardware": 0, "runtime-opaque": 0, "storage-opaque": 0, "sourced-data": 0,
            },
            "ear_appraisal_policy_ids": ["edge v1"],
            "ear_assay_appraisal": {
                "evidence_at": NOW, "device_status": "trusted", "findings_count": 0, "findings": [],
            },
        } },
    });
    assert_eq!(serde_json::to_value(ear.claims()).unwrap(), expected);
}

#[test]
fn what_stands_beside_the_claims_does_not_hurt() {
    let mut json = serde_json::to_value(claims(&after(Tier::Affirming), result(Tier::Affirming, 2))).unwrap();
    json["jti"] = json!("x");
    json["submods"]["tpm"]["ear_veraison_key_attestation"] = json!({ "akpub": "" });
    json["submods"]["tpm"].as_object_mut().unwrap().remove("ear_assay_appraisal");
    assert_eq!(status(&read(&json, NOW).unwrap()), Tier::Affirming);
}

#[test]
fn the_worse_of_state_and_result_counts() {
    let tier = |state, result| status(&claims(&after(state), result));
    assert_eq!(tier(Tier::Affirming, result(Tier::Affirming, 2)), Tier::Affirming);
    assert_eq!(tier(Tier::Affirming, result(Tier::Contraindicated, 96)), Tier::Contraindicated);
    assert_eq!(tier(Tier::Contraindicated, result(Tier::Affirming, 2)), Tier::Contraindicated);
    assert_eq!(tier(Tier::None, result(Tier::None, 0)), Tier::None);
    // A vector that is worse than its tier cannot be signed away.
    assert_eq!(tier(Tier::Affirming, result(Tier::Affirming, 33)), Tier::Warning);
}

#[test]
fn a_device_that_waits_for_approval_is_not_affirmed() {
    let history = [
        enrolled(),
        appraised(Tier::Contraindicated, Recovery::Approve),
        appraised(Tier::Affirming, Recovery::Approve),
    ];
    let claims = claims(&state(&history), result(Tier::Affirming, 2));
    assert_eq!((status(&claims), claims.exp), (Tier::Warning, NOW.plus(BAD_NEWS_SECONDS)));
}

#[test]
fn without_fresh_evidence_of_a_living_device_there_is_nothing_to_say() {
    let check = |state: TrustState, now, expected| {
        let ear = Ear::of(&state, result(Tier::Affirming, 2), &server(), None, now);
        assert_eq!(ear, Err(expected));
    };
    check(state(&[]), NOW, NoResult::NotAppraised);
    check(state(&[enrolled()]), NOW, NoResult::NotAppraised);
    // Keys that were bound anew have shown nothing yet.
    check(
        state(&[enrolled(), appraised(Tier::Affirming, Recovery::Automatic), enrolled()]),
        NOW,
        NoResult::NotAppraised,
    );
    check(after(Tier::Affirming), NOW.plus(AGE), NoResult::Expired);
    let revoked = EventRecord::Revoked { at: NOW, by: "op".to_owned(), reason: "lost".to_owned() };
    let history = [enrolled(), appraised(Tier::Affirming, Recovery::Automatic), revoked];
    check(state(&history), NOW, NoResult::Revoked);
}

#[test]
fn a_reader_refuses_what_is_no_ear_or_none_any_more() {
    let good = serde_json::to_value(claims(&after(Tier::Affirming), result(Tier::Affirming, 2))).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        read(&json, NOW)
    };
    assert_eq!(read(&good, NOW.plus(AGE - 1)).unwrap().exp, NOW.plus(AGE));
    assert_eq!(read(&good, NOW.plus(AGE)), Err(EarError::Expired { at: NOW.plus(AGE) }));
    let found = "tag:github.com,2023:veraison/ear".to_owned();
    assert_eq!(with("/eat_profile", json!(found)), Err(EarError::Profile { found }));
    let ahead = NOW.plus(CLOCK_LEEWAY_SECONDS + 1);
    assert_eq!(with("/iat", json!(ahead)), Err(EarError::Future { at: ahead }));
    assert_eq!(with("/submods", json!({})), Err(EarError::NoSubmodule));
    let inconsistent = Err(EarError::Inconsistent { submodule: "tpm".to_owned() });
    assert_eq!(with("/submods/tpm/ear_trustworthiness_vector/hardware", json!(96)), inconsistent);
    for (pointer, value) in [
        ("/exp", json!(1.5)),
        ("/exp", json!(-1)),
        ("/exp", Value::Null),
        ("/eat_profile", json!(7)),
        ("/submods/tpm/ear_status", json!("good")),
        ("/submods/tpm/ear_trustworthiness_vector/hardware", json!(400)),
    ] {
        assert!(matches!(with(pointer, value), Err(EarError::Claims { .. })), "{pointer}");
    }
    assert!(matches!(EarClaims::read(b"", NOW), Err(EarError::Claims { .. })));
}

#[test]
fn a_nonce_is_8_to_88_characters_of_base64url() {
    for good in ["12345678".to_owned(), "a-_Z".repeat(22)] {
        Nonce::parse(&good).unwrap();
    }
    for bad in ["1234567".to_owned(), "a".repeat(89), "1234567=".to_owned(), "12345678\n".to_owned()] {
        assert_eq!(Nonce::parse(&bad), Err(EarError::Nonce), "{bad}");
    }
}

fn tier() -> impl Strategy<Value = Tier> {
    prop::sample::select(vec![Tier::None, Tier::Affirming, Tier::Warning, Tier::Contraindicated])
}

fn finding() -> impl Strategy<Value = FindingRecord> {
    (tier(), ".{0,12}", ".{0,12}").prop_map(|(tier, claim, message)| FindingRecord {
        check: "ima-policy".to_owned(),
        tier,
        claim,
        expected: String::new(),
        found: String::new(),
        message,
    })
}

fn recorded() -> impl Strategy<Value = RecordedResult> {
    let policy = prop::option::of("[a-z]{1,8} v[0-9]{1,3}");
    let findings = prop::collection::vec(finding(), 0..40);
    (tier(), any::<[i8; 8]>(), policy, findings).prop_map(|(tier, values, policy, findings)| {
        let names = ["instance-identity", "configuration", "executables", "file-system"];
        let more = ["hardware", "runtime-opaque", "storage-opaque", "sourced-data"];
        let members = names.into_iter().chain(more).zip(values);
        let vector: serde_json::Map<String, Value> =
            members.map(|(name, value)| (name.to_owned(), json!(value))).collect();
        let vector = serde_json::from_value(Value::Object(vector)).unwrap();
        RecordedResult { tier, vector, policy, findings }
    })
}

proptest! {
    #[test]
    fn what_is_said_is_read_back(
        state in tier().prop_map(after),
        result in recorded(),
        nonce in prop::option::of("[A-Za-z0-9_-]{8,88}"),
        later in 0..AGE / 2,
    ) {
        let nonce = nonce.map(|text| Nonce::parse(&text).unwrap());
        let ear = Ear::of(&state, result, &server(), nonce, NOW).unwrap();
        let payload = serde_json::to_vec(ear.claims()).unwrap();
        let read = EarClaims::read(&payload, NOW.plus(later.min(BAD_NEWS_SECONDS - 1)));
        prop_assert_eq!(read.as_ref(), Ok(ear.claims()));
        let details = read.unwrap().submods[SUBMODULE].ear_assay_appraisal.clone().unwrap();
        prop_assert!(details.findings.len() <= FINDINGS_MAX);
        prop_assert!(details.findings.len() as u64 <= details.findings_count);
    }

    #[test]
    fn no_affirming_ear_without_a_trusted_device_and_an_affirming_result(
        state in tier().prop_map(after),
        result in recorded(),
        now in NOW.0..NOW.0 + 2 * AGE,
    ) {
        let recorded = result.clone();
        if let Ok(ear) = Ear::of(&state, result, &server(), None, UnixTime(now))
            && status(ear.claims()) == Tier::Affirming
        {
            prop_assert_eq!(state.status_at(UnixTime(now)), Status::Trusted);
            prop_assert_eq!(recorded.tier, Tier::Affirming);
            prop_assert!(recorded.vector.worst() <= Tier::Affirming);
            prop_assert_eq!(Some(ear.claims().exp), state.valid_until());
        }
    }

    #[test]
    fn no_text_makes_it_panic(payload in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(EarClaims::read(&payload, NOW).is_err());
    }
}
