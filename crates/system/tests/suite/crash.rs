//! Killed at any moment, under load: what a device was told holds, and the audit trail is whole.

use anyhow::{Context, Result, ensure};
use assay_testkit::SoftwareDevice;
use assay_testkit::edge::{Attachment, Edge};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::stage::{Stage, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_crash() -> Result<()> {
    let mut stage = Stage::start().await?;
    let specimen = stage.device("specimen")?;
    stage.trust(&[&specimen], "").await?;
    let mut fleet = Vec::new();
    for number in 0..6 {
        fleet.push(Told { device: stage.device(&format!("device-{number}"))?, batches: 0, fallen: false });
    }
    // Early, in the middle of enrollments and first appraisals, and later, among batches and falls.
    for (round, answers) in [5, 17, 43, 90].into_iter().enumerate() {
        let edge = stage.edge().await?;
        let (counter, mut counted) = tokio::sync::mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        for told in fleet.drain(..) {
            running.spawn(live(edge.clone(), told, counter.clone()));
        }
        for _ in 0..answers {
            within(20, counted.recv()).await?.context("everyone stopped")?;
        }
        stage.take_server()?.kill()?;
        fleet = within(20, running.join_all()).await?;
        stage.start_server()?;
        stage.edge().await?;
        for told in &fleet {
            stage.holds(told).await.with_context(|| format!("round {round}"))?;
        }
        stage.take_server()?.kill()?;
        stage.verify(None).await?;
        stage.start_server()?;
    }
    Ok(())
}

/// What a device has been told so far.
struct Told {
    device: SoftwareDevice,
    batches: u64,
    fallen: bool,
}

/// Enrolls, attests, sends batches, and falls after the tenth, until the server is gone.
async fn live(edge: Edge, mut told: Told, answers: tokio::sync::mpsc::UnboundedSender<()>) -> Told {
    // The server's end is what is waited for here.
    let _ = live_until_the_end(&edge, &mut told, &answers).await;
    told
}

async fn live_until_the_end(
    edge: &Edge,
    told: &mut Told,
    answers: &tokio::sync::mpsc::UnboundedSender<()>,
) -> Result<()> {
    if told.device.device_id.is_none() {
        edge.enroll(&mut told.device).await?;
        answers.send(())?;
    }
    let mut attachment: Attachment = edge.attach(&told.device).await?;
    loop {
        let verdict = attachment.attest(&mut told.device).await?;
        told.fallen |= verdict.tier == "contraindicated";
        answers.send(())?;
        if !told.fallen {
            let statement = told.device.statement(b"", None);
            let chain = told.device.chain.clone();
            let request = told.device.submit(&statement, b"")?;
            let answer = edge.submit(request).await;
            match answer {
                Ok(answer) if answer.accepted => told.batches += 1,
                // Not acknowledged: it is sent again under its number, or found to be there already.
                _ => told.device.chain = chain,
            }
            answers.send(())?;
        }
        if told.batches == 10 {
            told.device.run_program("/opt/implant", b"unknown");
        }
        attachment.changed().await?;
    }
}

impl Stage {
    /// Fails unless the server still knows all that this device was told.
    async fn holds(&self, told: &Told) -> Result<()> {
        if told.device.device_id.is_none() {
            return Ok(());
        }
        let status = self.status(&told.device).await?;
        ensure!(!told.fallen || status == "suspect", "{} fell, and is {status}", told.device.name);
        let answer = self.console()?.get(&format!("/v1/telemetry?device={}", told.device.name)).await?;
        let records = answer.get("records").and_then(Value::as_array).cloned().unwrap_or_default();
        let stored =
            records.iter().filter(|record| record.get("accepted") == Some(&Value::Bool(true))).count();
        ensure!(stored as u64 >= told.batches, "{} of {} batches", stored, told.batches);
        Ok(())
    }
}
