//! What Prometheus is told.

use std::sync::atomic::AtomicI64;

use assay_trust::Tier;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::in_force::endorsers::ListInForce;
use crate::outcome::faults;
use crate::store::Storage;

/// Counters of what the server did, and gauges that are set when they are asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    enrollments: Counter,
    attestations: Family<TierLabel, Counter>,
    svids_issued: Counter,
    svids_withdrawn: Counter,
    telemetry: Family<VerdictLabel, Counter>,
    attached: Gauge<i64, AtomicI64>,
    devices: Family<StatusLabel, Gauge>,
    storage: Family<StoredLabel, Gauge>,
    revocation_list_bytes: Gauge,
    endorsers_failing_seconds: Gauge,
    makers_lists: Family<IssuerLabel, Gauge>,
    coalesced: Counter,
    faults: Counter,
    mended: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabel {
    tier: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    accepted: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabel {
    issuer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoredLabel {
    what: &'static str,
    unit: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("assay");
        let metrics = Metrics {
            enrollments: Counter::default(),
            attestations: Family::default(),
            svids_issued: Counter::default(),
            svids_withdrawn: Counter::default(),
            telemetry: Family::default(),
            attached: Gauge::default(),
            devices: Family::default(),
            storage: Family::default(),
            revocation_list_bytes: Gauge::default(),
            endorsers_failing_seconds: Gauge::default(),
            makers_lists: Family::default(),
            coalesced: Counter::default(),
            faults: Counter::default(),
            mended: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("enrollments", "Devices bound", metrics.enrollments.clone());
        registry.register("attestations", "Evidence judged, by tier", metrics.attestations.clone());
        registry.register(
            "svids_issued",
            "Certificates for devices and workloads",
            metrics.svids_issued.clone(),
        );
        registry.register(
            "svids_withdrawn",
            "Certificates that fell with a trust state",
            metrics.svids_withdrawn.clone(),
        );
        registry.register("telemetry_batches", "Batches decided on", metrics.telemetry.clone());
        registry.register("devices_attached", "Devices with a standing connection", metrics.attached.clone());
        registry.register("devices", "Enrolled devices, by status", metrics.devices.clone());
        registry.register("storage", "What the database takes, by what and unit", metrics.storage.clone());
        registry.register(
            "revocation_list_bytes",
            "Bytes of the last revocation list signed; at 16 MiB verifiers refuse it",
            metrics.revocation_list_bytes.clone(),
        );
        registry.register(
            "endorsers_failing_seconds",
            "For how long trust anchors or makers' revocation lists cannot be read; 0: they can",
            metrics.endorsers_failing_seconds.clone(),
        );
        registry.register(
            "makers_revocation_list_end_seconds",
            "When a newer revocation list of a maker of TPMs was promised, in seconds since 1970, by issuer",
            metrics.makers_lists.clone(),
        );
        registry.register(
            "results_coalesced",
            "Results that have no place of their own on record: their device's differ too often",
            metrics.coalesced.clone(),
        );
        registry.register(
            "faults",
            "Requests the server itself failed at: its log says why",
            metrics.faults.clone(),
        );
        registry.register("mended", "Times that memory was not as the store had it", metrics.mended.clone());
        Metrics { registry, ..metrics }
    }

    /// What the database takes, as of a while ago.
    pub(crate) fn stored(&self, storage: &Storage, database_bytes: u64, list_bytes: u64) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (what, unit, number) in [
            ("evidence", "bytes", storage.evidence_bytes),
            ("evidence", "rows", storage.evidence_rows),
            ("telemetry", "bytes", storage.telemetry_bytes),
            ("telemetry", "rows", storage.telemetry_rows),
            ("results", "rows", storage.result_rows),
            ("audit", "rows", storage.leaves),
            ("certificates", "rows", storage.certificates),
            ("database", "bytes", database_bytes),
        ] {
            self.storage.get_or_create(&StoredLabel { what, unit }).set(gauge(number));
        }
        self.revocation_list_bytes.set(gauge(list_bytes));
    }

    /// How long endorsers could not be read, and the lists in force.
    pub(crate) fn endorsers(&self, failing_seconds: u64, lists: &[ListInForce]) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.endorsers_failing_seconds.set(gauge(failing_seconds));
        self.makers_lists.clear();
        for ListInForce { issuer, next_update } in lists {
            self.makers_lists
                .get_or_create(&IssuerLabel { issuer: issuer.clone() })
                .set(gauge(next_update.0));
        }
    }

    pub(crate) fn mended(&self) {
        self.mended.inc();
    }

    pub(crate) fn enrolled(&self) {
        self.enrollments.inc();
    }

    pub(crate) fn attested(&self, tier: Tier) {
        self.attestations.get_or_create(&TierLabel { tier: tier.name() }).inc();
    }

    pub(crate) fn coalesced(&self) {
        self.coalesced.inc();
    }

    pub(crate) fn svid_issued(&self) {
        self.svids_issued.inc();
    }

    pub(crate) fn withdrawn(&self, svids: usize) {
        self.svids_withdrawn.inc_by(u64::try_from(svids).unwrap_or(u64::MAX));
    }

    pub(crate) fn telemetry(&self, accepted: bool) {
        let accepted = if accepted { "true" } else { "false" };
        self.telemetry.get_or_create(&VerdictLabel { accepted }).inc();
    }

    /// The text, with the gauges as they stand.
    pub(crate) fn render(&self, attached: usize, devices: Vec<(String, u64)>) -> String {
        self.attached.set(i64::try_from(attached).unwrap_or(i64::MAX));
        self.faults.inc_by(faults().saturating_sub(self.faults.get()));
        self.devices.clear();
        for (status, count) in devices {
            self.devices.get_or_create(&StatusLabel { status }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        encode(&mut text, &self.registry).ok();
        text
    }
}
