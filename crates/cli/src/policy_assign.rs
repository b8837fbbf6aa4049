//! `assay policy list`, `show`, `set` and `unassign`: which policy is in force for whom.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_trust::labels::Selector;
use serde_json::{Value, json};

use crate::client::{Asking, segment};
use crate::{output, policy_file};

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

/// Arguments of `assay policy set`.
#[derive(clap::Args)]
pub struct SetArgs {
    /// The policy, in TOML or JSON, signed or not.
    file: PathBuf,
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    asking: Asking,
}

/// Arguments of `assay policy unassign`.
#[derive(clap::Args)]
pub struct UnassignArgs {
    #[command(flatten)]
    whom: Whom,
    /// The one for every device: what no other one judges is no longer trusted.
    #[arg(long, conflicts_with = "labels", required_unless_present = "labels")]
    default: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Whom a policy is for.
#[derive(clap::Args)]
pub struct Whom {
    /// Only devices with this label, key=value (may be repeated: all of them); otherwise every device.
    #[arg(long = "selector", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

impl Whom {
    /// As labels are written; empty: every device.
    pub fn selector(&self) -> Result<Selector> {
        Ok(self.labels.join(",").parse()?)
    }
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
        (Some(text), _) => print!("{text}"),
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

/// Puts a policy in force.
pub fn set(args: &SetArgs) -> Result<()> {
    let text = policy_file::read_text_of(&args.file)?;
    let selector = args.whom.selector()?;
    let path = format!("/v1/policy{}", query(&selector));
    let client = args.asking.console.client()?;
    let answer = client.put_text(&path, text).with_context(|| args.file.display().to_string())?;
    if args.asking.json {
        return output::json(&answer);
    }
    let (name, version) = (output::text(&answer, "name"), output::text(&answer, "version"));
    let whom = if selector.is_empty() { String::new() } else { format!(" for {}", selector.whom()) };
    output::out!("policy {name} version {version} is in force{whom}");
    Ok(())
}

/// Takes a policy back.
pub fn unassign(args: &UnassignArgs) -> Result<()> {
    let selector = args.whom.selector()?;
    let body = json!({ "selector": selector.to_string() });
    let answer = args.asking.console.client()?.post("/v1/policies/unassign", &body)?;
    if args.asking.json {
        return output::json(&answer);
    }
    output::out!("no policy is assigned to {} any more", selector.whom());
    Ok(())
}

/// A selector as a query.
pub fn query(selector: &Selector) -> String {
    format!("?selector={}", segment(&selector.to_string()))
}

/// `base v3`.
pub fn citation(assigned: &Value, version: &str) -> String {
    format!("{} v{}", output::text(assigned, "name"), output::text(assigned, version))
}

/// Whom an assignment is for, as people read it.
pub fn whom(assigned: &Value) -> String {
    match assigned.get("selector").and_then(Value::as_str) {
        None | Some("") => "every device".to_owned(),
        Some(selector) => selector.to_owned(),
    }
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
