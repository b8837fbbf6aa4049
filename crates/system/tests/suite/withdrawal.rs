//! Withdrawal and recovery: when the proof fails every grant falls, at once, and nobody else's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_testkit::edge::Attachment;
use assay_testkit::edge::Message;
use assay_testkit::edge::protocol::WorkloadSvidResponse;
use serde_json::{Value, json};
use tonic::Code;

use crate::stage::{Stage, affirming, lists, refused, serials, within};

#[tokio::test]
async fn an_unknown_program_costs_every_grant_within_a_second() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut witness, mut watching) = stage.trusted(&edge, "witness").await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "victim").await?;
    let serial = serials(&stage.explain(&device).await?).0.pop().context("an SVID")?;

    device.run_program("/opt/implant", b"unknown");
    let start = Instant::now();
    attachment.changed().await?;
    let verdict = within(5, attachment.attest(&mut device)).await??;
    let told = within(1, withdrawn(&mut attachment)).await??;
    ensure!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((verdict.tier.as_str(), verdict.state.as_str()), ("contraindicated", "suspect"));
    assert!(verdict.findings.iter().any(|finding| finding.message.contains("/opt/implant")), "{verdict:?}");
    assert!(told.contains("/opt/implant"), "{told}");

    // The serial is on the list that the console serves and the other device was pushed.
    assert_eq!(serials(&stage.explain(&device).await?), (vec![], vec![serial.clone()]));
    assert!(lists(&stage.console()?.bytes("/crl").await?, &serial));
    let pushed = within(1, async {
        loop {
            let grants = watching.grants().await?;
            if lists(&grants.crl, &serial) {
                break anyhow::Ok(grants);
            }
        }
    });
    let pushed = pushed.await??;
    assert!(!pushed.withdrawn && !pushed.device_svid.is_empty());
    assert_eq!(stage.status(&witness).await?, "trusted");
    watching.changed().await?;
    affirming(&within(5, watching.attest(&mut witness)).await??)
}

#[tokio::test]
async fn an_approved_program_brings_the_device_back() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "back").await?;
    device.run_program("/opt/tool", b"new");
    attachment.changed().await?;
    assert_eq!(within(5, attachment.attest(&mut device)).await??.tier, "contraindicated");
    within(1, withdrawn(&mut attachment)).await??;

    let answer = stage.console()?.approve("back").await?;
    assert_eq!(answer.pointer("/approved/0/path").and_then(Value::as_str), Some("/opt/tool"), "{answer}");
    affirming(&within(5, attachment.attest(&mut device)).await??)?;
    let grants = within(5, attachment.grants()).await??;
    assert!(!grants.withdrawn && !grants.device_svid.is_empty());
    assert_eq!(stage.status(&device).await?, "trusted");
    Ok(())
}

#[tokio::test]
async fn a_revoked_device_loses_everything_and_its_stream() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "stolen").await?;
    stage.console()?.post("/v1/devices/stolen/revoke", &json!({ "reason": "stolen from the van" })).await?;
    let reason = within(1, withdrawn(&mut attachment)).await??;
    assert!(reason.contains("stolen from the van"), "{reason}");
    refused(within(5, attachment.verdict()).await?, Code::PermissionDenied, "revoked")?;
    let mut again = edge.attach(&device).await?;
    refused(within(5, again.attest(&mut device)).await?, Code::PermissionDenied, "revoked")
}

#[tokio::test]
async fn a_workload_gets_its_svid_while_its_device_is_trusted() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "host").await?;
    let id = device.device_id.clone().context("enrolled")?;
    let entry = json!({
        "spiffe_id": "spiffe://test.assay.example/workload/web", "parent": id, "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": "uid:1000" }], "dns_names": [],
    });
    stage.console()?.post("/v1/entries", &entry).await?;
    let told = within(5, async {
        loop {
            let grants = attachment.grants().await?;
            if let Some(entry) = grants.entries.into_iter().next() {
                break anyhow::Ok(entry);
            }
        }
    });
    let entry = told.await??;
    let request = device.workload_request(attachment.place(), &entry.id)?;
    attachment.request_svid(request).await?;
    let answer = within(5, svid_answer(&mut attachment)).await??;
    assert!(answer.denied.is_empty() && !answer.svid.is_empty(), "{}", answer.denied);

    // The request of another key than the device's, and any request once trust is gone, get nothing.
    let forged = stage.device("forger")?.workload_request(attachment.place(), &entry.id)?;
    attachment.request_svid(forged).await?;
    let answer = within(5, svid_answer(&mut attachment)).await?;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.svid.is_empty()));
    let mut attachment = edge.attach(&device).await?;
    device.run_program("/opt/implant", b"unknown");
    assert_eq!(within(5, attachment.attest(&mut device)).await??.tier, "contraindicated");
    let request = device.workload_request(attachment.place(), &entry.id)?;
    attachment.request_svid(request).await?;
    let answer = within(5, svid_answer(&mut attachment)).await??;
    assert!(answer.svid.is_empty() && !answer.denied.is_empty());
    Ok(())
}

#[tokio::test]
async fn trust_ends_with_the_age_of_its_evidence() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("silent")?;
    stage.trust(&[&device], "[freshness]\nevidence_age_max_seconds = 1").await?;
    edge.enroll(&mut device).await?;
    let mut attachment = edge.attach(&device).await?;
    affirming(&within(5, attachment.attest(&mut device)).await??)?;
    within(5, withdrawn(&mut attachment)).await??;
    assert_eq!(stage.status(&device).await?, "expired");
    Ok(())
}

async fn withdrawn(attachment: &mut Attachment) -> Result<String> {
    loop {
        let grants = attachment.grants().await?;
        if grants.withdrawn {
            ensure!(grants.device_svid.is_empty() && grants.entries.is_empty());
            return Ok(grants.reason);
        }
    }
}

async fn svid_answer(attachment: &mut Attachment) -> Result<WorkloadSvidResponse> {
    loop {
        if let Message::WorkloadSvid(answer) = attachment.next().await? {
            return Ok(answer);
        }
    }
}
