//! `assay policy try`: which devices a policy would make fall, and why, before it is in force.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::list::coverage;
use super::text;
use super::whom::{Whom, query, whom};
use crate::console::Asking;
use crate::{failure, output};

/// Arguments of `assay policy try`.
#[derive(clap::Args)]
pub struct Args {
    /// The policy, in TOML or JSON, signed or not.
    file: PathBuf,
    /// Also judge every result that was recorded since, such as 7d, 12h or 30m; else each device's last evidence alone.
    #[arg(long, value_name = "AGE", default_value = "0s", value_parser = age_seconds)]
    since: u64,
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    asking: Asking,
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    match try_out(args) {
        Ok(report) => {
            let printed = match args.asking.json {
                true => output::json(&report),
                false => {
                    print(&report);
                    Ok(())
                }
            };
            match (printed, falls(&report)) {
                (Err(error), _) => output::exit(Err(error)),
                (Ok(()), 0) => ExitCode::SUCCESS,
                (Ok(()), _) => ExitCode::FAILURE,
            }
        }
        Err(error) => failure::unusable(&error),
    }
}

fn try_out(args: &Args) -> Result<Value> {
    let text = text::read_payload(&args.file)?;
    let client = args.asking.console.client()?;
    let progress = ProgressBar::no_length().with_style(style()?);
    let mut report = None;
    let path = format!("/v1/policy/try{}&since_seconds={}", query(&args.whom.selector()?), args.since);
    let outcome = client.post_for_lines(&path, text, |mut line| {
        if let Some(step) = line.get("progress") {
            let number = |member: &str| step.get(member).and_then(Value::as_u64).unwrap_or_default();
            progress.set_length(number("of"));
            progress.set_position(number("done"));
        } else if line.get("error").is_some() {
            bail!("the server could not go on: {}", output::text(&line, "error"));
        } else {
            report = line.get_mut("report").map(Value::take);
        }
        Ok(())
    });
    progress.finish_and_clear();
    outcome.with_context(|| args.file.display().to_string())?;
    report.ok_or_else(|| anyhow!("the console's answer ended without a report: is the server shutting down?"))
}

/// A number and its unit.
fn age_seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not an age: write it as 7d, 12h, 30m or 90s");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).and_then(|digits| digits.parse::<u64>().ok()).ok_or_else(wrong)?;
    number.checked_mul(seconds).ok_or_else(wrong)
}

fn style() -> Result<ProgressStyle> {
    Ok(ProgressStyle::with_template("{bar:40} {pos}/{len} pieces of evidence, {per_sec}, {eta} left")?)
}

fn falls(report: &Value) -> u64 {
    count(report, "would_fall") + count(report, "would_have_fallen")
}

fn count(report: &Value, member: &str) -> u64 {
    report.pointer(&format!("/devices/{member}")).and_then(Value::as_u64).unwrap_or_default()
}

fn print(report: &Value) {
    let policy = report.get("policy").unwrap_or(&Value::Null);
    output::out!(
        "policy {} v{} for {}, tried on what is kept",
        output::text(policy, "name"),
        output::text(policy, "version"),
        whom(report)
    );
    for (what, member) in [
        ("would fall", "would_fall"),
        ("would have fallen", "would_have_fallen"),
        ("would rise", "would_rise"),
        ("would change otherwise", "otherwise_changed"),
        ("unchanged", "unchanged"),
        ("without evidence", "without_evidence"),
    ] {
        let devices = count(report, member);
        if devices > 0 || member == "would_fall" {
            output::out!("  {devices:>7}  {what}");
        }
    }
    let unreadable = report.pointer("/results/unreadable").and_then(Value::as_u64).unwrap_or_default();
    if unreadable > 0 {
        output::out!("  {unreadable:>7}  pieces of evidence cannot be judged again");
    }
    print_causes(report);
    print_changes(report);
    output::out!("\nthe policy covers\n{}", coverage(report).join("\n"));
}

fn print_causes(report: &Value) {
    let causes = output::list(report, "causes");
    for cause in causes.iter().take(CAUSES_PRINTED_MAX) {
        let examples: Vec<&str> = output::list(cause, "examples").iter().filter_map(Value::as_str).collect();
        output::out!(
            "\n{} devices, {} results: {} ({})\n  {}\n  {}",
            output::text(cause, "devices"),
            output::text(cause, "results"),
            output::text(cause, "check"),
            output::text(cause, "tier"),
            output::text(cause, "message"),
            printable_list(&examples, cause.get("devices").and_then(Value::as_u64).unwrap_or_default()),
        );
    }
    left_off(report, "causes", causes.len().saturating_sub(CAUSES_PRINTED_MAX));
}

fn print_changes(report: &Value) {
    let changes = output::list(report, "changes");
    if changes.is_empty() {
        return;
    }
    let rows = changes.iter().take(CHANGES_PRINTED_MAX).map(|change| {
        let is_now = change.get("now").and_then(Value::as_bool).unwrap_or_default();
        vec![
            output::text(change, "device"),
            output::text(change, "from"),
            output::text(change, "to"),
            if is_now { "now".to_owned() } else { output::time(change, "at") },
            output::text(change, "result"),
            output::text(change, "reason"),
        ]
    });
    output::out!("\n{}", output::table(&["device", "from", "to", "when", "result", "reason"], rows));
    left_off(report, "changes", changes.len().saturating_sub(CHANGES_PRINTED_MAX));
}

fn left_off(report: &Value, what: &str, not_printed: usize) {
    let not_sent = report.get(format!("{what}_left_off")).and_then(Value::as_u64).unwrap_or_default();
    let left_off = not_sent + u64::try_from(not_printed).unwrap_or_default();
    if left_off > 0 {
        output::out!("\n… and {left_off} more {what}: --json has the first of each");
    }
}

/// Names, and how many more there are.
fn printable_list(names: &[&str], of: u64) -> String {
    let shown =
        names.join(", ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    match of.saturating_sub(u64::try_from(names.len()).unwrap_or_default()) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

const CAUSES_PRINTED_MAX: usize = 20;
const CHANGES_PRINTED_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use super::age_seconds;

    #[test]
    fn an_age_has_a_number_and_a_unit() {
        assert_eq!(age_seconds("7d"), Ok(604_800));
        assert_eq!(age_seconds("90m"), Ok(5400));
        for wrong in ["", "7", "d", "7w", "-1d", "1.5h", "99999999999999999999d", "7é"] {
            assert!(age_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
