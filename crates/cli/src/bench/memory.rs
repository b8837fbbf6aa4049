//! What waiting devices and long policies take of the server's memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_testkit::{EkMaker, SoftwareDevice};
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::runtime::Runtime;

use super::load::{Fleet, Scenario, answer_all};
use super::policy;
use super::server::Server;
use crate::output;

/// Arguments of `assay bench policy`.
#[derive(clap::Args)]
pub struct Args {
    /// Mebibytes of the policy.
    #[arg(long, default_value_t = 20)]
    mib: usize,
    /// How often one of that length is set.
    #[arg(long, default_value_t = 10)]
    times: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Resident memory, in a server of its own.
#[derive(Serialize)]
pub struct Memory {
    /// Devices that were attached at the end.
    pub devices: usize,
    /// What each of the second half added, in KiB: by then nothing is bought for the first time any more.
    pub device_kib: f64,
    /// What long policies took once all of them were judged under one.
    pub policy: PolicyMemory,
}

/// What a long policy takes, set once and again. Each has another content, and the one before is let go.
#[derive(Serialize)]
pub struct PolicyMemory {
    /// Bytes of its text, in MiB.
    pub policy_mib: f64,
    /// How often one was set.
    pub times: usize,
    /// What the server grew by with the first, in MiB: with what reading it left behind.
    pub first_added_mib: f64,
    /// The same after the last.
    pub last_added_mib: f64,
    /// The most that it grew by on the way, in MiB.
    pub peak_added_mib: f64,
    /// Processor time of the server for setting one, in the median.
    pub set_cpu_ms: f64,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let maker = EkMaker::new()?;
    let server = Server::start(&maker.root_ca_pem())?;
    let specimen = SoftwareDevice::new("bench", &maker)?;
    let memory = PolicyMemory::measure(&server, &specimen, args.mib, args.times, || Ok(()))?;
    if args.json {
        return output::json(&serde_json::to_value(&memory)?);
    }
    let PolicyMemory { policy_mib, times, first_added_mib, last_added_mib, peak_added_mib, set_cpu_ms } =
        memory;
    output::out!(
        "A policy of {policy_mib:.1} MiB added {first_added_mib:.1} MiB to the server, {times} of them one after the other \
         {last_added_mib:.1} MiB, and {peak_added_mib:.1} MiB at the most.\nSetting one takes {set_cpu_ms:.0} ms of \
         processor time."
    );
    Ok(())
}

impl PolicyMemory {
    /// Sets policies; `judged` lets the devices be judged under the last.
    fn measure(
        server: &Server,
        specimen: &SoftwareDevice,
        mib: usize,
        times: usize,
        mut judged: impl FnMut() -> Result<()>,
    ) -> Result<PolicyMemory> {
        let before = server.resident_bytes()?;
        let added = |bytes: u64| self::mib(bytes.saturating_sub(before) as f64);
        let long = policy::of_bytes(specimen, mib << 20);
        let policy_mib = self::mib(long.len() as f64);
        let mut cpu = Vec::new();
        let mut grown = Vec::new();
        for number in 0..times.max(1) {
            let start = server.cpu()?;
            server.client.put_text::<IgnoredAny>(
                "/v1/policy?force=true",
                format!("{long}\"/opt/{number}\" = [{ANY_DIGEST}]\n"),
            )?;
            cpu.push(server.cpu()?.saturating_sub(start));
            judged()?;
            grown.push(added(settled(server)?));
        }
        cpu.sort_unstable();
        Ok(PolicyMemory {
            policy_mib,
            times: grown.len(),
            first_added_mib: grown.first().copied().unwrap_or_default(),
            last_added_mib: grown.last().copied().unwrap_or_default(),
            peak_added_mib: added(server.peak_bytes()?),
            set_cpu_ms: cpu.get(cpu.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e3,
        })
    }
}

/// Memory that is given back is so a moment after.
fn settled(server: &Server) -> Result<u64> {
    let start = Instant::now();
    while start.elapsed() < SETTLED_AFTER {
        std::thread::sleep(SETTLED_AFTER / 10);
        server.client.get::<IgnoredAny>("/health")?;
    }
    server.resident_bytes()
}

impl Memory {
    /// Attaches devices that have a boot log and an IMA list over a few connections, as a gateway does, lets each
    /// attest once and wait; then sets long policies, under which all attest again.
    pub fn measure(devices: usize, ima_entries: usize, policy_mib: usize, policies: usize) -> Result<Memory> {
        let maker = EkMaker::new()?;
        let server = Server::start(&maker.root_ca_pem())?;
        let (door, runtime) = (server.door()?, Runtime::new()?);
        let system = Scenario::NothingNew.system(ima_entries);
        let mut fleet = runtime.block_on(Fleet::enroll(&maker, &door, &system, devices + 1))?;
        let specimen = fleet.take_specimen().context("at least one device")?;
        // The long one comes last: what reading it leaves free would hide what devices take.
        server.client.put_text::<IgnoredAny>("/v1/policy", policy::with_files(&specimen, 0))?;

        let half = devices / 2;
        ensure!(half > 0, "two devices or more that wait");
        let mut kept = Vec::new();
        runtime.block_on(fleet.keep_attached(devices - half, &mut kept))?;
        let half_attached = settled(&server)?;
        runtime.block_on(fleet.keep_attached(half, &mut kept))?;
        let all_attached = settled(&server)?;
        let device_kib = all_attached.saturating_sub(half_attached) as f64 / 1024.0 / half as f64;
        let policy = PolicyMemory::measure(&server, &specimen, policy_mib, policies, || {
            kept = runtime.block_on(answer_all(std::mem::take(&mut kept)))?;
            Ok(())
        })?;
        Ok(Memory { devices: kept.len(), device_kib, policy })
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

const ANY_DIGEST: &str = "\"sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\"";
const SETTLED_AFTER: Duration = Duration::from_secs(4);
