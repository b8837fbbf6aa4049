//! `assay policy lint`: everything that speaks against a policy.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use assay_trust::Policy;
use assay_trust::policy::{Coverage, Remark, review};
use serde_json::json;

use super::text;
use crate::{failure, output};

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
    match text::read_payload(&args.file).and_then(|text| print(args, &text)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failure::unusable(&error),
    }
}

/// Whether nothing speaks against it.
fn print(args: &Args, text: &str) -> Result<bool> {
    let remarks = review(text);
    // Of a policy that cannot be used there is nothing to say.
    let coverage = Policy::from_text(text).ok().map(|policy| Coverage::of(&policy));
    let is_good = remarks.is_empty();
    if args.json {
        let answer = json!({ "file": args.file, "ok": is_good, "remarks": remarks, "coverage": coverage });
        return output::json(&answer).map(|()| is_good);
    }
    if remarks.is_empty() {
        println!("{}: nothing speaks against it", args.file.display());
    }
    for remark in &remarks {
        println!("{}", line(&args.file.display().to_string(), remark));
    }
    if let Some(coverage) = coverage {
        print!("\n{coverage}");
    }
    Ok(is_good)
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
