//! `assay task`: what is run on devices, where it is, and what came of it.
//!
//! `submit` has what a task is made of, `verify` holds a result against everything that it says, and asks nobody.

mod submit;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use assay_wire::console::Because;
use assay_wire::console::task::{Attempt, Explained, Task, TaskResult, Tasks, Weighed};
use clap::Subcommand;
use data_encoding::BASE64;

use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay task`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Have a WebAssembly module run on a device that may run it.
    Submit {
        #[command(flatten)]
        what: submit::What,
        #[command(flatten)]
        asking: Asking,
    },
    /// The measurement that a task would have: what is named as expected. Asks nobody.
    Measure {
        #[command(flatten)]
        what: submit::What,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tasks, the newest first.
    List {
        /// Only those: waiting, placed, done, failed, cancelled.
        #[arg(long)]
        status: Option<String>,
        /// No more than so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        asking: Asking,
    },
    /// One task and its attempts.
    Show {
        /// The task's id.
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// What each device that runs tasks is worth for a task, and why it does not get it.
    Explain {
        /// The task's id.
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// The messages of its last result.
    Logs {
        /// The task's id.
        id: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// End a task, wherever it is.
    Cancel {
        /// The task's id.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// The output of its last result; with --json all that verifies it, for `task verify`.
    Result {
        /// The task's id.
        id: String,
        /// Of this attempt.
        #[arg(long)]
        attempt: Option<u32>,
        /// Where to write it; otherwise to standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Verify a result, as `result --json` writes it; asks nobody. Exit code 1 says that it does not hold.
    Verify(verify::Args),
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Submit { what, asking } => output::exit(submit::submit(&what, &asking)),
        Verb::Measure { what, json } => output::exit(submit::measure(&what, json)),
        Verb::List { status, limit, asking } => output::exit(list(status.as_deref(), limit, &asking)),
        Verb::Show { id, asking } => output::exit(show(&id, &asking)),
        Verb::Explain { id, asking } => output::exit(explain(&id, &asking)),
        Verb::Logs { id, asking } => output::exit(logs(&id, &asking)),
        Verb::Cancel { id, reason, asking } => output::exit(cancel(&id, reason, &asking)),
        Verb::Result { id, attempt, out, asking } => output::exit(result(&id, attempt, out, &asking)),
        Verb::Verify(args) => verify::run(&args),
    }
}

fn path(id: &str) -> String {
    format!("/v1/tasks/{}", segment(id))
}

fn list(status: Option<&str>, limit: u32, asking: &Asking) -> Result<()> {
    let status = status.map(|status| format!("&status={}", segment(status))).unwrap_or_default();
    let answer = asking.console.client()?.get(&format!("/v1/tasks?limit={limit}{status}"))?;
    output::answer(&answer, asking.json, |Tasks { tasks }| {
        let row = |task: &Task| {
            let Task { id, name, level, status, reason, attempts, submitted_at, .. } = task;
            let attempts = attempts.to_string();
            let texts = [id, name, level, status, &attempts, reason].map(|text| output::shown(text));
            std::iter::once(output::when(*submitted_at)).chain(texts).collect()
        };
        let header = ["submitted", "id", "name", "level", "status", "attempts", "why"];
        output::out!("{}", output::table(&header, tasks.iter().map(row)));
    })
}

fn show(id: &str, asking: &Asking) -> Result<()> {
    let answer = asking.console.client()?.get(&path(id))?;
    output::answer(&answer, asking.json, print)
}

/// A task as people read it.
fn print(task: &Task) {
    let Task { id, name, level, status, reason, measurement, history, .. } = task;
    let rows = [
        ("id", id),
        ("name", name),
        ("level", level),
        ("status", status),
        ("why", reason),
        ("measurement", measurement),
    ];
    let rows = rows.map(|(what, text)| vec![what.to_owned(), output::shown(text)]);
    output::out!("{}", output::table(&["", ""], rows));
    if history.is_empty() {
        return;
    }
    let row = |attempt: &Attempt| {
        let Attempt { number, device, status, reason, placed_at, ended_at } = attempt;
        let (placed, ended) = (output::when(*placed_at), output::when(*ended_at));
        let [device, status, reason] = [device, status, reason].map(|text| output::shown(text));
        vec![number.to_string(), device, status, placed, ended, reason]
    };
    let header = ["attempt", "device", "status", "placed", "ended", "why"];
    output::out!("{}", output::table(&header, history.iter().map(row)));
}

fn explain(id: &str, asking: &Asking) -> Result<()> {
    let answer = asking.console.client()?.get(&format!("{}/explain", path(id)))?;
    output::answer(&answer, asking.json, |Explained { devices }| {
        if devices.is_empty() {
            output::out!(
                "No device is attached that runs tasks: [tasks] in an agent's configuration says that it does."
            );
            return;
        }
        let row = |weighed: &Weighed| {
            let Weighed { name, score, parts, why, .. } = weighed;
            let parts = parts.iter().map(|part| format!("{} {}/{}", part.name, part.points, part.most));
            let parts = parts.collect::<Vec<_>>().join(", ");
            vec![output::shown(name), output::maybe(score), why.clone().unwrap_or(parts)]
        };
        output::out!("{}", output::table(&["device", "score", "why"], devices.iter().map(row)));
    })
}

fn logs(id: &str, asking: &Asking) -> Result<()> {
    let answer: TaskResult = asking.console.client()?.get(&format!("{}/result", path(id)))?;
    let messages = BASE64.decode(answer.messages.as_bytes()).context("the console's answer: messages")?;
    if asking.json {
        return output::json(&serde_json::json!({
            "task": answer.task, "attempt": answer.attempt, "end": answer.end, "messages": answer.messages,
        }));
    }
    std::io::stdout().write_all(&messages).context("standard output")
}

fn cancel(id: &str, reason: String, asking: &Asking) -> Result<()> {
    let answer = asking.console.client()?.post(&format!("{}/cancel", path(id)), &Because { reason })?;
    output::answer(&answer, asking.json, print)
}

fn result(id: &str, attempt: Option<u32>, out: Option<PathBuf>, asking: &Asking) -> Result<()> {
    let attempt = attempt.map(|attempt| format!("?attempt={attempt}")).unwrap_or_default();
    let answer: TaskResult = asking.console.client()?.get(&format!("{}/result{attempt}", path(id)))?;
    let content = match asking.json {
        true => serde_json::to_vec_pretty(&answer)?,
        false => BASE64.decode(answer.output.as_bytes()).context("the console's answer: output")?,
    };
    match out {
        Some(file) => std::fs::write(&file, content).with_context(|| file.display().to_string()),
        None => std::io::stdout().write_all(&content).context("standard output"),
    }
}
