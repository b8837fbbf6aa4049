//! What a gateway asks for itself, over the connection that its certificate opened: the revocation list, and its next
//! certificate.

use std::sync::Arc;
use std::time::Duration;

use assay_identity::Csr;
use assay_identity::bundle::pem_certificates;
use assay_identity::ledger::{HEAD_HEADER, KEY_HEADER};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use data_encoding::BASE64;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::door::listen::Caller;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;

pub(super) fn router(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/gateway/crl", get(crl))
        .route("/gateway/renew", post(renew).layer(DefaultBodyLimit::max(CSR_BYTES_MAX)))
        .with_state(server.clone())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Newer {
    /// The number of the list that the gateway has.
    #[serde(default)]
    than: u64,
    /// Whether it waits for one.
    #[serde(default)]
    wait: bool,
}

/// The list, once there is a newer one than the gateway has; no content if there is none for a while.
async fn crl(State(server): State<Arc<Server>>, Query(newer): Query<Newer>) -> Response {
    let mut lists = server.revocations.watch();
    let mut shutdown = server.shutdown.clone();
    let news = async {
        loop {
            let list = lists.borrow_and_update().clone();
            if server.revocations.number() > newer.than {
                return Some(list);
            }
            if !newer.wait {
                return None;
            }
            tokio::select! {
                changed = lists.changed() => changed.ok()?,
                _ = shutdown.changed() => return None,
            }
        }
    };
    let answer = match timeout(NEWS_WITHIN, news).await {
        Ok(Some(list)) => ([(CONTENT_TYPE, "application/pkix-crl")], list).into_response(),
        Ok(None) | Err(_) => StatusCode::NO_CONTENT.into_response(),
    };
    // So that a ledger that is set back with all that is on this machine is noticed elsewhere.
    let head = BASE64.encode(server.ledger_head.note().as_bytes());
    ([(HEAD_HEADER, head), (KEY_HEADER, server.ledger_head.verifier().to_string())], answer).into_response()
}

/// The certificate that follows the one that the connection was made with.
async fn renew(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let gateway = caller.certificate().filter(|peer| peer.spiffe_id().is_gateway());
    let gateway = gateway.ok_or_else(|| {
        Refusal::new(Kind::Unauthenticated, "gateway", "only a gateway renews its certificate here")
    })?;
    let csr = Csr::parse(&body).map_err(|error| Refusal::new(Kind::Malformed, "csr", error.to_string()))?;
    let renewed = server.authority.renew_gateway(
        &server.store,
        (gateway.spiffe_id().clone(), gateway.serial()),
        &csr,
        server.config.gateway_svid_ttl_seconds,
        server.now(),
    );
    Ok(Json(json!({ "certificate": pem_certificates(&renewed.await?.certificates) })))
}

/// Shorter than connections are given up for.
const NEWS_WITHIN: Duration = Duration::from_secs(20);
/// A request of a P-256 key has some 300 bytes.
const CSR_BYTES_MAX: usize = 16 << 10;
