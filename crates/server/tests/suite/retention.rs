//! A year of telemetry: what a batch takes, that its exact bytes come back, and what is said of what goes.

use std::io::Read;
use std::time::Duration;

use assay_testkit::SoftwareDevice;
use assay_testkit::edge::Edge;
use assay_testkit::edge::protocol::{SubmitRequest, SubmitResponse};
use data_encoding::BASE64;
use flate2::read::GzDecoder;
use hyper::Method;
use serde_json::Value;

use crate::fixture::{Fixture, attach_trusted};

/// Host metrics as an agent measured them, one batch after the other.
fn host_metrics() -> Vec<Vec<u8>> {
    let recorded = include_bytes!("../../../../vectors/telemetry/host-metrics.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(recorded.as_slice()).read_to_end(&mut bytes).unwrap();
    let (mut rest, mut batches) = (bytes.as_slice(), Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (batch, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

fn request(device: &mut SoftwareDevice, payload: &[u8]) -> SubmitRequest {
    let statement = device.statement(payload, None);
    device.submit(&statement, payload).unwrap()
}

async fn accepted(edge: &Edge, request: &SubmitRequest) -> SubmitResponse {
    let answer = edge.submit(request.clone()).await.unwrap();
    assert!(answer.accepted, "{answer:?}");
    answer
}

/// Waits until no run that has ended is left unpacked.
async fn sealed(fixture: &Fixture) {
    while fixture.count("SELECT COUNT(*) AS n FROM telemetry_runs WHERE stage = 1").await > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn year_13_a_batch_of_host_metrics_takes_0_6_kb_all_told_and_its_exact_bytes_come_back() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let metrics = host_metrics();
    assert!(metrics.len() >= 500, "{}", metrics.len());
    let (first, _first_stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut second = fixture.device("press-2");
    edge.enroll(&mut second).await.unwrap();
    let (_second_stream, _) = attach_trusted(&edge, &mut second).await;
    let (mut devices, mut sent) = ([first, second], Vec::new());
    let before = size(&mut fixture).await;
    let edge = fixture.edge().await;
    for hour in metrics.chunks(64) {
        for payload in hour {
            for device in &mut devices {
                let request = request(device, payload);
                let receipt = accepted(&edge, &request).await;
                sent.push((receipt.ledger_sequence, request));
            }
        }
        sealed(&fixture).await;
    }
    let after = size(&mut fixture).await;
    let each = (after - before) / sent.len() as u64;
    println!("{} batches of {} bytes take {each} bytes each", sent.len(), metrics[0].len());
    assert!(each <= 600, "{each} bytes a batch");
    let leaves = fixture.count("SELECT COUNT(*) AS n FROM audit WHERE kind LIKE 'telemetry.%'").await;
    assert!(leaves <= 2 * (sent.len() as i64 / 64 + 4), "{leaves} leaves of {} batches", sent.len());

    // Of the first run, of one in the middle and of the one that goes on.
    let keys = devices.map(|device| device.device_key.spki());
    for (index, (leaf, request)) in sent.iter().enumerate().step_by(97) {
        let sequence = index / 2 + 1;
        let batch = fixture.get(&format!("/v1/telemetry/{leaf}/{sequence}")).await;
        let bytes = |name: &str| BASE64.decode(batch[name].as_str().unwrap().as_bytes()).unwrap();
        let kept = (bytes("statement"), bytes("signature"), bytes("payload"));
        assert_eq!((&kept.0, &kept.1, &kept.2), (&request.statement, &request.signature, &request.payload));
        assert_eq!(bytes("device_key"), keys[index % 2]);
        assay_telemetry::open(&kept.0, &kept.1, &kept.2, &keys[index % 2]).unwrap();
    }
    let records = fixture.get("/v1/telemetry?device=press-1&limit=1000").await["records"].clone();
    assert_eq!(records.as_array().unwrap().len(), metrics.len());
    assay_server::ledger::verify(fixture.data(), None, None).await.unwrap();
}

/// Bytes of the database when nothing waits to be written. Of the pages that open runs had, the next ones get theirs.
async fn size(fixture: &mut Fixture) -> u64 {
    fixture.restart().await;
    let file = std::fs::metadata(fixture.data().join("assay.db")).unwrap().len();
    let free = "SELECT freelist_count * page_size AS n FROM pragma_freelist_count(), pragma_page_size()";
    file - u64::try_from(fixture.count(free).await).unwrap()
}

#[tokio::test]
async fn year_13_the_leaf_that_seals_a_run_names_its_last_statement_and_a_gap_begins_another() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut receipts = Vec::new();
    for number in 0..70_u8 {
        let request = request(&mut device, &[number]);
        receipts.push((accepted(&edge, &request).await, request));
    }
    // What the device made and nobody got.
    request(&mut device, b"lost");
    let after = request(&mut device, b"after");
    let after = accepted(&edge, &after).await;
    sealed(&fixture).await;
    assert_eq!(receipts[0].0.ledger_sequence, receipts[63].0.ledger_sequence);
    assert_eq!(receipts[0].0.ledger_hash, receipts[63].0.ledger_hash);
    assert!(receipts[64].0.ledger_sequence > receipts[63].0.ledger_sequence, "a run has 64");
    assert!(after.ledger_sequence > receipts[69].0.ledger_sequence);
    let leaves = leaves(&fixture, "telemetry.sealed").await;
    for (leaf, (last, batches)) in leaves.iter().zip([(63, 64), (69, 6)]) {
        let (receipt, request) = &receipts[last];
        let sha256 = data_encoding::HEXLOWER.encode(&assay_telemetry::sha256(&request.statement));
        assert_eq!(leaf["detail"]["statement_sha256"], sha256);
        assert_eq!(
            (&leaf["detail"]["run"], &leaf["detail"]["batches"]),
            (&receipt.ledger_sequence.into(), &batches.into())
        );
    }
    assert_eq!(leaves.len(), 2);
    let began = self::leaves(&fixture, "telemetry.accepted").await;
    assert_eq!(began.last().unwrap()["detail"]["missing_from"], 71);
    // The one that goes on does so after a restart.
    fixture.restart().await;
    let edge = fixture.edge().await;
    let next = request(&mut device, b"next");
    assert_eq!(accepted(&edge, &next).await.ledger_sequence, after.ledger_sequence);
}

#[tokio::test]
async fn year_13_what_makes_room_is_on_record_and_counted() {
    let fixture = Fixture::with(|config| config.telemetry_bytes_per_device_max = 64 << 10).await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    // What does not get smaller.
    for number in 0..60_u8 {
        let payload: Vec<u8> = (0..125).flat_map(|part| assay_telemetry::sha256(&[number, part])).collect();
        let request = request(&mut device, &payload);
        accepted(&edge, &request).await;
    }
    let leaves = leaves(&fixture, "telemetry.dropped").await;
    let number = |leaf: &Value, name: &str| leaf["detail"][name].as_u64().unwrap();
    let dropped: u64 = leaves.iter().map(|leaf| number(leaf, "batches")).sum();
    let kept = fixture.count("SELECT SUM(batches) AS n FROM telemetry_runs").await;
    assert!(dropped >= 40, "{dropped}");
    assert_eq!(dropped as i64 + kept, 60, "each is kept, or said to be gone");
    assert!(leaves.iter().all(|leaf| leaf["detail"]["why"] == "device-bytes"));
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let line = format!("assay_telemetry_batches_dropped_total{{why=\"device-bytes\"}} {dropped}");
    assert!(metrics.contains(&line), "{metrics}");
    assert!(metrics.contains("assay_telemetry_batches_dropped_total{why=\"age\"} 0"), "{metrics}");
}

async fn leaves(fixture: &Fixture, kind: &str) -> Vec<Value> {
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
    leaves.as_array().unwrap().iter().filter(|leaf| leaf["kind"] == kind).cloned().collect()
}
