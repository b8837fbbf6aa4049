//! `assay security`: who tried what they may not.

use anyhow::Result;
use serde_json::Value;

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
    let answer = asking.console.client()?.get(&format!("/v1/security?limit={limit}"))?;
    if asking.json {
        return output::json(&answer);
    }
    let counts = answer.get("counts").and_then(Value::as_object).into_iter().flatten();
    for (cause, count) in counts.filter(|(_, count)| count.as_u64() != Some(0)) {
        output::out!("{cause:16} {count} since the server started");
    }
    let refusals = output::list(&answer, "refusals");
    if refusals.is_empty() {
        output::out!("Nothing is on record.");
        return Ok(());
    }
    let rows = refusals.iter().map(|refusal| {
        let text = |member| output::text(refusal, member);
        let row = [output::time(refusal, "at"), text("cause"), text("who"), text("from"), text("why")];
        row.into_iter().chain([text("unsaid")]).collect()
    });
    output::out!("{}", output::table(&["time", "cause", "who", "from", "why", "unsaid before"], rows));
    Ok(())
}
