//! The JSON telemetry protocol of the original agent, for programs of this device: `POST /metrics/generate` measures, and what was
//! measured goes with everything else that is signed, or to a collector of the original (`collector`), if one is configured.
//!
//! Paths, bodies and codes are the original's. Its application metrics are random numbers; here they are what this door itself did.

mod collector;
mod config;
mod measure;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use assay_telemetry::json_protocol::{BODY_BYTES_MAX, HashAlgorithm, Submission, Text, Value, signed_bytes};
use assay_telemetry::otlp::{Encoding, Signal};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::collector::{Collector, CollectorError};
pub use self::config::{JsonProtocolConfig, JsonProtocolError};
use self::measure::Doings;
use crate::link::Linked;
use crate::state_dir::StateDir;
use crate::telemetry::{Intake, IntakeError};

/// The door, ready to serve.
pub struct JsonDoor {
    config: JsonProtocolConfig,
    intake: Intake,
    collector: Option<Collector>,
    doings: Doings,
    connections: Arc<Semaphore>,
    state: StateDir,
    linked: Linked,
}

/// Why nothing was generated; the original says it in `message`.
#[derive(Debug, Error)]
enum NotGenerated {
    #[error("Invalid metric_type")]
    Type,
    #[error("the body is no JSON object")]
    Body,
    #[error("it cannot be written down: {0}")]
    Intake(#[from] IntakeError),
    #[error("it cannot be sent")]
    Unsent,
    #[error(transparent)]
    Collector(CollectorError),
}

impl JsonDoor {
    /// With what it is told, and where what it measures goes.
    pub fn new(
        config: JsonProtocolConfig,
        intake: Intake,
        linked: Linked,
        state: StateDir,
    ) -> Result<JsonDoor, JsonProtocolError> {
        let collector = Collector::load(&config, linked.clone())?;
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let doings = Doings::since(intake.clock().instant());
        Ok(JsonDoor { config, intake, collector, doings, connections, state, linked })
    }

    /// Serves until dropped.
    pub async fn serve(self, listener: std::net::TcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let (door, mut connections) = (Arc::new(self), JoinSet::new());
        if door.collector.is_some() {
            connections.spawn(show_key(door.linked.clone(), door.state.clone()));
        }
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let Ok((stream, _)) = accepted else {
                door.intake.clock().sleep(PAUSE).await;
                continue;
            };
            let Ok(permit) = door.connections.clone().try_acquire_owned() else { continue };
            let door = door.clone();
            connections.spawn(async move {
                let service = service_fn(|request| door.answer(request));
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
                // A connection that ends early is its program's business.
                drop(http.serve_connection(TokioIo::new(stream), service).await);
                drop(permit);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let at = self.intake.clock().utc_without_zone();
        let JsonProtocolConfig { service_name, service_version, .. } = &self.config;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Ok(match (method, path.as_str()) {
            (Method::GET, "/health") => said(
                200,
                &json!({ "status": "healthy", "service": service_name, "version": service_version, "timestamp": at }),
            ),
            (Method::GET, "/metrics/status") => said(
                200,
                &json!({
                    "service": service_name, "version": service_version, "tpm2_available": true,
                    "collector_connected": true, "timestamp": at,
                }),
            ),
            (Method::POST, "/metrics/generate") => {
                let began = self.intake.clock().instant();
                let generated = self.generate(request).await;
                self.doings.note(generated.is_ok(), self.intake.clock().instant() - began);
                answered(generated)
            }
            (_, "/health" | "/metrics/status" | "/metrics/generate") => {
                said(405, &json!({ "error": "Method not allowed" }))
            }
            _ => said(404, &json!({ "error": "Endpoint not found" })),
        })
    }

    /// Measures what is asked for, and hands it on; what it is called.
    async fn generate(&self, request: Request<Incoming>) -> Result<String, NotGenerated> {
        let body = timeout(BODY_WITHIN, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await;
        let body = body.ok().and_then(Result::ok).ok_or(NotGenerated::Body)?.to_bytes();
        let asked = Value::read(&body).map_err(|_| NotGenerated::Body)?;
        let asked = asked.as_object().ok_or(NotGenerated::Body)?;
        let clock = self.intake.clock();
        let measured = match asked.get(&"metric_type".into()) {
            None => measure::system(clock).await,
            Some(kind) => match kind.as_str() {
                Some("system") => measure::system(clock).await,
                Some("application") => self
                    .doings
                    .measure(CONNECTIONS_MAX - self.connections.available_permits(), clock.instant()),
                _ => return Err(NotGenerated::Type),
            },
        };
        let custom = asked.get(&"custom_data".into()).filter(|custom| !custom.is_empty());
        let metrics = self.metrics(measured, custom.cloned());
        let region = self.config.region();
        match &self.collector {
            Some(collector) => {
                let sent = collector.send(&metrics, &region, &self.intake.clock().utc_without_zone()).await;
                sent.map_err(|error| match error {
                    CollectorError::Refused { .. } => NotGenerated::Unsent,
                    other => NotGenerated::Collector(other),
                })
            }
            None => self.keep(metrics, region).await,
        }
    }

    /// What the original calls the metrics: measurements with their time and service.
    fn metrics(&self, measured: Value, custom: Option<Value>) -> Value {
        let JsonProtocolConfig { service_name, service_version, instance_id, .. } = &self.config;
        let service = object([
            ("name", text(service_name)),
            ("version", text(service_version)),
            ("instance_id", text(instance_id)),
        ]);
        let at = text(&self.intake.clock().utc_without_zone());
        let members = [("timestamp", at), ("metrics", measured), ("service", service)];
        let custom = custom.map(|custom| ("custom_data", custom));
        Value::Object(members.into_iter().chain(custom).map(|(name, value)| (name.into(), value)).collect())
    }

    /// Writes it down as OpenTelemetry has it, to be signed with everything else.
    async fn keep(&self, metrics: Value, region: Value) -> Result<String, NotGenerated> {
        let digest = HashAlgorithm::Sha256.hash(&signed_bytes(&metrics, &region, ""));
        let submission = Submission::unsigned(metrics, region);
        let request = submission.to_otlp(self.intake.clock().seconds());
        self.intake.take(Signal::Metrics, Encoding::Protobuf, request.into()).await?;
        Ok(collector::payload_id(&digest))
    }
}

/// Leaves the key that signs for a collector where an operator finds it.
async fn show_key(mut linked: Linked, state: StateDir) {
    loop {
        let spki = linked.borrow_and_update().as_ref().map(|link| link.device.key.spki());
        if let Some(spki) = spki {
            let pem = pem(&spki);
            let is_there = state.read(KEY_FILE).is_ok_and(|there| there.as_deref() == Some(pem.as_bytes()));
            if !is_there && let Err(error) = state.write(KEY_FILE, pem.as_bytes()) {
                tracing::warn!(%error, "the key for the collector cannot be written down");
            }
        }
        if linked.changed().await.is_err() {
            return;
        }
    }
}

fn pem(spki: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(spki);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

fn answered(generated: Result<String, NotGenerated>) -> Response<Full<Bytes>> {
    match generated {
        Ok(payload_id) => said(
            200,
            &json!({
                "status": "success", "message": "Metrics generated, signed, and sent successfully",
                "payload_id": payload_id,
            }),
        ),
        Err(error @ NotGenerated::Type) => said(400, &json!({ "error": error.to_string() })),
        Err(NotGenerated::Unsent) => {
            said(500, &json!({ "status": "error", "message": "Failed to send metrics to collector" }))
        }
        Err(error) => {
            tracing::warn!(%error, "metrics were not generated");
            said(500, &json!({ "status": "error", "message": error.to_string() }))
        }
    }
}

fn said(status: u16, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(text: &str) -> Value {
    Value::Text(Text::from(text))
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (Text::from(name), value)).collect())
}

const KEY_FILE: &str = "telemetry-key.pem";
const CONNECTIONS_MAX: usize = 32;
const BODY_WITHIN: Duration = Duration::from_secs(10);
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
