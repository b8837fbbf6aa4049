//! The gateway's own pages. They are open to anyone, so they name no server.

use assay_exposition::Format;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};

use crate::body::{AnswerBody, full};
use crate::proxy::{Peer, Proxy};

/// The page with this path, if it is one of ours.
pub(crate) fn page(
    proxy: &Proxy,
    peer: &Peer,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<AnswerBody>> {
    let (content, content_type) = match path {
        "/gateway/status" => (said(proxy, status(proxy, peer)), "application/json"),
        "/gateway/rate-limits" => (said(proxy, rate_limits(proxy, peer)), "application/json"),
        "/health" => {
            (said(proxy, proxy.json.as_ref()?.health(proxy.servers.healthy() > 0)), "application/json")
        }
        "/gateway/metrics" => {
            let format = Format::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
            (format.encode(&metrics(proxy, peer)), format.content_type())
        }
        _ => return None,
    };
    let mut response = Response::new(full(content));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Some(response)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// The same numbers for Prometheus, as they stand.
fn metrics(proxy: &Proxy, peer: &Peer) -> Registry {
    let mut registry = Registry::with_prefix("assay_gateway");
    let gauge = |number: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        gauge
    };
    let count = |number: usize| gauge(u64::try_from(number).unwrap_or(u64::MAX));
    let requests = Family::<Outcome, Counter>::default();
    for (outcome, number) in proxy.counters.by_outcome() {
        requests.get_or_create(&Outcome { outcome }).inc_by(number);
    }
    registry.register("requests", "Requests, by what came of them", requests);
    let servers = Family::<State, Gauge>::default();
    let healthy = proxy.servers.healthy();
    for (state, number) in
        [("healthy", healthy), ("unhealthy", proxy.servers.total().saturating_sub(healthy))]
    {
        servers.get_or_create(&State { state }).set(i64::try_from(number).unwrap_or(i64::MAX));
    }
    registry.register("servers", "Servers behind the gateway, by state", servers);
    registry.register(
        "connections",
        "Connections of devices",
        count(proxy.limiter.connections.open(&caller(proxy, peer)).0),
    );
    let contradictions = Counter::<u64>::default();
    contradictions.inc_by(proxy.credentials.ledger().contradictions());
    registry.register(
        "ledger_contradictions",
        "Times that a server showed another ledger than before: it was set back, or is another",
        contradictions,
    );
    let (credentials, trust) = (proxy.credentials.current(), proxy.credentials.trust().current());
    registry.register(
        "certificate_end_seconds",
        "When the gateway's certificate ends unless it is renewed, in seconds since 1970",
        gauge(credentials.own.not_after().as_secs()),
    );
    registry.register(
        "revocation_list_end_seconds",
        "Until when there should be a newer revocation list, in seconds since 1970; 0: there is none yet",
        gauge(trust.crls.next_update().map_or(0, |end| end.as_secs())),
    );
    registry.register("uptime_seconds", "Since the gateway started", gauge(proxy.uptime().as_secs()));
    registry
}

fn status(proxy: &Proxy, peer: &Peer) -> Value {
    let requests: Map<String, Value> = proxy
        .counters
        .by_outcome()
        .map(|(outcome, number)| (outcome.to_owned(), number.into()))
        .into_iter()
        .collect();
    let healthy = proxy.servers.healthy();
    let credentials = proxy.credentials.current();
    let mut said = json!({
        "status": if healthy > 0 { "ok" } else { "no-healthy-server" },
        "version": env!("CARGO_PKG_VERSION"),
        "id": credentials.own.spiffe_id(),
        "certificate_not_after": credentials.own.not_after().as_secs(),
        "revocation_list": proxy.credentials.list_number(),
        "uptime_seconds": proxy.uptime().as_secs(),
        "servers": { "healthy": healthy, "total": proxy.servers.total() },
        "connections": proxy.limiter.connections.open(&caller(proxy, peer)).0,
        "requests": requests,
    });
    if let Some(json) = &proxy.json {
        json.status(&mut said, proxy.uptime().as_secs());
    }
    said
}

/// As text; the JSON protocol has a time in everything.
fn said(proxy: &Proxy, mut said: Value) -> String {
    if let (Some(_), Some(said)) = (&proxy.json, said.as_object_mut()) {
        said.insert("timestamp".to_owned(), proxy.credentials.clock().utc_without_zone().into());
    }
    said.to_string()
}

fn caller(proxy: &Proxy, peer: &Peer) -> assay_admission::Peer {
    peer.counted(peer.id(&proxy.credentials).as_ref())
}

fn rate_limits(proxy: &Proxy, peer: &Peer) -> Value {
    let (addresses, identities) = proxy.limiter.remembered();
    let mut said = json!({
        "limits": proxy.limiter.limits(),
        "remembered": { "addresses": addresses, "identities": identities },
        "caller": {
            "address": peer.address,
            "id": peer.id(&proxy.credentials),
            "connections": proxy.limiter.connections.open(&caller(proxy, peer)).1,
        },
    });
    if let Some(json) = &proxy.json {
        json.rate_limits(&mut said, peer.address, proxy.uptime().as_secs());
    }
    said
}
