//! What programs of old look at, under the names that they know: `tpm_…` and `mohawk_…`. There where the trust API is on.
//!
//! Everything is counted of what this server did itself, and what it does not know is absent. Numbers of the fleet are for anyone;
//! what is of one node is in [`super::nodes`].

use std::sync::Mutex;
use std::time::Duration;

use assay_identity::signed_message::NodeId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::nodes::NodeCounters;
use super::{Stopwatch, number, poisoned};

/// Counters of trust; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct TrustMetrics {
    certificates: Gauge,
    verified: Gauge,
    revoked: Gauge,
    verified_nodes: Gauge,
    list_entries: Gauge,
    list_signed: Gauge,
    authority_valid: Gauge,
    chain_seconds: Histogram,
    message_seconds: Histogram,
    chain_failures: Counter,
    cache_hits: Counter,
    cache_misses: Counter,
    caches: Family<CacheLabels, Counter>,
    lock_wait: Family<LockLabels, Histogram, fn() -> Histogram>,
    cleanups: Counter,
    cleaned: Counter,
    replays: Counter,
    prewarm_requests: Counter,
    prewarmed_nodes: Counter,
    /// What is of one node.
    pub nodes: NodeCounters,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    cache: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LockLabels {
    target: &'static str,
    mode: &'static str,
}

/// The fleet at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Nodes of which a certificate is kept.
    pub certificates: u64,
    /// Nodes that are verified.
    pub verified: u64,
    /// Certificates on the list that have not ended.
    pub revoked: u64,
    /// Certificates on the list.
    pub list_entries: u64,
    /// When the list was signed, in seconds since 1970.
    pub list_signed: u64,
    /// Whether the authority's own certificates stand.
    pub authority_is_valid: bool,
}

/// What the server's memories have seen so far: how often each was asked, and how often it knew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memories {
    /// Of chains, and verdicts never: hits and misses.
    pub chains: (u64, u64),
    /// Of boot logs: hits and misses.
    pub boot_logs: (u64, u64),
    /// Of messages: times that old ones were forgotten, and how many.
    pub forgotten: (u64, u64),
}

/// How a message fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was taken.
    Heard,
    /// Its signature held and it was not taken, and whether that is because it was there before.
    Refused { replayed: bool },
    /// Its certificate did not hold.
    Distrusted,
    /// Its signature did not.
    Forged,
}

impl TrustMetrics {
    pub(super) fn new() -> TrustMetrics {
        let metrics = TrustMetrics {
            certificates: Gauge::default(),
            verified: Gauge::default(),
            revoked: Gauge::default(),
            verified_nodes: Gauge::default(),
            list_entries: Gauge::default(),
            list_signed: Gauge::default(),
            authority_valid: Gauge::default(),
            chain_seconds: Histogram::new(SECONDS),
            message_seconds: Histogram::new(SECONDS),
            chain_failures: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            caches: Family::default(),
            lock_wait: Family::new_with_constructor(|| Histogram::new(LOCK_SECONDS)),
            cleanups: Counter::default(),
            cleaned: Counter::default(),
            replays: Counter::default(),
            prewarm_requests: Counter::default(),
            prewarmed_nodes: Counter::default(),
            nodes: NodeCounters::default(),
        };
        for cache in ["quote", "attestation"] {
            for result in ["hit", "miss"] {
                drop(metrics.caches.get_or_create(&CacheLabels { cache, result }));
            }
        }
        for target in ["chains", "messages"] {
            drop(metrics.lock_wait.get_or_create(&LockLabels { target, mode: EXCLUSIVE }));
        }
        metrics
    }

    /// Under the names of old. A counter's name gets `_total` behind it when it is told.
    pub(super) fn register(&self, registry: &mut Registry) {
        let tpm = registry.sub_registry_with_prefix("tpm");
        let mut gauge = |name, help, gauge: &Gauge| tpm.register(name, help, gauge.clone());
        gauge("certificates_total", "Nodes of which a certificate is kept", &self.certificates);
        gauge("certificates_verified_total", "Nodes that are verified now", &self.verified);
        gauge("certificates_revoked_total", "Certificates withdrawn that have not ended", &self.revoked);
        gauge("crl_size", "Certificates on the revocation list", &self.list_entries);
        gauge(
            "crl_last_update_timestamp_seconds",
            "When the revocation list in force was signed, in seconds since 1970",
            &self.list_signed,
        );
        gauge(
            "ca_certificate_valid",
            "1: root and issuing CA stand; 0: one has ended",
            &self.authority_valid,
        );
        let mut histogram = |name, help, histogram: &Histogram| tpm.register(name, help, histogram.clone());
        histogram(
            "trust_verification_duration_seconds",
            "What it took to find or verify the chain of a message's certificate",
            &self.chain_seconds,
        );
        histogram(
            "message_verification_duration_seconds",
            "What it took to hear a message, from its bytes to its being taken or refused",
            &self.message_seconds,
        );
        let mut counter = |name, help, counter: &Counter| tpm.register(name, help, counter.clone());
        counter(
            "trust_verification_failures",
            "Certificates of messages that did not hold",
            &self.chain_failures,
        );
        counter("trust_cache_hits", "Chains that were remembered", &self.cache_hits);
        counter("trust_cache_misses", "Chains that had to be verified", &self.cache_misses);
        self.register_others(registry);
    }

    fn register_others(&self, registry: &mut Registry) {
        registry.register(
            "sovereignmap_verified_nodes_count",
            "Nodes that are verified now",
            self.verified_nodes.clone(),
        );
        let mohawk = registry.sub_registry_with_prefix("mohawk_tpm");
        mohawk.register(
            "cache_events",
            "attestation: boot logs that were read before, or not; quote: none, a quote is verified each time",
            self.caches.clone(),
        );
        mohawk.register(
            "lock_wait_seconds",
            "What a message waited for the memory of chains, and of messages",
            self.lock_wait.clone(),
        );
        let mut counter = |name, help, counter: &Counter| mohawk.register(name, help, counter.clone());
        counter(
            "nonce_cleanup_runs",
            "Times that messages too old to be said again were forgotten",
            &self.cleanups,
        );
        counter("nonce_cleanup_removed", "Messages that were forgotten as too old", &self.cleaned);
        counter("nonce_replay_rejections", "Messages that were there before", &self.replays);
        counter("prewarm_requests", "None: chains are verified when they are needed", &self.prewarm_requests);
        counter("prewarm_warmed_nodes", "None, likewise", &self.prewarmed_nodes);
    }

    /// The numbers of the fleet, and what memories have seen.
    pub(crate) fn set(&self, totals: Totals, memories: Memories) {
        let Totals { certificates, verified, revoked, list_entries, list_signed, authority_is_valid } =
            totals;
        for (gauge, value) in [
            (&self.certificates, certificates),
            (&self.verified, verified),
            (&self.verified_nodes, verified),
            (&self.revoked, revoked),
            (&self.list_entries, list_entries),
            (&self.list_signed, list_signed),
            (&self.authority_valid, authority_is_valid.into()),
        ] {
            gauge.set(number(value));
        }
        let Memories { chains, boot_logs, forgotten } = memories;
        let boot_log =
            |result| self.caches.get_or_create(&CacheLabels { cache: "attestation", result }).clone();
        // Two may be asked at the same time, and neither may count what the other has.
        let _turn = TURN.lock().unwrap_or_else(poisoned);
        for (counter, seen) in [
            (self.cache_hits.clone(), chains.0),
            (self.cache_misses.clone(), chains.1),
            (boot_log("hit"), boot_logs.0),
            (boot_log("miss"), boot_logs.1),
            (self.cleanups.clone(), forgotten.0),
            (self.cleaned.clone(), forgotten.1),
        ] {
            counter.inc_by(seen.saturating_sub(counter.get()));
        }
    }

    /// A chain was found or verified, or did not hold.
    pub(crate) fn chain(&self, took: Duration, holds: bool) {
        self.chain_seconds.observe(took.as_secs_f64());
        if !holds {
            self.chain_failures.inc();
        }
    }

    /// A message was heard or refused. `from` is known to be somebody's number where its signature was looked at.
    pub(crate) fn message(&self, from: NodeId, server: u32, fate: Fate, since: Stopwatch) {
        self.message_seconds.observe(since.elapsed().as_secs_f64());
        if fate == (Fate::Refused { replayed: true }) {
            self.replays.inc();
        }
        self.nodes.message(from, server, fate);
    }

    /// What it took to get hold of one of the memories.
    pub(crate) fn waited(&self, target: &'static str, took: Duration) {
        let waited = self.lock_wait.get_or_create(&LockLabels { target, mode: EXCLUSIVE });
        waited.observe(took.as_secs_f64());
    }
}

static TURN: Mutex<()> = Mutex::new(());
const EXCLUSIVE: &str = "exclusive";
/// From a chain that is remembered to a verification on a busy machine: 5 ms and more would not show a promise of one.
const SECONDS: [f64; 11] = [50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 20e-3, 0.1, 0.5, 2.0];
const LOCK_SECONDS: [f64; 10] = [1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3];
