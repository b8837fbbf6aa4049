//! Ends and beginnings of the server: told to, or cut off, at the worst moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use tonic::Code;

use crate::stage::{Stage, affirming, lists, refused, serials, within};

#[tokio::test]
async fn told_to_end_the_server_ends_within_two_seconds() -> Result<()> {
    let mut stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (device, mut attachment) = stage.trusted(&edge, "attached").await?;
    let mut enrollment = edge.begin_enrollment(stage.device("half")?.enroll_begin()).await?;
    enrollment.challenge().await?;

    let server = stage.take_server()?;
    let (took, status) = within(10, server.terminate()).await??;
    ensure!(took < Duration::from_secs(2), "{took:?}");
    ensure!(status.success(), "{status}");
    // Whoever was there was told why.
    refused(within(5, attachment.verdict()).await?, Code::Unavailable, "shutting-down")?;

    stage.start_server()?;
    assert_eq!(stage.status(&device).await?, "trusted");
    Ok(())
}

#[tokio::test]
async fn a_killed_server_comes_back_with_all_state() -> Result<()> {
    let mut stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut good, _attachment) = stage.trusted(&edge, "good").await?;
    let (mut fallen, mut falling) = stage.trusted(&edge, "fallen").await?;
    fallen.run_program("/opt/implant", b"unknown");
    falling.changed().await?;
    assert_eq!(within(5, falling.attest(&mut fallen)).await??.tier, "contraindicated");
    let statement = good.statement(b"", None);
    assert!(edge.submit(good.submit(&statement, b"")?).await?.accepted);
    let before = stage.everything().await?;
    let (of_good, of_fallen) = (stage.explain(&good).await?, stage.explain(&fallen).await?);
    let (held, withdrawn) = (serials(&of_good).0, serials(&of_fallen).1);
    assert_eq!((held.len(), withdrawn.len()), (1, 1));

    stage.take_server()?.kill()?;
    stage.start_server()?;
    assert_eq!(stage.everything().await?, before);
    assert_eq!(serials(&stage.explain(&good).await?), serials(&of_good));
    assert_eq!(serials(&stage.explain(&fallen).await?), serials(&of_fallen));
    let crl = stage.console()?.bytes("/crl").await?;
    assert!(withdrawn.iter().all(|serial| lists(&crl, serial)));
    assert!(!held.iter().any(|serial| lists(&crl, serial)));
    assert_eq!(stage.status(&fallen).await?, "suspect");

    // The device goes on where it was: same identity, same chain of batches; the fallen one stays fallen.
    let edge = stage.edge().await?;
    let mut attachment = edge.attach(&good).await?;
    affirming(&within(5, attachment.attest(&mut good)).await??)?;
    let statement = good.statement(b"", None);
    assert!(edge.submit(good.submit(&statement, b"")?).await?.accepted);
    let mut falling = edge.attach(&fallen).await?;
    assert_eq!(within(5, falling.attest(&mut fallen)).await??.tier, "contraindicated");
    Ok(())
}

#[tokio::test]
async fn a_restart_in_the_middle_of_an_enrollment_leaves_nothing_behind() -> Result<()> {
    let mut stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("interrupted")?;
    let before = stage.everything().await?;
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await?;
    let challenge = enrollment.challenge().await?;
    let proof = device.enroll_proof(&challenge)?;

    stage.take_server()?.kill()?;
    stage.start_server()?;
    ensure!(within(5, enrollment.prove(proof.clone())).await?.is_err(), "the old stream still works");
    let edge = stage.edge().await?;
    let mut enrollment = edge.begin_enrollment(device.enroll_begin()).await?;
    enrollment.challenge().await?;
    refused(enrollment.prove(proof).await, Code::Unauthenticated, "credential-activation")?;
    assert_eq!(stage.everything().await?, before);

    edge.enroll(&mut device).await?;
    assert_eq!(stage.status(&device).await?, "enrolled");
    Ok(())
}

#[tokio::test]
async fn a_gateway_ends_within_two_seconds_and_another_takes_its_place() -> Result<()> {
    let mut stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "carried").await?;
    let (took, status) = within(10, stage.take_gateway()?.terminate()).await??;
    ensure!(took < Duration::from_secs(2) && status.success(), "{took:?} {status}");
    ensure!(within(5, attachment.verdict()).await?.is_err(), "the stream outlives its gateway");

    stage.start_gateway().await?;
    let edge = stage.edge().await?;
    let mut attachment = edge.attach(&device).await?;
    affirming(&within(5, attachment.attest(&mut device)).await??)
}

#[tokio::test]
async fn two_servers_do_not_share_a_data_folder() -> Result<()> {
    let mut stage = Stage::start().await?;
    let first = stage.take_server()?;
    ensure!(stage.start_server().is_err(), "a second server started on the same data");
    drop(first);
    stage.start_server()
}
