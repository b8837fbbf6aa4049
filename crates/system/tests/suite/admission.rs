//! Devices that come for the first time, with the real agent on a real TPM: one waits for an operator, another takes the place
//! of one that lost its board.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::Device;
use crate::stage::{Program, TRUST_DOMAIN, eventually};

/// What the console lists under a key.
async fn listed(device: &Device, path: &str, key: &str) -> Result<Vec<Value>> {
    let answer = device.stage.console()?.get(path).await?;
    Ok(answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default())
}

fn text(value: &Value, member: &str) -> String {
    value.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn year_10_swtpm_agent_waits_to_be_admitted_and_says_so() -> Result<()> {
    let mut device = Device::prepared_with("enrollment = \"approved\"").await?;
    device.start_agent()?;
    let waiting = eventually(30, async || {
        let pending = listed(&device, "/v1/pending", "pending").await?;
        pending.into_iter().next().context("nobody waits")
    });
    let waiting = waiting.await?;
    ensure!(text(&waiting, "name") == "edge" && text(&waiting, "word") == "waiting", "{waiting}");
    ensure!(!text(&waiting, "ek_manufacturer").is_empty(), "{waiting}");
    ensure!(
        text(&waiting, "serial") == "id:00001014.7" && text(&waiting, "address") == "127.0.0.1",
        "{waiting}"
    );
    ensure!(listed(&device, "/v1/devices", "devices").await?.is_empty(), "it is none of the fleet");
    let said = device.agent.as_ref().map(Program::said).unwrap_or_default();
    ensure!(said.contains("admission-pending") && said.contains("assay device admit"), "{said}");
    let admit = format!("/v1/pending/{}/admit", text(&waiting, "ek_sha256"));
    device.stage.console()?.post(&admit, &json!({})).await?;
    eventually(60, async || device.is("trusted").await).await?;
    ensure!(listed(&device, "/v1/pending", "pending").await?.is_empty(), "it waits no more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn year_10_swtpm_device_with_another_tpm_takes_over_what_the_old_one_had() -> Result<()> {
    let mut device = Device::on_a_stage().await?;
    let old = text(&device.is("trusted").await?, "id");
    let console = device.stage.console()?;
    console.post("/v1/devices/edge/labels", &json!({ "set": ["site=paris"] })).await?;
    let entry = json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/web"), "parent": "edge", "ttl_seconds": 3600,
        "selectors": [{ "type": "unix", "value": "uid:4711" }], "dns_names": [],
    });
    console.post("/v1/entries", &entry).await?;

    device.get_another_tpm().await?;
    let new = eventually(30, async || {
        let named = listed(&device, "/v1/devices?name=edge-*&status=trusted", "devices").await?;
        named.into_iter().next().context("the new TPM is not trusted yet")
    });
    let new = new.await.with_context(|| device.agent.as_ref().map(Program::said).unwrap_or_default())?;
    let new_id = text(&new, "id");
    ensure!(new_id != old && text(&new, "name").starts_with("edge-"), "{new}");

    let replaced = console.post("/v1/devices/edge/replace", &json!({ "by": text(&new, "name") })).await?;
    ensure!(replaced.get("entries") == Some(&json!(1)), "{replaced}");
    let device_now = device.is("trusted").await?;
    ensure!(text(&device_now, "id") == new_id, "{device_now}");
    ensure!(device_now.get("labels") == Some(&json!({ "site": "paris" })), "{device_now}");
    let entries = listed(&device, "/v1/entries", "entries").await?;
    ensure!(entries.iter().all(|entry| text(entry, "parent") == new_id) && entries.len() == 1, "{entries:?}");
    let hash = old.rsplit('/').next().context("hash")?;
    let ended = console.get(&format!("/v1/devices/{hash}")).await?;
    ensure!(ended.pointer("/device/status") == Some(&json!("revoked")), "{ended}");
    let leaves = listed(&device, "/v1/audit?limit=1000", "leaves").await?;
    ensure!(
        leaves.iter().any(|leaf| text(leaf, "kind") == "device.replaced" && text(leaf, "subject") == new_id)
    );
    // The trail is whole with it.
    device.stage.verify(None).await?;
    Ok(())
}
