//! Policies as files: read within their bound, and never written but as one that can be read again.

use std::path::Path;

use anyhow::{Context, Result};
use assay_trust::Policy;
use assay_trust::policy::{ENVELOPE_BYTES_MAX, Remark, payload};

use crate::client::read_text;
use crate::policy_lint::line;

/// Reads a policy in TOML or JSON, signed or not; whoever asks what it says trusts the file anyway.
pub fn read(path: &Path) -> Result<Policy> {
    let text = read_payload(path)?;
    Policy::from_text(&text).with_context(|| path.display().to_string())
}

/// The text of a policy, out of its envelope where it is signed.
pub fn read_payload(path: &Path) -> Result<String> {
    let text = read_text_of(path)?;
    Ok(payload(&text).with_context(|| path.display().to_string())?.into_owned())
}

/// The text of the file, which may be an envelope.
pub fn read_text_of(path: &Path) -> Result<String> {
    read_text(path, ENVELOPE_BYTES_MAX as u64)
}

/// Writes a policy: TOML, or JSON if the file ends in .json. One that could not be used is not written.
pub fn write(path: &Path, policy: &Policy) -> Result<()> {
    let text = match path.extension() {
        Some(extension) if extension == "json" => policy.to_json(),
        _ => policy.to_toml(),
    };
    Policy::from_text(&text).context("nothing is written")?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// What was written, in a line, and then each remark.
pub fn report(path: &Path, policy: &Policy, remarks: &[Remark]) {
    let files = policy.ima.as_ref().map_or(0, |ima| ima.allow.len());
    let pcrs = policy.pcr.iter().count();
    let file = path.display().to_string();
    crate::output::out!("{file}: policy {} with {pcrs} PCRs and {files} files", policy.citation());
    for remark in remarks {
        crate::output::out!("{}", line(&file, remark));
    }
}
