//! A message that a program on a device says to another program, here the server: signed by the TPM, through the agent.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::stage::Stage;
use crate::console::Client;
use crate::output;

/// The headers that go with the request.
#[derive(Clone, Debug, Deserialize)]
pub struct Signed {
    /// The device's number.
    pub from_node: u32,
    headers: BTreeMap<String, String>,
}

/// Has the agent of a device sign, as any program of it may that an entry lets speak.
pub fn sign(stage: &Stage, name: &str) -> Result<Signed> {
    let device = stage.devices.iter().find(|device| device.name == name).context("no such device")?;
    let body = device.file("message.json");
    std::fs::write(&body, BODY).with_context(|| body.display().to_string())?;
    let socket = format!("unix://{}", device.socket().display());
    let said = stage.agent_command(&[
        "sign-message",
        "--json",
        "--socket",
        &socket,
        "--audience",
        AUDIENCE,
        "--path",
        PATH,
        "--body",
        &body.to_string_lossy(),
    ])?;
    serde_json::from_str(&said).context("what the agent printed")
}

/// Sends a message: what it says, or why it is not heard.
pub fn send(client: &Client, signed: &Signed) -> Result<std::result::Result<String, String>> {
    let headers = signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let (status, answer) = client.post_signed(PATH, headers.collect(), BODY.as_bytes())?;
    match status {
        200 => Ok(Ok(answer.get("data").map(Value::to_string).unwrap_or_default())),
        401 => Ok(Err(format!("{}: {}", output::text(&answer, "error"), output::text(&answer, "detail")))),
        _ => anyhow::bail!("{status} {answer}"),
    }
}

/// One that is heard, and not twice; what is to be shown of it.
pub fn heard_once(client: &Client, signed: &Signed) -> Result<String> {
    let data = send(client, signed)?.map_err(anyhow::Error::msg)?;
    let again = send(client, signed)?;
    ensure!(again.is_err(), "a copy of it is heard as well");
    Ok(format!("node {} says {data}; a copy of it is refused", signed.from_node))
}

const AUDIENCE: &str = "assay";
const PATH: &str = "/secure/data";
const BODY: &str = r#"{"pressure":3}"#;
