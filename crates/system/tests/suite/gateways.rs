//! The life of a gateway: it renews itself, and an operator ends it.

use anyhow::{Context, Result, ensure};
use assay_testkit::edge::{Door, Edge};
use serde_json::{Value, json};

use crate::stage::{Stage, affirming, eventually, within};

/// What the server says of the one gateway there is.
async fn listed(stage: &Stage) -> Result<Value> {
    let answer = stage.console()?.get("/v1/gateways").await?;
    let gateways = answer.get("gateways").and_then(Value::as_array).context("gateways")?;
    ensure!(gateways.len() == 1, "{answer}");
    Ok(gateways[0].clone())
}

#[tokio::test]
async fn finding_4_a_gateway_renews_its_certificate_and_goes_on() -> Result<()> {
    let mut stage = Stage::start_with("gateway_svid_ttl_seconds = 20").await?;
    let first = listed(&stage).await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "standing").await?;
    eventually(30, async || {
        ensure!(stage.at("gateway/renewed.pem").exists(), "not renewed");
        Ok(())
    })
    .await?;
    let renewed = listed(&stage).await?;
    ensure!(renewed.get("serial") != first.get("serial"), "{renewed}");
    // The streams that stood stand, new ones come in, and so it is after a start with the files as they are.
    attachment.changed().await?;
    affirming(&within(5, attachment.attest(&mut device)).await??)?;
    stage.edge().await?;
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(stage.at("gateway/renewed.pem"))?);
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    std::fs::write(stage.at("gateway/key.pem"), "")?;
    drop(stage.take_gateway()?);
    stage.start_gateway_as_it_was().await?;
    stage.edge().await?;
    Ok(())
}

#[tokio::test]
async fn finding_4_a_revoked_gateway_is_cut_off() -> Result<()> {
    let mut stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (device, mut attachment) = stage.trusted(&edge, "carried").await?;
    let revoke = |name: &str| format!("/v1/gateways/{name}/revoke");
    let console = stage.console()?;
    let answer = console.post(&revoke("test"), &json!({ "reason": "taken over" })).await?;
    ensure!(answer.get("certificates") == Some(&json!(1)), "{answer}");
    ensure!(listed(&stage).await?.get("status") == Some(&json!("revoked")));

    // The device hears of the list, and then nothing more through this gateway.
    let end = within(5, async {
        loop {
            if let Err(error) = attachment.next().await {
                return error;
            }
        }
    });
    end.await?;
    // Nor does anybody: at the server's door its certificate is none.
    let credentials = std::fs::read_to_string(stage.at("gateway/credentials.pem"))?;
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(stage.at("gateway/key.pem"))?)?;
    let identity = Some((crate::stage::certificates(&credentials)?, key.serialize_der()));
    let door = Door { identity, ..stage.door("edge")? };
    let refused = match Edge::connect(&door).await {
        Ok(edge) => edge.attach(&device).await.is_err(),
        Err(_) => true,
    };
    ensure!(refused, "the server talks to a revoked gateway");
    ensure!(console.post(&revoke("nobody"), &json!({ "reason": "x" })).await.is_err());

    // One with new credentials takes its place, by the same name.
    drop(stage.take_gateway()?);
    stage.start_gateway().await?;
    let edge = stage.edge().await?;
    edge.attach(&device).await?;
    ensure!(stage.status(&device).await? == "trusted");
    Ok(())
}
