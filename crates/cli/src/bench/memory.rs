//! What waiting devices and their policy take of the server's memory.

use anyhow::{Context, Result, ensure};
use assay_testkit::EkMaker;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::load::{Fleet, Scenario};
use super::policy;
use super::server::Server;

/// Resident memory, in a server of its own.
#[derive(Serialize)]
pub struct Memory {
    /// Bytes of the policy that all share, in MiB.
    pub policy_mib: f64,
    /// What the server grew by when it was set, with all that reading it takes, in MiB.
    pub policy_added_mib: f64,
    /// Devices that were attached at the end.
    pub devices: usize,
    /// What each of the second half added, in KiB: by then nothing is bought for the first time any more.
    pub device_kib: f64,
}

impl Memory {
    /// Sets a long policy; then attaches devices that have a boot log and an IMA list over a few connections, as a
    /// gateway does, lets each attest once and wait.
    pub fn measure(devices: usize, ima_entries: usize) -> Result<Memory> {
        let maker = EkMaker::new()?;
        let server = Server::start(&maker.root_ca_pem())?;
        let (door, runtime) = (server.door()?, Runtime::new()?);
        let system = Scenario::NothingNew.system(ima_entries);
        let mut fleet = runtime.block_on(Fleet::enroll(&maker, &door, &system, devices))?;
        let policy = policy::of_bytes(fleet.specimen().context("at least one device")?, POLICY_BYTES);
        let policy_mib = mib(policy.len() as f64);

        let enrolled = server.resident_bytes()?;
        server.client.put_text("/v1/policy", policy)?;
        let with_policy = server.resident_bytes()?;
        let half = devices / 2;
        ensure!(half > 0, "two devices or more that wait");
        let mut kept = Vec::new();
        runtime.block_on(fleet.keep_attached(devices - half, &mut kept))?;
        let half_attached = server.resident_bytes()?;
        runtime.block_on(fleet.keep_attached(half, &mut kept))?;
        let all_attached = server.resident_bytes()?;
        Ok(Memory {
            policy_mib,
            policy_added_mib: mib(with_policy.saturating_sub(enrolled) as f64),
            devices: kept.len(),
            device_kib: all_attached.saturating_sub(half_attached) as f64 / 1024.0 / half as f64,
        })
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// The longest policy that people are expected to have.
const POLICY_BYTES: usize = 20 << 20;
