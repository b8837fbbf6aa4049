//! `assay policy set` and `unassign`: puts a policy in force for devices, and takes it back.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

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
    let answer = client.put_text(&path, text).with_context(|| args.file.display().to_string())?;
    if args.asking.json {
        return output::json(&answer);
    }
    let (name, version) = (output::text(&answer, "name"), output::text(&answer, "version"));
    let whom = if selector.is_empty() { String::new() } else { format!(" for {}", selector.whom()) };
    output::out!("policy {name} version {version} is in force{whom}");
    Ok(())
}

/// Takes a policy back.
pub fn unassign(args: &UnassignArgs) -> Result<()> {
    let selector = args.whom.selector()?;
    let body = json!({ "selector": selector.to_string(), "force": args.force });
    let answer = args.asking.console.client()?.post("/v1/policies/unassign", &body)?;
    if args.asking.json {
        return output::json(&answer);
    }
    output::out!("no policy is assigned to {} any more", selector.whom());
    Ok(())
}
