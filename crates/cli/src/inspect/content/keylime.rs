//! Keylime's forms that are no JSON: quotes as its agent sends them, and allowlists of its first years.

use assay_trust::policy::Import;
use data_encoding::BASE64;

use super::report::{Report, Severity, Value};
use super::{Context, Fault, attestation, malformed, policy, text, tpm};

/// `r`, and three parts of base64 with colons between them.
pub(super) fn begins_quote(head: &[u8], is_all: bool) -> bool {
    let Some(rest) = head.trim_ascii().strip_prefix(b"r") else { return false };
    let is_quote = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b':');
    let colons = rest.iter().filter(|byte| **byte == b':').count();
    rest.iter().all(is_quote) && (colons == 2 || !is_all && (1..=2).contains(&colons))
}

/// Reads a quote with its signature and PCR values.
pub(super) fn read_quote(bytes: &[u8], context: &Context) -> Result<Report, Fault> {
    let bad = |error: &'static str| malformed("a quote as Keylime sends it", error);
    let rest = bytes.trim_ascii().strip_prefix(b"r").unwrap_or_default();
    let parts: Vec<&[u8]> = rest.split(|byte| *byte == b':').collect();
    let [message, signature, pcrs] = parts.as_slice() else { return Err(bad("it has not three parts")) };
    let decode = |part: &[u8]| BASE64.decode(part).map_err(|_| bad("a part of it is not base64"));
    let quote = attestation::read(&decode(message)?, context)?;
    let signature = tpm::read_signature(&decode(signature)?, context)?;
    let pcrs = tpm::read_pcr_file(&decode(pcrs)?, context)?;
    let group =
        |report: Report| Value::group(report.members.into_iter().map(|member| (member.name, member.value)));
    let title = format!("{} as Keylime sends it", quote.title);
    let mut report = Report::new("keylime-quote", title)
        .with("quote", group(quote))
        .with("signature", group(signature))
        .with("pcr_values", group(pcrs));
    report.remark(Severity::Note, "the signature was not looked at: the attestation key is another file");
    Ok(report)
}

/// Lines of a digest and a path, as `sha256sum` writes them.
pub(super) fn begins_allowlist(head: &[u8], _is_all: bool) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    // Of a name that is written with backslashes, the line begins with one.
    let first = first.map(|line| line.strip_prefix(b"\\").unwrap_or(line));
    let Some((digest, path)) =
        first.and_then(|line| line.split_at_checked(line.iter().position(|b| matches!(b, b' ' | b'\t'))?))
    else {
        return false;
    };
    let is_digest = DIGEST_DIGITS.contains(&digest.len()) && digest.iter().all(u8::is_ascii_hexdigit);
    text::is_text(head) && is_digest && !path.trim_ascii().is_empty()
}

/// Reads an allowlist.
pub(super) fn read_allowlist(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| malformed("a list of files and their digests", error))?;
    let mut import = Import::new("inspected");
    import.allowlist(text).map_err(|error| malformed("a list of files and their digests", error))?;
    let (made, remarks) = import.finish();
    let is_entry = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let files = text.lines().filter(is_entry).count();
    let mut report = Report::new("allowlist", format!("list of {files} files and their digests"))
        .with("files", files)
        .with("usable", made.is_ok());
    policy::take_remarks(&remarks, &mut report);
    Ok(report)
}

/// Hex digits of SHA-1, SHA-256, SHA-384 and SHA-512.
const DIGEST_DIGITS: [usize; 4] = [40, 64, 96, 128];
