//! What one device may take of the database and of the revocation list: others are not pushed out by it.

use assay_testkit::edge::{Attachment, Message};
use assay_testkit::software_device::telemetry::Place;
use assay_testkit::{SoftwareDevice, System};
use hyper::Method;
use serde_json::json;

use crate::fixture::{Fixture, attach_trusted, attest_again, code, learned};

async fn submit(edge: &assay_testkit::edge::Edge, device: &mut SoftwareDevice, payload: &[u8]) -> bool {
    let place = Some(Place::configured("DE", "", ""));
    let statement = device.statement(payload, place);
    edge.submit(device.submit(&statement, payload).unwrap()).await.unwrap().accepted
}

#[tokio::test]
async fn telemetry_of_one_device_makes_room_with_its_own() {
    let fixture = Fixture::with(|config| config.telemetry_bytes_per_device_max = 64 << 10).await;
    let edge = fixture.edge().await;
    let (mut quiet, _quiet_stream, _) = fixture.trusted_device(&edge, "quiet", "").await;
    assert!(submit(&edge, &mut quiet, b"once").await);
    let mut loud = fixture.device("loud");
    edge.enroll(&mut loud).await.unwrap();
    let (_loud_stream, _) = attach_trusted(&edge, &mut loud).await;
    let mut last = 0;
    for number in 0..60_u8 {
        assert!(submit(&edge, &mut loud, &[number; 4000]).await);
        last = last.max(fixture.count(NEWEST).await);
        let bytes = fixture.count("SELECT MAX(telemetry_bytes) AS n FROM device_usage").await;
        assert!(bytes <= 64 << 10, "{bytes}");
    }
    let rows = fixture.count("SELECT SUM(batches) AS n FROM telemetry_runs").await;
    assert!((10..=60).contains(&rows), "{rows}");
    assert_eq!(fixture.count(NEWEST).await, last, "the newest stay");
    let records = fixture.get("/v1/telemetry?device=quiet").await["records"].clone();
    assert_eq!(records.as_array().unwrap().len(), 1, "nobody else's goes for it");
    // What is counted is what is there.
    assert_eq!(fixture.count(UNCOUNTED).await, 0);
}

const NEWEST: &str = "SELECT MAX(first_sequence + batches) AS n FROM telemetry_runs";

/// Bytes that are there and not counted.
const UNCOUNTED: &str = "SELECT SUM(telemetry_bytes)
    - (SELECT COALESCE(SUM(LENGTH(packed)), 0) FROM telemetry_runs)
    - (SELECT COALESCE(SUM(LENGTH(statement) + LENGTH(signature) + LENGTH(payload)), 0) FROM telemetry_batches)
    AS n FROM device_usage";

#[tokio::test]
async fn evidence_of_one_device_makes_room_with_its_own() {
    let fixture = Fixture::with(|config| {
        (config.evidence_bytes_max, config.evidence_bytes_per_device_max) = (256 << 10, 64 << 10);
    })
    .await;
    let edge = fixture.edge().await;
    let (mut quiet, _quiet_stream, _) = fixture.trusted_device(&edge, "quiet", "").await;
    let mut loud = fixture.device("loud");
    edge.enroll(&mut loud).await.unwrap();
    fixture.put("/v1/policy", &lenient(&mut quiet)).await;
    let (mut stream, _) = attach_trusted(&edge, &mut loud).await;
    for boot in 0..40_u32 {
        loud.boot(&System::default());
        for program in 0..120 {
            let contents = format!("{boot}/{program}");
            loud.run_program(&format!("/tmp/ok/{contents}"), contents.as_bytes());
        }
        attest_again(&mut stream, &mut loud).await;
        let bytes = fixture.count("SELECT MAX(evidence_bytes) AS n FROM device_usage").await;
        assert!(bytes <= 64 << 10, "{bytes}");
    }
    let of = async |name: &str| {
        let results = fixture.get(&format!("/v1/results?device={name}")).await["results"].clone();
        results.as_array().unwrap().iter().filter(|result| result["evidence_kept"] == true).count()
    };
    assert!(of("quiet").await >= 1, "nobody else's goes for it");
    assert!(
        fixture.count("SELECT COUNT(*) AS n FROM evidence").await > 1,
        "the loud one's newest is kept as well"
    );
}

/// The policy that accepts whatever is below /tmp/ok.
fn lenient(device: &mut SoftwareDevice) -> String {
    let mut policy: toml::Table = learned(device, "").parse().unwrap();
    let ima = policy["ima"].as_table_mut().unwrap();
    ima.insert("exclude".to_owned(), vec!["/tmp/ok/**"].into());
    policy.to_string()
}

#[tokio::test]
async fn what_no_quote_decides_is_not_stored() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let before = fixture.count("SELECT bytes AS n FROM evidence_usage").await;
    // Entries that the TPM has not seen: anybody can write as many as they like.
    let mut other = fixture.device("other");
    for number in 0..4000_u32 {
        other.run_program(&format!("/tmp/{number}/{}", "x".repeat(60)), &number.to_le_bytes());
    }
    device.run_program("/tmp/implant", b"evil");
    stream.changed().await.unwrap();
    let challenge = stream.challenge().await.unwrap();
    let mut evidence = device.evidence(&challenge).unwrap();
    let tail =
        other.evidence(&assay_testkit::edge::protocol::Challenge { ima_from_entry: 0, ..challenge }).unwrap();
    evidence.ima_log.extend_from_slice(&tail.ima_log);
    stream.answer(evidence).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().state, "suspect");
    let after = fixture.count("SELECT bytes AS n FROM evidence_usage").await;
    assert!(after - before < 8 << 10, "{before} {after}: 400 KiB that nobody attests came with it");
}

async fn ask(stream: &mut Attachment, device: &SoftwareDevice, entry: &str) -> String {
    let request = device.workload_request(stream.place(), entry).unwrap();
    stream.request_svid(request).await.unwrap();
    loop {
        if let Message::WorkloadSvid(response) = stream.next().await.unwrap() {
            return response.denied;
        }
    }
}

#[tokio::test]
async fn one_device_cannot_fill_the_revocation_list() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let parent = device.device_id.clone().unwrap();
    let entry = json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": parent, "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": "uid:1000" }],
    });
    let entry = fixture.post("/v1/entries", &entry).await["id"].as_str().unwrap().to_owned();
    // Almost all that it may have at once, half of it withdrawn: each has its place on the list until it ends.
    let end = assay_identity::UnixTime::now().as_secs() + 600;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 511)
         INSERT INTO svids (serial, spiffe_id, device_id, entry_id, spki_sha256, state_version, issued_at, not_after,
             withdrawn_at, leaf)
         SELECT printf('%032x', i), 'spiffe://test.assay.example/web', '{parent}', '{entry}', '00', 1, 1, {end}, i % 2, 0
         FROM n"
    );
    fixture.tamper_running(fill).await;
    assert_eq!(ask(&mut stream, &device, &entry).await, "");
    let denied = ask(&mut stream, &device, &entry).await;
    assert!(denied.starts_with("exhausted") && denied.contains("512"), "{denied}");
    // It keeps its own, and others get theirs.
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    let (_other, grants) = attach_trusted(&edge, &mut other).await;
    assert!(!grants.device_svid.is_empty());
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(metrics.contains("assay_storage{what=\"evidence\",unit=\"bytes\"}"), "{metrics}");
    assert!(metrics.contains("assay_revocation_list_bytes"), "{metrics}");
}

#[tokio::test]
async fn finding_10_a_device_that_flaps_fills_the_trail_no_faster_than_its_share() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let (mut falls, mut refused) = (0_u32, None);
    while refused.is_none() && falls < 200 {
        device.run_program("/tmp/implant", b"evil");
        assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
        falls += 1;
        // A fresh boot is good again, each time.
        device.boot(&System::default());
        stream.changed().await.unwrap();
        refused = stream.attest(&mut device).await.map(|verdict| assert_eq!(verdict.state, "trusted")).err();
    }
    let refused = code(refused.expect("its rises have a bound"));
    assert_eq!(refused, (tonic::Code::ResourceExhausted, "too-often".to_owned()));
    assert!((50..=61).contains(&falls), "{falls}");
    // What fell stays fallen, and coming again changes nothing.
    assert_eq!(fixture.status("press-1").await["status"], "suspect");
    let leaves = "SELECT COUNT(*) AS n FROM audit WHERE kind LIKE 'device.%'";
    let before = fixture.count(leaves).await;
    assert!(before <= 122, "{before}");
    for _ in 0..20 {
        let mut stream = edge.attach(&device).await.unwrap();
        assert_eq!(code(stream.attest(&mut device).await.unwrap_err()).1, "too-often");
    }
    assert_eq!(fixture.count(leaves).await, before);
    // Nobody else's share is spent.
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    attach_trusted(&edge, &mut other).await;
}

#[tokio::test]
async fn finding_10_results_that_differ_each_time_are_counted_and_the_last_one_holds() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    for number in 0..150_u32 {
        device.run_program(&format!("/tmp/implant-{number}"), b"evil");
        assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    }
    let rows = fixture.count("SELECT COUNT(*) AS n FROM appraisals").await;
    assert!((100..=121).contains(&rows), "{rows}");
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let counted = metrics.lines().find(|line| line.starts_with("assay_results_coalesced_total ")).unwrap();
    let counted: i64 = counted.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(rows + counted, 151);
    assert_eq!(fixture.status("press-1").await["status"], "suspect");
}

/// A server on which certificates of others stand, so many sixteenths of what a list can name.
async fn crowded(sixteenths: u64) -> Fixture {
    let fixture = Fixture::start().await;
    let end = assay_identity::UnixTime::now().as_secs() + 600;
    let count = assay_identity::crl::CRL_SERIALS_MAX as u64 / 16 * sixteenths;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO svids (serial, spiffe_id, device_id, entry_id, spki_sha256, state_version, issued_at, not_after,
             withdrawn_at, leaf)
         SELECT printf('%032x', i), 'spiffe://test.assay.example/web', 'spiffe://other', 'e', '00', 1, 1, {end}, 0, 0
         FROM n"
    );
    fixture.tamper_running(fill).await;
    fixture
}

#[tokio::test]
async fn finding_11_no_more_is_issued_than_a_list_can_name_if_all_of_it_falls() {
    let fixture = crowded(12).await;
    let edge = fixture.edge().await;
    // Devices have a part of their own; their workloads have to wait.
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let entry = json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": device.device_id.clone().unwrap(), "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": "uid:1000" }],
    });
    let entry = fixture.post("/v1/entries", &entry).await["id"].as_str().unwrap().to_owned();
    let denied = ask(&mut stream, &device, &entry).await;
    assert!(denied.starts_with("exhausted") && denied.contains("revocation list"), "{denied}");

    let fixture = crowded(15).await;
    let edge = fixture.edge().await;
    let mut device = fixture.known_device(&edge, "press-1", "").await;
    let mut stream = edge.attach(&device).await.unwrap();
    stream.attest(&mut device).await.unwrap();
    assert_eq!(code(stream.grants().await.unwrap_err()), (tonic::Code::ResourceExhausted, "full".to_owned()));
}
