//! Attestation: the truth is believed, each lie is caught, and nobody else's evidence counts.

use anyhow::{Context, Result};
use assay_testkit::software_device::lie::Lie;
use assay_testkit::{Program, System};
use tonic::Code;

use crate::stage::{Stage, affirming, refused, within};

#[tokio::test]
async fn good_evidence_makes_a_device_trusted_and_gives_it_an_svid() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("good")?;
    stage.trust(&[&device], "").await?;
    edge.enroll(&mut device).await?;
    let mut attachment = edge.attach(&device).await?;
    affirming(&within(5, attachment.attest(&mut device)).await??)?;
    let grants = within(5, attachment.grants()).await??;
    assert!(!grants.withdrawn && !grants.device_svid.is_empty() && !grants.crl.is_empty());
    assert_eq!(stage.status(&device).await?, "trusted");

    // The second time only what is new is asked for, and a new boot is asked for everything again.
    attachment.changed().await?;
    let challenge = within(5, attachment.challenge()).await??;
    assert_eq!(challenge.ima_from_entry, device.ima.entries().len() as u64);
    assert!(!challenge.boot_log_wanted);
    attachment.answer(device.evidence(&challenge)?).await?;
    affirming(&within(5, attachment.verdict()).await??)?;
    device.boot(&System::default());
    attachment.changed().await?;
    let partial = within(5, attachment.challenge()).await??;
    attachment.answer(device.evidence(&partial)?).await?;
    let complete = within(5, attachment.challenge()).await??;
    assert_eq!((complete.boot_log_wanted, complete.ima_from_entry), (true, 0));
    attachment.answer(device.evidence(&complete)?).await?;
    affirming(&within(5, attachment.verdict()).await??)
}

#[tokio::test]
async fn each_lie_is_caught_and_the_devices_own_cost_it_its_trust() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    for lie in Lie::ALL.into_iter().filter(|lie| *lie != Lie::BootLogMissing) {
        let name = format!("{lie:?}");
        let (mut device, mut attachment) = stage.trusted(&edge, &name).await?;
        // After the counter went up once, it can be told to have gone back; and all logs are asked for again.
        device.boot(&System::default());
        attachment.changed().await?;
        within(5, attachment.attest(&mut device)).await??;
        let goes_back = lie == Lie::ResetCounterBack;
        if !goes_back {
            device.boot(&System::default());
        }
        attachment.changed().await?;
        let challenge = loop {
            let challenge = within(5, attachment.challenge()).await??;
            if challenge.boot_log_wanted {
                break challenge;
            }
            let first =
                if goes_back { lie.tell(&mut device, &challenge)? } else { device.evidence(&challenge)? };
            attachment.answer(first).await?;
        };
        attachment.answer(lie.tell(&mut device, &challenge)?).await?;
        let told = within(5, attachment.lie(&mut device, lie)).await?;
        if !lie.is_the_devices_word() {
            // Whoever carries it could have told it: it is refused, and the device stands as it stood.
            refused(told, Code::Unauthenticated, lie.caught_by())?;
            assert_eq!(stage.status(&device).await?, "trusted", "{name}");
            continue;
        }
        let verdict = told.context(name.clone())?;
        assert_eq!(verdict.tier, "contraindicated", "{name}: {:?}", verdict.findings);
        let caught = verdict.findings.iter().any(|finding| finding.check == lie.caught_by());
        assert!(caught, "{name}: {:?}", verdict.findings);
        assert_eq!(stage.status(&device).await?, "suspect", "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_device_is_not_found() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let before = stage.everything().await?;
    let id = format!("spiffe://test.assay.example/spire/agent/tpm/{}", "0".repeat(64));
    let mut attachment = edge.attach_as(&id).await?;
    refused(within(5, attachment.next()).await?, Code::NotFound, "not-enrolled")?;
    let mut attachment = edge.attach_as("device 7").await?;
    refused(within(5, attachment.next()).await?, Code::InvalidArgument, "device-id")?;
    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_nonce_answers_once() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "replayed").await?;
    attachment.changed().await?;
    let challenge = within(5, attachment.challenge()).await??;
    let evidence = device.evidence(&challenge)?;
    attachment.answer(evidence.clone()).await?;
    affirming(&within(5, attachment.verdict()).await??)?;
    let before = stage.everything().await?;

    // The same evidence again, when nothing was asked.
    attachment.answer(evidence.clone()).await?;
    refused(within(5, attachment.verdict()).await?, Code::Unauthenticated, "quote-nonce")?;
    // And on a new stream, in answer to another challenge.
    let mut attachment = edge.attach(&device).await?;
    within(5, attachment.challenge()).await??;
    attachment.answer(evidence).await?;
    refused(within(5, attachment.verdict()).await?, Code::Unauthenticated, "quote-nonce")?;
    stage.is_unheard(&before).await?;
    Ok(())
}

#[tokio::test]
async fn a_nonce_expires() -> Result<()> {
    let stage = Stage::start_with("challenge_ttl_seconds = 1").await?;
    let edge = stage.edge().await?;
    let (mut device, mut attachment) = stage.trusted(&edge, "late").await?;
    let before = stage.everything().await?;
    attachment.changed().await?;
    let challenge = within(5, attachment.challenge()).await??;
    let evidence = device.evidence(&challenge)?;
    // The server gives up by itself; what comes afterwards finds nobody.
    refused(within(5, attachment.verdict()).await?, Code::DeadlineExceeded, "silent")?;
    let mut attachment = edge.attach(&device).await?;
    within(5, attachment.challenge()).await??;
    attachment.answer(evidence).await?;
    refused(within(5, attachment.verdict()).await?, Code::Unauthenticated, "quote-nonce")?;
    stage.is_unheard(&before).await?;
    Ok(())
}

#[tokio::test]
async fn an_impostor_cannot_make_a_device_fall() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (device, _attachment) = stage.trusted(&edge, "victim").await?;
    let before = stage.everything().await?;
    let mut impostor = stage.device("impostor")?;
    impostor.run_program("/opt/implant", b"unknown");
    let mut attachment = edge.attach(&device).await?;
    let challenge = within(5, attachment.challenge()).await??;
    attachment.answer(impostor.evidence(&challenge)?).await?;
    refused(within(5, attachment.verdict()).await?, Code::Unauthenticated, "quote-signature")?;
    assert_eq!(stage.everything().await?, before);
    Ok(())
}

#[tokio::test]
async fn the_latest_stream_of_a_device_is_the_one() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let (mut device, mut first) = stage.trusted(&edge, "moved").await?;
    let mut second = edge.attach(&device).await?;
    affirming(&within(5, second.attest(&mut device)).await??)?;
    refused(within(5, first.verdict()).await?, Code::Aborted, "replaced")
}

#[tokio::test]
async fn only_a_gateway_may_come_to_the_edge_door() -> Result<()> {
    let stage = Stage::start().await?;
    let nobody = assay_testkit::edge::Edge::connect(&stage.door("edge")?).await;
    // TLS 1.3 lets a client finish first: the refusal may come with its first request.
    if let Ok(edge) = nobody {
        assert!(edge.attach_as("spiffe://test.assay.example/x").await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn a_device_is_not_trusted_without_a_policy() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("unjudged")?;
    edge.enroll(&mut device).await?;
    let mut attachment = edge.attach(&device).await?;
    let verdict = within(5, attachment.attest(&mut device)).await??;
    assert_ne!(verdict.tier, "affirming");
    assert_ne!(stage.status(&device).await?, "trusted");
    Ok(())
}

#[tokio::test]
async fn a_long_list_is_judged_once() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut device = stage.device("long")?;
    let mut system = System::default();
    system.programs.extend((0..5000).map(|number| Program::release(&format!("/usr/lib/part-{number}"))));
    device.boot(&system);
    stage.trust(&[&device], "").await?;
    edge.enroll(&mut device).await?;
    let mut attachment = edge.attach(&device).await?;
    affirming(&within(20, attachment.attest(&mut device)).await??)?;
    attachment.changed().await?;
    let challenge = within(5, attachment.challenge()).await??;
    assert_eq!(challenge.ima_from_entry, device.ima.entries().len() as u64);
    attachment.answer(device.evidence(&challenge)?).await?;
    affirming(&within(5, attachment.verdict()).await??)
}

#[tokio::test]
async fn a_long_list_is_sent_once_whatever_happens_to_the_server() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut device = stage.device("long")?;
    let mut system = System::default();
    system.programs.extend((0..5000).map(|number| Program::release(&format!("/usr/lib/part-{number}"))));
    device.boot(&system);
    stage.trust(&[&device], "").await?;
    let edge = stage.edge().await?;
    edge.enroll(&mut device).await?;
    let mut attachment = edge.attach(&device).await?;
    affirming(&within(20, attachment.attest(&mut device)).await??)?;
    let all = device.ima.entries().len() as u64;
    for round in 0..3 {
        match round {
            // Killed, restarted in peace, and another policy.
            0 => stage.take_server()?.kill()?,
            1 => drop(stage.take_server()?.terminate().await?),
            _ => stage.trust(&[&device], "# another version").await?,
        }
        if round < 2 {
            stage.start_server()?;
            attachment = stage.edge().await?.attach(&device).await?;
        }
        let challenge = within(10, attachment.challenge()).await??;
        assert_eq!((challenge.ima_from_entry, challenge.boot_log_wanted), (all, false), "{round}");
        let evidence = device.evidence(&challenge)?;
        assert!(evidence.ima_log.is_empty() && evidence.boot_log.is_none());
        attachment.answer(evidence).await?;
        affirming(&within(20, attachment.verdict()).await??)?;
    }
    assert_eq!(stage.status(&device).await?, "trusted");
    Ok(())
}
