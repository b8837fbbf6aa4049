//! `assay import`: what other systems were set up with, as what this one takes. Nothing is changed anywhere.

mod apart;
mod leaves;
mod spire;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use serde_json::json;

use crate::{bounded, output};

/// Arguments of `assay import`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Read SPIRE's `server.conf` or `agent.conf` (HCL or JSON) and answer with a configuration of ours, and with everything in
    /// it that is otherwise here. Whatever is not understood is said.
    SpireConfig {
        /// The file.
        file: PathBuf,
        /// Where the configuration is written; not if it is there already. Without it, it is printed.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Verb::SpireConfig { file, out, json } = args.verb;
    let text = bounded::read_text(&file, FILE_BYTES_MAX).with_context(|| file.display().to_string())?;
    let leaves = leaves::read(&text).with_context(|| file.display().to_string())?;
    let spire::Imported { kind, configuration, differences, commands } = spire::import(&leaves)?;
    let toml = toml::to_string(&configuration).context("the configuration cannot be written")?;
    if let Some(out) = &out {
        ensure!(!out.exists(), "{} is there already", out.display());
        std::fs::write(out, &toml).with_context(|| out.display().to_string())?;
    }
    if json {
        return output::json(&json!({
            "kind": kind, "configuration": configuration, "commands": commands, "differences": differences,
        }));
    }
    match &out {
        Some(out) => output::out!("wrote {}", out.display()),
        None => output::out!("# {kind} configuration\n{toml}"),
    }
    if !commands.is_empty() {
        output::out!("# once it runs");
        commands.iter().for_each(|command| output::out!("# {}", output::shown(command)));
        output::out!("");
    }
    output::out!("# what is otherwise here: {}", differences.len());
    for spire::Difference { path, value, here } in &differences {
        output::out!("#   {} = {}: {here}", output::shown(path), output::shown(value));
    }
    Ok(())
}

const FILE_BYTES_MAX: u64 = 1 << 20;
