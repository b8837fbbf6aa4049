//! `assay policy merge`: one policy out of several.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_trust::Policy;
use assay_trust::policy::merge;

use super::destination::Destination;
use super::text;

/// Arguments of `assay policy merge`.
#[derive(clap::Args)]
pub struct Args {
    /// The policies.
    #[arg(required = true, value_name = "FILE")]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    to: Destination,
    /// What to call it; otherwise as the first one is called.
    #[arg(long)]
    name: Option<String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let policies = args.policies.iter().map(|path| text::read(path)).collect::<Result<Vec<Policy>>>()?;
    let first = policies.first().map(|policy| policy.name.as_str());
    let name = args.name.as_deref().or(first).context("there is no policy to merge")?;
    let merged = merge(name, &policies).context("the policies do not make a usable one together")?;
    args.to.write(&merged.policy, &merged.remarks)
}
