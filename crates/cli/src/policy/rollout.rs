//! `assay policy rollout`: taking a policy to its next version in stages, so that no device falls on the way.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::list::{citation, devices, rollout};
use super::text;
use super::whom::{Whom, query, whom};
use crate::console::{Asking, Client, segment};
use crate::output;

/// Arguments of `assay policy rollout`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Publish the next version, and let some devices be judged by what it and the version in force accept.
    Start {
        /// The next version of the policy, in TOML or JSON, signed or not, under the same name.
        file: PathBuf,
        #[command(flatten)]
        whom: Whom,
        /// How many of the devices are first, in percent. Always the same ones, and more only ever come to them.
        #[arg(long, default_value_t = 10)]
        percent: u64,
        /// Begin although devices could fall, because the versions disagree about what has to be.
        #[arg(long)]
        force: bool,
    },
    /// Let more devices be judged by what both versions accept.
    Widen {
        /// The policy.
        name: String,
        /// Of how many devices, in percent.
        #[arg(long)]
        percent: u64,
    },
    /// Put the next version in force alone. Refused while a device would fall of it.
    Finish {
        /// The policy.
        name: String,
        /// Finish although devices fall.
        #[arg(long)]
        force: bool,
    },
    /// Leave the version in force that was. Refused while a device that is updated already would fall of it.
    Abort {
        /// The policy.
        name: String,
        /// Do not look whether devices would fall.
        #[arg(long)]
        force: bool,
    },
    /// How far roll-outs are, and which devices would fall if they were finished now.
    Status {
        /// The policy; otherwise all that are being rolled out.
        name: Option<String>,
    },
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let client = args.asking.console.client()?;
    let (answer, print): (Value, fn(&Value)) = match &args.verb {
        Verb::Start { file, whom, percent, force } => {
            let text = text::read_text_of(file)?;
            let path = format!("{}&percent={percent}&force={force}", query(&whom.selector()?));
            let answer = client.post_text(&format!("/v1/policies/rollouts{path}"), text);
            (answer.with_context(|| file.display().to_string())?, print_next)
        }
        Verb::Widen { name, percent } => {
            (client.post(&path(name, "/widen"), &json!({ "percent": percent }))?, print_next)
        }
        Verb::Finish { name, force } => {
            (client.post(&path(name, "/finish"), &json!({ "force": force }))?, print_end)
        }
        Verb::Abort { name, force } => {
            (client.post(&path(name, "/abort"), &json!({ "force": force }))?, print_end)
        }
        Verb::Status { name: Some(name) } => (client.get(&path(name, ""))?, print_status),
        Verb::Status { name: None } => (all(&client)?, print_all),
    };
    if args.asking.json {
        return output::json(&answer);
    }
    print(&answer);
    Ok(())
}

fn path(name: &str, rest: &str) -> String {
    format!("/v1/policies/rollouts/{}{rest}", segment(name))
}

fn all(client: &Client) -> Result<Value> {
    let plan = client.get("/v1/policies")?;
    let under_way = output::list(&plan, "assignments").iter().filter(|one| !one["rollout"].is_null());
    let rollouts: Vec<Value> = under_way
        .filter_map(|assigned| assigned.get("name")?.as_str())
        .map(|name| client.get(&path(name, "")))
        .collect::<Result<_>>()?;
    Ok(json!({ "rollouts": rollouts }))
}

fn print_all(answer: &Value) {
    let rollouts = output::list(answer, "rollouts");
    rollouts.iter().for_each(print_status);
    if rollouts.is_empty() {
        output::out!("No policy is being rolled out. Begin with: assay policy rollout start FILE");
    }
}

fn print_progress(answer: &Value) {
    let state = answer.get("rollout").map(rollout).unwrap_or_default();
    output::out!("{} for {}, {}: {state}", citation(answer, "version"), whom(answer), devices(answer));
}

fn print_next(answer: &Value) {
    print_progress(answer);
    let name = output::text(answer, "name");
    output::out!("Reach more: assay policy rollout widen {name} --percent …");
    output::out!("See who is not ready yet: assay policy rollout status {name}");
}

fn print_status(answer: &Value) {
    print_progress(answer);
    let falls = output::list(answer, "would_fall");
    if falls.is_empty() {
        output::out!("No device would fall: assay policy rollout finish {}", output::text(answer, "name"));
        return;
    }
    let rows = falls.iter().take(ROWS_MAX);
    let rows = rows.map(|fall| vec![output::text(fall, "name"), output::text(fall, "reason")]);
    output::out!("\n{}", output::table(&["not ready", "reason"], rows));
    if let Some(more) = falls.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        output::out!("… and {more} more: --json has them all");
    }
}

fn print_end(answer: &Value) {
    output::out!(
        "policy {} version {} is in force alone",
        output::text(answer, "name"),
        output::text(answer, "version")
    );
    for fall in output::list(answer, "would_fall") {
        output::out!("falls: {}: {}", output::text(fall, "name"), output::text(fall, "reason"));
    }
}

/// More than anyone reads in a terminal.
const ROWS_MAX: usize = 50;
