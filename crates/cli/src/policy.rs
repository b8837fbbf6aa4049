//! `assay policy`: the policy in force, a new one, and the offline verbs that make and read policies.
//!
//! Each offline verb is a file `policy_*.rs`; what it decides is in `assay_trust::policy`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::Value;

use crate::client::{Console, read_text};
use crate::{
    output, policy_deb, policy_diff, policy_import, policy_learn, policy_lint, policy_merge, policy_rootfs,
};

/// Arguments of `assay policy`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The policy in force.
    Show {
        #[command(flatten)]
        console: Console,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a policy in force, as the next version of its name. Every device is appraised under it at once.
    Set {
        /// The policy, in TOML or JSON.
        file: PathBuf,
        #[command(flatten)]
        console: Console,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a policy from folders of good evidence.
    Learn(policy_learn::Args),
    /// Say everything that speaks against a policy, by line. Exit 0: nothing; 1: something; 2: no such file.
    Lint(policy_lint::Args),
    /// Say what changes when one policy takes another's place. Exit 0: nothing; 1: something; 2: of no use.
    Diff(policy_diff::Args),
    /// Make one policy of several: lists are joined, the stricter demand holds.
    Merge(policy_merge::Args),
    /// Make a policy of Keylime's, and say what means something else here.
    Import(policy_import::Args),
    /// Make a policy of the programs in Debian packages.
    FromDeb(policy_deb::Args),
    /// Make a policy of the programs of a root file system.
    FromRootfs(policy_rootfs::Args),
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::Show { console, json } => output::exit(show(&console, json)),
        Verb::Set { file, console, json } => output::exit(set(&file, &console, json)),
        Verb::Learn(args) => policy_learn::run(args),
        Verb::Lint(args) => policy_lint::run(&args),
        Verb::Diff(args) => policy_diff::run(&args),
        Verb::Merge(args) => output::exit(policy_merge::run(&args)),
        Verb::Import(args) => output::exit(policy_import::run(&args)),
        Verb::FromDeb(args) => output::exit(policy_deb::run(&args)),
        Verb::FromRootfs(args) => output::exit(policy_rootfs::run(&args)),
    }
}

fn show(console: &Console, json: bool) -> Result<()> {
    let answer = console.client()?.get("/v1/policy")?;
    if json {
        return output::json(&answer);
    }
    match answer.get("text").and_then(Value::as_str) {
        Some(text) => print!("{text}"),
        None => output::out!(
            "No policy is set, so no device is trusted. Learn one: assay policy learn CASE_DIR -o FILE"
        ),
    }
    Ok(())
}

fn set(file: &std::path::Path, console: &Console, json: bool) -> Result<()> {
    let text = read_text(file, POLICY_BYTES_MAX)?;
    let answer =
        console.client()?.put_text("/v1/policy", text).with_context(|| file.display().to_string())?;
    if json {
        return output::json(&answer);
    }
    output::out!(
        "policy {} version {} is in force",
        output::text(&answer, "name"),
        output::text(&answer, "version")
    );
    Ok(())
}

/// A policy of 100,000 paths has about 12 MiB.
const POLICY_BYTES_MAX: u64 = 32 << 20;
