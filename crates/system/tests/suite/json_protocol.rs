//! The JSON protocol through gateway and server, spoken by Python's standard library and signed by openssl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::agent::Device;
use crate::stage::{Stage, eventually};

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

/// A request to a door of the agent: status and body.
fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

/// Adds the protocol to the agent's configuration, starts it, and says where the door is.
async fn started(device: &mut Device, section: &str) -> Result<String> {
    let file = device.stage.at("agent.toml");
    let text = std::fs::read_to_string(&file)?;
    let text = text.split("[json_protocol]").next().unwrap_or_default().to_owned();
    std::fs::write(file, format!("{text}[json_protocol]\nlisten = \"127.0.0.1:0\"\n{section}\n"))?;
    let _ = std::fs::remove_file(device.stage.at("agent/addresses.json"));
    device.start_agent()?;
    let addresses = device.stage.at("agent/addresses.json");
    let address = eventually(20, async || {
        let addresses: Value = serde_json::from_slice(&std::fs::read(&addresses)?)?;
        addresses.get("json_protocol").and_then(Value::as_str).map(str::to_owned).context("the door")
    });
    let address = address.await?;
    device.is("trusted").await?;
    Ok(address)
}

fn generated(address: &str, body: &str) -> Result<String> {
    let (status, body) = ask(address, "POST", "/metrics/generate", body)?;
    ensure!(status == 200, "{status} {body}");
    ensure!(
        body.get("message") == Some(&json!("Metrics generated, signed, and sent successfully")),
        "{body}"
    );
    let payload_id = body.get("payload_id").and_then(Value::as_str).context("payload_id")?.to_owned();
    ensure!(
        payload_id.len() == 16 && payload_id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{payload_id}"
    );
    Ok(payload_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_what_the_agent_is_asked_to_measure_arrives_by_either_way() -> Result<()> {
    let mut device = Device::prepared_with("[json_protocol]").await?;
    let gateway = device.stage.gateway()?.door.address.clone();
    let section = format!("collector = \"https://{gateway}\"\ndangerous_unverified_collector = true");
    let address = started(&mut device, &section).await?;
    let pem = device.stage.at("agent/telemetry-key.pem");
    eventually(10, async || Ok(std::fs::metadata(&pem).map(drop)?)).await?;
    let spki = openssl(&device.stage, "pkey -pubin -in agent/telemetry-key.pem -outform DER")?;
    let (status, refused) = ask(&address, "POST", "/metrics/generate", "{}")?;
    ensure!(status == 500 && refused.get("status") == Some(&json!("error")), "{status} {refused}");
    let key = json!({ "device": "edge", "key": BASE64.encode(&spki) });
    device.stage.console()?.post("/v1/telemetry-keys", &key).await?;
    generated(&address, "{}")?;
    generated(&address, r#"{"metric_type": "application", "custom_data": {"n": [1, 1e-05, "é"]}}"#)?;
    let bad = ask(&address, "POST", "/metrics/generate", r#"{"metric_type": "other"}"#)?;
    assert_eq!(bad, (400, json!({ "error": "Invalid metric_type" })));
    assert_eq!(ask(&address, "POST", "/metrics/generate", "{")?.0, 500);
    assert_eq!(ask(&address, "GET", "/nothing", "")?, (404, json!({ "error": "Endpoint not found" })));
    assert_eq!(ask(&address, "GET", "/health", "")?.1.get("status"), Some(&json!("healthy")));
    let leaves = device.stage.console()?.get("/v1/audit?limit=1000").await?;
    let leaves = leaves.get("leaves").and_then(Value::as_array).context("leaves")?.clone();
    ensure!(leaves.iter().any(|leaf| leaf.pointer("/detail/protocol") == Some(&json!("json"))), "{leaves:?}");

    // Without a collector it goes with all that is signed.
    device.agent.take().context("the agent")?.kill()?;
    let address = started(&mut device, "service_name = \"of-the-press\"").await?;
    generated(&address, r#"{"custom_data": {"pressure": 7}}"#)?;
    eventually(30, async || {
        let records = device.stage.console()?.get("/v1/telemetry?device=edge").await?;
        for record in records.get("records").and_then(Value::as_array).context("records")? {
            let number = |name: &str| record.get(name).and_then(Value::as_u64).unwrap_or_default();
            let path = format!("/v1/telemetry/{}/{}", number("leaf"), number("sequence"));
            let batch = device.stage.console()?.get(&path).await?;
            let payload = batch.get("payload").and_then(Value::as_str).unwrap_or_default();
            let payload = BASE64.decode(payload.as_bytes())?;
            let has = |text: &str| payload.windows(text.len()).any(|window| window == text.as_bytes());
            if has("custom_data.pressure") && has("cpu_percent") && has("of-the-press") {
                return Ok(());
            }
        }
        anyhow::bail!("not there yet")
    })
    .await
}

/// The original's sources, and a Python that has what they need, where somebody named them.
fn original() -> Option<(PathBuf, PathBuf)> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let found = named("ASSAY_EDGE_AI").zip(named("ASSAY_EDGE_AI_PYTHON"));
    if found.is_none() {
        eprintln!(
            "left out: the original's services; ASSAY_EDGE_AI names their folder, ASSAY_EDGE_AI_PYTHON a Python"
        );
    }
    found
}

/// A service of the original in a copy of its folder, ended when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn shell(folder: &Path, environment: &[(&str, String)], script: &str) -> Result<()> {
    let mut shell = Command::new("bash");
    shell
        .args(["-euc", script])
        .current_dir(folder)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    let output = shell.output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_an_agent_of_the_original_sends_to_our_gateway() -> Result<()> {
    let Some((sources, python)) = original() else { return Ok(()) };
    let stage = Stage::start_with("[json_protocol]\ndangerous_compatibility = [\"unbound-nonce\"]").await?;
    let edge = stage.edge().await?;
    let (device, _attachment) = stage.trusted(&edge, "press-1").await?;
    stage.trust(&[&device], "[location]\nallow_cities = [\"US-CA/Santa Clara\"]").await?;
    let folder = stage.folder.path();
    shell(folder, &[], &format!("cp -r {} original && mkdir tpm", sources.display()))?;
    let (tpm, port) = (free_port()?, free_port()?);
    let mut swtpm = Command::new("swtpm");
    swtpm.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate", "dir=tpm"]);
    swtpm.args([
        "--server",
        &format!("type=tcp,port={tpm}"),
        "--ctrl",
        &format!("type=tcp,port={}", tpm + 1),
    ]);
    let _swtpm = Service(swtpm.current_dir(folder).spawn()?);
    let tcti = [("TPM2TOOLS_TCTI", format!("swtpm:host=127.0.0.1,port={tpm}"))];
    let provision = "cd original; tpm2_createprimary -Q -C o -G rsa -c primary.ctx; tpm2_create -Q -C primary.ctx -G rsa -u app.pub \
                     -r app.priv; tpm2_flushcontext -t; tpm2_load -Q -C primary.ctx -u app.pub -r app.priv -c app.ctx; \
                     tpm2_readpublic -Q -c app.ctx -f pem -o appsk_pubkey.pem; tpm2_flushcontext -t";
    eventually(10, async || shell(folder, &tcti, provision)).await?;
    let spki = openssl(&stage, "pkey -pubin -in original/appsk_pubkey.pem -outform DER")?;
    let key = json!({ "device": "press-1", "key": BASE64.encode(&spki) });
    stage.console()?.post("/v1/telemetry-keys", &key).await?;
    let gateway = stage.gateway()?.door.address.clone();
    let (host, gateway_port) = gateway.split_once(':').context("an address")?;
    let mut agent = Command::new(python);
    agent.arg("agent/app.py").current_dir(stage.at("original")).envs(tcti);
    agent.envs([
        ("HOST", "127.0.0.1"),
        ("SSL_ENABLED", "false"),
        ("GATEWAY_HOST", host),
        ("GATEWAY_PORT", gateway_port),
    ]);
    // Its client takes these before its own word that it verifies nobody.
    agent.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
    let _agent =
        Service(agent.env("PORT", port.to_string()).stderr(Stdio::null()).stdout(Stdio::null()).spawn()?);
    let address = format!("127.0.0.1:{port}");
    eventually(30, async || ask(&address, "GET", "/health", "").map(drop)).await?;
    for body in [
        "{}",
        r#"{"metric_type": "application", "custom_data": {"é": 1e16, "n": 123456789012345678901234567890}}"#,
    ] {
        generated(&address, body)?;
    }
    let records = stage.console()?.get("/v1/telemetry?device=press-1").await?;
    assert_eq!(records.get("records").and_then(Value::as_array).map(Vec::len), Some(2), "{records}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_our_agent_sends_to_a_collector_of_the_original() -> Result<()> {
    let Some((sources, python)) = original() else { return Ok(()) };
    let mut device = Device::prepared().await?;
    let port = free_port()?;
    let section = format!(
        "collector = \"https://127.0.0.1:{port}\"\ndangerous_unverified_collector = true\ngeographic_region = \"US\"\n\
         geographic_state = \"California\"\ngeographic_city = \"Santa Clara\""
    );
    let address = started(&mut device, &section).await?;
    let folder = device.stage.folder.path().to_owned();
    let pem = device.stage.at("agent/telemetry-key.pem");
    eventually(10, async || Ok(std::fs::metadata(&pem).map(drop)?)).await?;
    let copy = "cp -r {} original && cp agent/telemetry-key.pem original/appsk_pubkey.pem";
    shell(&folder, &[], &copy.replace("{}", &sources.display().to_string()))?;
    let mut collector = Command::new(python);
    collector.arg("collector/app.py").current_dir(folder.join("original"));
    collector.envs([("HOST", "127.0.0.1".to_owned()), ("PORT", port.to_string())]);
    let _collector = Service(collector.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?);
    eventually(30, async || Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?)).await?;
    generated(&address, "{}")?;
    generated(&address, r#"{"metric_type": "application", "custom_data": {"é": 1e16, "n": [1e-05, -0.0]}}"#)?;
    Ok(())
}
