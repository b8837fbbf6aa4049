//! `assay geofence show`.

use anyhow::Result;
use assay_trust::place::{Area, Shape};
use assay_trust::policy::LocationSection;
use serde_json::json;

use super::source::Source;
use crate::output;

/// Arguments of `assay geofence show`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Print JSON, with the whole section; areas as they are written.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let policy = args.source.read()?;
    if args.json {
        return output::json(&json!({ "policy": policy.citation(), "location": policy.location }));
    }
    let Some(section) = &policy.location else {
        output::out!("{} says nothing of places: telemetry may come from anywhere.", policy.citation());
        return Ok(());
    };
    print(&policy.citation(), section);
    Ok(())
}

fn print(citation: &str, section: &LocationSection) {
    let fence = section.fence();
    let regions = fence.regions().map_or_else(|| "any".to_owned(), ToString::to_string);
    let mut rows = vec![vec!["regions".to_owned(), regions]];
    rows.extend(fence.denied_regions().map(|regions| vec!["denied regions".to_owned(), regions.to_string()]));
    if fence.asks_for_a_position() {
        let bound = |bound: Option<String>| bound.unwrap_or_else(|| "any".to_owned());
        rows.push(vec!["assurance".to_owned(), format!("{} or better", section.assurance())]);
        rows.push(vec![
            "accuracy".to_owned(),
            bound(section.accuracy_max_m.map(|m| format!("at most {m} m"))),
        ]);
        let age = section.fix_age_max_seconds.map(|seconds| format!("at most {seconds} s"));
        rows.push(vec!["age".to_owned(), bound(age)]);
        let uncertain = match section.uncertain {
            assay_trust::place::Uncertain::Refuse => "refused",
            assay_trust::place::Uncertain::Accept => "accepted, and said",
        };
        rows.push(vec!["at a border".to_owned(), uncertain.to_owned()]);
    } else {
        rows.push(vec!["positions".to_owned(), "not asked for".to_owned()]);
    }
    output::out!("{}", output::table(&[citation, ""], rows));
    let areas = |word: &'static str, areas: &[Area]| {
        areas.iter().map(|area| described(word, area)).collect::<Vec<_>>()
    };
    let rows: Vec<_> = [areas("deny", &section.deny_areas), areas("allow", &section.allow_areas)]
        .into_iter()
        .flatten()
        .collect();
    if !rows.is_empty() {
        output::out!("\n{}", output::table(&["", "area", "what", "when"], rows));
    }
}

fn described(word: &str, area: &Area) -> Vec<String> {
    let hours: Vec<String> = area.hours().iter().map(|hours| format!("{hours} UTC")).collect();
    let hours = if hours.is_empty() { "always".to_owned() } else { hours.join(", ") };
    let what = match area.shape() {
        Shape::Circle(_) => area.shape().to_string(),
        Shape::Polygons(geometry) => format!("{}, {}", area.shape(), geometry.bounds()),
    };
    vec![word.to_owned(), area.name().to_owned(), what, hours]
}
