//! What the host says of itself, read from procfs: processor, memory, disks, network.
//!
//! Names and units follow OpenTelemetry's semantic conventions for system metrics. What cannot be read is left out.

use std::time::{SystemTime, UNIX_EPOCH};

use procfs::{Current, CurrentSI, KernelStats, Meminfo};

use super::metrics::{Batch, Kind, Request};

/// Measures everything once.
pub(super) fn measure(now: SystemTime) -> Batch {
    let nanoseconds = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    };
    let stats = KernelStats::current().ok();
    let booted = stats.as_ref().map_or(0, |stats| stats.btime.saturating_mul(NANOSECONDS_PER_SECOND));
    let mut request = Request::new(host_name(), booted, nanoseconds(now));
    if let Some(stats) = &stats {
        processor(&mut request, stats);
    }
    if let Ok(memory) = Meminfo::current() {
        memory_usage(&mut request, &memory);
    }
    if let Ok(load) = procfs::LoadAverage::current() {
        request.metric("system.cpu.load_average.1m", "{thread}", Kind::Gauge).float(&[], f64::from(load.one));
    }
    disks(&mut request);
    network(&mut request);
    request.finish()
}

fn processor(request: &mut Request, stats: &KernelStats) {
    let total = &stats.total;
    let seconds = |duration: std::time::Duration| duration.as_secs_f64();
    let modes = [
        ("user", Some(total.user_duration())),
        ("nice", Some(total.nice_duration())),
        ("system", Some(total.system_duration())),
        ("idle", Some(total.idle_duration())),
        ("iowait", total.iowait_duration()),
        ("interrupt", total.irq_duration()),
        ("steal", total.steal_duration()),
    ];
    let mut metric = request.metric("system.cpu.time", "s", Kind::Counter);
    for (mode, time) in modes {
        if let Some(time) = time {
            metric.float(&[("cpu.mode", mode)], seconds(time));
        }
    }
    let count = u64::try_from(stats.cpu_time.len()).unwrap_or(u64::MAX);
    request.metric("system.cpu.logical.count", "{cpu}", Kind::Level).int(&[], count);
}

fn memory_usage(request: &mut Request, memory: &Meminfo) {
    let Meminfo { mem_total, mem_free, buffers, cached, .. } = *memory;
    let used = mem_total.saturating_sub(mem_free).saturating_sub(buffers).saturating_sub(cached);
    let mut metric = request.metric("system.memory.usage", "By", Kind::Level);
    for (state, bytes) in [("used", used), ("free", mem_free), ("buffers", buffers), ("cached", cached)] {
        metric.int(&[("system.memory.state", state)], bytes);
    }
}

fn disks(request: &mut Request) {
    let Ok(mut disks) = procfs::diskstats() else { return };
    disks.retain(|disk| !UNINTERESTING_DISKS.iter().any(|prefix| disk.name.starts_with(prefix)));
    disks.truncate(DEVICES_MAX);
    let mut metric = request.metric("system.disk.io", "By", Kind::Counter);
    for disk in &disks {
        let read = disk.sectors_read.saturating_mul(SECTOR_BYTES);
        let written = disk.sectors_written.saturating_mul(SECTOR_BYTES);
        metric.int(&[("system.device", &disk.name), ("disk.io.direction", "read")], read);
        metric.int(&[("system.device", &disk.name), ("disk.io.direction", "write")], written);
    }
}

fn network(request: &mut Request) {
    let Ok(devices) = procfs::net::dev_status() else { return };
    let mut devices: Vec<_> = devices.into_values().filter(|device| device.name != "lo").collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    devices.truncate(DEVICES_MAX);
    let mut metric = request.metric("system.network.io", "By", Kind::Counter);
    for device in &devices {
        let name = ("network.interface.name", device.name.as_str());
        metric.int(&[name, ("network.io.direction", "receive")], device.recv_bytes);
        metric.int(&[name, ("network.io.direction", "transmit")], device.sent_bytes);
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
/// Of /proc/diskstats, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;
/// A host with a thousand virtual interfaces says enough with some of them.
const DEVICES_MAX: usize = 64;
const UNINTERESTING_DISKS: [&str; 3] = ["loop", "ram", "zram"];

#[cfg(test)]
mod tests {
    use assay_telemetry::otlp::{self, Encoding, Signal};
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use prost::Message;

    use super::*;

    #[test]
    fn the_batch_is_otlp_and_has_points() {
        let batch = measure(SystemTime::now());
        let request = ExportMetricsServiceRequest::decode(batch.payload.as_slice()).unwrap();
        let metrics = &request.resource_metrics.first().unwrap().scope_metrics.first().unwrap().metrics;
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        for name in ["system.cpu.time", "system.memory.usage"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let points = otlp::count(Signal::Metrics, Encoding::Protobuf, &batch.payload.clone().into());
        assert!(points.unwrap() >= 10);
        assert!(batch.payload.len() < 64 << 10);
    }
}
