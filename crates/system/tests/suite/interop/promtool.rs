//! Prometheus' own tool: each alert fires where it should, and files are what Prometheus loads.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::packages;

#[test]
fn promtool_fires_each_alert_and_reads_each_file() -> Result<()> {
    let Some(packages) = packages("promtool") else { return Ok(()) };
    let program = packages.join("bin/promtool");
    if !program.exists() {
        eprintln!("left out: promtool; it takes Go to build it");
        return Ok(());
    }
    let monitoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/monitoring");
    for arguments in [
        ["test", "rules", "tests/tpm_trust.yml", "tests/assay.yml"].as_slice(),
        &["check", "config", "prometheus.yml"],
    ] {
        let run = Command::new(&program).args(arguments).current_dir(&monitoring).output()?;
        let said = [run.stdout, run.stderr].concat();
        ensure!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}
