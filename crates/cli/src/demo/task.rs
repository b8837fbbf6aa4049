//! Tasks in the demo: one that runs and is verified offline, one that may not run anywhere, and one whose device falls.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use assay_wire::console::task::{Attempt, Task};
use serde::de::IgnoredAny;
use serde_json::json;

use super::process::until;
use super::stage::Stage;
use crate::console::Client;

/// A task that is known, on an attested device, and its result held against all that it says.
pub fn verified(stage: &Stage) -> Result<String> {
    let module = written(stage, "echo.wasm", ECHO)?;
    let input = written(stage, "input.txt", b"what only this task reads")?;
    let data = stage.data().to_string_lossy().into_owned();
    let measurement = stage.command(&["task", "measure", &module])?;
    let measurement = measurement.trim();
    let submitted = stage.command(&[
        "task",
        "submit",
        &module,
        "--input",
        &input,
        "--level",
        "confidential",
        "--expect",
        measurement,
        "--wait",
        "20",
        "--json",
        "--data",
        &data,
    ])?;
    let task: Task = serde_json::from_str(&submitted).context("what the command line printed")?;
    let result = stage.file("result.json");
    let shown = result.to_string_lossy().into_owned();
    stage.command(&["task", "result", &task.id, "--json", "--out", &shown, "--data", &data])?;
    let bundle = stage.data().join("bundle.pem").to_string_lossy().into_owned();
    let verify = ["task", "verify", &shown, "--bundle", &bundle, "--image", &module, "--input", &input];
    let said = stage.command(&[&verify[..], &["--expect", measurement]].concat())?;
    // Whoever exchanges a byte of the output is found out.
    let text = std::fs::read_to_string(&result).context("the result")?;
    let output = serde_json::from_str::<serde_json::Value>(&text)?;
    let output = output.get("output").and_then(serde_json::Value::as_str).context("output")?.to_owned();
    let forged = written(stage, "forged.json", text.replace(&output, "Zm9yZ2Vk").as_bytes())?;
    ensure!(
        stage.command(&["task", "verify", &forged, "--bundle", &bundle]).is_err(),
        "a forged result holds"
    );
    let first = said.lines().next().unwrap_or_default();
    Ok(format!("{}; a forged output is refused", first.split(" on ").next().unwrap_or_default()))
}

/// A task for hardware that nobody here has.
pub fn refused(stage: &Stage) -> Result<String> {
    let module = written(stage, "echo.wasm", ECHO)?;
    let data = stage.data().to_string_lossy().into_owned();
    let measurement = stage.command(&["task", "measure", &module])?;
    let level =
        ["task", "submit", &module, "--level", "secret", "--expect", measurement.trim(), "--data", &data];
    let refused = stage.command(&level).err().context("a secret task was taken")?.to_string();
    ensure!(refused.contains("the device showed no evidence"), "{refused}");
    Ok(refused.rsplit("assay: ").next().unwrap_or_default().to_owned())
}

/// A task that never ends, on a device that is about to fall.
pub fn begun(stage: &Stage, client: &Client, device: &str) -> Result<String> {
    let task = json!({
        "name": "endless", "image": data_encoding::BASE64.encode(FOREVER), "level": "public", "require_attestation": true,
        "timeout_seconds": 600, "memory_mb": 16,
    });
    let task: Task = client.post("/v1/tasks", &task)?;
    let placed = until(PLACED_WITHIN, || {
        let task = shown(client, &task.id)?;
        Ok((task.status == "placed").then_some(task))
    })?;
    let at = name_of(stage, client, &placed)?;
    ensure!(at == device, "it was placed on {at}, which has less room than {device}");
    Ok(placed.id)
}

/// Waits until it is somewhere else; where.
pub fn moved(stage: &Stage, client: &Client, id: &str, within: Duration) -> Result<String> {
    let task = until(within, || {
        let task = shown(client, id)?;
        Ok((task.status == "placed" && task.attempts > 1).then_some(task))
    })?;
    let taken = task.history.first().map(|first: &Attempt| first.reason.clone()).unwrap_or_default();
    let at = name_of(stage, client, &task)?;
    client
        .post::<IgnoredAny>(&format!("/v1/tasks/{id}/cancel"), &json!({ "reason": "the story goes on" }))?;
    Ok(format!("{taken}; attempt {} is on {at}", task.attempts))
}

fn shown(client: &Client, id: &str) -> Result<Task> {
    client.get(&format!("/v1/tasks/{id}"))
}

fn name_of(stage: &Stage, client: &Client, task: &Task) -> Result<String> {
    let device = &task.history.last().context("no attempt")?.device;
    for known in &stage.devices {
        if super::story::standing(client, known.name)?.id == *device {
            return Ok(known.name.to_owned());
        }
    }
    anyhow::bail!("{device} is none of the demo's")
}

fn written(stage: &Stage, name: &str, content: &[u8]) -> Result<String> {
    let path: PathBuf = stage.file(name);
    std::fs::write(&path, content).with_context(|| path.display().to_string())?;
    Ok(path.to_string_lossy().into_owned())
}

const PLACED_WITHIN: Duration = Duration::from_secs(10);
/// Reads up to 64 bytes and writes them out again: `echo.wat`.
const ECHO: &[u8] = include_bytes!("echo.wasm");
/// Never ends: `forever.wat`.
const FOREVER: &[u8] = include_bytes!("forever.wasm");

#[cfg(test)]
mod tests {
    /// What is in the program is what its source says.
    #[test]
    fn the_modules_are_those_of_their_sources() {
        for (module, source) in
            [(super::ECHO, include_str!("echo.wat")), (super::FOREVER, include_str!("forever.wat"))]
        {
            assert_eq!(wat::parse_str(source).unwrap(), module);
        }
    }
}
