//! `assay policy merge`: one policy out of several.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_trust::Policy;
use assay_trust::policy::merge;

use crate::policy_file::{self, Destination};

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
    let policies =
        args.policies.iter().map(|path| policy_file::read(path)).collect::<Result<Vec<Policy>>>()?;
    let first = policies.first().map(|policy| policy.name.as_str());
    let name = args.name.as_deref().or(first).context("there is no policy to merge")?;
    let merged = merge(name, &policies).context("the policies do not make a usable one together")?;
    args.to.write(&merged.policy, &merged.remarks)
}
