//! Other people's clients against the whole system. Each needs a package of its maker's; `make interop` gets them.

mod acme;
mod console;
mod envoy;
mod gpsd;
mod keylime;
mod promtool;
mod spire;
mod tlog;
mod x509;

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::agent::Device;
use crate::stage::{TRUST_DOMAIN, eventually};

/// Where the packages are; says in a line that a test is left out.
fn packages(of: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ASSAY_INTEROP").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("left out: {of}; `make interop` gets its packages");
    }
    folder
}

/// A client that says what it gets, a line each, up to `standing`, and goes on once it is told to.
struct Client {
    running: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    async fn standing(mut command: Command) -> Result<(Vec<String>, Client)> {
        let mut running =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the client")?;
        let (input, output) =
            (running.stdin.take().context("stdin")?, running.stdout.take().context("stdout")?);
        let mut lines = BufReader::new(output).lines();
        let before = tokio::task::spawn_blocking(move || {
            let mut said = Vec::new();
            for line in lines.by_ref() {
                said.push(line?);
                if said.last().is_some_and(|line| line == "standing") {
                    break;
                }
            }
            anyhow::Ok((said, lines))
        });
        let (said, lines) = before.await??;
        Ok((said, Client { running, input, lines }))
    }

    /// What it says once it goes on.
    fn go_on(mut self) -> Result<Vec<String>> {
        self.input.write_all(b"\n")?;
        let after: Vec<String> = self.lines.collect::<std::io::Result<_>>()?;
        ensure!(self.running.wait()?.success(), "{after:?}");
        Ok(after)
    }
}

/// A trusted device with an entry of this name for this user.
async fn entitled(name: &str) -> Result<(Device, String)> {
    let device = Device::on_a_stage().await?;
    let enrolled = device.is("trusted").await?;
    let id = format!("spiffe://{TRUST_DOMAIN}/{name}");
    let entry = json!({
        "spiffe_id": id, "parent": enrolled.get("id"), "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": format!("uid:{}", rustix::process::getuid().as_raw()) }],
    });
    device.stage.console()?.post("/v1/entries", &entry).await?;
    Ok((device, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_spiffe_gets_identities_and_loses_them() -> Result<()> {
    let Some(packages) = packages("the Python package spiffe") else { return Ok(()) };
    let (device, id) = entitled("python").await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/spiffe_client.py");
    let mut python = Command::new(packages.join("bin/python"));
    python.arg(script).arg(device.stage.at("workload.sock"));
    let (said, client) = Client::standing(python).await?;
    let expected = [
        format!("x509-svid {id}"),
        format!("x509-bundle {TRUST_DOMAIN} 1"),
        format!("jwt-svid {id} db"),
        format!("validated {id}"),
        format!("x509-source {id}"),
        format!("jwt-source {id}"),
        "standing".to_owned(),
    ];
    assert_eq!(said, expected);

    device.run("/opt/implant")?;
    device.is("suspect").await?;
    let after = client.go_on()?;
    let [fallen, no_token] = after.as_slice() else { anyhow::bail!("{after:?}") };
    ensure!(fallen.starts_with("fallen True"), "{fallen}");
    ensure!(no_token.starts_with("no token"), "{no_token}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn go_spiffe_gets_identities_and_loses_them() -> Result<()> {
    let Some(packages) = packages("go-spiffe") else { return Ok(()) };
    let program = packages.join("bin/go-workload");
    if !program.exists() {
        eprintln!("left out: go-spiffe; it takes Go to build it");
        return Ok(());
    }
    let (device, id) = entitled("go").await?;
    let mut workload = Command::new(program);
    workload.arg(device.stage.at("workload.sock"));
    let (said, client) = Client::standing(workload).await?;
    let expected = [
        format!("x509-svid {id}"),
        format!("x509-bundle {TRUST_DOMAIN} 1"),
        format!("jwt-svid {id} db"),
        format!("validated {id}"),
        "standing".to_owned(),
    ];
    assert_eq!(said, expected);

    device.run("/opt/implant")?;
    device.is("suspect").await?;
    let after = client.go_on()?;
    let [fallen, no_token] = after.as_slice() else { anyhow::bail!("{after:?}") };
    ensure!(fallen.starts_with("fallen") && fallen.contains("PermissionDenied"), "{fallen}");
    ensure!(no_token.starts_with("no token") && no_token.contains("PermissionDenied"), "{no_token}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_opentelemetry_sdk_is_heard_openssl_believes_it_and_rotel_gets_it() -> Result<()> {
    let Some(packages) = packages("the Python OpenTelemetry SDK") else { return Ok(()) };
    let rotel = Rotel::start(&packages)?;
    let mut device = Device::prepared_with(&rotel.forward()).await?;
    device.start_agent()?;
    device.is("trusted").await?;
    let addresses = std::fs::read_to_string(device.stage.at("agent/addresses.json"))?;
    let addresses: Value = serde_json::from_str(&addresses)?;
    let at =
        |name: &str| addresses.get(name).and_then(Value::as_str).context("an address").map(str::to_owned);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/otlp_client.py");
    let python = Command::new(packages.join("bin/python"))
        .arg(script)
        .args([at("otlp_grpc")?, at("otlp_http")?])
        .output()?;
    let said = String::from_utf8_lossy(&python.stdout).into_owned();
    ensure!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let expected: Vec<String> = ["grpc", "http"]
        .iter()
        .flat_map(|protocol| {
            ["OTLPSpanExporter", "OTLPMetricExporter", "OTLPLogExporter"]
                .map(|exporter| format!("{protocol} {exporter} SUCCESS"))
        })
        .collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);

    // All of it is at the server, as the SDK encoded it; each batch is one that openssl verifies.
    let found = eventually(30, async || {
        let records = device.stage.console()?.get("/v1/telemetry?device=edge").await?;
        let mut found = Vec::new();
        for record in records.get("records").and_then(Value::as_array).context("records")? {
            let number = |name: &str| record.get(name).and_then(Value::as_u64).unwrap_or_default();
            let path = format!("/v1/telemetry/{}/{}", number("leaf"), number("sequence"));
            let batch = device.stage.console()?.get(&path).await?;
            found.extend(openssl_verifies(
                &batch,
                &device.stage.at(&format!("batch-{}", number("sequence"))),
            )?);
        }
        let found = String::from_utf8_lossy(&found).into_owned();
        for wanted in
            ["work-grpc", "work-http", "parts-grpc", "parts-http", "hello over grpc", "hello over http"]
        {
            ensure!(found.contains(wanted), "{wanted}");
        }
        Ok(found)
    });
    found.await?;

    // And what the server passed on is what the application said.
    eventually(30, async || {
        let printed = std::fs::read_to_string(&rotel.log)?;
        for wanted in
            ["work-grpc", "work-http", "parts-grpc", "parts-http", "hello over grpc", "hello over http"]
        {
            ensure!(printed.contains(wanted), "{wanted}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn python_programs_say_and_hear_signed_messages_until_the_device_falls() -> Result<()> {
    let Some(packages) = packages("the Python package of ours, requests, Flask and uvicorn") else {
        return Ok(());
    };
    let mut device = Device::prepared_with("[trust_api]\n").await?;
    device.start_agent()?;
    let enrolled = device.is("trusted").await?;
    let entry = json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/press"), "parent": enrolled.get("id"), "speaks_for_node": true,
        "selectors": [{ "type": "unix", "value": format!("uid:{}", rustix::process::getuid().as_raw()) }],
    });
    device.stage.console()?.post("/v1/entries", &entry).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/trust_client.py");
    let mut python = Command::new(packages.join("bin/python"));
    let socket = format!("unix://{}", device.stage.at("workload.sock").display());
    python.arg(script).args([socket, format!("https://{}", device.stage.door("console")?.address)]);
    python.arg(device.stage.at("data/bundle.pem")).arg(TRUST_DOMAIN);
    let (said, client) = Client::standing(python).await?;
    let node = enrolled.get("node").and_then(Value::as_u64).context("a number")?;
    let mut expected = Vec::new();
    for name in ["wsgi", "flask", "asgi"] {
        expected.extend([
            format!("{name} 200 {node} 3 27"),
            format!("{name} again 401 replayed"),
            format!("{name} elsewhere 401 message"),
            format!("{name} altered 401 message"),
            format!("{name} forged 401 message"),
            format!("{name} another's 401 certificate"),
            format!("{name} without its certificate 200 {node} 3 12"),
            format!("{name} unsigned 401 no-message"),
        ]);
    }
    expected.push("standing".to_owned());
    assert_eq!(said, expected);

    device.run("/opt/implant")?;
    device.is("suspect").await?;
    let after = client.go_on()?;
    let fallen = ["wsgi", "flask", "asgi"].map(|name| format!("{name} after the fall 401 certificate"));
    assert_eq!(after, [fallen.as_slice(), &["not signed 403".to_owned()]].concat());
    Ok(())
}

/// An OTLP receiver that prints what it gets; it is killed when dropped.
struct Rotel {
    process: Child,
    http: SocketAddr,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rotel {
    fn start(packages: &Path) -> Result<Rotel> {
        let folder = tempfile::tempdir()?;
        let find = "import importlib.util as u; print(u.find_spec('rotel').submodule_search_locations[0])";
        let found = Command::new(packages.join("bin/python")).args(["-c", find]).output()?;
        let program = Path::new(std::str::from_utf8(&found.stdout)?.trim()).join("rotel-agent");
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (http, grpc, log) = (free()?, free()?, folder.path().join("rotel.log"));
        let mut rotel = Command::new(program);
        rotel.args(["start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"]);
        for signal in ["traces", "metrics", "logs"] {
            rotel.args(["--debug-log", signal]);
        }
        rotel.args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()]);
        let process = rotel.stdout(File::create(&log)?).stderr(Stdio::null()).spawn().context("rotel")?;
        Ok(Rotel { process, http, log, _folder: folder })
    }

    fn forward(&self) -> String {
        format!("[[forward]]\nname = \"rotel\"\nendpoint = \"http://{}\"\n", self.http)
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Verifies a batch as `docs/howto/verifying-a-batch.md` has it, and returns its payload.
fn openssl_verifies(batch: &Value, folder: &Path) -> Result<Vec<u8>> {
    let bytes = |name: &str| {
        let text = batch.get(name).and_then(Value::as_str).context("a member")?;
        anyhow::Ok(BASE64.decode(text.as_bytes())?)
    };
    std::fs::create_dir_all(folder)?;
    let signed = assay_telemetry::to_be_signed(&bytes("statement")?);
    let files = [
        ("signed", signed.clone()),
        ("signature.der", bytes("signature")?),
        ("device-key.der", bytes("device_key")?),
        ("payload", bytes("payload")?),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes)?;
    }
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output()?;
        ensure!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stdout));
        anyhow::Ok(output.stdout)
    };
    openssl("dgst -sha256 -verify device-key.der -keyform DER -signature signature.der signed")?;
    let digest = openssl("dgst -sha256 -binary payload")?;
    ensure!(signed.windows(32).any(|window| window == digest), "the statement is about another payload");
    bytes("payload")
}
