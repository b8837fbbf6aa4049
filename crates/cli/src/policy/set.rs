//! `assay policy set` and `unassign`: puts a policy in force for devices, and takes it back.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_wire::console::policy::{Set, Unassign, Unassigned};

use super::text;
use super::whom::{Whom, query};
use crate::console::Asking;
use crate::output;

/// Arguments of `assay policy set`.
#[derive(clap::Args)]
pub struct SetArgs {
    /// The policy, in TOML or JSON, signed or not.
    file: PathBuf,
    #[command(flatten)]
    whom: Whom,
    /// Do not look whether trusted devices would fall of it.
    #[arg(long)]
    force: bool,
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
    /// Do not look whether trusted devices would fall of it.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Puts a policy in force.
pub fn set(args: &SetArgs) -> Result<()> {
    let text = text::read_text_of(&args.file)?;
    let selector = args.whom.selector()?;
    let path = format!("/v1/policy{}&force={}", query(&selector), args.force);
    let client = args.asking.console.client()?;
    let answer: Set = client.put_text(&path, text).with_context(|| args.file.display().to_string())?;
    output::answer(&answer, args.asking.json, |Set { name, version, .. }| {
        let whom = if selector.is_empty() { String::new() } else { format!(" for {}", selector.whom()) };
        output::out!("policy {} version {version} is in force{whom}", output::shown(name));
    })
}

/// Takes a policy back.
pub fn unassign(args: &UnassignArgs) -> Result<()> {
    let selector = args.whom.selector()?;
    let body = Unassign { selector: selector.to_string(), force: args.force };
    let answer: Unassigned = args.asking.console.client()?.post("/v1/policies/unassign", &body)?;
    output::answer(&answer, args.asking.json, |_| {
        output::out!("no policy is assigned to {} any more", selector.whom());
    })
}
