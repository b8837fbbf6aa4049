//! Classic certificates and their list by other people's X.509: Go's, and that of Python's `cryptography`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::packages;
use crate::agent::Device;
use crate::messages::fetch_classic;
use crate::stage::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn go_and_python_verify_classic_certificates_and_their_list() -> Result<()> {
    let Some(packages) = packages("Go's crypto/x509 and Python's cryptography") else { return Ok(()) };
    let mut device = Device::prepared_with("[trust_api]\nclassic = true\n").await?;
    device.start_agent()?;
    let enrolled = device.is("trusted").await?;
    let node = enrolled.get("node").and_then(Value::as_u64).context("a number")?;
    let node = u32::try_from(node)?;
    let folder = device.stage.folder.path().join("classic");
    eventually(90, async || fetch_classic(&device, &folder, node).await).await?;
    ask_both(&packages, &folder, node, "good")?;
    device.run("/opt/implant")?;
    device.is("suspect").await?;
    fetch_classic(&device, &folder, node).await?;
    // RFC 5280, 5.3.1: privilegeWithdrawn.
    ask_both(&packages, &folder, node, "revoked")
}

fn ask_both(packages: &Path, folder: &Path, node: u32, expected: &str) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/x509_check.py");
    let mut python = Command::new(packages.join("bin/python"));
    python.arg(script);
    let go = packages.join("bin/go-x509");
    let mut programs = vec![(python, "privilegeWithdrawn")];
    match go.exists() {
        true => programs.push((Command::new(go), "9")),
        false => eprintln!("left out: Go's crypto/x509; it takes Go to build it"),
    }
    for (mut program, reason) in programs {
        program.args(["root.pem", "node.pem", "list.der", &format!("node-{node}")]).current_dir(folder);
        let run = program.output()?;
        let said = String::from_utf8_lossy(&run.stdout).trim().to_owned();
        ensure!(run.status.success(), "{program:?}: {}", String::from_utf8_lossy(&run.stderr));
        let expected = if expected == "good" { expected.to_owned() } else { format!("{expected} {reason}") };
        ensure!(said == expected, "{program:?}: {said}");
    }
    Ok(())
}
