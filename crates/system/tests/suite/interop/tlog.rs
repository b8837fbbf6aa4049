//! The ledger by Go's own transparency log, which the checksum database of Go modules is checked with.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use assay_server::ledger::Log;
use serde_json::json;

use super::packages;
use crate::stage::{Stage, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn go_checks_every_entry_of_the_exported_ledger() -> Result<()> {
    let Some(packages) = packages("Go's sumdb/tlog") else { return Ok(()) };
    let program = packages.join("bin/go-tlog");
    if !program.exists() {
        eprintln!("left out: Go's sumdb/tlog; it takes Go to build it");
        return Ok(());
    }
    let stage = Stage::start().await?;
    for number in 0..LEAVES {
        let entry = json!({
            "spiffe_id": format!("spiffe://{}/w{number}", crate::stage::TRUST_DOMAIN), "ttl_seconds": 600,
            "parent": format!("spiffe://{}/spire/agent/tpm/{}", crate::stage::TRUST_DOMAIN, "0".repeat(64)),
            "selectors": [{ "type": "unix", "value": "uid:7" }],
        });
        stage.console()?.post("/v1/entries", &entry).await?;
    }
    let (data, folder) = (stage.at("data"), stage.at("log"));
    let size = eventually(20, async || {
        let size = Log::export(&data, &folder).await?.checkpoint().size;
        ensure!(size >= LEAVES, "{size}");
        Ok(size)
    })
    .await?;
    let key = std::fs::read_to_string(data.join("ledger.vkey"))?;
    let check = |folder: &Path| -> Result<Output> {
        Ok(Command::new(&program).arg(folder).arg(key.trim()).output()?)
    };
    let run = check(&folder)?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    ensure!(String::from_utf8_lossy(&run.stdout).trim() == size.to_string());
    // It is a check: one bit of one entry is found.
    let entries = folder.join("tile/entries/000");
    let mut bytes = std::fs::read(&entries)?;
    *bytes.get_mut(500).context("an entry")? ^= 1;
    std::fs::write(&entries, bytes)?;
    ensure!(!check(&folder)?.status.success(), "an altered entry passed");
    Ok(())
}

/// More than a tile.
const LEAVES: u64 = 600;
