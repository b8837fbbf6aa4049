//! `assay bench try`: a policy tried on results of software devices, through the real route of a real server process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_testkit::{EkMaker, policy_for};
use assay_wire::console::trial::Line;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::limit::Limit;
use super::load::{Fleet, Scenario};
use super::server::Server;
use super::sig::{Cost, Signature};
use crate::output;

/// Arguments of `assay bench try`.
#[derive(clap::Args)]
pub struct Args {
    /// Devices.
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Results of each.
    #[arg(long, default_value_t = 50)]
    results: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    limit_per_second_and_core: Limit,
    devices: usize,
    results: u64,
    per_second_and_core: f64,
    /// Processor time of the server for each.
    each: Cost,
    per_second: f64,
    stored_bytes_per_result: f64,
    resident_mib: f64,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let report = measure(args)?;
    if args.json {
        return output::json(&serde_json::to_value(&report)?);
    }
    let Limit { p256, .. } = report.limit_per_second_and_core;
    output::out!(
        "{} results of {} devices judged again under another policy: {:.0} a second and core, {:.0} a second; {:.2} sig \
         each.\n\
         One core verifies {p256:.0} P-256 signatures a second, one of them for each result.\n\
         The database grew by {:.0} bytes a result; the server had {:.1} MiB resident.",
        report.results,
        report.devices,
        report.per_second_and_core,
        report.per_second,
        report.each.sig,
        report.stored_bytes_per_result,
        report.resident_mib,
    );
    Ok(())
}

fn measure(args: &Args) -> Result<Report> {
    eprintln!("signatures this machine verifies");
    let limit = Limit::measure()?;
    let maker = EkMaker::new()?;
    let server = Server::start(&maker.root_ca_pem())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let door = server.door()?;
    eprintln!("enrolling {} devices", args.devices);
    let system = Scenario::NothingNew.system(0);
    let mut fleet = runtime.block_on(Fleet::enroll(&maker, &door, &system, args.devices))?;
    let policy = policy_for("bench", &[fleet.specimen().context("at least one device")?]);
    let set = |_| server.client.put_text::<IgnoredAny>("/v1/policy?force=true", policy.clone()).map(drop);
    set(0)?;
    eprintln!("recording {} results of each", args.results);
    let before = server.database_bytes()?;
    // Each policy is another version, and so each result another.
    let rounds = args.results.saturating_sub(1);
    // The operator's client has a runtime of its own, which may not run inside this one.
    runtime.block_on(fleet.judge_in_rounds(rounds, |round| tokio::task::block_in_place(|| set(round))))?;
    let grown = server.database_bytes()?.saturating_sub(before);

    eprintln!("trying a policy on them");
    let (cpu, start) = (server.cpu()?, Instant::now());
    let mut judged = None;
    server.client.post_for_lines("/v1/policy/try?since_seconds=86400", policy.clone(), |line| {
        if let Line::Report(report) = line {
            judged = Some(report.results.judged);
        }
        Ok(())
    })?;
    let (took, cpu) = (start.elapsed(), server.cpu()?.saturating_sub(cpu));
    let sig = Signature::new()?.time()?;
    let results = judged.context("the trial came to no report")?;
    ensure!(results > 0, "nothing was kept to try the policy on");
    let per = |time: Duration| results as f64 / time.as_secs_f64().max(1e-3);
    Ok(Report {
        limit_per_second_and_core: limit,
        devices: args.devices,
        results,
        per_second_and_core: per(cpu),
        per_second: per(took),
        each: Cost::new(cpu.div_f64(results as f64), sig),
        stored_bytes_per_result: grown as f64 / results as f64,
        resident_mib: server.resident_bytes()? as f64 / f64::from(1 << 20),
    })
}
