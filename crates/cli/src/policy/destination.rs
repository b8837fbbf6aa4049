//! Where a verb writes the policy that it made: never one that could not be read again.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_trust::Policy;
use assay_trust::policy::{Coverage, Remark};
use serde_json::{Value, json};

use super::lint::line;
use crate::output;

/// Where a verb puts the policy that it made, and how it says so.
#[derive(clap::Args)]
pub struct Destination {
    /// Where to write the policy: TOML, or JSON if it ends in .json.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print JSON: what was written, and each remark.
    #[arg(long)]
    pub json: bool,
}

impl Destination {
    /// Writes a policy and says so, with each remark. One that could not be used is not written.
    pub fn write(&self, policy: &Policy, remarks: &[Remark]) -> Result<()> {
        self.put(policy)?;
        self.report(policy, remarks)
    }

    /// The same, where JSON says more: the members of an object.
    pub fn write_with(&self, policy: &Policy, remarks: &[Remark], more: Value) -> Result<()> {
        self.put(policy)?;
        let mut said = self.said(policy, remarks);
        if let (Value::Object(said), Value::Object(more)) = (&mut said, more) {
            said.extend(more);
        }
        output::json(&said)
    }

    fn put(&self, policy: &Policy) -> Result<()> {
        let text = match self.output.extension() {
            Some(extension) if extension == "json" => policy.to_json(),
            _ => policy.to_toml(),
        };
        Policy::from_text(&text).context("nothing is written")?;
        std::fs::write(&self.output, text).with_context(|| self.output.display().to_string())
    }

    fn said(&self, policy: &Policy, remarks: &[Remark]) -> Value {
        json!({
            "file": self.output, "name": policy.name, "version": policy.version, "pcrs": policy.pcr.iter().count(),
            "files": policy.ima.as_ref().map_or(0, |ima| ima.allow.len()), "remarks": remarks,
            "coverage": Coverage::of(policy),
        })
    }

    fn report(&self, policy: &Policy, remarks: &[Remark]) -> Result<()> {
        if self.json {
            return output::json(&self.said(policy, remarks));
        }
        let files = policy.ima.as_ref().map_or(0, |ima| ima.allow.len());
        let pcrs = policy.pcr.iter().count();
        let file = self.output.display().to_string();
        output::out!("{file}: policy {} with {pcrs} PCRs and {files} files", policy.citation());
        for remark in remarks {
            output::out!("{}", line(&file, remark));
        }
        output::out!("\n{}", Coverage::of(policy));
        Ok(())
    }
}
