//! `assay policy list` and `show`: which policy is in force for whom.

use anyhow::Result;
use assay_trust::policy::Row;
use serde::Deserialize;
use serde_json::Value;

use super::whom::{Whom, query, whom};
use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay policy list`.
#[derive(clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    asking: Asking,
}

/// Arguments of `assay policy show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    /// The policy of this name; nothing: the one that is in force for every device.
    #[arg(conflicts_with = "labels")]
    name: Option<String>,
    /// This version of it, whether or not it is in force.
    #[arg(long, requires = "name")]
    version: Option<u64>,
    /// The one that judges this device.
    #[arg(long, conflicts_with_all = ["name", "labels"])]
    device: Option<String>,
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    asking: Asking,
}

/// Shows who is judged by what.
pub fn list(args: &ListArgs) -> Result<()> {
    let answer = args.asking.console.client()?.get("/v1/policies")?;
    if args.asking.json {
        return output::json(&answer);
    }
    let assignments = output::list(&answer, "assignments");
    if assignments.is_empty() {
        output::out!("No policy is set, so no device is trusted. Set one: assay policy set FILE");
        return Ok(());
    }
    let rows = assignments.iter().map(|assigned| {
        vec![
            citation(assigned, "version"),
            whom(assigned),
            output::text(assigned, "devices"),
            output::text(assigned, "trusted"),
            assigned.get("rollout").map(rollout).unwrap_or_default(),
        ]
    });
    output::out!("{}", output::table(&["policy", "for", "devices", "trusted", "roll-out"], rows));
    for assigned in
        assignments.iter().filter(|assigned| assigned.get("in_force") == Some(&Value::Bool(false)))
    {
        output::out!(
            "\n{} for {} is not in force, because nobody who may has signed it as it is stored: sign a version of it (assay \
             policy sign) and set that",
            output::text(assigned, "name"),
            whom(assigned)
        );
    }
    match answer.get("devices_without_policy").and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(count) => output::out!("\n{count} without a policy: nothing is granted to them"),
    }
    Ok(())
}

/// Shows a policy's text.
pub fn show(args: &ShowArgs) -> Result<()> {
    let selector = args.whom.selector()?;
    let asked = match (&args.device, &args.name, args.version) {
        (Some(device), _, _) => format!("?device={}", segment(device)),
        (None, Some(name), None) => format!("?name={}", segment(name)),
        (None, Some(name), Some(version)) => format!("?name={}&version={version}", segment(name)),
        (None, None, _) if selector.is_empty() => String::new(),
        (None, None, _) => query(&selector),
    };
    let answer = args.asking.console.client()?.get(&format!("/v1/policy{asked}"))?;
    if args.asking.json {
        return output::json(&answer);
    }
    match (answer.get("text").and_then(Value::as_str), &args.device) {
        (Some(text), _) => {
            print!("{text}");
            // Beside the text, which stays a policy that can be stored.
            coverage(&answer).iter().for_each(|line| eprintln!("{line}"));
        }
        (None, Some(device)) => {
            output::out!("No policy is in force for {device}, so nothing is granted to it.")
        }
        (None, None) => output::out!(
            "No policy is set for every device. Learn one: assay policy learn CASE_DIR -o FILE; see all: assay policy \
             list"
        ),
    }
    Ok(())
}

/// What a policy covers, as the server says, line by line.
pub fn coverage(answer: &Value) -> Vec<String> {
    let line = |covered: &Value| {
        let text = |member| output::text(covered, member);
        // A row of a newer server is called what that calls it.
        let row = covered.get("row").and_then(|row| Row::deserialize(row).ok());
        let row = row.map_or_else(|| text("row"), |row| row.name().to_owned());
        format!("{row:<19} {:<7} {}", text("cover"), text("meaning"))
    };
    output::list(answer, "coverage").iter().map(line).collect()
}

/// `base v3`.
pub fn citation(assigned: &Value, version: &str) -> String {
    format!("{} v{}", output::text(assigned, "name"), output::text(assigned, version))
}

/// How far a roll-out is, in a few words; nothing where there is none.
pub fn rollout(rollout: &Value) -> String {
    if rollout.is_null() {
        return String::new();
    }
    let text = |member| output::text(rollout, member);
    format!(
        "→ v{}: {} % ({}) accept both, as v{}",
        text("new_version"),
        text("percent"),
        devices(rollout),
        text("union_version")
    )
}

/// How many devices, in words.
pub fn devices(value: &Value) -> String {
    match value.get("devices").and_then(Value::as_u64) {
        Some(1) => "1 device".to_owned(),
        count => format!("{} devices", count.unwrap_or(0)),
    }
}
