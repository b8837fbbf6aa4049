//! What waiting devices and their policy take of the server's memory.

use anyhow::{Context, Result, ensure};
use assay_testkit::EkMaker;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::load::{Fleet, Scenario, answer_all};
use super::policy;
use super::server::Server;

/// Resident memory, in a server of its own.
#[derive(Serialize)]
pub struct Memory {
    /// Devices that were attached at the end.
    pub devices: usize,
    /// What each of the second half added, in KiB: by then nothing is bought for the first time any more.
    pub device_kib: f64,
    /// Bytes of the policy that was set then, in MiB.
    pub policy_mib: f64,
    /// What the server grew by once all of them were judged under it, in MiB: with what reading it took.
    pub policy_added_mib: f64,
}

impl Memory {
    /// Attaches devices that have a boot log and an IMA list over a few connections, as a gateway does, lets each
    /// attest once and wait; then sets a long policy, under which all attest again.
    pub fn measure(devices: usize, ima_entries: usize, policy_mib: usize) -> Result<Memory> {
        let maker = EkMaker::new()?;
        let server = Server::start(&maker.root_ca_pem())?;
        let (door, runtime) = (server.door()?, Runtime::new()?);
        let system = Scenario::NothingNew.system(ima_entries);
        let mut fleet = runtime.block_on(Fleet::enroll(&maker, &door, &system, devices))?;
        let specimen = fleet.specimen().context("at least one device")?;
        let long = policy::of_bytes(specimen, policy_mib << 20);
        // The long one comes last: what reading it leaves free would hide what devices take.
        server.client.put_text("/v1/policy", policy::with_files(specimen, 0))?;

        let half = devices / 2;
        ensure!(half > 0, "two devices or more that wait");
        let mut kept = Vec::new();
        runtime.block_on(fleet.keep_attached(devices - half, &mut kept))?;
        let half_attached = server.resident_bytes()?;
        runtime.block_on(fleet.keep_attached(half, &mut kept))?;
        let all_attached = server.resident_bytes()?;
        let policy_mib = mib(long.len() as f64);
        server.client.put_text("/v1/policy", long)?;
        let kept = runtime.block_on(answer_all(kept))?;
        Ok(Memory {
            devices: kept.len(),
            device_kib: all_attached.saturating_sub(half_attached) as f64 / 1024.0 / half as f64,
            policy_mib,
            policy_added_mib: mib(server.resident_bytes()?.saturating_sub(all_attached) as f64),
        })
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
