//! `assay security`: who tried what they may not.

use anyhow::Result;
use assay_wire::console::record::{Attempt, Security};

use crate::console::Asking;
use crate::output;

/// Arguments of `assay security`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    /// So many of the last on record.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// Prints how often each was refused since the server started, and the last on record.
pub fn run(args: &Args) -> Result<()> {
    let Args { asking, limit } = args;
    let answer: Security = asking.console.client()?.get(&format!("/v1/security?limit={limit}"))?;
    output::answer(&answer, asking.json, print)
}

fn print(Security { counts, refusals }: &Security) {
    for (cause, count) in counts.iter().filter(|(_, count)| **count > 0) {
        output::out!("{cause:16} {count} since the server started");
    }
    if refusals.is_empty() {
        output::out!("Nothing is on record.");
        return;
    }
    let rows = refusals.iter().map(|Attempt { at, who, cause, from, why, unsaid, .. }| {
        let texts = [cause, who, from, why].map(|text| output::shown(text));
        [output::when(*at)].into_iter().chain(texts).chain([unsaid.to_string()]).collect()
    });
    output::out!("{}", output::table(&["time", "cause", "who", "from", "why", "unsaid before"], rows));
}
