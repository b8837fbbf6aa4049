//! Policies as files, signed or not, read within their bound.

use std::path::Path;

use anyhow::{Context, Result};
use assay_trust::Policy;
use assay_trust::policy::{ENVELOPE_BYTES_MAX, payload};

use crate::bounded::read_text;

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
