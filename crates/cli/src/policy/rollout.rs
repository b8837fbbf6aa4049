//! `assay policy rollout`: taking a policy to its next version in stages, so that no device falls on the way.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_wire::console::policy::{Assignment, End, Ended, Plan, Widen};
use clap::Subcommand;
use serde::Serialize;

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
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    match verb {
        Verb::Start { file, whom, percent, force } => {
            let text = text::read_text_of(file)?;
            let path = format!("{}&percent={percent}&force={force}", query(&whom.selector()?));
            let answer = client.post_text(&format!("/v1/policies/rollouts{path}"), text);
            output::answer(&answer.with_context(|| file.display().to_string())?, json, print_next)
        }
        Verb::Widen { name, percent } => {
            let body = Widen { percent: *percent };
            output::answer(&client.post(&path(name, "/widen"), &body)?, json, print_next)
        }
        Verb::Finish { name, force } => {
            let body = End { force: *force };
            output::answer(&client.post(&path(name, "/finish"), &body)?, json, print_end)
        }
        Verb::Abort { name, force } => {
            let body = End { force: *force };
            output::answer(&client.post(&path(name, "/abort"), &body)?, json, print_end)
        }
        Verb::Status { name: Some(name) } => {
            output::answer(&client.get(&path(name, ""))?, json, print_status)
        }
        Verb::Status { name: None } => output::answer(&all(&client)?, json, print_all),
    }
}

/// All that are under way.
#[derive(Serialize)]
struct UnderWay {
    rollouts: Vec<Assignment>,
}

fn path(name: &str, rest: &str) -> String {
    format!("/v1/policies/rollouts/{}{rest}", segment(name))
}

fn all(client: &Client) -> Result<UnderWay> {
    let plan: Plan = client.get("/v1/policies")?;
    let under_way = plan.assignments.iter().filter(|assigned| assigned.rollout.is_some());
    let rollouts = under_way.map(|assigned| client.get(&path(&assigned.name, "")));
    Ok(UnderWay { rollouts: rollouts.collect::<Result<_>>()? })
}

fn print_all(UnderWay { rollouts }: &UnderWay) {
    rollouts.iter().for_each(print_status);
    if rollouts.is_empty() {
        output::out!("No policy is being rolled out. Begin with: assay policy rollout start FILE");
    }
}

fn print_progress(answer: &Assignment) {
    let state = answer.rollout.as_ref().map(rollout).unwrap_or_default();
    let (whom, devices) = (whom(&answer.selector), devices(answer.devices));
    output::out!("{} for {whom}, {devices}: {state}", citation(answer));
}

fn print_next(answer: &Assignment) {
    print_progress(answer);
    let name = output::shown(&answer.name);
    output::out!("Reach more: assay policy rollout widen {name} --percent …");
    output::out!("See who is not ready yet: assay policy rollout status {name}");
}

fn print_status(answer: &Assignment) {
    print_progress(answer);
    let falls = answer.would_fall.as_deref().unwrap_or_default();
    if falls.is_empty() {
        output::out!("No device would fall: assay policy rollout finish {}", output::shown(&answer.name));
        return;
    }
    let rows = falls.iter().take(ROWS_MAX);
    let rows = rows.map(|fall| vec![output::shown(&fall.name), output::shown(&fall.reason)]);
    output::out!("\n{}", output::table(&["not ready", "reason"], rows));
    if let Some(more) = falls.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        output::out!("… and {more} more: --json has them all");
    }
}

fn print_end(Ended { name, version, would_fall }: &Ended) {
    let (name, version) = (output::shown(name), output::maybe(version));
    output::out!("policy {name} version {version} is in force alone");
    for fall in would_fall.iter().flatten() {
        output::out!("falls: {}: {}", output::shown(&fall.name), output::shown(&fall.reason));
    }
}

/// More than anyone reads in a terminal.
const ROWS_MAX: usize = 50;
