//! A fleet is updated under a policy that is rolled out: through a gateway, over a power cut, and nobody falls.

use anyhow::{Context, Result, ensure};
use assay_testkit::edge::Attachment;
use assay_testkit::{SoftwareDevice, System, policy_for};
use serde_json::{Value, json};

use crate::stage::{Stage, affirming, serials, within};

#[tokio::test]
async fn a_fleet_is_updated_in_stages_over_a_power_cut_and_no_device_falls() -> Result<()> {
    let mut stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut fleet = Vec::new();
    for name in ["press-1", "press-2", "press-3"] {
        fleet.push(stage.trusted(&edge, name).await?);
    }
    let mut sample = stage.device("sample")?;
    sample.boot(&updated());
    let text = policy_for("test", &[&sample]);
    let start = "/v1/policies/rollouts?percent=100";
    stage.console()?.post_text(start, &text).await?;
    for (device, attachment) in &mut fleet {
        affirming(&within(5, attachment.attest(device)).await??)?;
    }
    let (first, attachment) = fleet.first_mut().context("a fleet")?;
    update(first, attachment).await?;

    // Cut off in the middle, it goes on where it was.
    let before = stage.console()?.get("/v1/policies").await?;
    stage.take_server()?.kill()?;
    stage.start_server()?;
    assert_eq!(stage.console()?.get("/v1/policies").await?, before);
    let edge = stage.edge().await?;
    for (device, attachment) in &mut fleet {
        *attachment = edge.attach(device).await?;
        affirming(&within(5, attachment.attest(device)).await??)?;
    }
    let refusal = stage.console()?.post("/v1/policies/rollouts/test/finish", &json!({})).await;
    let refusal = refusal.err().context("not every device is updated")?.to_string();
    // In the order of their identities, which are random.
    let waiting = ["2 devices would fall:", "press-2: ", "press-3: "];
    ensure!(waiting.iter().all(|words| refusal.contains(words)), "{refusal}");
    for (device, attachment) in fleet.iter_mut().skip(1) {
        update(device, attachment).await?;
    }
    stage.console()?.post("/v1/policies/rollouts/test/finish", &json!({})).await?;
    for (device, attachment) in &mut fleet {
        let verdict = within(5, attachment.attest(device)).await??;
        affirming(&verdict)?;
        assert_eq!(verdict.policy, "test v3");
        let (_, withdrawn) = serials(&stage.explain(device).await?);
        ensure!(withdrawn.is_empty(), "{} lost {withdrawn:?}", device.name);
    }
    nobody_fell(&stage).await?;
    stage.take_server()?.kill()?;
    stage.verify(None).await?;
    Ok(())
}

fn updated() -> System {
    System { kernel: "6.12.10-amd64".into(), ..System::default() }
}

/// Boots the new system and attests: what is new first, and then, since it is another boot, everything.
async fn update(device: &mut SoftwareDevice, attachment: &mut Attachment) -> Result<()> {
    device.boot(&updated());
    attachment.changed().await?;
    let partial = within(5, attachment.challenge()).await??;
    attachment.answer(device.evidence(&partial)?).await?;
    affirming(&within(5, attachment.attest(device)).await??)
}

/// Every result on record is affirming.
async fn nobody_fell(stage: &Stage) -> Result<()> {
    let audit = stage.console()?.get("/v1/audit?limit=1000").await?;
    let leaves = audit.get("leaves").and_then(Value::as_array).context("leaves")?;
    let appraised: Vec<&Value> = leaves.iter().filter(|leaf| leaf["kind"] == "device.appraised").collect();
    ensure!(appraised.len() >= 9, "each device under each version: {}", appraised.len());
    ensure!(appraised.iter().all(|leaf| leaf["detail"]["tier"] == "affirming"), "{appraised:?}");
    Ok(())
}
