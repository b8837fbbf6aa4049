//! The JSON telemetry protocol of the original services, at the collector: `/nonce`, `/metrics`, and what they say of themselves.
//!
//! Paths, bodies, status codes and the order of the checks are the original's; `docs/howto/json-telemetry.md` names where they differ.
//! Gateways of Assay bring requests to the edge; whoever shows no certificate comes to a door of its own, if one is configured.

mod answer;
mod config;
mod tls;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use assay_admission::Peer;
use assay_telemetry::json_protocol::BODY_BYTES_MAX;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use self::answer::{answer, error};
pub use self::config::{Compatibility, JsonProtocol};
pub use self::tls::CertificateError;
pub(crate) use self::tls::shown;
use super::listen::Caller;
use crate::grant::submission::{self, Submitting};
use crate::parts::Server;
use crate::security::{Cause, Refused};
use crate::thread::caught;

/// What gateways pass on, if the protocol is served.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    if server.config.json_protocol.is_none() {
        return Router::new();
    }
    Router::new()
        .route("/nonce", get(nonce))
        .route("/metrics", post(metrics))
        .route("/metrics/status", get(status))
        .route("/nonces/cleanup", post(cleanup))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(server.clone())
}

/// All of it, for the door of its own.
pub(crate) fn whole(server: &Arc<Server>) -> Router {
    let health = Router::new().route("/health", get(health)).with_state(server.clone());
    router(server).merge(health).fallback(async || error(404, "Endpoint not found"))
}

#[derive(Debug, Deserialize)]
struct Whose {
    public_key_hash: Option<String>,
}

async fn nonce(
    State(server): State<Arc<Server>>,
    Query(Whose { public_key_hash }): Query<Whose>,
) -> Response {
    let settings = settings(&server);
    let hash = public_key_hash.as_deref().filter(|hash| !hash.is_empty());
    let drawn = submission::draw(submitting(&server), hash, settings.nonce_length, server.now()).await;
    match drawn {
        Ok((nonce, key)) => {
            let mut body = json!({ "nonce": nonce, "expires_in": "5 minutes", "timestamp": server.clock.utc_without_zone() });
            if let (Some(key), Some(body)) = (key, body.as_object_mut()) {
                let text = data_encoding::BASE64.encode(&key.spki);
                let start = format!("{}...", text.get(..FINGERPRINT_CHARACTERS).unwrap_or_default());
                body.insert("agent_public_key_fingerprint".to_owned(), start.into());
            }
            answer(200, &body)
        }
        Err(refused) => answer::no_nonce(&refused),
    }
}

async fn metrics(State(server): State<Arc<Server>>, request: Request) -> Response {
    let from = peer(&request);
    let is_json = is_json(request.headers());
    let in_flight = server.edge.bytes.of(from.clone());
    let body = Body::new(super::edge::Counted::new(request.into_body(), in_flight));
    let read = timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let body = match read {
        Ok(Ok(body)) if is_json => body.to_bytes(),
        Ok(Ok(_)) => return error(500, answer::NOT_PROCESSED),
        Ok(Err(_)) => return error(413, "Payload too large"),
        Err(_) => return error(408, "The body did not come in time"),
    };
    let submitted = caught(submission::submit(submitting(&server), &body, server.now())).await;
    match submitted {
        Ok(Ok(outcome)) => {
            server.metrics.submitted(&outcome);
            answer::outcome(&outcome, &server.clock.utc_without_zone())
        }
        Ok(Err(refused)) => {
            tracing::info!(error = %refused, "a submission was refused");
            if matches!(refused, submission::NotSubmitted::Signature) {
                let (who, why) = (String::new(), "submission-signature".to_owned());
                server.refused(Refused { cause: Cause::Telemetry, who, from: from.to_string(), why });
            }
            answer::not_submitted(&refused)
        }
        Err(panicked) => {
            crate::outcome::fault("panic", &panicked);
            error(500, answer::NOT_PROCESSED)
        }
    }
}

async fn status(State(server): State<Arc<Server>>) -> Response {
    let settings = settings(&server);
    answer(
        200,
        &json!({
            "service": settings.service_name, "version": settings.service_version, "tpm2_available": true,
            "active_nonces": nonces_out(&server), "timestamp": server.clock.utc_without_zone(),
        }),
    )
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    let settings = settings(&server);
    answer(
        200,
        &json!({
            "status": "healthy", "service": settings.service_name, "version": settings.service_version,
            "active_nonces": nonces_out(&server), "timestamp": server.clock.utc_without_zone(),
        }),
    )
}

async fn cleanup(State(server): State<Arc<Server>>) -> Response {
    let (cleaned, remaining) = {
        let mut nonces = server.json_nonces.lock().unwrap_or_else(PoisonError::into_inner);
        (nonces.forget_old(server.now().0), nonces.len())
    };
    answer(200, &json!({ "status": "success", "cleaned_count": cleaned, "remaining_count": remaining }))
}

fn nonces_out(server: &Server) -> usize {
    server.json_nonces.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// The routes are there only where the section is.
fn settings(server: &Server) -> &JsonProtocol {
    server.config.json_protocol.as_ref().expect("the door is made only where it is configured")
}

fn submitting(server: &Server) -> Submitting<'_> {
    let settings = settings(server);
    let (leniency, listed) = (settings.leniency(), settings.listed());
    Submitting { collecting: server.collecting(), nonces: &server.json_nonces, leniency, listed }
}

/// Whom a request comes from: as a gateway says, or as the connection shows.
fn peer(request: &Request) -> Peer {
    let extensions = request.extensions();
    let at_door = extensions.get::<Caller>().map(|caller| Peer::at(caller.address()));
    extensions.get::<Peer>().cloned().or(at_door).unwrap_or_else(|| super::edge::of(extensions))
}

/// `application/json`, or another type that ends in `+json`, as the original's framework takes it.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// As the original shows of a key.
const FINGERPRINT_CHARACTERS: usize = 16;
const BODY_WITHIN: Duration = Duration::from_secs(30);
