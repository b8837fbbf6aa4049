//! Other people's clients against the whole system. Each needs a package of its maker's; `make interop` gets them.

mod envoy;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::agent::Device;
use crate::stage::TRUST_DOMAIN;

/// Where the packages are; says in a line that a test is left out.
fn packages(of: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ASSAY_INTEROP").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("left out: {of}; `make interop` gets its packages");
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_spiffe_gets_identities_and_loses_them() -> Result<()> {
    let Some(packages) = packages("the Python package spiffe") else { return Ok(()) };
    let device = Device::on_a_stage().await?;
    let enrolled = device.is("trusted").await?;
    let id = format!("spiffe://{TRUST_DOMAIN}/python");
    let entry = json!({
        "spiffe_id": id, "parent": enrolled.get("id"), "ttl_seconds": 600,
        "selectors": [{ "type": "unix", "value": format!("uid:{}", rustix::process::getuid().as_raw()) }],
    });
    device.stage.console()?.post("/v1/entries", &entry).await?;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/spiffe_client.py");
    let mut python = Command::new(packages.join("bin/python"));
    python.arg(script).arg(device.stage.at("workload.sock")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = python.spawn().context("the interpreter")?;
    let (mut input, output) =
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
    input.write_all(b"\n")?;
    let after: Vec<String> = lines.collect::<std::io::Result<_>>()?;
    ensure!(running.wait()?.success(), "{after:?}");
    let [fallen, no_token] = after.as_slice() else { anyhow::bail!("{after:?}") };
    ensure!(fallen.starts_with("fallen True"), "{fallen}");
    ensure!(no_token.starts_with("no token"), "{no_token}");
    Ok(())
}
