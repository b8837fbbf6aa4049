//! Text of no form of its own: hex, and nothing at all.

use assay_evidence::tpm::name::Name;

use super::report::{Report, Severity};
use super::tpm::describe_name;
use super::{Context, Fault, malformed, tee};

/// Whether the beginning of a file is text, as far as it goes.
pub(super) fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut.
        Err(error) if error.error_len().is_none() => {
            let whole = head.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

/// Says of an empty file what it may mean.
pub(super) fn empty(_bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let mut report = Report::new("empty", "an empty file");
    report.remark(
        Severity::Note,
        "a boot log is empty where the boot loader did not hand the firmware's log to the kernel",
    );
    Ok(report)
}

/// Hex digits and white space around them.
pub(super) fn begins_hex(head: &[u8], is_all: bool) -> bool {
    let digits = head.trim_ascii();
    !digits.is_empty()
        && (!is_all || digits.len().is_multiple_of(2))
        && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Reads hex: a Name where it is one.
pub(super) fn read_hex(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let value = data_encoding::HEXLOWER_PERMISSIVE
        .decode(bytes.trim_ascii())
        .map_err(|error| malformed("hex", error))?;
    if let Some(name) = Name::from_bytes(&value) {
        return Ok(describe_name(&name));
    }
    if tee::is_spdm(&value) {
        return tee::read_spdm(&value);
    }
    Ok(Report::new("hex", format!("hex of {} bytes, such as a nonce or a digest", value.len()))
        .with("bytes", value.len())
        .with("value", data_encoding::HEXLOWER.encode(&value)))
}
