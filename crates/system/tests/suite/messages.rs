//! What a program has signed in its device's name, from the TPM to the server's door, and no longer once the device has fallen.

use anyhow::{Context, Result, ensure};
use assay_agent::sign::{Message, SignError, SignedMessage, sign};
use serde_json::{Value, json};

use crate::agent::Device;
use crate::stage::{TRUST_DOMAIN, eventually};

const BODY: &str = r#"{"speed": 3, "é": "\u00e9"}"#;

fn message() -> Message {
    let text = str::to_owned;
    Message {
        audience: text("assay"),
        method: text("POST"),
        path: text("/secure/data"),
        body: BODY.into(),
        data: None,
    }
}

fn headers(signed: &SignedMessage) -> Vec<(String, String)> {
    let one =
        |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap_or_default().to_owned());
    signed.headers.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_a_program_speaks_for_its_device_until_that_falls() -> Result<()> {
    let mut device = Device::prepared_with("[trust_api]\n").await?;
    device.start_agent()?;
    let enrolled = device.is("trusted").await?;
    let socket = format!("unix://{}", device.stage.at("workload.sock").display());
    let entry = json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/press"), "parent": enrolled.get("id"),
        "selectors": [{ "type": "unix", "value": format!("uid:{}", rustix::process::getuid().as_raw()) }],
    });
    let console = device.stage.console()?;
    let entry = console.post("/v1/entries", &entry).await?;
    let refused = eventually(20, async || match sign(&socket, &message()).await {
        Err(SignError::Refused { status, message }) if status == 403 && message.contains("speak") => Ok(()),
        other => anyhow::bail!("{other:?}"),
    });
    refused.await.context("an entry that says nothing of it")?;

    // Changed, it keeps what it gave.
    let id = entry.get("id").and_then(Value::as_str).context("an id")?;
    let mut changed = json!({ "speaks_for_node": true });
    for member in ["spiffe_id", "parent", "selectors"] {
        changed[member] = entry.get(member).cloned().unwrap_or_default();
    }
    console.put(&format!("/v1/entries/{id}"), &changed.to_string()).await?;
    let signed = eventually(20, async || Ok(sign(&socket, &message()).await?)).await?;
    ensure!(enrolled.get("node") == Some(&json!(signed.from_node)), "{enrolled}");

    let path = message().path;
    let (status, answer) = console.post_signed(&path, &headers(&signed), BODY).await?;
    ensure!(status == 200 && answer.get("data") == Some(&serde_json::from_str(BODY)?), "{status} {answer}");
    let (status, answer) = console.post_signed(&path, &headers(&signed), BODY).await?;
    ensure!(status == 401 && answer.get("reason") == Some(&json!("replayed")), "{status} {answer}");
    for (path, body) in [("/secure/data?line=8", BODY), (path.as_str(), "{}")] {
        let signed = sign(&socket, &message()).await?;
        let (status, answer) = console.post_signed(path, &headers(&signed), body).await?;
        ensure!(status == 401 && answer.get("reason") == Some(&json!("message")), "{status} {answer}");
    }

    // Signed while it was trusted, sent after the fall.
    let kept = sign(&socket, &message()).await?;
    device.run("/opt/implant")?;
    device.is("suspect").await?;
    let (status, answer) = console.post_signed(&path, &headers(&kept), BODY).await?;
    ensure!(
        status == 401 && answer.get("error") == Some(&json!("Certificate verification failed")),
        "{answer}"
    );
    let refused = eventually(10, async || match sign(&socket, &message()).await {
        Err(error) if error.is_no() => Ok(error.to_string()),
        other => anyhow::bail!("{other:?}"),
    });
    ensure!(refused.await?.contains("not trusted"), "why");
    Ok(())
}
