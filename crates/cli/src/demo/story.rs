//! The demo's story, step by step: what is done, and what must be seen for the step to hold.
//!
//! Everything is looked at from outside, as an operator or a workload sees it: the console's answers, the CRL, the
//! Workload API stream, TLS handshakes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_identity::{Crl, Serial};
use assay_wire::console::device::{Approved, Device as Standing, Devices, Explanation};
use assay_wire::console::policy::Citation;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::message::{self, Signed};
use super::process::until;
use super::report::Report;
use super::secret;
use super::stage::{Device, Region, Stage, TRUST_DOMAIN};
use super::{task, update};
use crate::console::{Client, segment};
use crate::output;

/// Tells it all; the report has what happened even when this fails.
pub fn tell(stage: &mut Stage, report: &mut Report) -> Result<()> {
    set_up(stage, report)?;
    let client = stage.client()?;
    trusted_fleet(stage, report, &client)?;
    let kept = message::sign(stage, VICTIM)?;
    let serials = serials_of(&client, VICTIM)?;
    let endless = task::begun(stage, &client, VICTIM)?;
    compromise(stage, report, &client, &serials, &endless)?;
    unheard(stage, report, &client, &kept)?;
    recovery(stage, report, &client)?;
    update::tell(stage, report, &client)?;
    ledger(stage, report)
}

fn set_up(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.chapter("Set-up: real TPMs, a server, a gateway, a policy");
    report.step("tpm", "three software TPMs with EK certificates, three booted machines", || {
        stage.boot_device(WITNESS, FRANKFURT)?;
        stage.boot_device(VICTIM, PARIS)?;
        stage.boot_device(ABROAD, AUSTIN)?;
        Ok((
            (),
            "three swtpm processes, each with an RSA-2048 EK certificate; logs match their PCRs".to_owned(),
        ))
    })?;
    report.step("server", "own root and issuing CA, SQLite, console", || {
        let address = stage.start_server()?;
        Ok(((), format!("console at https://{address}, trust domain {TRUST_DOMAIN}")))
    })?;
    report.step("gateway", "credentials from the server, TLS 1.3 in front", || {
        let address = stage.start_gateway()?;
        Ok(((), format!("at {address}")))
    })?;
    report.step("policy", "learned from the first device's evidence, then set", || {
        let policy = stage.learn_policy()?;
        geofence(&policy)?;
        let data = stage.data().to_string_lossy().into_owned();
        let printed = stage.command(&["policy", "set", &policy.to_string_lossy(), "--data", &data])?;
        Ok(((), format!("{}; telemetry from DE and FR only", printed.trim())))
    })
}

fn trusted_fleet(stage: &mut Stage, report: &mut Report, client: &Client) -> Result<()> {
    report.chapter("Trust: evidence becomes grants");
    attested(stage, report, client)?;
    with_identities(stage, report, client)?;
    with_a_voice(report, client)?;
    report.step("message", "a program speaks for its device, signed by the TPM", || {
        let signed = message::sign(stage, VICTIM)?;
        Ok(((), message::heard_once(client, &signed)?))
    })?;
    report.step("secret", "put in for every device, sealed to the TPM of each", || {
        Ok(((), secret::put(stage, client, &FLEET, TRUST_WITHIN)?))
    })?;
    report.step("task", "WebAssembly on an attested device, its result verified offline", || {
        Ok(((), task::verified(stage)?))
    })?;
    report.step("task-secret", "a task that wants hardware which hides its memory", || {
        Ok(((), task::refused(stage)?))
    })
}

fn attested(stage: &mut Stage, report: &mut Report, client: &Client) -> Result<()> {
    report.step("enroll", "EK certificate, credential activation, certified device key", || {
        stage.start_agents()?;
        let devices = until(TRUST_WITHIN, || {
            stage.alive()?;
            let Devices { devices, .. } = client.get("/v1/devices")?;
            Ok((devices.len() == stage.devices.len()).then_some(devices))
        })?;
        let names: Vec<String> = devices.into_iter().map(|device| device.name).collect();
        Ok(((), format!("{} through the gateway", names.join(", "))))
    })?;
    report.step("attest", "quote, boot log and IMA list, replayed and appraised", || {
        for device in &stage.devices {
            wait_for_status(client, device.name, "trusted")?;
        }
        let Standing { tier, policy, .. } = standing(client, WITNESS)?;
        Ok(((), format!("three times {tier}, policy {}", output::maybe(&policy))))
    })
}

fn with_identities(stage: &mut Stage, report: &mut Report, client: &Client) -> Result<()> {
    report.step("device-svid", "for a key that lives in the TPM", || {
        let mut serials = Vec::new();
        for device in &stage.devices {
            serials.extend(until(TRUST_WITHIN, || {
                let serials = serials_of(client, device.name)?;
                Ok((!serials.is_empty()).then_some(serials))
            })?);
        }
        Ok(((), format!("{} SVIDs for keys certified by their AK as fixedTPM", serials.len())))
    })?;
    report.step("workload-svid", "a registration entry, the Workload API, an X.509-SVID", || {
        for device in &stage.devices {
            let parent = standing(client, device.name)?.id;
            let entry = json!({
                "spiffe_id": workload_id(device.name), "parent": parent, "ttl_seconds": 3600,
                "selectors": [{ "type": "unix", "value": format!("uid:{}", rustix::process::getuid().as_raw()) }],
                "dns_names": [], "speaks_for_node": true,
            });
            client.post::<IgnoredAny>("/v1/entries", &entry)?;
        }
        stage.start_workloads()?;
        for device in &mut stage.devices {
            let name = device.name;
            let (_, said) = workload(device)?.hear(&["svid"], TRUST_WITHIN)?;
            ensure!(output::text(&said, "spiffe_id") == workload_id(name), "{name} has {said}");
        }
        Ok(((), format!("{} and two more", workload_id(WITNESS))))
    })?;
    report.step("mtls", "a workload calls a workload on another device", || {
        let peer = call(stage, VICTIM, WITNESS)?.map_err(anyhow::Error::msg)?;
        Ok(((), format!("{} ⇄ {peer}", workload_id(VICTIM))))
    })
}

fn with_a_voice(report: &mut Report, client: &Client) -> Result<()> {
    report.step("telemetry", "host metrics, one TPM signature a batch", || {
        let mut batches = 0;
        for name in [WITNESS, VICTIM] {
            batches += until(TRUST_WITHIN, || {
                accepted_batches(client, name).map(|count| (count > 0).then_some(count))
            })?;
        }
        Ok(((), format!("{batches} batches from Frankfurt and Paris verified, inside, stored")))
    })?;
    report.step("geofence-refused", "a device that is configured elsewhere", || {
        let reason = until(TRUST_WITHIN, || refusal(client, ABROAD))?;
        ensure!(accepted_batches(client, ABROAD)? == 0, "a batch from outside was accepted");
        Ok(((), format!("{ABROAD}: {reason}")))
    })
}

fn compromise(
    stage: &mut Stage,
    report: &mut Report,
    client: &Client,
    serials: &[String],
    endless: &str,
) -> Result<()> {
    report.chapter("Compromise: the proof fails, every grant falls");
    let measured = Instant::now();
    let outcome = (|| {
        victim(stage)?.machine.run_program(IMPLANT, IMPLANT_CODE)?;
        let message = until(WITHDRAW_WITHIN, || finding_about(client, VICTIM, IMPLANT))?;
        let status = wait_for_status(client, VICTIM, "suspect")?;
        Ok(((), format!("{}: {message}", status.tier)))
    })();
    report.record("compromise", measured.elapsed(), outcome)?;
    // Times are told from the measurement on; the promise is a second from the result on.
    let judged = Instant::now();
    let left = || WITHDRAW_WITHIN.saturating_sub(judged.elapsed());

    let stream = workload(victim(stage)?)?.hear(&["gone"], left());
    let gone_at = stream.as_ref().map_or_else(|_| Instant::now(), |(at, _)| *at);
    let outcome =
        stream.map(|(_, said)| ((), format!("its stream ended with {}", output::text(&said, "reason"))));
    report.record("withdraw-svid", gone_at.saturating_duration_since(measured), outcome)?;

    let outcome = until(left(), || {
        let crl = Crl::parse(&client.bytes("/crl")?)?;
        let listed = serials
            .iter()
            .filter_map(|hex| Serial::from_hex(hex))
            .filter(|serial| crl.revokes(serial))
            .count();
        Ok((listed == serials.len()).then_some(((), format!("{listed} of {listed} serials on the CRL"))))
    });
    report.record("withdraw-crl", measured.elapsed(), outcome)?;

    let outcome = until(left(), || match call(stage, VICTIM, WITNESS)? {
        Ok(peer) => Err(anyhow::anyhow!("{peer} still answers")),
        Err(reason) => Ok(Some(((), format!("its key is still there, and refused: {reason}")))),
    });
    report.record("withdraw-mtls", measured.elapsed(), outcome)?;

    let outcome = task::moved(stage, client, endless, left()).map(|told| ((), told));
    report.record("withdraw-task", measured.elapsed(), outcome)?;

    let outcome = until(left(), || refusal(client, VICTIM)).map(|reason| ((), reason));
    report.record("withdraw-telemetry", measured.elapsed(), outcome)?;

    let outcome = until(left(), || Ok((!secret::has(stage, VICTIM)?).then_some(())));
    let outcome = outcome.map(|()| ((), "the file is gone from its memory".to_owned()));
    report.record("withdraw-secret", measured.elapsed(), outcome)?;

    let is_it = |event: &Value| {
        let says = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        says("/severity") == "critical" && says("/data/device") == VICTIM
    };
    let told = until(left(), || Ok(stage.receiver.heard(measured, is_it)));
    let told_at = told.as_ref().map_or_else(|_| Instant::now(), |(at, _)| *at);
    let outcome =
        told.map(|(_, event)| ((), format!("a signed notice: {} of {VICTIM}", output::text(&event, "type"))));
    report.record("notice", told_at.saturating_duration_since(measured), outcome)?;

    report.step("others-untouched", "the other two devices", || {
        for name in [WITNESS, ABROAD] {
            let Standing { status, .. } = standing(client, name)?;
            ensure!(status == "trusted", "{name} is {status}");
            ensure!(secret::has(stage, name)?, "{name} lost its secret");
        }
        let peer = call(stage, ABROAD, WITNESS)?.map_err(anyhow::Error::msg)?;
        Ok(((), format!("trusted; {} ⇄ {peer}", workload_id(ABROAD))))
    })
}

/// What was signed before the fall and sent after it, and that nothing is signed any more.
fn unheard(stage: &mut Stage, report: &mut Report, client: &Client, kept: &Signed) -> Result<()> {
    report.step("withdraw-message", "a message from before, and another", || {
        let Err(refused) = message::send(client, kept)? else {
            anyhow::bail!("a message of a fallen device is heard")
        };
        let Err(unsigned) = message::sign(stage, VICTIM) else {
            anyhow::bail!("the agent of a fallen device signs")
        };
        let unsigned = unsigned.to_string();
        let unsigned = unsigned.rsplit("assay-agent: ").next().unwrap_or_default();
        Ok(((), format!("kept from before: {refused}; another is not signed: {unsigned}")))
    })
}

fn recovery(stage: &mut Stage, report: &mut Report, client: &Client) -> Result<()> {
    report.chapter("Recovery: the program is approved, the device comes back by itself");
    report.step("recover", "the file goes into the policy; fresh evidence is good", || {
        let shown = client.get(&device_path(VICTIM, ""))?;
        let approval = crate::device::approval(&shown, (&[IMPLANT.to_owned()], false))?;
        let Approved { policy, .. } = client.post(&device_path(VICTIM, "/approve"), &approval)?;
        wait_for_status(client, VICTIM, "trusted")?;
        workload(victim(stage)?)?.hear(&["svid"], TRUST_WITHIN)?;
        let peer = until(TRUST_WITHIN, || Ok(call(stage, VICTIM, WITNESS)?.ok()))?;
        let Citation { name, version } = policy.context("a policy that takes the file in")?;
        until(TRUST_WITHIN, || secret::has(stage, VICTIM).map(|has| has.then_some(())))?;
        let victim = workload_id(VICTIM);
        Ok(((), format!("policy {name} version {version}; new SVID, {victim} ⇄ {peer}; its secret is back")))
    })?;
    Ok(())
}

fn ledger(stage: &Stage, report: &mut Report) -> Result<()> {
    report.chapter("The record");
    report.step("ledger", "every step is a leaf of the audit trail", || {
        let data = stage.data().to_string_lossy().into_owned();
        let database = stage.database.as_ref().map(|url| ["--database", url.as_given()]);
        let verify = ["ledger", "verify", "--data", &data];
        let printed =
            stage.command(&[&verify[..], database.as_ref().map_or(&[], |given| &given[..])].concat())?;
        Ok(((), printed.trim().to_owned()))
    })
}

/// Adds to a learned policy where telemetry may come from.
pub(super) fn geofence(policy: &Path) -> Result<()> {
    let text = std::fs::read_to_string(policy)?;
    Ok(std::fs::write(policy, format!("{text}\n[location]\nallow_countries = [\"DE\", \"FR\"]\n"))?)
}

/// The workload on `from` calls the one on `to`: who answered, or why not.
fn call(stage: &mut Stage, from: &str, to: &str) -> Result<std::result::Result<String, String>> {
    let address = device(stage, to)?.workload_address.clone().context("no workload")?;
    let caller = workload(device(stage, from)?)?;
    caller.say(&json!({ "connect": address }))?;
    let (_, said) = caller.hear(&["connected", "refused"], CALL_WITHIN)?;
    Ok(match said.get("peer").and_then(Value::as_str) {
        Some(peer) => Ok(peer.to_owned()),
        None => Err(output::text(&said, "error")),
    })
}

fn device<'a>(stage: &'a mut Stage, name: &str) -> Result<&'a mut Device> {
    stage.devices.iter_mut().find(|device| device.name == name).with_context(|| format!("no device {name}"))
}

fn victim(stage: &mut Stage) -> Result<&mut Device> {
    device(stage, VICTIM)
}

fn workload(device: &mut Device) -> Result<&mut super::process::Talking> {
    device.workload.as_mut().context("its workload is not running")
}

pub(super) fn device_path(name: &str, rest: &str) -> String {
    format!("/v1/devices/{}{rest}", segment(name))
}

fn workload_id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/workload/{name}")
}

/// How a device stands.
pub(super) fn standing(client: &Client, name: &str) -> Result<Standing> {
    client.get(&device_path(name, "")).map(|Explanation { device, .. }| device)
}

fn wait_for_status(client: &Client, name: &str, status: &str) -> Result<Standing> {
    until(TRUST_WITHIN, || {
        let device = standing(client, name)?;
        ensure!(device.status == status, "{name} is {}, not {status}: {}", device.status, device.reason);
        Ok(Some(device))
    })
}

/// Serials of the grants a device holds now.
fn serials_of(client: &Client, name: &str) -> Result<Vec<String>> {
    let Explanation { grants, .. } = client.get(&device_path(name, "/explain"))?;
    let held = grants.into_iter().filter(|grant| grant.withdrawn_at.is_none());
    Ok(held.map(|grant| grant.serial).collect())
}

fn finding_about(client: &Client, name: &str, what: &str) -> Result<Option<String>> {
    let Explanation { findings, .. } = client.get(&device_path(name, "/explain"))?;
    let mut messages = findings.into_iter().map(|finding| output::shown(&finding.message));
    Ok(messages.find(|message| message.contains(what)))
}

fn accepted_batches(client: &Client, name: &str) -> Result<usize> {
    let answer: Value = client.get(&format!("/v1/telemetry?device={}", segment(name)))?;
    let records = output::list(&answer, "records").iter();
    Ok(records.filter(|record| record.get("accepted").and_then(Value::as_bool) == Some(true)).count())
}

/// The reason of the last batch, if that was refused.
fn refusal(client: &Client, name: &str) -> Result<Option<String>> {
    let answer: Value = client.get(&format!("/v1/telemetry?device={}", segment(name)))?;
    let last = output::list(&answer, "records").first();
    let refused = last.filter(|record| record.get("accepted").and_then(Value::as_bool) == Some(false));
    Ok(refused.map(|record| output::text(record, "reason")))
}

const WITNESS: &str = "edge-frankfurt";
const VICTIM: &str = "edge-paris";
const ABROAD: &str = "edge-austin";
/// Every device there is.
pub(super) const FLEET: [&str; 3] = [WITNESS, VICTIM, ABROAD];

const FRANKFURT: Region = Region { country: "DE", subdivision: "DE-HE", city: "Frankfurt" };
const PARIS: Region = Region { country: "FR", subdivision: "FR-IDF", city: "Paris" };
const AUSTIN: Region = Region { country: "US", subdivision: "US-TX", city: "Austin" };

const IMPLANT: &str = "/opt/implant";
const IMPLANT_CODE: &[u8] = b"#!/bin/sh\n# not in any policy\n";

pub(super) const TRUST_WITHIN: Duration = Duration::from_secs(20);
const WITHDRAW_WITHIN: Duration = Duration::from_secs(1);
const CALL_WITHIN: Duration = Duration::from_secs(5);
