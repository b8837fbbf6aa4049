//! `assay ledger`: the hash-chained audit trail.

use std::path::{Path, PathBuf};

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
    /// Go on from an older copy of the database, on which a server does not start by itself. It goes on record, and what the
    /// last revocation list names stays withdrawn; devices revoked since are not remembered: revoke them again.
    Resume {
        /// The server's data folder; the server must not run.
        #[arg(long, env = "ASSAY_DATA", default_value = "assay-data")]
        data: PathBuf,
        /// How many leaves the ledger of that copy has, as the server says when it does not start.
        #[arg(long)]
        leaves: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.verb {
        Verb::Verify { data, key, head, json } => runtime.block_on(verify(&data, key.as_deref(), head, json)),
        Verb::Resume { data, leaves, json } => runtime.block_on(resume(&data, leaves, json)),
    }
}

async fn resume(data: &Path, leaves: u64, json: bool) -> Result<()> {
    let resumed = assay_server::continuity::resume(data, leaves).await?;
    if json {
        return output::json(&json!({
            "leaves": resumed.leaves, "still_withdrawn": resumed.still_withdrawn,
        }));
    }
    output::out!("the ledger goes on from leaf {}, and says so", resumed.leaves);
    output::out!("{} certificates stay withdrawn that this copy did not know of", resumed.still_withdrawn);
    output::out!("what was revoked, approved or set since has to be done again; then start the server");
    Ok(())
}

async fn verify(data: &Path, key: Option<&str>, head: Option<PathBuf>, json: bool) -> Result<()> {
    let shown = head.map(|file| std::fs::read_to_string(&file).with_context(|| file.display().to_string()));
    let shown = shown.transpose()?;
    let head = assay_server::ledger::verify(data, key, shown.as_deref()).await?;
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
