//! The doors for Keylime's agents and tenant: where agents register, and where those attest that push their evidence.
//!
//! Paths, bodies and status codes are Keylime's (`assay_wire::keylime`), and what they come to is ours: an agent registers as every
//! device enrolls ([`registrar`]), shows its key to open a session ([`session`]), and its evidence is challenged, verified, appraised
//! and put on record as everybody's ([`push`]), by an `Attester` that waits at a desk between its requests ([`desk`]). Operators use
//! Keylime's tenant ([`tenant`]), known by certificates of their own ([`operator`]).

mod body;
mod config;
mod desk;
mod evidence;
mod identity;
mod operator;
mod push;
mod rate;
mod registrar;
mod session;
mod sessions;
mod status;
mod tenant;
mod waiting;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use assay_admission::Peer;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, patch, post, put};
use http::{Extensions, HeaderValue};

pub use self::config::Keylime;
use self::desk::Desks;
use self::rate::Rates;
use self::sessions::Sessions;
use self::waiting::Waiting;
use super::listen::Caller;
use crate::parts::Server;

/// What these doors remember between requests. Each is locked for a moment at a time, but for a desk while it works.
#[derive(Debug)]
pub(crate) struct KeylimeDoors {
    waiting: Waiting,
    sessions: Sessions,
    desks: Desks,
    rates: Rates,
}

impl Default for KeylimeDoors {
    fn default() -> Self {
        KeylimeDoors {
            waiting: Waiting::new(),
            sessions: Sessions::new(),
            desks: Desks::default(),
            rates: Rates::default(),
        }
    }
}

/// What handlers work with.
#[derive(Clone, Debug)]
pub(crate) struct At {
    server: Arc<Server>,
    doors: Arc<KeylimeDoors>,
}

impl At {
    /// With the server and what its doors remember.
    pub(crate) fn new(server: Arc<Server>, doors: Arc<KeylimeDoors>) -> At {
        At { server, doors }
    }

    fn settings(&self) -> Keylime {
        self.server.config.keylime.clone().unwrap_or_default()
    }
}

/// What one of these doors serves.
pub(crate) type Routes = Router;

/// Where agents register, and where operators ask what they showed.
pub(crate) fn registrar(at: &At) -> Router {
    let one = get(tenant::registration).delete(tenant::unregister);
    let operators = Router::new()
        .route("/{version}/agents", get(tenant::registered))
        .route("/{version}/agents/", get(tenant::registered))
        .route("/{version}/agents/{id}", one)
        .with_state(at.clone());
    registrations(at).merge(operators).fallback(status::nothing_here).layer(middleware::from_fn(traced))
}

/// Where agents register without TLS, and nothing else is asked.
pub(crate) fn plain_registrar(at: &At) -> Router {
    registrations(at).fallback(status::nothing_here).layer(middleware::from_fn(traced))
}

fn registrations(at: &At) -> Router {
    Router::new()
        .route("/version", get(registrar::version))
        .route("/{version}/agents/{id}", post(registrar::register).put(registrar::activate))
        .route("/{version}/agents/{id}/activate", post(registrar::activate).put(registrar::activate))
        .with_state(at.clone())
}

/// Where agents attest, and where operators ask how they stand.
pub(crate) fn verifier(at: &At) -> Router {
    let agent = get(tenant::status).post(tenant::add).delete(tenant::delete);
    let policy =
        get(tenant::policy).post(tenant::set_policy).put(tenant::set_policy).delete(tenant::unset_policy);
    Router::new()
        .route("/version", get(registrar::version))
        .route("/v3.0/sessions", post(session::begin))
        .route("/v3.0/sessions/{id}", patch(session::prove))
        .route("/v3.0/agents/{id}/attestations", post(push::begin))
        .route("/v3.0/agents/{id}/attestations/{number}", patch(push::evidence))
        .route("/{version}/agents", get(tenant::added))
        .route("/{version}/agents/", get(tenant::added))
        .route("/{version}/agents/{id}", agent)
        .route("/{version}/agents/{id}/reactivate", put(tenant::reactivate))
        .route("/{version}/verify/identity", get(identity::verify))
        .route("/{version}/verify/evidence", post(evidence::verify))
        .route("/{version}/allowlists", get(tenant::policies))
        .route("/{version}/allowlists/", get(tenant::policies))
        .route("/{version}/allowlists/{name}", policy)
        .fallback(status::nothing_here)
        .layer(middleware::from_fn(traced))
        .with_state(at.clone())
}

/// Looks after agents that do not come again. Runs until the server stops.
pub(crate) async fn run(at: At) {
    let (clock, mut shutdown) = (at.server.clock.clone(), at.server.shutdown.clone());
    loop {
        tokio::select! {
            () = clock.sleep(clock.until_next_second()) => {}
            _ = shutdown.changed() => return,
        }
        at.doors.sessions.forget_old(at.server.now());
        at.doors.waiting.forget_old(at.server.now());
        at.doors.desks.look_after(&at).await;
    }
}

/// Gives a request's number back, as far as it is one, so that logs of both ends can be held against each other.
async fn traced(request: Request, next: Next) -> Response {
    let number = request.headers().get(REQUEST_ID).and_then(|number| number.to_str().ok());
    let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let number: String = number.unwrap_or_default().chars().filter(is_word).take(REQUEST_ID_MAX).collect();
    let mut response = next.run(request).await;
    if let Some(number) = HeaderValue::try_from(number).ok().filter(|number| !number.is_empty()) {
        response.headers_mut().insert(REQUEST_ID, number);
    }
    response
}

/// Whom a request comes from.
fn peer(extensions: &Extensions) -> Peer {
    Peer::at(extensions.get::<Caller>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), Caller::address))
}

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_MAX: usize = 36;
