//! `assay appraise --stored`: judges a result's evidence again in this process, and says whether that is what is on
//! record.

use std::process::ExitCode;

use anyhow::{Context, Result};
use assay_server::archive::KeptResult;
use assay_trust::AttestationResult;
use serde_json::json;

use crate::console::Console;
use crate::output;

/// Fetches the evidence and judges it.
pub fn run(console: &Console, id: u64, as_json: bool) -> Result<ExitCode> {
    let answer = console.client()?.get(&format!("/v1/results/{id}/evidence"))?;
    let kept: KeptResult = serde_json::from_value(answer).context("the evidence cannot be read")?;
    let again = kept.judge_again().with_context(|| format!("result {id} cannot be judged again"))?;
    let is_same = kept.is_on_record(&again);
    if as_json {
        output::json(&json!({
            "result": id,
            "device": kept.device,
            "same": is_same,
            "recorded": { "tier": kept.tier, "policy": kept.policy, "findings": kept.findings },
            "again": { "tier": again.tier(), "findings": again.findings(), "trust_vector": again.vector() },
            "at": again.at().to_string(),
        }))?;
    } else {
        print(&kept, &again, is_same);
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(kept: &KeptResult, again: &AttestationResult, is_same: bool) {
    let policy = if kept.policy.is_empty() { "no policy" } else { &kept.policy };
    output::out!("result {} of {}", kept.id, kept.device);
    output::out!("  evidence   of {}, judged by {policy}", again.at());
    output::out!("  on record  {}, {} findings", kept.tier, kept.findings.as_array().map_or(0, Vec::len));
    output::out!("  again      {}, {} findings", again.tier(), again.findings().len());
    for finding in again.findings() {
        output::out!("\n  {}  {}\n    {}", finding.tier, finding.check, finding.message);
    }
    output::out!(
        "\n{}",
        match is_same {
            true => "The same: this evidence leads to the result that is on record.",
            false => "NOT the same: this evidence does not lead to the result that is on record.",
        }
    );
}
