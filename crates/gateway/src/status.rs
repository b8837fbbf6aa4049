//! The gateway's own pages. They are open to anyone, so they name no server.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, Response};
use serde_json::{Value, json};

use crate::body::{AnswerBody, full};
use crate::proxy::{Peer, Proxy};

/// The page with this path, if it is one of ours.
pub(crate) fn page(proxy: &Proxy, peer: &Peer, path: &str) -> Option<Response<AnswerBody>> {
    let content = match path {
        "/gateway/status" => status(proxy, peer),
        "/gateway/rate-limits" => rate_limits(proxy, peer),
        _ => return None,
    };
    let mut response = Response::new(full(content.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    Some(response)
}

fn status(proxy: &Proxy, peer: &Peer) -> Value {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &proxy.counters;
    let healthy = proxy.servers.healthy();
    let credentials = proxy.credentials.current();
    json!({
        "status": if healthy > 0 { "ok" } else { "no-healthy-server" },
        "version": env!("CARGO_PKG_VERSION"),
        "id": credentials.own.spiffe_id(),
        "certificate_not_after": credentials.own.not_after().as_secs(),
        "revocation_list": proxy.credentials.list_number(),
        "uptime_seconds": proxy.started.elapsed().as_secs(),
        "servers": { "healthy": healthy, "total": proxy.servers.total() },
        "connections": proxy.limiter.open(peer.address).0,
        "requests": {
            "passed": count(&counters.passed),
            "too_many": count(&counters.refused_rate),
            "too_large": count(&counters.refused_size),
            "timed_out": count(&counters.refused_time),
            "unknown_path": count(&counters.refused_path),
            "unavailable": count(&counters.unavailable),
        },
    })
}

fn rate_limits(proxy: &Proxy, peer: &Peer) -> Value {
    let (addresses, identities) = proxy.limiter.remembered();
    json!({
        "limits": proxy.limiter.limits(),
        "remembered": { "addresses": addresses, "identities": identities },
        "caller": {
            "address": peer.address,
            "id": peer.id(&proxy.credentials),
            "connections": proxy.limiter.open(peer.address).1,
        },
    })
}
