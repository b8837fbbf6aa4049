//! `assay entry`: registration entries, which say what workload on which device gets which SPIFFE ID.

use anyhow::Result;
use assay_identity::Selector;
use clap::Subcommand;
use serde_json::json;

use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay entry`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// All entries.
    List,
    /// Entitle a workload.
    Create {
        /// The workload's SPIFFE ID.
        #[arg(long)]
        spiffe_id: String,
        /// The device it runs on: its name, SPIFFE ID or the hash in it; one that has yet to enroll is known by its ID.
        #[arg(long)]
        parent: String,
        /// A selector, type:value, such as unix:uid:1000; all of them must match.
        #[arg(long = "selector", required = true)]
        selectors: Vec<Selector>,
        /// Life of an SVID in seconds.
        #[arg(long, default_value_t = 3600)]
        ttl: u32,
        /// A DNS name in the SVID.
        #[arg(long = "dns")]
        dns_names: Vec<String>,
    },
    /// End an entitlement.
    Delete {
        /// The entry's id.
        id: String,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let client = args.asking.console.client()?;
    let answer = match &args.verb {
        Verb::List => client.get("/v1/entries")?,
        Verb::Create { spiffe_id, parent, selectors, ttl, dns_names } => {
            let entry = json!({
                "spiffe_id": spiffe_id, "parent": parent, "selectors": selectors,
                "ttl_seconds": ttl, "dns_names": dns_names,
            });
            client.post("/v1/entries", &entry)?
        }
        Verb::Delete { id } => client.delete(&format!("/v1/entries/{}", segment(id)))?,
    };
    if args.asking.json {
        return output::json(&answer);
    }
    let entries = match answer.get("entries") {
        Some(_) => output::list(&answer, "entries").to_vec(),
        None if answer.get("id").is_some() => vec![answer],
        None => return Ok(()),
    };
    let rows = entries.iter().map(|entry| {
        let selectors: Vec<String> = output::list(entry, "selectors")
            .iter()
            .map(|one| format!("{}:{}", output::text(one, "type"), output::text(one, "value")))
            .collect();
        vec![
            output::text(entry, "id"),
            output::text(entry, "spiffe_id"),
            output::text(entry, "parent"),
            selectors.join(" "),
            output::text(entry, "ttl_seconds"),
        ]
    });
    output::out!("{}", output::table(&["entry", "spiffe id", "parent", "selectors", "ttl"], rows));
    Ok(())
}
