//! `assay policy try`: which devices a policy would make fall, and why, before it is in force.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use assay_wire::console::trial::{Cause, Change, Line, Report};
use indicatif::{ProgressBar, ProgressStyle};

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
            let printed = output::answer(&report, args.asking.json, print);
            match (printed, report.devices.would_fall + report.devices.would_have_fallen) {
                (Err(error), _) => output::exit(Err(error)),
                (Ok(()), 0) => ExitCode::SUCCESS,
                (Ok(()), _) => ExitCode::FAILURE,
            }
        }
        Err(error) => failure::unusable(&error),
    }
}

fn try_out(args: &Args) -> Result<Report> {
    let text = text::read_payload(&args.file)?;
    let client = args.asking.console.client()?;
    let progress = ProgressBar::no_length().with_style(style()?);
    let mut report = None;
    let path = format!("/v1/policy/try{}&since_seconds={}", query(&args.whom.selector()?), args.since);
    let outcome = client.post_for_lines(&path, text, |line| {
        match line {
            Line::Progress(step) => {
                progress.set_length(step.of);
                progress.set_position(step.done);
            }
            Line::Report(whole) => report = Some(*whole),
            Line::Error(why) => bail!("the server could not go on: {}", output::shown(&why)),
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

fn print(report: &Report) {
    let (name, version) = (output::shown(&report.policy.name), report.policy.version);
    output::out!("policy {name} v{version} for {}, tried on what is kept", whom(&report.selector));
    let devices = report.devices;
    output::out!("  {:>7}  would fall", devices.would_fall);
    for (what, devices) in [
        ("would have fallen", devices.would_have_fallen),
        ("would rise", devices.would_rise),
        ("would change otherwise", devices.otherwise_changed),
        ("unchanged", devices.unchanged),
        ("without evidence", devices.without_evidence),
    ] {
        if devices > 0 {
            output::out!("  {devices:>7}  {what}");
        }
    }
    let unreadable = report.results.unreadable;
    if unreadable > 0 {
        output::out!("  {unreadable:>7}  pieces of evidence cannot be judged again");
    }
    print_causes(report);
    print_changes(report);
    output::out!("\nthe policy covers\n{}", coverage(&report.coverage).join("\n"));
}

fn print_causes(report: &Report) {
    let causes = &report.causes;
    for Cause { check, tier, message, devices, results, examples, .. } in
        causes.iter().take(CAUSES_PRINTED_MAX)
    {
        let [check, tier, message] = [check, tier, message].map(|text| output::shown(text));
        let examples = printable_list(examples, *devices);
        output::out!("\n{devices} devices, {results} results: {check} ({tier})\n  {message}\n  {examples}");
    }
    left_off("causes", report.causes_left_off, causes.len().saturating_sub(CAUSES_PRINTED_MAX));
}

fn print_changes(report: &Report) {
    let changes = &report.changes;
    if changes.is_empty() {
        return;
    }
    let rows = changes.iter().take(CHANGES_PRINTED_MAX).map(|change| {
        let Change { device, from, to, at, result, now, reason, .. } = change;
        let [device, from, to, reason] = [device, from, to, reason].map(|text| output::shown(text));
        let when = if *now { "now".to_owned() } else { output::when(*at) };
        vec![device, from, to, when, output::maybe(result), reason]
    });
    output::out!("\n{}", output::table(&["device", "from", "to", "when", "result", "reason"], rows));
    left_off("changes", report.changes_left_off, changes.len().saturating_sub(CHANGES_PRINTED_MAX));
}

fn left_off(what: &str, not_sent: u64, not_printed: usize) {
    let left_off = not_sent + u64::try_from(not_printed).unwrap_or_default();
    if left_off > 0 {
        output::out!("\n… and {left_off} more {what}: --json has the first of each");
    }
}

/// Names, and how many more there are.
fn printable_list(names: &[String], of: u64) -> String {
    let shown = output::shown(&names.join(", "));
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
