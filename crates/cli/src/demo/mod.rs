//! `assay demo`: the whole story on one machine, with real parts: three software TPMs, the server, the gateway, three
//! agents and three workloads, each a process of its own. `stage.rs` puts them up, `story.rs` tells the story and
//! `update.rs` its last chapter, `message.rs` is what a program says, `secret.rs` what it is given, `receiver.rs` who is told, `workload.rs` is the program that runs on the devices.

mod message;
mod process;
mod receiver;
mod report;
mod secret;
mod stage;
mod story;
mod task;
mod update;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use assay_server::store::DatabaseUrl;

use report::Report;
use stage::Stage;

/// Arguments of `assay demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON document instead of lines for people.
    #[arg(long)]
    json: bool,
    /// Leave everything running afterwards, until Ctrl-C, and print the address of the status page.
    #[arg(long)]
    keep: bool,
    /// Work in this new folder and leave it there; by default a temporary folder that is removed.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Tell it on this database of PostgreSQL's, which has to be empty, instead of a file: postgres://USER@HOST/DATABASE.
    #[arg(long, value_name = "URL")]
    database: Option<DatabaseUrl>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(clap::Subcommand)]
enum Part {
    /// The workload that runs on the demo's devices.
    #[command(hide = true)]
    Workload(workload::Args),
}

/// Runs the verb: success only if every step held.
pub fn run(args: Args) -> ExitCode {
    if let Some(Part::Workload(args)) = args.part {
        return crate::output::exit(runtime().and_then(|runtime| runtime.block_on(workload::run(args))));
    }
    let mut report = Report::new(args.json);
    let outcome = tell(&args, &mut report);
    let ok = report.finish(outcome.as_ref().err());
    match outcome {
        Ok(stage) if args.keep && ok => crate::output::exit(keep(&stage, args.json)),
        _ if ok => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn tell(args: &Args, report: &mut Report) -> Result<Stage> {
    let mut stage = Stage::new(args.dir.as_deref(), args.database.as_ref())?;
    story::tell(&mut stage, report)
        .with_context(|| format!("logs of every program: {}", stage.keep_folder().display()))?;
    Ok(stage)
}

fn keep(stage: &Stage, json: bool) -> Result<()> {
    let token = stage.data().join("operator.token");
    let told = format!(
        "\nStatus page: {}  (sign in with the token in {})\nOperator verbs: assay device list --data {}\nCtrl-C ends everything.",
        stage.status_page()?,
        token.display(),
        stage.data().display()
    );
    // With --json, standard output is one document.
    if json {
        eprintln!("{told}")
    } else {
        println!("{told}")
    }
    runtime()?.block_on(crate::service::ended());
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
