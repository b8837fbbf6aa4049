//! The console in a real browser: Chromium, axe-core, and a provider of OpenID Connect from npm.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use assay_testkit::System;
use serde_json::json;

use super::packages;
use crate::stage::{Stage, affirming};

/// A program that ends with the test, and may say what it likes until then.
struct Running(Child, BufReader<ChildStdout>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_look_and_cure_in_chromium() -> Result<()> {
    let Some(packages) = packages("Chromium, axe-core and a provider of OpenID Connect") else {
        return Ok(());
    };
    let chromium = Path::new("/usr/bin/chromium");
    let modules = packages.join("node_modules");
    if !chromium.exists() || !modules.join("oidc-provider").exists() {
        eprintln!("left out: the console in a browser; it takes Chromium and Node");
        return Ok(());
    }
    let mut stage = Stage::start().await?;
    let console = format!("https://{}", stage.door("console")?.address);
    let _provider = provider(&modules, &stage, &console)?;
    stage.take_server()?.kill()?;
    stage.start_server()?;

    let edge = stage.edge().await?;
    let (mut fallen, _first) = stage.trusted(&edge, "press-1").await?;
    let (_, _second) = stage.trusted(&edge, "press-2").await?;
    stage.console()?.post("/v1/devices/press-2/labels", &json!({ "set": ["site=paris"] })).await?;
    fallen.boot(&System { command_line: "ro init=/bin/sh".into(), ..System::default() });
    let mut stream = edge.attach(&fallen).await?;
    ensure!(affirming(&stream.attest(&mut fallen).await?).is_err());

    let token = std::fs::read_to_string(stage.at("data/operator.token"))?;
    let pictures = std::env::var("ASSAY_PICTURES").unwrap_or_else(|_| "-".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/console.py");
    let output = Command::new(packages.join("bin/python"))
        .arg(script)
        .args([chromium, &modules.join("axe-core/axe.min.js")])
        .args([console.as_str(), token.trim(), "press-1", pictures.as_str()])
        .output()?;
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}\n{complaint}");
    for line in [
        "looked at light 1280 900",
        "looked at dark 1280 900",
        "looked at light 390 844",
        "heard of a label without asking",
        "cured: Approved: it is trusted with its next good evidence.",
        "signed in: person/ada@example.org",
        "signed in: person/paul@example.org sees 1",
    ] {
        ensure!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    ensure!(said.contains("kept out: eve@example.org is known to the provider"), "{said}");
    let people = stage.console()?.get("/v1/people").await?;
    ensure!(people.pointer("/people/1/scope") == Some(&json!("site=paris")), "{people}");
    Ok(())
}

/// Starts it on a free port, and tells the server's configuration of it.
fn provider(modules: &Path, stage: &Stage, console: &str) -> Result<Running> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = modules.parent().context("the packages' folder")?;
    let script = folder.join("provider.mjs");
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/oidc/provider.mjs"),
        &script,
    )?;
    let back = format!("{console}/sign-in/oidc/back");
    let mut running = Command::new("node")
        .arg(script)
        .args([port.to_string().as_str(), "assay", SECRET, back.as_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("node")?;
    let output = BufReader::new(running.stdout.take().context("stdout")?);
    let mut running = Running(running, output);
    let mut line = String::new();
    while line.trim() != "standing" {
        line.clear();
        ensure!(running.1.read_line(&mut line)? > 0, "the provider ended");
    }

    let secret = stage.at("oidc.secret");
    std::fs::write(&secret, SECRET)?;
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut configuration = std::fs::read_to_string(stage.at("server.toml"))?;
    configuration.push_str(&format!(
        "[oidc]\nissuer = \"http://127.0.0.1:{port}\"\nname = \"the provider\"\nclient_id = \"assay\"\n\
         client_secret_file = \"oidc.secret\"\nconsole_url = {console:?}\n\
         [[oidc.role]]\nclaim = \"groups\"\nvalue = \"edge-admins\"\nrole = \"admin\"\n\
         [[oidc.role]]\nclaim = \"groups\"\nvalue = \"paris\"\nrole = \"operator\"\nscope = \"site=paris\"\n"
    ));
    std::fs::write(stage.at("server.toml"), configuration)?;
    Ok(running)
}

const SECRET: &str = "a secret that both know";
