//! What Prometheus is told: here of the product, in `trust` and `nodes` what programs of old look at.

pub(crate) mod nodes;
pub(crate) mod trust;

use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use assay_evidence::time::UnixTime;
use assay_exposition::Format;
use assay_identity::Life;
use assay_trust::{Status, Tier};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::attest::table::Clocks;
use crate::concern::Concern;
use crate::grant::telemetry::Answer;
use crate::in_force::endorsers::ListInForce;
use crate::outcome::faults;
use crate::security::Cause;
use crate::store::{Dropped, Storage, Why};
use trust::TrustMetrics;

/// Counters of what the server did, and gauges that are set when they are asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    enrollments: Counter,
    attestations: Family<TierLabel, Counter>,
    svids_issued: Counter,
    svids_withdrawn: Counter,
    telemetry: Family<VerdictLabel, Counter>,
    telemetry_dropped: Family<WhyLabel, Counter>,
    forwarded: Family<ForwardedLabel, Counter>,
    forward_waiting: Family<DestinationLabel, Gauge>,
    notified: Family<NotifiedLabel, Counter>,
    webhook_behind: Family<WebhookLabel, Gauge>,
    attached: Gauge<i64, AtomicI64>,
    devices: Family<StatusLabel, Gauge>,
    storage: Family<StoredLabel, Gauge>,
    revocation_list_bytes: Gauge,
    revocation_list_end: Gauge,
    endorsers_failing_seconds: Gauge,
    makers_lists: Family<IssuerLabel, Gauge>,
    certificates: Family<CertificateLabel, Gauge>,
    concerns: Family<ConcernLabel, Gauge>,
    clocks_off: Gauge,
    disk_free: Gauge,
    waiting: Gauge,
    refused: Family<CauseLabel, Counter>,
    clock_furthest: Gauge,
    judging: Histogram,
    issuing: Histogram,
    coalesced: Counter,
    faults: Counter,
    mended: Counter,
    ledger_unsigned: Gauge,
    /// There where the trust API is on.
    pub trust: Option<TrustMetrics>,
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
struct WhyLabel {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForwardedLabel {
    destination: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabel {
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotifiedLabel {
    webhook: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabel {
    webhook: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabel {
    issuer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConcernLabel {
    concern: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoredLabel {
    what: &'static str,
    unit: &'static str,
}

impl Metrics {
    /// `with_trust`: also those of the trust API.
    pub(crate) fn new(with_trust: bool) -> Metrics {
        let mut all = Registry::default();
        let registry = all.sub_registry_with_prefix("assay");
        let metrics = Metrics {
            enrollments: Counter::default(),
            attestations: Family::default(),
            svids_issued: Counter::default(),
            svids_withdrawn: Counter::default(),
            telemetry: Family::default(),
            telemetry_dropped: Family::default(),
            forwarded: Family::default(),
            forward_waiting: Family::default(),
            notified: Family::default(),
            webhook_behind: Family::default(),
            attached: Gauge::default(),
            devices: Family::default(),
            storage: Family::default(),
            revocation_list_bytes: Gauge::default(),
            revocation_list_end: Gauge::default(),
            endorsers_failing_seconds: Gauge::default(),
            makers_lists: Family::default(),
            certificates: Family::default(),
            concerns: Family::default(),
            clocks_off: Gauge::default(),
            disk_free: Gauge::default(),
            waiting: Gauge::default(),
            refused: Family::default(),
            clock_furthest: Gauge::default(),
            judging: Histogram::new(LATENCY_SECONDS),
            issuing: Histogram::new(LATENCY_SECONDS),
            coalesced: Counter::default(),
            faults: Counter::default(),
            mended: Counter::default(),
            ledger_unsigned: Gauge::default(),
            trust: with_trust.then(TrustMetrics::new),
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
        registry.register(
            "telemetry_batches_dropped",
            "Accepted batches that are no longer kept, by why",
            metrics.telemetry_dropped.clone(),
        );
        registry.register(
            "telemetry_forwarded",
            "Batches that a destination was given, refused, or that went before it was given them",
            metrics.forwarded.clone(),
        );
        registry.register(
            "telemetry_forward_waiting",
            "Batches that a destination has not been given yet",
            metrics.forward_waiting.clone(),
        );
        registry.register(
            "webhook_notices",
            "Notices that a receiver was given, refused, or could not take",
            metrics.notified.clone(),
        );
        registry.register(
            "webhook_behind",
            "Leaves of the trail that a receiver was not offered yet",
            metrics.webhook_behind.clone(),
        );
        registry.register("devices_attached", "Devices with a standing connection", metrics.attached.clone());
        registry.register("devices", "Enrolled devices, by status", metrics.devices.clone());
        registry.register("storage", "What the database takes, by what and unit", metrics.storage.clone());
        registry.register(
            "revocation_list_bytes",
            "Bytes of the last revocation list signed; at 16 MiB verifiers refuse it",
            metrics.revocation_list_bytes.clone(),
        );
        registry.register(
            "revocation_list_end_seconds",
            "Until when the last revocation list signed may be used, in seconds since 1970",
            metrics.revocation_list_end.clone(),
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
            "certificate_end_seconds",
            "When a certificate of the server's or of a gateway ends unless it is renewed, in seconds since 1970",
            metrics.certificates.clone(),
        );
        registry.register(
            "concerns",
            "What an operator has to do something about, by what it is about",
            metrics.concerns.clone(),
        );
        registry.register(
            "disk_free_bytes",
            "What the data folder's file system has left",
            metrics.disk_free.clone(),
        );
        registry.register(
            "devices_waiting",
            "Devices that were never here and wait for an operator to admit them",
            metrics.waiting.clone(),
        );
        registry.register(
            "security_refusals",
            "Refusals that say somebody tries what they may not, by what was tried",
            metrics.refused.clone(),
        );
        registry.register(
            "device_clocks_off",
            "Attached devices whose clocks are further from the server's than is forgiven where certificates begin",
            metrics.clocks_off.clone(),
        );
        registry.register(
            "device_clock_furthest_seconds",
            "How far the clock of an attached device is from the server's: of the one that is furthest off",
            metrics.clock_furthest.clone(),
        );
        registry.register(
            "attestation_seconds",
            "From evidence that came whole to the verdict on record",
            metrics.judging.clone(),
        );
        registry.register(
            "svid_seconds",
            "From a request for a certificate to the certificate, on record and signed",
            metrics.issuing.clone(),
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
        registry.register(
            "ledger_unsigned_seconds",
            "For how long the newest leaves have been under no signed head; 0: they are",
            metrics.ledger_unsigned.clone(),
        );
        if let Some(trust) = &metrics.trust {
            trust.register(&mut all);
        }
        let metrics = Metrics { registry: all, ..metrics };
        metrics.begin();
        metrics
    }

    /// Every series whose labels are known is there from the start: what is absent cannot be told from what is nought.
    fn begin(&self) {
        for tier in [Tier::None, Tier::Affirming, Tier::Warning, Tier::Contraindicated] {
            drop(self.attestations.get_or_create(&TierLabel { tier: tier.name() }));
        }
        for accepted in ["true", "false"] {
            drop(self.telemetry.get_or_create(&VerdictLabel { accepted }));
        }
        for why in Why::ALL {
            self.telemetry_dropped(why, &Dropped::default());
        }
        for concern in Concern::CODES {
            drop(self.concerns.get_or_create(&ConcernLabel { concern }));
        }
        for cause in Cause::ALL {
            drop(self.refused.get_or_create(&CauseLabel { cause: cause.name() }));
        }
        self.count_devices(&[]);
        self.stored(&Storage::default(), 0, 0);
    }

    fn count_devices(&self, devices: &[(String, u64)]) {
        for status in STATUSES {
            let counted =
                devices.iter().find(|(counted, _)| counted == status.name()).map(|(_, count)| *count);
            let label = StatusLabel { status: status.name() };
            self.devices.get_or_create(&label).set(i64::try_from(counted.unwrap_or(0)).unwrap_or(i64::MAX));
        }
    }

    /// What is wrong now.
    pub(crate) fn concerns(&self, concerns: &[Concern]) {
        for code in Concern::CODES {
            let count = concerns.iter().filter(|concern| concern.code() == code).count();
            let gauge = self.concerns.get_or_create(&ConcernLabel { concern: code });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn disk_free(&self, bytes: u64) {
        self.disk_free.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How many devices wait to be admitted.
    pub(crate) fn waiting(&self, devices: u64) {
        self.waiting.set(i64::try_from(devices).unwrap_or(i64::MAX));
    }

    pub(crate) fn refused(&self, cause: Cause) {
        self.refused.get_or_create(&CauseLabel { cause: cause.name() }).inc();
    }

    /// How often each was refused since the server started.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |cause: &Cause| self.refused.get_or_create(&CauseLabel { cause: cause.name() }).get();
        Cause::ALL.iter().map(move |cause| (cause.name(), count(cause)))
    }

    /// How far devices' clocks are off.
    pub(crate) fn clocks(&self, Clocks { off, furthest }: Clocks) {
        self.clocks_off.set(i64::try_from(off).unwrap_or(i64::MAX));
        self.clock_furthest.set(i64::try_from(furthest).unwrap_or(i64::MAX));
    }

    /// Measures how long evidence takes to be judged.
    pub(crate) fn judging(&self) -> Timer {
        Timer { histogram: self.judging.clone(), since: Instant::now() }
    }

    /// Measures how long a certificate takes.
    pub(crate) fn issuing(&self) -> Timer {
        Timer { histogram: self.issuing.clone(), since: Instant::now() }
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

    /// Until when the last revocation list may be used.
    pub(crate) fn list_ends(&self, at: UnixTime) {
        self.revocation_list_end.set(i64::try_from(at.0).unwrap_or(i64::MAX));
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

    /// When certificates end, by name.
    pub(crate) fn certificates(&self, lives: &[(String, Life)]) {
        self.certificates.clear();
        for (certificate, life) in lives {
            let end = i64::try_from(life.until().as_secs()).unwrap_or(i64::MAX);
            self.certificates.get_or_create(&CertificateLabel { certificate: certificate.clone() }).set(end);
        }
    }

    /// For how long the newest leaves have been under no signed head.
    pub(crate) fn ledger_unsigned(&self, seconds: u64) {
        self.ledger_unsigned.set(number(seconds));
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

    /// What became of a batch.
    pub(crate) fn submitted(&self, answer: &Answer) {
        let accepted = match answer {
            Answer::Accepted(receipt) => {
                self.telemetry_dropped(Why::Device, &receipt.dropped);
                "true"
            }
            Answer::Denied(_) => "false",
        };
        self.telemetry.get_or_create(&VerdictLabel { accepted }).inc();
    }

    /// What became of a batch at a destination.
    pub(crate) fn forwarded(&self, destination: &str, outcome: &'static str) {
        let destination = destination.to_owned();
        self.forwarded.get_or_create(&ForwardedLabel { destination, outcome }).inc();
    }

    pub(crate) fn forward_waits(&self, destination: &str, batches: u64) {
        let label = DestinationLabel { destination: destination.to_owned() };
        self.forward_waiting.get_or_create(&label).set(i64::try_from(batches).unwrap_or(i64::MAX));
    }

    /// What became of a notice at a receiver.
    pub(crate) fn notified(&self, webhook: &str, outcome: &'static str) {
        let webhook = webhook.to_owned();
        self.notified.get_or_create(&NotifiedLabel { webhook, outcome }).inc();
    }

    pub(crate) fn webhook_is_behind(&self, webhook: &str, leaves: u64) {
        let label = WebhookLabel { webhook: webhook.to_owned() };
        self.webhook_behind.get_or_create(&label).set(i64::try_from(leaves).unwrap_or(i64::MAX));
    }

    pub(crate) fn telemetry_dropped(&self, why: Why, dropped: &Dropped) {
        self.telemetry_dropped.get_or_create(&WhyLabel { why: why.name() }).inc_by(dropped.batches);
    }

    /// The text, with the gauges as they stand, and beside them what is in another registry.
    pub(crate) fn render(
        &self,
        attached: usize,
        devices: &[(String, u64)],
        beside: Option<&Registry>,
        format: Format,
    ) -> String {
        self.attached.set(i64::try_from(attached).unwrap_or(i64::MAX));
        self.faults.inc_by(faults().saturating_sub(self.faults.get()));
        self.count_devices(devices);
        let registries: Vec<&Registry> = std::iter::once(&self.registry).chain(beside).collect();
        format.encode_all(&registries)
    }
}

/// Something whose duration counts once it is done; what failed or was given up does not.
#[derive(Debug)]
pub(crate) struct Timer {
    histogram: Histogram,
    since: Instant,
}

impl Timer {
    /// Counts it, and says how long it took.
    pub(crate) fn done(self) -> Duration {
        let took = self.since.elapsed();
        self.histogram.observe(took.as_secs_f64());
        took
    }
}

/// How long something takes that is counted by more than its duration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn poisoned<T>(error: PoisonError<T>) -> T {
    error.into_inner()
}

const STATUSES: [Status; 6] =
    [Status::Pending, Status::Enrolled, Status::Trusted, Status::Suspect, Status::Expired, Status::Revoked];
/// From a quote alone on a quiet machine to a whole list on a busy one.
const LATENCY_SECONDS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];
