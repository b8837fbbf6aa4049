//! `assay policy list` and `show`: which policy is in force for whom.

use anyhow::Result;
use assay_trust::policy::Row;
use assay_wire::console::policy::{Assignment, Plan, Rollout, Shown};
use assay_wire::console::trial::Covered;
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};

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
    let answer: Plan = args.asking.console.client()?.get("/v1/policies")?;
    output::answer(&answer, args.asking.json, print_plan)
}

fn print_plan(Plan { assignments, devices_without_policy }: &Plan) {
    if assignments.is_empty() {
        output::out!("No policy is set, so no device is trusted. Set one: assay policy set FILE");
        return;
    }
    let rows = assignments.iter().map(|assigned| {
        vec![
            citation(assigned),
            whom(&assigned.selector),
            assigned.devices.to_string(),
            assigned.trusted.to_string(),
            assigned.rollout.as_ref().map(rollout).unwrap_or_default(),
        ]
    });
    output::out!("{}", output::table(&["policy", "for", "devices", "trusted", "roll-out"], rows));
    for assigned in assignments.iter().filter(|assigned| !assigned.in_force) {
        output::out!(
            "\n{} for {} is not in force, because nobody who may has signed it as it is stored: sign a version of it (assay \
             policy sign) and set that",
            output::shown(&assigned.name),
            whom(&assigned.selector)
        );
    }
    if *devices_without_policy > 0 {
        output::out!("\n{devices_without_policy} without a policy: nothing is granted to them");
    }
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
    let answer: Shown = args.asking.console.client()?.get(&format!("/v1/policy{asked}"))?;
    if args.asking.json {
        return output::json(&answer);
    }
    match (&answer.text, &args.device) {
        (Some(text), _) => {
            print!("{text}");
            // Beside the text, which stays a policy that can be stored.
            coverage(answer.coverage.as_deref().unwrap_or_default())
                .iter()
                .for_each(|line| eprintln!("{line}"));
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
pub fn coverage(coverage: &[Covered]) -> Vec<String> {
    let line = |Covered { row, cover, meaning }: &Covered| {
        // A row of a newer server is called what that calls it.
        let known = Row::deserialize(StrDeserializer::<Error>::new(row));
        let row = known.map_or_else(|_| output::shown(row), |row| row.name().to_owned());
        format!("{row:<19} {:<7} {}", output::shown(cover), output::shown(meaning))
    };
    coverage.iter().map(line).collect()
}

/// `base v3`.
pub fn citation(assigned: &Assignment) -> String {
    format!("{} v{}", output::shown(&assigned.name), output::maybe(&assigned.version))
}

/// How far a roll-out is, in a few words.
pub fn rollout(Rollout { percent, devices: on_union, union_version, new_version }: &Rollout) -> String {
    let (new, union) = (output::maybe(new_version), output::maybe(union_version));
    format!("→ v{new}: {percent} % ({}) accept both, as v{union}", devices(*on_union))
}

/// How many devices, in words.
pub fn devices(count: u64) -> String {
    if count == 1 { "1 device".to_owned() } else { format!("{count} devices") }
}
