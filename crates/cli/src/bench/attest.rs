//! `assay bench attest`: a real server process, real TLS, SQLite, and software devices with valid keys and logs.

use std::time::Duration;

use anyhow::{Context, Result};
use assay_testkit::EkMaker;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::aims::{self, Aim, aims};
use super::limit::Limit;
use super::load::{Fleet, Measured, Scenario};
use super::memory::Memory;
use super::policy;
use super::server::Server;
use super::sig::{Cost, Watch};
use crate::output;

/// Arguments of `assay bench attest`.
#[derive(clap::Args)]
pub struct Args {
    /// Devices that attest at the same time.
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Seconds for each kind of evidence.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Entries of the long IMA list.
    #[arg(long, default_value_t = 2000)]
    ima_entries: usize,
    /// Files that the policy lists beside the devices' own.
    #[arg(long, default_value_t = 100_000)]
    policy_files: usize,
    /// Devices that are attached and wait, for the server's memory.
    #[arg(long, default_value_t = 2000)]
    idle_devices: usize,
    /// Mebibytes of the policies that they come to share, one after the other.
    #[arg(long, default_value_t = 20)]
    policy_mib: usize,
    /// How many.
    #[arg(long, default_value_t = 3)]
    policies: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    cores: usize,
    limit_per_second_and_core: Limit,
    devices: usize,
    ima_entries: usize,
    policy_files: usize,
    first_answer_ms: f64,
    resident_idle_mib: f64,
    resident_loaded_mib: f64,
    attestations: Vec<Figures>,
    ima_entry: Cost,
    withdrawal: Withdrawal,
    memory: Memory,
    aims: Vec<Aim>,
}

/// One kind of evidence.
#[derive(Serialize)]
struct Figures {
    evidence: &'static str,
    scenario: Scenario,
    attestations: usize,
    per_second: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    /// Processor time of the server for each, in the median of short stretches.
    server: Cost,
}

/// From failing evidence to withdrawn grants, as the device sees it.
#[derive(Serialize)]
struct Withdrawal {
    devices: usize,
    p50_ms: f64,
    max_ms: f64,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let report = measure(args)?;
    if args.json {
        return output::json(&serde_json::to_value(&report)?);
    }
    print(&report);
    Ok(())
}

fn measure(args: &Args) -> Result<Report> {
    let progress = progress();
    progress.set_message("signatures this machine verifies");
    let limit = Limit::measure()?;
    progress.set_message("starting a server");
    let maker = EkMaker::new()?;
    let server = Server::start(&maker.root_ca_pem())?;
    let resident_idle_mib = mib(server.resident_bytes()?);
    let door = server.door()?;
    let runtime = tokio::runtime::Runtime::new()?;

    let lasting = Duration::from_secs(args.seconds);
    let mut attestations = Vec::new();
    let mut resident_loaded = 0;
    let mut withdrawals = Vec::new();
    for scenario in Scenario::ALL {
        progress.set_message(format!("{}: enrolling {} devices", scenario.name(), args.devices));
        let system = scenario.system(args.ima_entries);
        let mut fleet = runtime.block_on(Fleet::enroll(&maker, &door, &system, args.devices))?;
        let specimen = fleet.specimen().context("at least one device")?;
        let policy = policy::with_files(specimen, args.policy_files);
        let policy = if scenario.has_boot_log() { policy::demanding_boot(&policy) } else { policy };
        // The fleets before this one are still there, and fall with it.
        server.client.put_text::<IgnoredAny>("/v1/policy?force=true", policy)?;

        progress.set_message(format!("{}: attesting for {} s", scenario.name(), args.seconds));
        let attached = runtime.block_on(fleet.attach(scenario))?;
        let watch = Watch::start(server.number())?;
        let measured = runtime.block_on(fleet.attest(attached, scenario, lasting, &watch.done))?;
        attestations.push(figures(scenario, measured, watch.finish()?));
        resident_loaded = resident_loaded.max(server.resident_bytes()?);
        if scenario == Scenario::NothingNew {
            progress.set_message("failing evidence");
            withdrawals = runtime.block_on(fleet.withdrawals(WITHDRAWALS))?;
        }
    }
    progress.set_message(format!("memory of {} devices that wait", args.idle_devices));
    let memory = Memory::measure(args.idle_devices, args.ima_entries, args.policy_mib, args.policies)?;
    progress.finish_and_clear();
    let cost = |scenario| cost(&attestations, scenario);
    let list = cost(Scenario::LongList).over(cost(Scenario::SameBootLog));
    let entries = args.ima_entries.max(1) as f64;
    Ok(Report {
        cores: std::thread::available_parallelism()?.get(),
        limit_per_second_and_core: limit,
        devices: args.devices,
        ima_entries: args.ima_entries,
        policy_files: args.policy_files,
        first_answer_ms: ms(server.first_answer),
        resident_idle_mib,
        resident_loaded_mib: mib(resident_loaded),
        ima_entry: Cost { ms: list.ms / entries, sig: list.sig / entries },
        aims: aims(cost, args.ima_entries, limit, &memory),
        memory,
        attestations,
        withdrawal: withdrawal(withdrawals),
    })
}

fn withdrawal(mut times: Vec<Duration>) -> Withdrawal {
    times.sort_unstable();
    Withdrawal { devices: times.len(), p50_ms: percentile(&times, 50), max_ms: percentile(&times, 100) }
}

fn figures(scenario: Scenario, measured: Measured, server: Cost) -> Figures {
    let mut times = measured.round_trips;
    times.sort_unstable();
    let count = times.len();
    Figures {
        evidence: scenario.name(),
        scenario,
        attestations: count,
        per_second: count as f64 / measured.took.as_secs_f64(),
        p50_ms: percentile(&times, 50),
        p95_ms: percentile(&times, 95),
        p99_ms: percentile(&times, 99),
        server,
    }
}

/// What an attestation costs the server.
fn cost(attestations: &[Figures], scenario: Scenario) -> Cost {
    let of = attestations.iter().find(|figures| figures.scenario == scenario);
    of.map_or(Cost { ms: f64::NAN, sig: f64::NAN }, |figures| figures.server)
}

fn print(report: &Report) {
    let Limit { rsa_2048, p256, .. } = report.limit_per_second_and_core;
    println!(
        "{} cores, shared by the server and {} devices. One core verifies {p256:.0} P-256 or {rsa_2048:.0} RSA-2048 \
         signatures a second.\nA P-256 verification is a sig, {:.3} ms here; each attestation has one, of its quote.\n",
        report.cores,
        report.devices,
        1000.0 / p256
    );
    let rows = report.attestations.iter().map(|figures| {
        vec![
            figures.evidence.to_owned(),
            format!("{:.0}", figures.per_second),
            format!("{:.2}", figures.p50_ms),
            format!("{:.2}", figures.p95_ms),
            format!("{:.2}", figures.p99_ms),
            format!("{:.3}", figures.server.ms),
            format!("{:.2}", figures.server.sig),
        ]
    });
    let header = ["evidence", "attestations/s", "p50 ms", "p95 ms", "p99 ms", "server CPU ms", "in sig"];
    println!("{}\n", output::table(&header, rows));
    println!(
        "one entry of a list of {}, held against a policy of {} files: {:.2} µs CPU, {:.4} sig",
        report.ima_entries,
        report.policy_files,
        report.ima_entry.ms * 1e3,
        report.ima_entry.sig
    );
    println!("first answer after start: {:.0} ms", report.first_answer_ms);
    println!(
        "resident: {:.1} MiB idle, {:.1} MiB loaded",
        report.resident_idle_mib, report.resident_loaded_mib
    );
    let Withdrawal { devices, p50_ms, max_ms } = report.withdrawal;
    println!(
        "failing evidence to withdrawal on the stream: {p50_ms:.1} ms (median of {devices}), at most {max_ms:.1} ms\n"
    );
    println!("{}", aims::table(&report.aims));
}

fn progress() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

/// A percentile of sorted times, in milliseconds; zero of none.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().map_or(0.0, ms)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Devices that fail, one after the other, for the time of withdrawal.
const WITHDRAWALS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(
            [50, 95, 99, 100].map(|percent| percentile(&times, percent)),
            [100.0, 190.0, 198.0, 200.0]
        );
        assert_eq!(percentile(&[], 50), 0.0);
    }
}
