//! A secret that a device has for as long as it is trusted, as its programs see it: a file in memory.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use assay_wire::console::secret::Held;

use super::process::until;
use super::stage::Stage;
use crate::console::Client;

/// Puts one in for every device, and waits until these have it; what is to be shown of it.
pub fn put(stage: &Stage, client: &Client, devices: &[&str], within: Duration) -> Result<String> {
    let file = stage.write("db-password", CONTENT)?;
    let data = stage.data().to_string_lossy().into_owned();
    stage.command(&["secret", "put", NAME, "--file", &file, "--everyone", "--data", &data])?;
    std::fs::remove_file(&file)?;
    for name in devices {
        until(within, || has(stage, name).map(|has| has.then_some(())))?;
    }
    let Held { secret, held_by } = client.get(&format!("/v1/secrets/{NAME}"))?;
    // Another's files are not ours to look through.
    if stage.database.is_none() {
        let database = std::fs::read(stage.data().join("assay.db"))?;
        ensure!(!contains(&database, CONTENT.as_bytes()), "the server's database tells the secret");
    }
    Ok(format!(
        "{} version {} is in the memory of {} devices and on no disk",
        secret.name,
        secret.version,
        held_by.len()
    ))
}

/// Whether a program on the device finds it.
pub fn has(stage: &Stage, name: &str) -> Result<bool> {
    let device = stage.devices.iter().find(|device| device.name == name).context("no such device")?;
    read(&device.secrets.join(NAME))
}

fn read(file: &Path) -> Result<bool> {
    match std::fs::read(file) {
        Ok(content) => Ok(content == CONTENT.as_bytes()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

const NAME: &str = "db-password";
const CONTENT: &str = "correct horse battery staple";
