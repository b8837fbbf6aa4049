//! `assay ledger`: the audit trail, a hash chain and a Merkle tree over the same leaves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use assay_identity::tlog::{Checkpoint, Hash, includes, is_consistent};
use assay_server::Place;
use assay_server::ledger::Log;
use assay_server::store::DatabaseUrl;
use clap::Subcommand;
use data_encoding::{BASE64, HEXLOWER};
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
    /// Recompute every leaf's hash, the chain and the tree, and check the heads and checkpoints that were signed on the way, from
    /// the server's data folder.
    Verify {
        /// The server's data folder.
        #[arg(long, env = "ASSAY_DATA", default_value = "assay-data")]
        data: PathBuf,
        /// Where its database is, if not in there: postgres://USER@HOST/DATABASE, as the server is configured.
        #[arg(long, env = "ASSAY_DATABASE", value_name = "URL")]
        database: Option<DatabaseUrl>,
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
    /// Print the last signed checkpoint: size and root of the ledger as a Merkle tree, by which others check proofs.
    Checkpoint {
        /// The server's data folder.
        #[arg(long, env = "ASSAY_DATA", default_value = "assay-data")]
        data: PathBuf,
        /// Where its database is, if not in there: postgres://USER@HOST/DATABASE, as the server is configured.
        #[arg(long, env = "ASSAY_DATABASE", value_name = "URL")]
        database: Option<DatabaseUrl>,
        /// Print JSON, with the note.
        #[arg(long)]
        json: bool,
    },
    /// Prove that a leaf is in the ledger, or that the ledger goes on from what it was, against the last checkpoint.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Prove {
        /// The leaf's index, as `receipt`, `audit` and notices name it.
        #[arg(long, group = "what")]
        leaf: Option<u64>,
        /// How many leaves the ledger had then.
        #[arg(long, group = "what", value_name = "LEAVES")]
        since: Option<u64>,
        /// The server's data folder.
        #[arg(long, env = "ASSAY_DATA", default_value = "assay-data")]
        data: PathBuf,
        /// Where its database is, if not in there: postgres://USER@HOST/DATABASE, as the server is configured.
        #[arg(long, env = "ASSAY_DATABASE", value_name = "URL")]
        database: Option<DatabaseUrl>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the ledger as static files, as C2SP tlog-tiles lays a log out: checkpoint, tiles of hashes, and entries.
    Export {
        /// The folder to write; what is in it of an earlier export stays true.
        folder: PathBuf,
        /// The server's data folder.
        #[arg(long, env = "ASSAY_DATA", default_value = "assay-data")]
        data: PathBuf,
        /// Where its database is, if not in there: postgres://USER@HOST/DATABASE, as the server is configured.
        #[arg(long, env = "ASSAY_DATABASE", value_name = "URL")]
        database: Option<DatabaseUrl>,
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
        /// Where its database is, if not in there: postgres://USER@HOST/DATABASE, as the server is configured.
        #[arg(long, env = "ASSAY_DATABASE", value_name = "URL")]
        database: Option<DatabaseUrl>,
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
        Verb::Verify { data, database, key, head, json } => {
            runtime.block_on(verify(place(&data, &database), key.as_deref(), head, json))
        }
        Verb::Checkpoint { data, database, json } => {
            checkpoint(&runtime.block_on(Log::open(place(&data, &database)))?, json)
        }
        Verb::Prove { leaf: Some(leaf), data, database, json, .. } => {
            prove_leaf(&runtime.block_on(Log::open(place(&data, &database)))?, leaf, json)
        }
        Verb::Prove { since, data, database, json, .. } => {
            let log = runtime.block_on(Log::open(place(&data, &database)))?;
            prove_growth(&log, since.unwrap_or_default(), json)
        }
        Verb::Export { folder, data, database, json } => {
            export(&runtime.block_on(Log::export(place(&data, &database), &folder))?, &folder, json)
        }
        Verb::Resume { data, database, leaves, json } => {
            runtime.block_on(resume(place(&data, &database), leaves, json))
        }
    }
}

fn place<'p>(data: &'p Path, database: &'p Option<DatabaseUrl>) -> Place<'p> {
    Place { data, database: database.as_ref() }
}

fn checkpoint(log: &Log, json: bool) -> Result<()> {
    let Checkpoint { origin, size, root } = log.checkpoint();
    if json {
        let root = HEXLOWER.encode(root);
        return output::json(&json!({ "origin": origin, "leaves": size, "root": root, "note": log.note() }));
    }
    print!("{}", log.note());
    Ok(())
}

/// As C2SP tlog-proof has it, after the note that it is checked against.
fn prove_leaf(log: &Log, index: u64, json: bool) -> Result<()> {
    let (leaf, proof) = log.inclusion(index)?;
    let Checkpoint { size, root, .. } = log.checkpoint();
    ensure!(
        includes((index, leaf), *size, &proof, root),
        "the proof does not hold: this is a fault of the program"
    );
    if json {
        return output::json(&json!({
            "leaf": index, "leaves": size, "leaf_hash": HEXLOWER.encode(&leaf), "proof": hex(&proof),
            "root": HEXLOWER.encode(root), "checkpoint": log.note(),
        }));
    }
    output::out!("c2sp.org/tlog-proof@v1\nindex {index}");
    proof.iter().for_each(|hash| output::out!("{}", BASE64.encode(hash)));
    print!("\n{}", log.note());
    Ok(())
}

fn prove_growth(log: &Log, since: u64, json: bool) -> Result<()> {
    let (old_root, proof) = log.consistency(since)?;
    let Checkpoint { size, root, .. } = log.checkpoint();
    let holds = is_consistent((since, &old_root), (*size, root), &proof);
    ensure!(holds, "the proof does not hold: this is a fault of the program");
    if json {
        return output::json(&json!({
            "since": since, "since_root": HEXLOWER.encode(&old_root), "leaves": size, "root": HEXLOWER.encode(root),
            "proof": hex(&proof), "checkpoint": log.note(),
        }));
    }
    output::out!("{since} leaves had the root {}", BASE64.encode(&old_root));
    proof.iter().for_each(|hash| output::out!("{}", BASE64.encode(hash)));
    print!("\n{}", log.note());
    Ok(())
}

fn export(log: &Log, folder: &Path, json: bool) -> Result<()> {
    let size = log.checkpoint().size;
    if json {
        return output::json(&json!({ "folder": folder, "leaves": size, "note": log.note() }));
    }
    output::out!("{size} leaves are in {}, with the checkpoint that was signed of them", folder.display());
    Ok(())
}

fn hex(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| HEXLOWER.encode(hash)).collect()
}

async fn resume(place: Place<'_>, leaves: u64, json: bool) -> Result<()> {
    let resumed = assay_server::continuity::resume(place, leaves).await?;
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

async fn verify(place: Place<'_>, key: Option<&str>, head: Option<PathBuf>, json: bool) -> Result<()> {
    let shown = head.map(|file| std::fs::read_to_string(&file).with_context(|| file.display().to_string()));
    let shown = shown.transpose()?;
    let head = assay_server::ledger::verify(place, key, shown.as_deref()).await?;
    let hash = data_encoding::HEXLOWER.encode(&head.hash);
    if json {
        return output::json(&json!({
            "ok": true, "leaves": head.leaves, "head": hash, "signed": head.signed, "checkpoint": head.checkpoint,
            "key": head.key,
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
