//! Telemetry: signed, in order, from a trusted device inside its region, or not at all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use assay_testkit::software_device::TpmKey;
use assay_testkit::software_device::key::DEVICE_KEY;
use assay_testkit::software_device::telemetry::Place;
use data_encoding::BASE64;
use serde_json::{Value, json};
use tonic::Code;

use crate::agent::Device;
use crate::stage::{Stage, eventually, refused, within};

#[tokio::test]
async fn a_batch_of_a_trusted_device_is_stored_and_receipted() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, _attachment) = stage.trusted(&edge, "sensor").await?;
    for sequence in 1..=3 {
        let statement = device.statement(PAYLOAD, None);
        let receipt = edge.submit(device.submit(&statement, PAYLOAD)?).await?;
        assert!(receipt.accepted && !receipt.ledger_hash.is_empty(), "{sequence}: {}", receipt.reason);
    }
    assert_eq!(records(&stage).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_batch_from_outside_the_region_is_refused_with_the_reason() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, _attachment) = stage.trusted(&edge, "abroad").await?;
    stage.trust(&[&device], "[location]\nallow_countries = [\"DE\", \"FR\"]").await?;
    let inside = device.statement(PAYLOAD, Some(Place::configured("DE", "DE-HE", "Frankfurt")));
    assert!(edge.submit(device.submit(&inside, PAYLOAD)?).await?.accepted);
    let outside = device.statement(PAYLOAD, Some(Place::configured("US", "US-TX", "Austin")));
    let answer = edge.submit(device.submit(&outside, PAYLOAD)?).await?;
    assert!(!answer.accepted && answer.reason.contains("US"), "{}", answer.reason);
    let records = records(&stage).await?;
    let accepted = records.iter().filter(|record| record.get("accepted") == Some(&Value::Bool(true)));
    assert_eq!(accepted.count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_device_without_trust_is_denied() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "fallen").await?;
    device.run_program("/opt/implant", b"unknown");
    attachment.changed().await?;
    assert_eq!(within(5, attachment.attest(&mut device)).await??.tier, "contraindicated");
    let statement = device.statement(PAYLOAD, None);
    let answer = edge.submit(device.submit(&statement, PAYLOAD)?).await?;
    assert!(!answer.accepted && !answer.reason.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_is_not_the_devices_is_refused() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, _attachment) = stage.trusted(&edge, "forged").await?;
    let first = device.statement(PAYLOAD, None);
    let good = device.submit(&first, PAYLOAD)?;
    assert!(edge.submit(good.clone()).await?.accepted);
    let before = (stage.everything().await?, accepted(&stage).await?);

    refused(edge.submit(good.clone()).await, Code::AlreadyExists, "sequence-replay")?;
    let mut altered = good.clone();
    altered.payload.push(0);
    refused(edge.submit(altered).await, Code::Unauthenticated, "payload-hash")?;
    let mut altered = good.clone();
    altered.statement.truncate(30);
    refused(edge.submit(altered).await, Code::InvalidArgument, "statement")?;

    // Another key that claims the device's name; then an unknown name.
    let own = std::mem::replace(&mut device.device_key, TpmKey::generate(DEVICE_KEY)?);
    let next = device.statement(PAYLOAD, None);
    let forged = device.submit(&next, PAYLOAD)?;
    refused(edge.submit(forged).await, Code::Unauthenticated, "device-signature")?;
    device.device_key = own;
    let name = "0".repeat(64);
    device.device_id = Some(format!("spiffe://test.assay.example/spire/agent/tpm/{name}"));
    let unknown = device.statement(PAYLOAD, None);
    let unknown = device.submit(&unknown, PAYLOAD)?;
    refused(edge.submit(unknown).await, Code::NotFound, "not-enrolled")?;
    assert_eq!((stage.everything().await?, accepted(&stage).await?), before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_what_a_program_was_told_is_taken_arrives_once_though_the_agent_is_killed() -> Result<()> {
    let mut device = Device::on_a_stage().await?;
    device.is("trusted").await?;
    for round in 0..4 {
        let addresses = std::fs::read_to_string(device.stage.at("agent/addresses.json"))?;
        let addresses: Value = serde_json::from_str(&addresses)?;
        let at = addresses.get("otlp_http").and_then(Value::as_str).context("an address")?.to_owned();
        for number in 0..5 {
            log_record(&at, &format!("record-{round}-{number};"))?;
        }
        // At once, and once in the middle of signing and sending.
        tokio::time::sleep(Duration::from_millis(350 * round)).await;
        device.agent.take().context("the agent")?.kill()?;
        std::fs::remove_file(device.stage.at("agent/addresses.json"))?;
        device.start_agent()?;
        eventually(20, async || Ok(std::fs::metadata(device.stage.at("agent/addresses.json"))?)).await?;
    }
    let wanted: Vec<String> =
        (0..4).flat_map(|round| (0..5).map(move |number| format!("record-{round}-{number};"))).collect();
    let arrived = eventually(60, async || {
        let arrived = payloads(&device.stage).await?;
        for record in &wanted {
            ensure!(arrived.contains(record), "{record}");
        }
        Ok(arrived)
    })
    .await?;
    for record in &wanted {
        ensure!(arrived.matches(record).count() == 1, "{record} came more than once");
    }
    Ok(())
}

/// Sends a log record as a program does, and is told that it was taken.
fn log_record(address: &str, text: &str) -> Result<()> {
    let record = json!({ "body": { "stringValue": text } });
    let body = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] }).to_string();
    let head = "POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

/// Everything that was accepted, one payload after the other.
async fn payloads(stage: &Stage) -> Result<String> {
    let answer = stage.console()?.get("/v1/telemetry?limit=1000").await?;
    let mut payloads = Vec::new();
    for record in answer.get("records").and_then(Value::as_array).context("records")? {
        let number = |name: &str| record.get(name).and_then(Value::as_u64);
        let (Some(leaf), Some(sequence)) = (number("leaf"), number("sequence")) else { continue };
        let batch = stage.console()?.get(&format!("/v1/telemetry/{leaf}/{sequence}")).await?;
        let payload = batch.get("payload").and_then(Value::as_str).context("a payload")?;
        payloads.extend(BASE64.decode(payload.as_bytes())?);
    }
    Ok(String::from_utf8_lossy(&payloads).into_owned())
}

async fn accepted(stage: &Stage) -> Result<usize> {
    let records = records(stage).await?;
    Ok(records.iter().filter(|record| record.get("accepted") == Some(&Value::Bool(true))).count())
}

async fn records(stage: &Stage) -> Result<Vec<Value>> {
    let answer = stage.console()?.get("/v1/telemetry").await?;
    Ok(answer.get("records").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// An empty OTLP request: what is inside is not looked at here.
const PAYLOAD: &[u8] = b"";
