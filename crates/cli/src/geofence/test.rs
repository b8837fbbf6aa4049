//! `assay geofence test`: the same judgement as of a batch, on a place that is given.

use std::process::ExitCode;

use anyhow::{Context, Result};
use assay_telemetry::position::{Accuracy, Doubt, Point, Position, Source as Says};
use assay_trust::place::{Fence, Refused, Seen, Stands};
use assay_trust::region::Place;
use serde_json::{Value, json};

use super::source::Source;
use crate::appraise::at;
use crate::{failure, output};

/// Arguments of `assay geofence test`.
#[derive(clap::Args)]
pub struct Args {
    /// Latitude and longitude in degrees, such as 52.52,13.405. After `--`, they may begin with a minus.
    #[arg(value_name = "LAT,LON", allow_hyphen_values = true)]
    point: String,
    /// How many metres the position may be off.
    #[arg(long, value_name = "METRES", default_value = "10")]
    accuracy: f64,
    /// Whether a receiver says it or somebody wrote it down.
    #[arg(long, value_name = "WHO", default_value = "receiver", value_parser = ["receiver", "configured"])]
    source: String,
    /// How many seconds ago it was fixed.
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    age: u64,
    /// What speaks against it: speed, jump, time, drift, spoofing or jamming. May be given several times.
    #[arg(long, value_name = "DOUBT", value_parser = Doubt::NAMED.map(Doubt::name))]
    doubt: Vec<String>,
    /// What the device says in words: COUNTRY[/SUBDIVISION[/CITY]], such as DE/DE-BE/Berlin.
    #[arg(long, default_value = "", hide_default_value = true)]
    region: String,
    /// Judge as of this time instead of now, such as 2027-01-31T12:00:00Z.
    #[arg(long)]
    at: Option<String>,
    #[command(flatten)]
    policy: Source,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    match test(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failure::unusable(&error),
    }
}

/// Whether a device there may hand in telemetry.
fn test(args: &Args) -> Result<bool> {
    let now = at(args.at.as_deref())?;
    let source = Says::from_name(&args.source).context("a source is receiver or configured")?;
    let position = Position {
        point: args.point.parse::<Point>()?,
        accuracy: Accuracy::from_metres(args.accuracy).context("--accuracy")?,
        fixed_at: (source == Says::Receiver).then(|| now.0.saturating_sub(args.age)),
        source,
        doubts: args.doubt.iter().map(|name| Doubt::from_name(name)).collect(),
    };
    let policy = args.policy.read()?;
    let fence = policy.location.as_ref().map(|section| section.fence());
    let place = region(&args.region);
    let answer = fence.as_ref().map(|fence| fence.judge(place.as_ref(), Some(&position), now));
    let seen = fence.as_ref().map(|fence| fence.survey(&position, now)).unwrap_or_default();
    let refused = answer.and_then(Result::err);
    if args.json {
        output::json(&as_json(&policy.citation(), fence.as_ref(), &position, refused.as_ref(), &seen))?;
    } else {
        print(&policy.citation(), fence.as_ref(), refused.as_ref(), &seen);
    }
    Ok(refused.is_none())
}

fn region(text: &str) -> Option<Place> {
    let mut parts = text.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    (!text.is_empty()).then(|| Place::stated(part(), part(), part()))
}

fn as_json(
    citation: &str,
    fence: Option<&Fence>,
    position: &Position,
    refused: Option<&Refused>,
    seen: &[Seen],
) -> Value {
    json!({
        "policy": citation, "fenced": fence.is_some(), "accepted": refused.is_none(),
        "reason": refused.map(ToString::to_string),
        "assurance": assay_trust::place::Assurance::of(position), "areas": seen,
    })
}

fn print(citation: &str, fence: Option<&Fence>, refused: Option<&Refused>, seen: &[Seen]) {
    let metres = |metres: f64| match metres {
        metres if metres.abs() < 10_000.0 => format!("{metres:.0} m"),
        metres => format!("{:.0} km", metres / 1000.0),
    };
    let rows = seen.iter().map(|seen| {
        let word = if seen.is_denied { "deny" } else { "allow" };
        let margin = match seen.stands {
            Stands::Inside | Stands::Outside => format!("{} to spare", metres(seen.margin_m)),
            Stands::Uncertain => format!("{} too close", metres(-seen.margin_m)),
        };
        let stands = if seen.counts { seen.stands.to_string() } else { format!("{} (not now)", seen.stands) };
        vec![word.to_owned(), seen.area.clone(), stands, metres(seen.border_m), margin]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        output::out!("{}\n", output::table(&["", "area", "position", "to border", "margin"], rows));
    }
    match (fence, refused) {
        (None, _) => output::out!("accepted: {citation} says nothing of places"),
        (Some(_), None) => output::out!("accepted by {citation}"),
        (Some(_), Some(refused)) => output::out!("refused by {citation}: {refused}"),
    }
}
