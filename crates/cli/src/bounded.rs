//! Files that people wrote or brought, read within a bound.

use std::io::Read;
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

/// Reads a file within a bound, or standard input where it is `-`.
pub fn read_or_stdin(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    if path != Path::new("-") {
        return read(path, bytes_max);
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .context("standard input")?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        bail!("standard input: more than the {bytes_max} bytes that are accepted");
    }
    Ok(bytes)
}
