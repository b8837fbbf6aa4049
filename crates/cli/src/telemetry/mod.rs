//! `assay telemetry`: what devices handed in, and that it is what they signed.
//!
//! Whatever shows or writes a batch verifies it first, with the same code as the server; `folder` is a batch as files, for whoever
//! would rather believe openssl.

mod folder;
mod key;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use assay_telemetry::json_protocol::{Acceptance, JSON_METRICS, Submission, is_acceptance};
use assay_telemetry::otlp::{OTLP_BATCH, OtlpBatch};
use assay_telemetry::position::Position;
use assay_telemetry::{Opened, Statement, open, sha256};
use clap::Subcommand;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use crate::console::{Asking, Console, segment};
use crate::failure;
use crate::output;

/// Arguments of `assay telemetry`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The last batches, newest first, accepted and refused.
    List {
        /// Of this device alone: name, SPIFFE ID, or the beginning of its hash.
        #[arg(long)]
        device: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        asking: Asking,
    },
    /// What is in a batch and what its device states about it, verified.
    Show {
        /// The batch, LEAF/SEQUENCE as `list` has it.
        #[arg(value_name = "BATCH")]
        batch: BatchName,
        #[command(flatten)]
        asking: Asking,
    },
    /// Write a batch into a folder: statement, what was signed, signature, key, payload, and each request in it.
    Export {
        /// The batch, LEAF/SEQUENCE as `list` has it.
        #[arg(value_name = "BATCH")]
        batch: BatchName,
        /// The folder; made if it is not there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
    /// Whose keys sign for which device by the JSON protocol.
    #[command(subcommand)]
    Key(key::Verb),
    /// Verify a batch in a folder, as `export` writes it; asks nobody. Exit code 1 says that it does not hold.
    Verify {
        /// The folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// A key to verify with instead of the one in the folder: a SubjectPublicKeyInfo, PEM.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where a batch's run begins in the trail, and its number.
#[derive(Clone, Copy, Debug)]
struct BatchName {
    leaf: u64,
    sequence: u64,
}

impl std::str::FromStr for BatchName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(leaf, sequence)| {
            Some(BatchName { leaf: leaf.parse().ok()?, sequence: sequence.parse().ok()? })
        });
        numbers.ok_or("a batch is named LEAF/SEQUENCE, as `assay telemetry list` shows it")
    }
}

/// A batch as its device signed it.
#[derive(Clone, Debug)]
struct Batch {
    statement: Vec<u8>,
    signature: Vec<u8>,
    payload: Vec<u8>,
    /// SubjectPublicKeyInfo of the device's key.
    key: Vec<u8>,
}

impl Batch {
    fn get(console: &Console, name: BatchName) -> Result<Batch> {
        let BatchName { leaf, sequence } = name;
        let answer: Value = console.client()?.get(&format!("/v1/telemetry/{leaf}/{sequence}"))?;
        let bytes = |member: &str| {
            let text = answer.get(member).and_then(Value::as_str).unwrap_or_default();
            BASE64.decode(text.as_bytes()).with_context(|| format!("the console's answer: {member}"))
        };
        Ok(Batch {
            statement: bytes("statement")?,
            signature: bytes("signature")?,
            payload: bytes("payload")?,
            key: bytes("device_key")?,
        })
    }

    /// Verifies it, by what kind of statement it has.
    fn open(&self) -> Result<Held> {
        let Batch { statement, signature, payload, key } = self;
        if is_acceptance(statement) {
            let (acceptance, submission) = Acceptance::open(statement, signature, payload, key)?;
            return Ok(Held::Submission(Box::new(acceptance), submission));
        }
        Ok(Held::Batch(Box::new(open(statement, signature, payload, key)?)))
    }

    /// What came in it, if it is a list of requests.
    fn requests(&self, statement: &Statement) -> Result<Option<OtlpBatch>> {
        let is_list = statement.payload_type == OTLP_BATCH;
        Ok(is_list.then(|| OtlpBatch::read(self.payload.clone().into())).transpose()?)
    }
}

/// What was verified.
enum Held {
    /// A device's statement about its payload.
    Batch(Box<Opened>),
    /// A submission by the JSON protocol, and the collector's statement about it.
    Submission(Box<Acceptance>, Submission),
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::List { device, limit, asking } => output::exit(list(device.as_deref(), limit, &asking)),
        Verb::Show { batch, asking } => output::exit(show(batch, &asking)),
        Verb::Export { batch, out, asking } => output::exit(export(batch, &out, &asking)),
        Verb::Key(verb) => key::run(verb),
        Verb::Verify { folder, key, json } => match folder::read(&folder, key.as_deref()) {
            Ok(batch) => output::exit(verify(&batch, json)),
            Err(error) => failure::unusable(&error),
        },
    }
}

fn list(device: Option<&str>, limit: u32, asking: &Asking) -> Result<()> {
    let device = device.map(|device| format!("&device={}", segment(device))).unwrap_or_default();
    let answer = asking.console.client()?.get(&format!("/v1/telemetry?limit={limit}{device}"))?;
    if asking.json {
        return output::json(&answer);
    }
    let records = output::list(&answer, "records").iter().take(usize::try_from(limit).unwrap_or(usize::MAX));
    let rows = records.map(|record| {
        let text = |member| output::text(record, member);
        let is_accepted = record.get("accepted") == Some(&Value::Bool(true));
        let batch =
            if is_accepted { format!("{}/{}", text("leaf"), text("sequence")) } else { text("sequence") };
        let outcome = if is_accepted { "accepted".to_owned() } else { text("reason") };
        let device = text("device");
        // The start of the hash, which verbs take for the device.
        let hash = device.rsplit('/').next().unwrap_or_default();
        let device = hash.get(..12).unwrap_or(hash).to_owned();
        vec![
            output::time(record, "at"),
            device,
            batch,
            text("items"),
            text("bytes"),
            text("location"),
            outcome,
        ]
    });
    output::out!("{}", output::table(&["at", "device", "batch", "items", "bytes", "location", ""], rows));
    Ok(())
}

fn show(name: BatchName, asking: &Asking) -> Result<()> {
    let batch = Batch::get(&asking.console, name)?;
    let held = batch.open().context(OTHER_KEY)?;
    let said = described(&batch, &held)?;
    if asking.json {
        return output::json(&said);
    }
    print(&said);
    Ok(())
}

fn export(name: BatchName, out: &Path, asking: &Asking) -> Result<()> {
    let batch = Batch::get(&asking.console, name)?;
    let files = match batch.open().context(OTHER_KEY)? {
        Held::Batch(opened) => folder::write(&batch, batch.requests(opened.statement())?.as_ref(), out)?,
        Held::Submission(_, submission) => folder::write_submission(&batch, &submission, out)?,
    };
    if asking.json {
        return output::json(&json!({ "folder": out, "files": files }));
    }
    output::out!("{}: {}", out.display(), files.join(" "));
    Ok(())
}

fn verify(batch: &Batch, json: bool) -> Result<()> {
    let held = batch.open()?;
    let said = described(batch, &held)?;
    if json {
        return output::json(&said);
    }
    output::out!("the batch holds: the key signed this statement, and it is about this payload");
    print(&said);
    Ok(())
}

/// What a verified batch says.
fn described(batch: &Batch, held: &Held) -> Result<Value> {
    let opened = match held {
        Held::Batch(opened) => opened,
        Held::Submission(acceptance, submission) => {
            return Ok(json!({
                "device": acceptance.device_id.to_string(), "key_sha256": HEXLOWER.encode(&acceptance.key_id),
                "sequence": acceptance.sequence, "statement_sha256": HEXLOWER.encode(&sha256(&batch.statement)),
                "previous_sha256": HEXLOWER.encode(&acceptance.previous), "payload_type": JSON_METRICS,
                "payload_sha256": HEXLOWER.encode(&acceptance.payload_sha256), "bytes": batch.payload.len(),
                "items": acceptance.items, "signed_at": acceptance.received_at, "nonce": submission.nonce(),
                "algorithm": acceptance.algorithm.name(),
            }));
        }
    };
    let statement = opened.statement();
    let requests = batch.requests(statement)?;
    let parts = requests.iter().flat_map(|requests| &requests.parts).map(|part| match part.as_gap() {
        Some(gap) => json!({
            "signal": "gap", "requests": gap.requests, "items": gap.items, "bytes": gap.bytes, "reason": gap.reason,
            "first": gap.first_unix_nano / NANOSECONDS, "last": gap.last_unix_nano / NANOSECONDS,
        }),
        None => json!({
            "signal": part.signal().name(), "encoding": part.encoding().media_type(), "items": part.items,
            "bytes": part.body.len(), "at": part.received_unix_nano / NANOSECONDS,
        }),
    });
    let location = statement.location.as_ref().map(|location| {
        json!({
            "method": location.method.name(), "country": location.country, "subdivision": location.subdivision,
            "city": location.city, "position": location.position.as_ref().map(position),
        })
    });
    Ok(json!({
        "device": statement.device_id.to_string(), "key_sha256": HEXLOWER.encode(&statement.key_id),
        "sequence": statement.sequence, "statement_sha256": HEXLOWER.encode(&opened.statement_sha256()),
        "previous_sha256": HEXLOWER.encode(&statement.previous), "boot": statement.boot_epoch.reset_count,
        "payload_type": statement.payload_type, "payload_sha256": HEXLOWER.encode(&statement.payload_sha256),
        "bytes": batch.payload.len(), "items": statement.items, "signed_at": statement.wall_clock_unix_nano / NANOSECONDS,
        "location": location, "policy": statement.policy, "agent": statement.agent_version,
        "parts": parts.collect::<Vec<_>>(),
    }))
}

fn position(position: &Position) -> Value {
    json!({
        "latitude": position.point.latitude(), "longitude": position.point.longitude(),
        "accuracy_m": position.accuracy.metres(), "fixed_at": position.fixed_at, "source": position.source.name(),
        "doubts": position.doubts.iter().map(|doubt| doubt.name()).collect::<Vec<_>>(),
    })
}

/// Where the device said it was, in coordinates, with what is to be said about it.
fn position_in_words(said: &Value) -> Option<Vec<String>> {
    let position = said.get("location")?.get("position").filter(|position| !position.is_null())?;
    let text = |member| output::text(position, member);
    let doubts =
        output::list(position, "doubts").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let doubts = if doubts.is_empty() { doubts } else { format!("; in doubt: {doubts}") };
    let (latitude, longitude) = (text("latitude"), text("longitude"));
    let words = format!("{latitude},{longitude} ± {} m, {}{doubts}", text("accuracy_m"), text("source"));
    Some(vec!["position".to_owned(), words])
}

fn print(said: &Value) {
    let members = [
        "device",
        "sequence",
        "boot",
        "items",
        "bytes",
        "policy",
        "agent",
        "key_sha256",
        "statement_sha256",
        "previous_sha256",
        "payload_sha256",
        "payload_type",
    ];
    let rows = members.iter().map(|member| vec![(*member).to_owned(), output::text(said, member)]);
    let signed_at = vec!["signed at".to_owned(), output::time(said, "signed_at")];
    output::out!("{}", output::table(&["", ""], rows.chain([signed_at]).chain(position_in_words(said))));
    let parts = output::list(said, "parts");
    if parts.is_empty() {
        return;
    }
    let rows = parts.iter().enumerate().map(|(number, part)| {
        let text = |member| output::text(part, member);
        let at = output::time(part, if part.get("at").is_some() { "at" } else { "last" });
        vec![
            number.to_string(),
            at,
            text("signal"),
            text("encoding"),
            text("items"),
            text("bytes"),
            text("reason"),
        ]
    });
    output::out!("\n{}", output::table(&["part", "at", "signal", "encoding", "items", "bytes", "gap"], rows));
}

const OTHER_KEY: &str = "the batch does not verify with the key that its device has now";
const NANOSECONDS: u64 = 1_000_000_000;
