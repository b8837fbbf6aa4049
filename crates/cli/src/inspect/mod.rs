//! `assay inspect`: what single files are and what they say, whatever they are called. Nothing is believed.
//!
//! `content/` recognises and reads, pure; `against.rs` tells two files apart; here are arguments, files and printing.
//! Exit 0: every file was read, and with `--against` nothing changed; 1: one was not, or something changed; 2: the
//! arguments are of no use.

mod against;
mod content;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use assay_evidence::ima::Entry;
use serde_json::{Value, json};

use self::content::report::Report;
use self::content::{Context, Fault};
use crate::{failure, output};

/// Arguments of `assay inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The files; `-` is standard input. What they are shows by their content: boot logs, IMA lists, quotes, PCR values,
    /// keys and Names of a TPM, certificates, revocation lists, bundles, policies, tokens, envelopes; gzip'd or not.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Say what changed since this earlier file of the same kind, or which PCRs a log does not lead to.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print each entry of an IMA list as well, as it is read.
    #[arg(long, conflicts_with = "against")]
    entries: bool,
    /// Print JSON: an object for one file, a list for several; with --entries a line for each entry before it.
    #[arg(long)]
    json: bool,
    /// Look at validity at this time instead of now, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    match inspect_all(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failure::unusable(&error),
    }
}

/// Whether every file was read, and nothing changed.
fn inspect_all(args: &Args) -> Result<bool> {
    let context = Context { now: crate::appraise::at(args.at.as_deref())? };
    if let Some(earlier) = &args.against {
        return against::run(&args.files, earlier, args.json, &context);
    }
    let mut is_good = true;
    let mut all = Vec::new();
    for file in &args.files {
        let read = read(file, args, &context);
        is_good &= read.is_ok();
        match (args.json, read) {
            (true, read) => all.push(to_json(file, &read)),
            (false, Ok(report)) => print(file, &report),
            (false, Err(fault)) => eprintln!("assay: {}", sentence(file, &fault)),
        }
    }
    if args.json {
        let whole = if all.len() == 1 { all.pop().unwrap_or_default() } else { Value::Array(all) };
        if args.entries {
            output::out!("{whole}");
        } else {
            output::json(&whole)?;
        }
    }
    Ok(is_good)
}

fn read(file: &Path, args: &Args, context: &Context) -> Result<Report, Fault> {
    let mut each = |number: usize, entry: &Entry<'_>| {
        if args.entries {
            print_entry(number, entry, args.json);
        }
    };
    content::inspect(&mut open(file)?, context, &mut each)
}

/// The file, or standard input.
fn open(file: &Path) -> std::io::Result<Box<dyn Read>> {
    match file.as_os_str() == "-" {
        true => Ok(Box::new(std::io::stdin().lock())),
        false => Ok(Box::new(File::open(file)?)),
    }
}

fn print(file: &Path, report: &Report) {
    output::out!("{}", file.display());
    report.print(&mut |line| output::out!("  {line}"));
    output::out!("");
}

fn print_entry(number: usize, entry: &Entry<'_>, as_json: bool) {
    let (algorithm, digest) = entry.stated_digest();
    let digest = format!("{algorithm}:{}", data_encoding::HEXLOWER.encode(digest));
    let signed_by = entry.signature().map(|signature| data_encoding::HEXLOWER.encode(&signature.key_id));
    if as_json {
        output::out!(
            "{}",
            json!({
                "entry": number, "template": entry.template().name(), "digest": digest, "path": entry.path_text(),
                "violation": entry.is_violation(), "signed_by": signed_by, "buffer_bytes": entry.buffer().len(),
            })
        );
        return;
    }
    let note = if entry.is_violation() {
        "  VIOLATION".to_owned()
    } else {
        signed_by.map_or_else(String::new, |key| format!("  signed by {key}"))
    };
    output::out!("{number:8}  {digest}  {}{note}", entry.path_text());
}

fn to_json(file: &Path, read: &Result<Report, Fault>) -> Value {
    let mut json = match read {
        Ok(report) => report.to_json(),
        Err(fault) => json!({ "error": words(fault) }),
    };
    if let Value::Object(members) = &mut json {
        members.insert("file".to_owned(), json!(file.display().to_string()));
    }
    json
}

/// A fault with the file that has it.
fn sentence(file: &Path, fault: &Fault) -> String {
    format!("{}: {}", file.display(), words(fault))
}

/// A fault and its causes; text of the file in it is escaped.
fn words(fault: &Fault) -> String {
    let mut words = fault.to_string();
    if let Fault::Input(cause) = fault {
        words.push_str(&format!(": {cause}"));
    }
    words
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
