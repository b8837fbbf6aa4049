//! `assay-agent doctor` beside a running agent on a real TPM, and in its place.

use anyhow::{Context, Result, ensure};
use assay_agent::config::Options;
use assay_agent::doctor;
use assay_wire::doctor::{Finding, Report, Severity};

use crate::agent::Device;
use crate::stage::within;

async fn examine(device: &Device) -> Result<Report> {
    let options = Options { config: Some(device.stage.at("agent.toml")), ..Options::default() };
    within(20, doctor::examine(options)).await
}

fn is(report: &Report, check: &str, severity: Severity) -> Result<()> {
    let found: Vec<_> = report.findings.iter().filter(|finding| finding.check == check).collect();
    ensure!(
        !found.is_empty() && found.iter().all(|finding| finding.severity == severity),
        "{check}: {report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn year_12_swtpm_doctor_says_of_an_agent_what_is_wrong_and_what_to_do() -> Result<()> {
    let mut device = Device::on_a_stage().await?;
    device.is("trusted").await?;
    let report = examine(&device).await?;
    for check in ["configuration", "running", "enrollment", "workload api", "bundle", "gateway", "clock"] {
        is(&report, check, Severity::Good)?;
    }
    // A TPM without a resource manager is the running agent's.
    is(&report, "tpm", Severity::Note)?;
    // How full the disk is that the tests run on is not theirs to say.
    let is_wrong = |one: &Finding| one.severity > Severity::Note && one.check != "disk";
    ensure!(!report.findings.iter().any(is_wrong), "{report}");

    within(10, device.agent.take().context("the agent")?.terminate()).await??;
    device.stage.take_gateway()?.kill()?;
    let report = examine(&device).await?;
    for check in ["running", "gateway"] {
        is(&report, check, Severity::Problem)?;
    }
    for check in ["tpm", "ek certificate", "boot log", "ima"] {
        is(&report, check, Severity::Good)?;
    }
    ensure!(
        report
            .findings
            .iter()
            .all(|finding| { (finding.severity == Severity::Good) == finding.action.is_none() }),
        "{report}"
    );
    let keys = std::fs::read(device.stage.at("agent/enrollment.json"))?;
    ensure!(!keys.is_empty() && !report.to_string().contains("PRIVATE"));
    Ok(())
}
