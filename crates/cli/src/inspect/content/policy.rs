//! Policies in TOML, ours: what they judge, and everything that speaks against them.

use assay_trust::Policy;
use assay_trust::policy::{Remark, Severity as PolicySeverity, review};

use super::report::{Report, Severity, Value};
use super::{Context, Fault, Looks, malformed, text};

/// Text in which a line gives a word a value, or opens a section.
pub(super) fn begins(head: &[u8], _is_all: bool) -> bool {
    let is_line = |line: &[u8]| {
        let line = line.trim_ascii();
        let (word, rest) = line.split_at(line.iter().take_while(is_bare).count());
        !word.is_empty() && rest.trim_ascii_start().starts_with(b"=")
            || line.starts_with(b"[") && line.ends_with(b"]")
    };
    let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    text::is_text(head) && lines.next().is_some_and(is_line)
}

fn is_bare(byte: &&u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Reads a policy in TOML.
pub(super) fn read(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| malformed("a policy", error))?;
    let is_toml = toml::from_str::<toml::Table>(text).is_ok();
    if !is_toml && !text.contains("version") {
        return Err(Fault::Unknown(Looks::Text));
    }
    describe(text)
}

/// What the text of a policy says, in TOML or JSON.
pub(super) fn describe(text: &str) -> Result<Report, Fault> {
    let policy = Policy::from_text(text).map_err(|error| malformed("a policy", error))?;
    let files = policy.ima.as_ref().map(|ima| ima.allow.len());
    let sections = serde_json::to_value(&policy).unwrap_or_default();
    let names: Vec<String> =
        sections.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let mut report = Report::new("policy", format!("policy {}", policy.citation()))
        .with("name", policy.name.as_str())
        .with("version", policy.version)
        .with("sections", Value::list(names.into_iter().filter(|name| name != "name" && name != "version")))
        .with("pcrs", policy.pcr.iter().count())
        .with("files", Value::of(files));
    take_remarks(&review(text), &mut report);
    Ok(report)
}

/// Remarks about a policy as those about a file.
pub(super) fn take_remarks(remarks: &[Remark], report: &mut Report) {
    for remark in remarks.iter().take(REMARKS_MAX) {
        let severity = match remark.severity {
            PolicySeverity::Error => Severity::Error,
            PolicySeverity::Warning => Severity::Warning,
            PolicySeverity::Note => Severity::Note,
        };
        let place = remark.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let field = remark.field.to_string();
        let field = if field.is_empty() { field } else { format!("{field}: ") };
        let message = remark.message.strip_prefix(&field).unwrap_or(&remark.message);
        report.remark(severity, format!("{place}{field}{message}"));
    }
    if let Some(more) = remarks.len().checked_sub(REMARKS_MAX).filter(|more| *more > 0) {
        report.remark(Severity::Note, format!("{more} remarks more (assay policy lint)"));
    }
}

/// Remarks of one policy that are shown.
const REMARKS_MAX: usize = 100;
