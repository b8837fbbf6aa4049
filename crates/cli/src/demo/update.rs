//! The demo's last chapter: a kernel update that is tried on stored evidence, staged, and rolled out, while no device
//! falls.

use anyhow::{Context, Result, ensure};
use assay_testkit::machine::System;
use assay_wire::console::device::Device;
use assay_wire::console::record::{Leaf, Leaves};
use serde_json::Value;

use super::process::until;
use super::report::Report;
use super::stage::Stage;
use super::story::{FLEET, TRUST_WITHIN, geofence, standing};
use crate::console::Client;
use crate::output;

/// Takes the whole fleet to another kernel.
pub fn tell(stage: &mut Stage, report: &mut Report, client: &Client) -> Result<()> {
    report.chapter("Update: a new kernel is tried, staged and rolled out, and no device falls");
    let before = last_leaf(client)?;
    let updated = System { kernel: KERNEL.to_owned(), ..System::default() };
    let policy =
        report.step("update-policy", "learned from a machine in the lab with the new kernel", || {
            let policy = stage.learn_policy_in_the_lab(&updated)?;
            geofence(&policy)?;
            Ok((policy, format!("the next edge-base accepts Linux {KERNEL} and nothing older")))
        })?;
    let policy = policy.to_string_lossy().into_owned();
    report.step("update-tried", "the fleet's stored evidence under the new policy", || {
        let tried = stage.ask(&["policy", "try", &policy, "--json"])?;
        let falls = tried.pointer("/devices/would_fall").and_then(Value::as_u64);
        ensure!(falls == Some(FLEET.len() as u64), "who would fall: {tried}");
        let causes: Vec<String> =
            output::list(&tried, "causes").iter().map(|cause| output::text(cause, "message")).collect();
        let why =
            causes.iter().find(|cause| cause.contains("vmlinuz")).or(causes.first()).context("a cause")?;
        Ok((
            (),
            format!(
                "all {} devices would fall of it now, of {} causes, such as: {why}",
                FLEET.len(),
                causes.len()
            ),
        ))
    })?;
    let status =
        report.step("update-staged", "old and new are good, for a share of the fleet at a time", || {
            let (status, told) = staged(stage, client, &policy, &updated)?;
            Ok((status, format!("finishing was refused before; {told}")))
        })?;
    report.step("update-finished", "the new policy alone", || {
        stage.ask(&["policy", "rollout", "finish", POLICY, "--json"])?;
        let alone = citation(&status, "new_version")?;
        for device in &stage.devices {
            until(TRUST_WITHIN, || Ok(is_trusted_under(client, device.name, &alone)?.then_some(())))
                .with_context(|| format!("{} under {alone}", device.name))?;
        }
        Ok(((), format!("{alone}: a device with the old kernel is refused from here on")))
    })?;
    report.step("update-unharmed", "the audit trail since the update began", || {
        let (results, fallen) = results_since(client, before)?;
        ensure!(fallen.is_empty(), "not affirming: {fallen:?}");
        Ok(((), format!("{results} new results, every one affirming; no device fell")))
    })
}

/// Rolls the policy out by thirds, and updates the devices that each step reaches. The roll-out's last status, and who was
/// updated when.
fn staged(stage: &mut Stage, client: &Client, policy: &str, updated: &System) -> Result<(Value, String)> {
    let mut updated_devices = Vec::new();
    let mut told = Vec::new();
    let mut status = stage.ask(&["policy", "rollout", "start", policy, "--percent", "34", "--json"])?;
    for percent in ["34", "67", "100"] {
        if percent != "34" {
            status = stage.ask(&["policy", "rollout", "widen", POLICY, "--percent", percent, "--json"])?;
        }
        let union = citation(&status, "union_version")?;
        let ready = judged_by(client, &union, &status)?;
        let next: Vec<&str> = ready.into_iter().filter(|name| !updated_devices.contains(name)).collect();
        for name in &next {
            update(stage, client, name, updated, &union)?;
        }
        let names = if next.is_empty() { "none".to_owned() } else { next.join(", ") };
        told.push(format!("{percent} %: {names}"));
        updated_devices.extend(next);
    }
    ensure!(updated_devices.len() == stage.devices.len(), "updated: {updated_devices:?}");
    Ok((status, told.join("; ")))
}

/// The devices that are judged by the union, once all that should be are.
fn judged_by(client: &Client, union: &str, status: &Value) -> Result<Vec<&'static str>> {
    let expected = status.pointer("/rollout/devices").and_then(Value::as_u64).context("a roll-out")?;
    until(TRUST_WITHIN, || {
        let mut names = Vec::new();
        for name in FLEET {
            if is_trusted_under(client, name, union)? {
                names.push(name);
            }
        }
        Ok((names.len() as u64 == expected).then_some(names))
    })
}

/// Restarts a device with another system; it has to come back trusted.
fn update(stage: &mut Stage, client: &Client, name: &str, system: &System, policy: &str) -> Result<()> {
    let boot = resets(client, name)?;
    stage.reboot_device(name, system)?;
    until(TRUST_WITHIN, || {
        Ok((resets(client, name)? > boot && is_trusted_under(client, name, policy)?).then_some(()))
    })
    .with_context(|| format!("{name} with the new kernel"))
}

fn is_trusted_under(client: &Client, name: &str, policy: &str) -> Result<bool> {
    let Device { status, policy: judged_by, .. } = standing(client, name)?;
    Ok(status == "trusted" && judged_by.as_deref() == Some(policy))
}

/// How often the device's TPM was reset, as last attested.
fn resets(client: &Client, name: &str) -> Result<u32> {
    standing(client, name)?.reset_count.context("it has attested")
}

/// A version of the roll-out as devices cite it.
fn citation(status: &Value, version: &str) -> Result<String> {
    let rollout = status.get("rollout").context("a roll-out")?;
    Ok(format!("{POLICY} v{}", output::text(rollout, version)))
}

fn leaves_after(client: &Client, after: Option<u64>) -> Result<Vec<Leaf>> {
    let query = after.map(|after| format!("after={after}&")).unwrap_or_default();
    client.get(&format!("/v1/audit?{query}limit=1000")).map(|Leaves { leaves }| leaves)
}

/// The audit trail's last leaf.
fn last_leaf(client: &Client) -> Result<u64> {
    let mut last = None;
    loop {
        match leaves_after(client, last)?.last() {
            Some(leaf) => last = Some(leaf.index),
            None => return last.context("an audit trail"),
        }
    }
}

/// How many results were recorded after a leaf, and what there was of devices that fell.
fn results_since(client: &Client, after: u64) -> Result<(usize, Vec<Leaf>)> {
    let leaves = leaves_after(client, Some(after))?.into_iter();
    let is_good = |leaf: &Leaf| leaf.detail.get("tier").and_then(Value::as_str) == Some("affirming");
    let of_devices = leaves.filter(|leaf| FATE.contains(&leaf.kind.as_str()));
    let (good, fallen): (Vec<Leaf>, Vec<Leaf>) = of_devices.partition(is_good);
    Ok((good.len(), fallen))
}

const POLICY: &str = "edge-base";
const KERNEL: &str = "6.12.10-amd64";
/// What the audit trail says of devices that rise or fall.
const FATE: [&str; 3] = ["device.appraised", "device.expired", "device.revoked"];
