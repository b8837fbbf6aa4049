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
        classic: false,
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

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_a_classic_certificate_verifies_by_openssl_and_falls_with_its_device() -> Result<()> {
    let url = "http://crl.example.org/classic.crl";
    let mut device =
        Device::prepared_with(&format!("[trust_api]\nclassic = true\nclassic_crl_url = {url:?}\n")).await?;
    device.start_agent()?;
    let enrolled = device.is("trusted").await?;
    let socket = format!("unix://{}", device.stage.at("workload.sock").display());
    let entry = json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/press"), "parent": enrolled.get("id"), "speaks_for_node": true,
        "selectors": [{ "type": "unix", "value": format!("uid:{}", rustix::process::getuid().as_raw()) }],
    });
    let console = device.stage.console()?;
    console.post("/v1/entries", &entry).await?;
    let classic = Message { classic: true, ..message() };
    let signed = eventually(90, async || Ok(sign(&socket, &classic).await?)).await?;
    let path = message().path;
    let (status, answer) = console.post_signed(&path, &headers(&signed), BODY).await?;
    ensure!(status == 200 && answer.get("from_node") == Some(&json!(signed.from_node)), "{status} {answer}");
    // Its own certificate is found by the kind of its signature.
    let mut bare = headers(&sign(&socket, &classic).await?);
    bare.retain(|(name, _)| name != "X-Node-Certificate");
    let (status, answer) = console.post_signed(&path, &bare, BODY).await?;
    ensure!(status == 200, "{status} {answer}");
    // And the other key is there beside it.
    let other = sign(&socket, &message()).await?;
    let (status, answer) = console.post_signed(&path, &headers(&other), BODY).await?;
    ensure!(status == 200, "{status} {answer}");

    let folder = device.stage.folder.path().join("classic");
    fetch_classic(&device, &folder, signed.from_node).await?;
    let shown = openssl(&folder, "x509 -in node.pem -noout -text")?;
    let node = format!("node-{}", signed.from_node);
    for wanted in [
        format!("Subject: C = US, ST = CA, O = Sovereign Map, OU = Node, CN = {node}"),
        format!("DNS:{node}, DNS:{node}.sovereign-network"),
        format!("URI:{}", enrolled.get("id").and_then(Value::as_str).context("an id")?),
        "Public-Key: (2048 bit)".to_owned(),
        "TLS Web Server Authentication, TLS Web Client Authentication".to_owned(),
        "X509v3 Authority Key Identifier".to_owned(),
        "X509v3 Subject Key Identifier".to_owned(),
        format!("URI:{url}"),
    ] {
        ensure!(shown.contains(&wanted), "{wanted}: {shown}");
    }
    let verify = "verify -x509_strict -crl_check -CAfile root.pem -CRLfile list.pem node.pem";
    ensure!(openssl(&folder, verify)?.contains("node.pem: OK"), "verify");
    // Nothing of the classic root is an authority of the trust domain.
    ensure!(!console.bytes("/bundle").await?.windows(9).any(|part| part == b"Sovereign"), "the bundle");

    let kept = sign(&socket, &classic).await?;
    device.run("/opt/implant")?;
    device.is("suspect").await?;
    let (status, answer) = console.post_signed(&path, &headers(&kept), BODY).await?;
    ensure!(
        status == 401 && answer.get("error") == Some(&json!("Certificate verification failed")),
        "{answer}"
    );
    fetch_classic(&device, &folder, signed.from_node).await?;
    let refused = openssl(&folder, verify).err().context("openssl believes it")?;
    ensure!(format!("{refused:#}").contains("certificate revoked"), "{refused:#}");

    // With its trust it gets another; the old stays on the list.
    device.stage.console()?.approve("edge").await?;
    device.is("trusted").await?;
    let again = eventually(90, async || Ok(sign(&socket, &classic).await?)).await?;
    ensure!(headers(&again).last() != headers(&kept).last(), "another certificate");
    let (status, answer) = console.post_signed(&path, &headers(&again), BODY).await?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

/// Root, certificate and list as any program gets them, PEM.
pub async fn fetch_classic(device: &Device, folder: &std::path::Path, node: u32) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let console = device.stage.console()?;
    for (file, path) in [
        ("root.pem", "/trust/ca-certificate?profile=classic".to_owned()),
        ("node.pem", format!("/trust/certificate/{node}?profile=classic")),
    ] {
        let answer = console.get(&path).await?;
        let pem = answer.get("certificate").and_then(Value::as_str).context("a certificate")?;
        std::fs::write(folder.join(file), pem)?;
    }
    std::fs::write(folder.join("list.der"), console.bytes("/trust/classic.crl").await?)?;
    openssl(folder, "crl -inform DER -in list.der -out list.pem").map(drop)
}

fn openssl(folder: &std::path::Path, arguments: &str) -> Result<String> {
    let output =
        std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&said));
    Ok(String::from_utf8_lossy(&said).into_owned())
}
