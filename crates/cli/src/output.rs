//! What a verb prints: a table for people, JSON for programs, and one way to fail.

use std::io::Write;
use std::process::ExitCode;

use assay_evidence::time::UnixTime;
use comfy_table::{ContentArrangement, Table, presets};

use crate::failure;

/// Turns a verb's outcome into an exit code.
pub fn exit(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::tell(&error),
    }
}

/// Prints a line. A reader that goes away, as `head` does, ends the program quietly.
macro_rules! out {
    ($($argument:tt)*) => { $crate::output::write_line(format_args!($($argument)*)) };
}
pub(crate) use out;

/// What [`out!`] does.
pub fn write_line(line: std::fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A borderless table that wraps to the terminal.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt()
}

/// Pretty JSON on standard output.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    out!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// An answer: JSON for programs, or for people as `print` has it.
pub fn answer<T: serde::Serialize>(answer: &T, as_json: bool, print: impl FnOnce(&T)) -> anyhow::Result<()> {
    if as_json {
        return json(answer);
    }
    print(answer);
    Ok(())
}

/// A text as people read it, nothing as `-`.
pub fn shown(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text) }
}

/// What may be there as people read it, nothing as `-`.
pub fn maybe(there: &Option<impl ToString>) -> String {
    there.as_ref().map_or_else(|| "-".to_owned(), |there| shown(&there.to_string()))
}

/// A time as people read it, none as `-`.
pub fn when(at: impl Into<Option<UnixTime>>) -> String {
    at.into().filter(|at| at.0 > 0).map_or_else(|| "-".to_owned(), |at| at.to_string())
}

/// A member as people read it: text as it is, null and absent as `-`.
pub fn text(value: &serde_json::Value, member: &str) -> String {
    match value.get(member) {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(serde_json::Value::String(text)) => printable(text),
        Some(other) => other.to_string(),
    }
}

/// A time member (seconds since 1970) as a date; the console speaks seconds.
pub fn time(value: &serde_json::Value, member: &str) -> String {
    match value.get(member).and_then(serde_json::Value::as_u64) {
        None | Some(0) => "-".to_owned(),
        Some(seconds) => assay_evidence::time::UnixTime(seconds).to_string(),
    }
}

/// The members of an array, or nothing.
pub fn list<'a>(value: &'a serde_json::Value, member: &str) -> &'a [serde_json::Value] {
    value.get(member).and_then(serde_json::Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Device names and paths come from devices: no control character of theirs reaches a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_15_a_devices_text_cannot_steer_the_terminal() {
        let value = serde_json::json!({ "name": "a\u{1b}[2Jb" });
        assert_eq!(text(&value, "name"), "a\u{fffd}[2Jb");
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        let value = serde_json::json!({ "reason": "", "n": null });
        assert_eq!([text(&value, "reason"), text(&value, "n"), text(&value, "x")], ["-", "-", "-"]);
    }
}
