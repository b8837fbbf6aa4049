//! `assay trust`: what the fleet is trusted with right now.

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay trust`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The fleet's trust states, or that of one SPIFFE ID.
    Status {
        /// A device's or workload's SPIFFE ID; a device also by its name or hash.
        #[arg(long)]
        id: Option<String>,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Verb::Status { id } = &args.verb;
    let client = args.asking.console.client()?;
    let query = id.as_ref().map(|id| format!("?id={}", segment(id))).unwrap_or_default();
    let answer = client.get(&format!("/trust/status{query}"))?;
    if args.asking.json {
        return output::json(&answer);
    }
    match answer.get("devices").and_then(Value::as_object) {
        Some(counts) => {
            output::out!("trust domain {}", output::text(&answer, "trust_domain"));
            let rows = counts.iter().map(|(status, count)| vec![status.clone(), count.to_string()]);
            output::out!("{}", output::table(&["status", "devices"], rows));
        }
        None => {
            for member in ["id", "status", "tier"] {
                output::out!("{member:12} {}", output::text(&answer, member));
            }
            output::out!("{:12} {}", "valid until", output::time(&answer, "valid_until"));
        }
    }
    Ok(())
}
