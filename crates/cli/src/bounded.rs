//! Files that people wrote or brought, read within a bound.

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

/// Reads a file within a bound.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if size > bytes_max {
        bail!("{}: {size} bytes, more than the {bytes_max} that are accepted", path.display());
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}
