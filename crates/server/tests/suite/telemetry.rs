//! Telemetry: taken in with a receipt, or refused with a reason.

use assay_testkit::SoftwareDevice;
use assay_testkit::software_device::telemetry::Place;
use serde_json::json;
use tonic::Code;

use crate::fixture::{Fixture, attest_again, code};

const FENCE: &str = "[location]\nallow_countries = [\"DE\", \"FR\"]";

fn batch(device: &mut SoftwareDevice, country: &str) -> assay_testkit::edge::protocol::SubmitRequest {
    let place = Some(Place::configured(country, "", ""));
    let statement = device.statement(b"metrics", place);
    device.submit(&statement, b"metrics").unwrap()
}

#[tokio::test]
async fn a_batch_is_stored_and_its_receipt_names_its_leaf() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", FENCE).await;
    let receipt = edge.submit(batch(&mut device, "DE")).await.unwrap();
    assert!(receipt.accepted, "{receipt:?}");
    edge.submit(batch(&mut device, "FR")).await.unwrap();
    let records = fixture.get("/v1/telemetry?device=press-1").await["records"].clone();
    assert_eq!(records.as_array().unwrap().len(), 2);
    assert_eq!(
        (&records[1]["accepted"], &records[1]["leaf"]),
        (&json!(true), &json!(receipt.ledger_sequence))
    );
    let path = format!("/v1/audit?after={}&limit=1", receipt.ledger_sequence - 1);
    let leaf = fixture.get(&path).await["leaves"][0].clone();
    assert_eq!(leaf["kind"], "telemetry.accepted");
    assert_eq!(leaf["hash"], data_encoding::HEXLOWER.encode(&receipt.ledger_hash));
    let head = assay_server::ledger::verify(fixture.data(), None, None).await.unwrap();
    assert!(head.leaves > receipt.ledger_sequence);
}

#[tokio::test]
async fn outside_the_fence_it_is_refused_with_the_reason() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", FENCE).await;
    let answer = edge.submit(batch(&mut device, "US")).await.unwrap();
    assert!(!answer.accepted && answer.reason.starts_with("location-refused"), "{answer:?}");
    assert_eq!(answer.findings[0].check, "location-policy");
    let record = fixture.get("/v1/telemetry?device=press-1").await["records"][0].clone();
    assert_eq!(record["accepted"], false);
    assert!(record["reason"].as_str().unwrap().contains("US"), "{record}");
    // What is said to be inside afterwards is taken; the refused one is missing, which goes on record.
    let receipt = edge.submit(batch(&mut device, "DE")).await.unwrap();
    assert!(receipt.accepted);
    let path = format!("/v1/audit?after={}&limit=1", receipt.ledger_sequence - 1);
    assert_eq!(fixture.get(&path).await["leaves"][0]["detail"]["missing_from"], 1);
}

#[tokio::test]
async fn a_position_is_held_against_areas_and_stays_out_of_the_record() {
    const AREAS: &str = "[location]\naccuracy_max_m = 10\nfix_age_max_seconds = 60\n[[location.allow_areas]]\nname = \"plant\"\n\
        circle = { latitude = 52.52, longitude = 13.405, radius_m = 500 }";
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", AREAS).await;
    let mut submit = async |place: Option<Place>| {
        let statement = device.statement(b"metrics", place);
        edge.submit(device.submit(&statement, b"metrics").unwrap()).await.unwrap()
    };
    let first = submit(Some(Place::received(525_200_000, 134_050_000))).await;
    let second = submit(Some(Place::received(525_201_000, 134_051_000))).await;
    assert!(first.accepted && second.accepted, "{first:?} {second:?}");
    assert_eq!(
        first.ledger_sequence, second.ledger_sequence,
        "a device that stays in its area makes no leaf of it"
    );
    let elsewhere = submit(Some(Place::received(525_300_000, 134_050_000))).await;
    assert!(elsewhere.reason.starts_with("position-refused"), "{elsewhere:?}");
    assert_eq!(
        (elsewhere.findings[0].check.as_str(), elsewhere.findings[0].found.as_str()),
        ("location-policy", "outside")
    );
    assert!(submit(Some(Place::configured("DE", "", ""))).await.reason.starts_with("position-refused"));
    let mut doubted = Place::received(525_200_000, 134_050_000);
    doubted.position.as_mut().unwrap().doubts = vec!["a doubt of tomorrow".to_owned()];
    assert!(submit(Some(doubted)).await.reason.contains("in doubt (unknown)"));
    let mut old = Place::received(525_200_000, 134_050_000);
    old.position.as_mut().unwrap().fixed_at = Some(1_000_000_000);
    assert!(submit(Some(old)).await.reason.contains("fix_age_max_seconds is 60"));
    let records = fixture.get("/v1/telemetry?device=press-1").await["records"].clone();
    let trail = fixture.get("/v1/audit?after=0&limit=1000").await;
    assert_eq!(records.as_array().unwrap().len(), 6);
    assert_eq!(records[5]["location"], "within plant (sensed)");
    for coordinate in ["52.5", "525200000", "13.405", "134050000"] {
        let leaves = trail["leaves"].as_array().unwrap().iter().filter(|leaf| leaf["kind"] != "policy.set");
        assert!(leaves.clone().count() > 3);
        assert!(!leaves.clone().any(|leaf| leaf.to_string().contains(coordinate)), "{coordinate}");
    }
}

#[tokio::test]
async fn a_device_that_is_not_trusted_is_refused() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.known_device(&edge, "press-1", FENCE).await;
    let answer = edge.submit(batch(&mut device, "DE")).await.unwrap();
    assert!(!answer.accepted && answer.reason.starts_with("not-trusted"), "{answer:?}");
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-2", FENCE).await;
    assert!(edge.submit(batch(&mut device, "DE")).await.unwrap().accepted);
    device.run_program("/tmp/implant", b"evil");
    attest_again(&mut stream, &mut device).await;
    let answer = edge.submit(batch(&mut device, "DE")).await.unwrap();
    assert!(!answer.accepted && answer.reason.contains("/tmp/implant"), "{answer:?}");
}

#[tokio::test]
async fn what_is_forged_or_repeated_is_an_error() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", FENCE).await;
    let request = batch(&mut device, "DE");
    assert!(edge.submit(request.clone()).await.unwrap().accepted);
    let refusal = |error| code(error);
    let again = refusal(edge.submit(request.clone()).await.unwrap_err());
    assert_eq!(again, (Code::AlreadyExists, "sequence-replay".to_owned()));

    let next = batch(&mut device, "DE");
    let mut altered = next.clone();
    altered.payload = b"other".to_vec();
    assert_eq!(
        refusal(edge.submit(altered).await.unwrap_err()),
        (Code::Unauthenticated, "payload-hash".to_owned())
    );
    let mut altered = next.clone();
    altered.signature[9] ^= 1;
    let forged = refusal(edge.submit(altered).await.unwrap_err());
    assert_eq!(forged, (Code::Unauthenticated, "device-signature".to_owned()));
    let mut altered = next.clone();
    altered.statement = vec![0xff; 20];
    assert_eq!(
        refusal(edge.submit(altered).await.unwrap_err()),
        (Code::InvalidArgument, "statement".to_owned())
    );
    assert!(edge.submit(next).await.unwrap().accepted, "none of it moved the chain");

    let mut stranger = fixture.device("press-9");
    let unknown = format!("spiffe://test.assay.example/spire/agent/tpm/{}", "0".repeat(64));
    stranger.device_id = Some(unknown);
    let refused = refusal(edge.submit(batch(&mut stranger, "DE")).await.unwrap_err());
    assert_eq!(refused, (Code::NotFound, "not-enrolled".to_owned()));
}
