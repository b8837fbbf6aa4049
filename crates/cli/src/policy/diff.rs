//! `assay policy diff`: what changes when one policy takes another's place.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use assay_trust::Policy;
use assay_trust::policy::{Change, Coverage, Covered, Effect, diff};
use serde_json::json;

use super::text;
use crate::{failure, output};

/// Arguments of `assay policy diff`.
#[derive(clap::Args)]
pub struct Args {
    /// The policy as it was.
    from: PathBuf,
    /// The policy as it will be.
    to: PathBuf,
    /// Print JSON, with every change.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    match compare(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failure::unusable(&error),
    }
}

/// Whether nothing changes.
fn compare(args: &Args) -> Result<bool> {
    let (from, to) = (text::read(&args.from)?, text::read(&args.to)?);
    let changes = diff(&from, &to);
    if args.json {
        let coverage = json!({ "from": Coverage::of(&from), "to": Coverage::of(&to) });
        let answer = json!({
            "from": from.citation(), "to": to.citation(), "changes": changes, "coverage": coverage,
        });
        output::json(&answer)?;
    } else {
        print(&from, &to, &changes);
    }
    Ok(changes.is_empty())
}

fn print(from: &Policy, to: &Policy, changes: &[Change]) {
    let (before, after) = (Coverage::of(from), Coverage::of(to));
    if changes.is_empty() {
        output::out!("{} and {} say the same. Both cover\n{after}", from.citation(), to.citation());
        return;
    }
    let rows = changes.iter().take(ROWS_MAX);
    let rows =
        rows.map(|change| vec![change.field.to_string(), change.effect.to_string(), change.value.clone()]);
    output::out!("{}", output::table(&["what", "effect", "value"], rows));
    if let Some(more) = changes.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        output::out!("… and {more} more: --json has them all");
    }
    let effects = [Effect::Allowed, Effect::Refused, Effect::Stricter, Effect::Looser, Effect::Changed];
    let counts =
        effects.map(|effect| (effect, changes.iter().filter(|change| change.effect == effect).count()));
    let counts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(effect, count)| format!("{count} {effect}"))
        .collect();
    output::out!("\n{} covers\n{after}", to.citation());
    let rows = before.rows().iter().filter(|covered| after.cover(covered.row) != covered.cover);
    let was = |covered: &Covered| format!("{} was {}", covered.row, covered.cover);
    let apart: Vec<String> = rows.map(was).collect();
    match apart.as_slice() {
        [] => output::out!("{} covers the same", from.citation()),
        apart => output::out!("{}: {}", from.citation(), apart.join(", ")),
    }
    output::out!("{} → {}: {}", from.citation(), to.citation(), counts.join(", "));
}

/// More than anyone reads in a terminal.
const ROWS_MAX: usize = 500;
