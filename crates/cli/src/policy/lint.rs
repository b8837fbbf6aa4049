//! `assay policy lint`: everything that speaks against a policy.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use assay_trust::policy::{Remark, review};
use serde_json::json;

use super::text;
use crate::output;

/// Arguments of `assay policy lint`.
#[derive(clap::Args)]
pub struct Args {
    /// The policy, in TOML or JSON, signed or not.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    let remarks = text::read_payload(&args.file).map(|text| review(&text));
    match remarks.and_then(|remarks| print(args, &remarks).map(|()| remarks.is_empty())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("assay: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn print(args: &Args, remarks: &[Remark]) -> Result<()> {
    if args.json {
        return output::json(&json!({ "file": args.file, "ok": remarks.is_empty(), "remarks": remarks }));
    }
    if remarks.is_empty() {
        println!("{}: nothing speaks against it", args.file.display());
    }
    for remark in remarks {
        println!("{}", line(&args.file.display().to_string(), remark));
    }
    Ok(())
}

/// `policy.toml:12: warning: ima.exclude[1]: …`, as editors and compilers write places.
pub fn line(file: &str, remark: &Remark) -> String {
    let place = remark.line.map(|line| format!(":{line}")).unwrap_or_default();
    let field = remark.field.to_string();
    let field = if field.is_empty() { field } else { format!("{field}: ") };
    // An error's own words may start with the field.
    let message = remark.message.strip_prefix(&field).unwrap_or(&remark.message);
    format!("{file}{place}: {}: {field}{message}", remark.severity)
}

/// The file is of no use.
const UNUSABLE: u8 = 2;
