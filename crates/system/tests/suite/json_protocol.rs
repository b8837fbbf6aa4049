//! The JSON protocol through gateway and server, spoken by Python's standard library and signed by openssl.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::stage::Stage;

fn openssl(stage: &Stage, line: &str) -> Result<Vec<u8>> {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(stage.folder.path()).output()?;
    ensure!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_python_is_served_at_the_gateway_byte_for_byte() -> Result<()> {
    let stage = Stage::start_with("[json_protocol]").await?;
    let edge = stage.edge().await?;
    let (device, _attachment) = stage.trusted(&edge, "press-1").await?;
    stage.trust(&[&device], "[location]\nallow_subdivisions = [\"US-CA\"]").await?;
    openssl(&stage, "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem")?;
    let spki = openssl(&stage, "pkey -in key.pem -pubout -outform DER")?;
    let key = json!({ "device": "press-1", "key": BASE64.encode(&spki) });
    stage.console()?.post("/v1/telemetry-keys", &key).await?;
    let said = agent(&stage)?;
    let refused = |name: &str, status: u16, error: &str| format!("{name} {status} {{'error': '{error}'}}");
    let success = "200 success Metrics received and verified successfully True";
    let expected = [
        format!("sha256 {success}"),
        format!("sha384 {success}"),
        format!("sha512 {success}"),
        refused("altered", 400, "Signature verification failed"),
        refused("again", 400, "Invalid or expired nonce"),
        refused("elsewhere", 400, "Geographic region verification failed"),
        refused("type", 400, "Content-Type must be application/json"),
        refused("empty", 400, "No payload provided"),
        refused("nothing", 404, "Endpoint not found"),
        "/health 200 collector_connected service status timestamp version".to_owned(),
        "/metrics/status 200 active_nonces service timestamp tpm2_available version".to_owned(),
    ];
    for (found, expected) in said.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    let [.., status, limits] = said.as_slice() else { anyhow::bail!("{said:?}") };
    for member in ["active_clients", "collector_url", "rate_limit", "service", "timestamp", "version"] {
        ensure!(status.split(' ').any(|found| found == member), "{member}: {status}");
    }
    for member in ["client_ip", "rate_limit", "remaining_requests", "requests_in_window", "window_seconds"] {
        ensure!(limits.split(' ').any(|found| found == member), "{member}: {limits}");
    }
    let records = stage.console()?.get("/v1/telemetry?device=press-1").await?;
    let records = records.get("records").and_then(Value::as_array).context("records")?.clone();
    let accepted = records.iter().filter(|record| record.get("accepted") == Some(&Value::Bool(true)));
    assert_eq!(accepted.count(), 3);
    Ok(())
}

/// What the agent says, a line each.
fn agent(stage: &Stage) -> Result<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/json_agent.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(format!("https://{}", stage.gateway()?.door.address)).arg(stage.at("key.pem"));
    let output = python.output().context("python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}
