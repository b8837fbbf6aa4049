//! Bounds: what is too much, too long or never comes is answered or let go, and stops nobody else.

use std::io::ErrorKind;

use anyhow::{Result, ensure};
use assay_testkit::edge::protocol::{EnrollBegin, Evidence};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::stage::{Stage, affirming, refused, within};

#[tokio::test]
async fn an_oversized_message_is_refused() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "huge").await?;
    let before = stage.everything().await?;

    attachment.changed().await?;
    let challenge = within(5, attachment.challenge()).await??;
    let evidence = Evidence { ima_log: vec![0; OVERSIZED], ..device.evidence(&challenge)? };
    attachment.answer(evidence).await?;
    let ended = within(20, attachment.verdict()).await?;
    ensure!(ended.is_err(), "taken: {ended:?}");

    let begin = EnrollBegin { ek_certificate: vec![0; OVERSIZED], ..device.enroll_begin() };
    let mut enrollment = edge.begin_enrollment(begin).await?;
    let ended = within(20, enrollment.challenge()).await?;
    ensure!(ended.is_err(), "taken: {ended:?}");

    let payload = vec![0; OVERSIZED];
    let statement = device.statement(&payload, None);
    let submission = within(20, edge.submit(device.submit(&statement, &payload)?)).await?;
    let code = submission.as_ref().err().and_then(|error| error.code());
    ensure!(
        matches!(code, Some(Code::ResourceExhausted | Code::OutOfRange | Code::InvalidArgument)),
        "{submission:?}"
    );
    stage.is_unheard(&before).await?;
    // The device itself is welcome as before.
    device.chain = Default::default();
    let mut attachment = edge.attach(&device).await?;
    affirming(&within(5, attachment.attest(&mut device)).await??)
}

#[tokio::test]
async fn a_half_open_connection_is_let_go_and_stops_nobody() -> Result<()> {
    let stage = Stage::start_with("challenge_ttl_seconds = 1\n[limits]\nunproven_streams_max = 8").await?;
    let edge = stage.edge().await?;
    let (device, _attachment) = stage.trusted(&edge, "busy").await?;

    // Four connections that never say a word of TLS, and one that stops in the middle of it.
    let address = stage.door("edge")?.address;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(&address).await?);
    }
    let mut halfway = TcpStream::connect(&address).await?;
    halfway.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await?;
    silent.push(halfway);

    // Streams that are challenged and do not answer take the places there are for strangers, for a time.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut attachment = edge.attach(&device).await?;
        within(5, attachment.challenge()).await??;
        waiting.push(attachment);
    }
    let mut fifth = edge.attach(&device).await?;
    refused(within(5, fifth.next()).await?, Code::ResourceExhausted, "no-room")?;
    for mut attachment in waiting {
        refused(within(5, attachment.verdict()).await?, Code::DeadlineExceeded, "silent")?;
    }
    let mut sixth = edge.attach(&device).await?;
    within(5, sixth.challenge()).await??;

    for mut connection in silent {
        let mut rest = Vec::new();
        match within(10, connection.read_to_end(&mut rest)).await? {
            Ok(_) => {}
            Err(error) => ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert_eq!(stage.status(&device).await?, "trusted");
    Ok(())
}

/// One byte more than any edge message may have.
const OVERSIZED: usize = (32 << 20) + 1;
