//! What the original measures, in its words and units: of the host in percent and bytes, and of this door what it did.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use assay_clock::Clock;
use assay_telemetry::json_protocol::Value;
use procfs::{Current, CurrentSI, KernelStats, Meminfo};
use tokio::time::Instant;

use super::object;

/// The host's processor over a second, memory, root file system and network. What cannot be read is left out.
pub(super) async fn system(clock: &Clock) -> Value {
    let before = processor();
    clock.sleep(PROCESSOR_FOR).await;
    let busy = before.zip(processor()).map(|((idle, all), (idle_now, all_now))| {
        let passed = all_now.saturating_sub(all).max(1);
        percent(passed.saturating_sub(idle_now.saturating_sub(idle)), passed)
    });
    let memory = Meminfo::current().ok().map(|memory| {
        let free = memory.mem_available.unwrap_or(memory.mem_free);
        percent(memory.mem_total.saturating_sub(free), memory.mem_total)
    });
    let disk = rustix::fs::statvfs("/").ok().map(|disk| {
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        // As df and the original have it: of what programs may have.
        percent(used, used.saturating_add(disk.f_bavail))
    });
    let network = procfs::net::dev_status().ok().map(|devices| {
        let sum = |bytes: fn(&procfs::net::DeviceStatus) -> u64| {
            Value::Integer(devices.values().map(bytes).fold(0_u64, u64::saturating_add).to_string())
        };
        object([
            ("bytes_sent", sum(|device| device.sent_bytes)),
            ("bytes_recv", sum(|device| device.recv_bytes)),
        ])
    });
    let measured = [
        ("cpu_percent", busy),
        ("memory_percent", memory),
        ("disk_usage_percent", disk),
        ("network_io", network),
    ];
    let measured = measured.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
    Value::Object(measured.collect())
}

/// Ticks idle, and all.
fn processor() -> Option<(u64, u64)> {
    let total = KernelStats::current().ok()?.total;
    let idle = total.idle + total.iowait.unwrap_or(0);
    let busy = total.user + total.nice + total.system;
    let other = [total.irq, total.softirq, total.steal].into_iter().flatten().sum::<u64>();
    Some((idle, idle + busy + other))
}

/// To one place, as the original's library rounds.
fn percent(part: u64, whole: u64) -> Value {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    let tenths = u32::try_from(tenths).unwrap_or(1000).min(1000);
    Value::Float(f64::from(tenths) / 10.0)
}

/// What the door did since it was last asked.
#[derive(Debug)]
pub(super) struct Doings(Mutex<Since>);

#[derive(Debug)]
struct Since {
    began: Instant,
    requests: u32,
    failed: u32,
    taken: Duration,
}

impl Doings {
    /// None yet.
    pub(super) fn since(began: Instant) -> Doings {
        Doings(Mutex::new(Since { began, requests: 0, failed: 0, taken: Duration::ZERO }))
    }

    pub(super) fn note(&self, is_well: bool, taken: Duration) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.requests = since.requests.saturating_add(1);
        since.failed = since.failed.saturating_add(u32::from(!is_well));
        since.taken = since.taken.saturating_add(taken);
    }

    /// What the original calls application metrics, with the connections that are open, and begins anew.
    pub(super) fn measure(&self, connections: usize, now: Instant) -> Value {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Since { began, requests, failed, taken } = &*since;
        let seconds = (now - *began).as_secs_f64().max(f64::MIN_POSITIVE);
        let each = f64::from((*requests).max(1));
        let measured = object([
            ("active_connections", Value::Integer(connections.to_string())),
            ("requests_per_second", Value::Float(f64::from(*requests) / seconds)),
            ("error_rate", Value::Float(f64::from(*failed) * 100.0 / each)),
            ("response_time_ms", Value::Float(taken.as_secs_f64() * 1000.0 / each)),
        ]);
        *since = Since { began: now, requests: 0, failed: 0, taken: Duration::ZERO };
        measured
    }
}

/// As long as the original looks.
const PROCESSOR_FOR: Duration = Duration::from_secs(1);
