//! `assay ledger`: the hash-chained audit trail.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;

use crate::output;

/// Arguments of `assay ledger`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Recompute every leaf's hash and the chain, and check the heads that were signed on the way, from the server's data
    /// folder.
    Verify {
        /// The server's data folder.
        #[arg(long, env = "ASSAY_DATA", default_value = "assay-data")]
        data: PathBuf,
        /// The key that signed, as /ledger/key of the console shows it; otherwise the one in the data folder.
        #[arg(long, value_name = "NAME+HASH+KEY")]
        key: Option<String>,
        /// A head that was signed and kept elsewhere, which has to be one of this trail: `ledger.head` of a device's state
        /// folder.
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Verb::Verify { data, key, head, json } = args.verb;
    let shown = head.map(|file| std::fs::read_to_string(&file).with_context(|| file.display().to_string()));
    let shown = shown.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let head = runtime.block_on(assay_server::ledger::verify(&data, key.as_deref(), shown.as_deref()))?;
    let hash = data_encoding::HEXLOWER.encode(&head.hash);
    if json {
        return output::json(&json!({
            "ok": true, "leaves": head.leaves, "head": hash, "signed": head.signed, "key": head.key,
        }));
    }
    let signed = match head.signed {
        Some(signed) if signed == head.leaves => "signed".to_owned(),
        Some(signed) => format!("signed up to {signed}"),
        None => "not signed: no server that signs has had it yet".to_owned(),
    };
    output::out!("{} leaves, every one chained to the one before; head {hash}, {signed}", head.leaves);
    Ok(())
}
