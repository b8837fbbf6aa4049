//! Text files that people wrote, read within a bound.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Reads a text file a person wrote, within a bound.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if size > bytes_max {
        bail!("{}: {size} bytes, more than the {bytes_max} that are accepted", path.display());
    }
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}
