//! Telemetry: signed, in order, from a trusted device inside its region, or not at all.

use anyhow::Result;
use assay_testkit::software_device::TpmKey;
use assay_testkit::software_device::key::DEVICE_KEY;
use assay_testkit::software_device::telemetry::Place;
use serde_json::Value;
use tonic::Code;

use crate::stage::{Stage, refused, within};

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
