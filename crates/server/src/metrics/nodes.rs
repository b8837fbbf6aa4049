//! What is told of one node, by its number. For whoever may see details, not for anyone.
//!
//! Counters are kept for so many nodes by name, and for the others together. Gauges are made from the store when they are asked for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::NodeId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use super::trust::Fate;
use super::{number, poisoned};
use crate::node::Standing;

/// What nodes did, as far as this server saw it; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeCounters {
    signed: Family<NodeLabel, Counter>,
    verified: Family<BetweenLabels, Counter>,
    failures: Family<FromLabel, Counter>,
    attestations: Family<ResultLabels, Counter>,
    messages: Family<MessageLabels, Counter>,
    /// Whose name a series may have.
    named: Arc<Mutex<HashSet<NodeId>>>,
    latencies: Arc<Mutex<HashMap<NodeId, Duration>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FromLabel {
    from_node_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BetweenLabels {
    node_id: String,
    from_node_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    node_id: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    from_node_id: String,
    to_node_id: String,
    result: &'static str,
}

impl NodeCounters {
    /// A device was judged.
    pub(crate) fn attested(&self, node: NodeId, is_good: bool, took: Duration) {
        let node_id = self.name(node);
        if node_id != OTHERS {
            self.latencies.lock().unwrap_or_else(poisoned).insert(node, took);
        }
        self.attestations.get_or_create(&ResultLabels { node_id, result: result(is_good) }).inc();
    }

    pub(super) fn message(&self, from: NodeId, server: u32, fate: Fate) {
        // Who was not heard may be anybody, and begins no series in another's name.
        let from = if fate == Fate::Heard { self.name(from) } else { self.known_name(from) };
        let to = server.to_string();
        let labels = MessageLabels {
            from_node_id: from.clone(),
            to_node_id: to.clone(),
            result: result(fate == Fate::Heard),
        };
        self.messages.get_or_create(&labels).inc();
        match fate {
            Fate::Heard | Fate::Refused { .. } => {
                self.signed.get_or_create(&NodeLabel { node_id: from.clone() }).inc();
            }
            Fate::Forged => {
                self.failures.get_or_create(&FromLabel { from_node_id: from.clone() }).inc();
            }
            Fate::Distrusted => {}
        }
        if fate == Fate::Heard {
            self.verified.get_or_create(&BetweenLabels { node_id: to, from_node_id: from }).inc();
        }
    }

    fn known_name(&self, node: NodeId) -> String {
        let is_named = self.named.lock().unwrap_or_else(poisoned).contains(&node);
        if is_named { node.to_string() } else { UNKNOWN.to_owned() }
    }

    fn name(&self, node: NodeId) -> String {
        let mut named = self.named.lock().unwrap_or_else(poisoned);
        if named.contains(&node) || (named.len() < NODES_MAX && named.insert(node)) {
            return node.to_string();
        }
        OTHERS.to_owned()
    }

    /// A registry of these, and of how these nodes stand. `omitted` are as many as there are beside them.
    pub(crate) fn registry(&self, nodes: &[(Standing, bool)], omitted: u64, now: UnixTime) -> Registry {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let gauges = Gauges::register(&mut registry);
        gauges.omitted.set(number(omitted));
        let latencies = self.latencies.lock().unwrap_or_else(poisoned);
        for (standing, chain_is_valid) in nodes {
            let Some(node) = standing.device.record.node else { continue };
            gauges.set(standing, *chain_is_valid, latencies.get(&node).copied(), &node.to_string(), now);
        }
        drop(latencies);
        registry
    }

    fn register(&self, registry: &mut Registry) {
        let tpm = registry.sub_registry_with_prefix("tpm");
        tpm.register(
            "messages_signed",
            "Messages that came with a node's own signature, taken or not",
            self.signed.clone(),
        );
        tpm.register("messages_verified", "Messages of a node that were taken", self.verified.clone());
        tpm.register(
            "signature_verification_failures",
            "Messages under a node's certificate that its key did not sign, or not so",
            self.failures.clone(),
        );
        tpm.register(
            "node_attestation_events",
            "Evidence of a node that was judged; failure: not affirming",
            self.attestations.clone(),
        );
        tpm.register("message_events", "Messages, by whether they were taken", self.messages.clone());
    }
}

/// How nodes stand at one moment.
#[derive(Debug, Default)]
struct Gauges {
    omitted: Gauge,
    chain_valid: Family<NodeLabel, Gauge>,
    score: Family<NodeLabel, Gauge>,
    certificate_valid: Family<NodeLabel, Gauge>,
    certificate_revoked: Family<NodeLabel, Gauge>,
    attested_at: Family<NodeLabel, Gauge>,
    latency: Family<NodeLabel, Gauge<f64, AtomicU64>>,
    life_ratio: Family<NodeLabel, Gauge<f64, AtomicU64>>,
    expiry: Family<NodeLabel, Gauge>,
    age: Family<NodeLabel, Gauge>,
    age_days: Family<NodeLabel, Gauge>,
}

impl Gauges {
    fn register(registry: &mut Registry) -> Gauges {
        let gauges = Gauges::default();
        let assay = registry.sub_registry_with_prefix("assay");
        assay.register(
            "node_series_omitted",
            "Nodes that have no series of their own: of so many, those that stand worst have",
            gauges.omitted.clone(),
        );
        assay.register(
            "certificate_life_ratio",
            "How much of the life of a node's certificate is over; above 1 it has ended",
            gauges.life_ratio.clone(),
        );
        let tpm = registry.sub_registry_with_prefix("tpm");
        let mut gauge =
            |name, help, family: &Family<NodeLabel, Gauge>| tpm.register(name, help, family.clone());
        gauge(
            "trust_chain_valid",
            "Whether a node's certificate verifies to the bundle now",
            &gauges.chain_valid,
        );
        gauge(
            "node_trust_score",
            "100 trusted; 70 with a warning or soon over; 50 pending, suspect, stale; 0 revoked or contraindicated",
            &gauges.score,
        );
        gauge(
            "node_certificate_valid",
            "Whether a node's certificate has neither ended nor been withdrawn",
            &gauges.certificate_valid,
        );
        gauge(
            "node_certificate_revoked",
            "Whether a node's certificate was withdrawn",
            &gauges.certificate_revoked,
        );
        gauge(
            "node_last_attestation_timestamp_seconds",
            "When a node's last evidence was judged, in seconds since 1970",
            &gauges.attested_at,
        );
        for (name, help, family) in [
            (
                "certificate_expiry_seconds",
                "What is left of a node's classic certificate; negative: it has ended",
                &gauges.expiry,
            ),
            ("certificate_age_seconds", "How old a node's classic certificate is", &gauges.age),
            ("certificate_age_days", "The same in whole days", &gauges.age_days),
        ] {
            tpm.register(name, help, family.clone());
        }
        tpm.register(
            "node_attestation_latency_ms",
            "From the last evidence of a node that came whole to the verdict on record",
            gauges.latency.clone(),
        );
        gauges
    }

    fn set(
        &self,
        standing: &Standing,
        chain_is_valid: bool,
        latency: Option<Duration>,
        node: &str,
        now: UnixTime,
    ) {
        let label = NodeLabel { node_id: node.to_owned() };
        let set = |family: &Family<NodeLabel, Gauge>, value: u64| {
            family.get_or_create(&label).set(number(value));
        };
        set(&self.score, standing.score(now).into());
        if let Some(at) = standing.device.state.evidence_at() {
            set(&self.attested_at, at.0);
        }
        if let Some(latency) = latency {
            self.latency.get_or_create(&label).set(latency.as_secs_f64() * 1000.0);
        }
        if let Some((issued_at, not_after)) = standing.classic {
            self.expiry.get_or_create(&label).set(number(not_after.0) - number(now.0));
            let age = now.0.saturating_sub(issued_at.0);
            set(&self.age, age);
            set(&self.age_days, age / SECONDS_PER_DAY);
        }
        // Of a node without a certificate nothing is known of one.
        let Some(certificate) = &standing.certificate else { return };
        set(&self.chain_valid, chain_is_valid.into());
        set(&self.certificate_revoked, certificate.is_withdrawn.into());
        set(&self.certificate_valid, certificate.stands_at(now).into());
        let life = certificate.not_after.0.saturating_sub(certificate.issued_at.0);
        let over = now.0.saturating_sub(certificate.issued_at.0);
        if life > 0 {
            self.life_ratio.get_or_create(&label).set(over as f64 / life as f64);
        }
    }
}

fn result(is_good: bool) -> &'static str {
    if is_good { "success" } else { "failure" }
}

const SECONDS_PER_DAY: u64 = 24 * 3600;
/// Nodes with series of their own.
pub(crate) const NODES_MAX: usize = 1000;
/// All nodes beyond those.
const OTHERS: &str = "others";
/// Whoever has not shown yet whose number it is.
const UNKNOWN: &str = "unknown";
