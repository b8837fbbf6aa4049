//! What Prometheus fetches: at the console's address, and without TLS where `metrics_listen` says.
//!
//! What is of one node is for whoever may see details: viewers, and whoever reaches the address of `metrics_listen`.

use std::sync::Arc;

use assay_exposition::Format;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::access::may_view;
use super::public::{device_counts, node_counts};
use crate::metrics::nodes::NODES_MAX;
use crate::metrics::trust::{Memories, Totals, TrustMetrics};
use crate::node::Standing;
use crate::outcome::Refusal;
use crate::parts::Server;

/// At the console's address.
pub(super) async fn public(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let with_nodes = may_view(&server, &headers);
    text(&server, &headers, with_nodes).await
}

/// Every route of the address of `metrics_listen`.
pub(super) fn exporter_routes() -> [(&'static str, &'static str, MethodRouter<Arc<Server>>); 2] {
    [("GET", "/metrics", get(exported)), ("GET", "/health", get(health))]
}

/// What is served there.
pub(crate) fn exporter(server: &Arc<Server>) -> Router {
    let routes = exporter_routes().into_iter();
    routes
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        .with_state(server.clone())
}

async fn exported(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Response, Refusal> {
    text(&server, &headers, true).await
}

async fn health(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let node_id = server.config.trust_api.as_ref().map(|api| api.node_id);
    let certificates = node_counts(&server, &headers).await?.certificates;
    Ok(Json(json!({ "status": "healthy", "node_id": node_id, "certificates_loaded": certificates })))
}

async fn text(server: &Server, headers: &HeaderMap, with_nodes: bool) -> Result<Response, Refusal> {
    let devices = device_counts(server, headers).await?;
    let format = Format::accepted(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    server.metrics.ledger_unsigned(server.ledger_head.unsigned_seconds(server.now()));
    let nodes = match &server.metrics.trust {
        Some(trust) => of_trust(server, trust, headers, with_nodes).await?,
        None => None,
    };
    let text = server.metrics.render(server.registry.attached(), &devices, nodes.as_ref(), format);
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

/// Sets the numbers of the fleet; what is told of nodes, each by itself, for whom it is.
async fn of_trust(
    server: &Server,
    trust: &TrustMetrics,
    headers: &HeaderMap,
    with_nodes: bool,
) -> Result<Option<Registry>, Refusal> {
    let now = server.now();
    let counts = node_counts(server, headers).await?;
    let (list_entries, ends) = (server.revocations.entries(), server.revocations.ends());
    let totals = Totals {
        certificates: counts.certificates,
        verified: counts.verified,
        revoked: server.revocations.standing(now),
        list_entries,
        list_signed: ends.0.saturating_sub(server.config.crl_ttl_seconds),
        authority_is_valid: server.lives().iter().take(2).all(|(_, life)| life.until().as_secs() > now.0),
    };
    let memories = Memories {
        chains: server.messages.hits_and_misses(),
        boot_logs: server.attesting.boot_logs.hits_and_misses(),
        forgotten: server.messages.forgotten(),
    };
    trust.set(totals, memories);
    if !with_nodes {
        return Ok(None);
    }
    let mut nodes = Vec::new();
    let (bundle, issuing) = (server.revocations.trust().current(), server.authority.issuing_certificate());
    for node in server.store.worst_nodes(NODES_MAX).await? {
        let standing = Standing::read(node, now).map_err(|error| error.0)?;
        let leads = standing.certificate.as_ref().is_some_and(|kept| {
            let chain = [kept.certificate.clone(), issuing.clone()];
            server.messages.leads_to_the_bundle(&chain, &bundle, now)
        });
        nodes.push((standing, leads));
    }
    let shown = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
    Ok(Some(trust.nodes.registry(&nodes, counts.nodes.saturating_sub(shown), now)))
}
