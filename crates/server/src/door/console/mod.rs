//! The console: status page, REST, and what relying parties fetch.
//!
//! Every route is a line of [`routes`], with who may call it; `surface/routes.txt` is the same list for people, and a
//! test keeps them equal.

mod access;
mod certificates;
mod devices;
mod entries;
mod events;
mod evidence;
mod federations;
mod fleet;
mod gateways;
mod message;
pub(crate) mod metrics;
mod oidc;
mod operators;
mod page;
mod parameters;
mod pending;
mod policies;
mod policy;
mod public;
mod records;
mod results;
mod secrets;
mod security;
pub(crate) mod set_back;
mod status;
mod tasks;
mod telemetry_keys;
mod trial;
mod trust;
mod unread;
mod webhooks;
mod who;

use std::sync::Arc;
use std::time::Duration;

use assay_identity::secret::SECRET_BYTES_MAX;
use assay_trust::policy::ENVELOPE_BYTES_MAX;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Router, extract::State};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use tokio::time::timeout;

use access::Guard;
pub(crate) use events::PAGES_TOLD_MAX;
pub(crate) use public::Public;

use crate::door::listen::Caller;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::thread::caught;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Anyone: what is told is public by its nature.
    Anyone,
    /// Whoever has any role: signed in on the page, or with a token.
    Viewer,
    /// A viewer, or a node that signed the request.
    NodeOrViewer,
    /// A node that signed the request.
    Node,
    /// Whoever decides over devices.
    Operator,
    /// Whoever says what is demanded of them.
    PolicyAuthor,
    /// Whoever says who may do what.
    Admin,
}

/// What of a route is for somebody who may see some devices alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Nothing: it is about the whole fleet, or about what decides over devices.
    Fleet,
    /// All, where it is about a device that they may see.
    Device,
    /// What they may see: the route itself leaves the rest out.
    Listed,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Anyone => "anyone",
            Who::Viewer => "viewer",
            Who::NodeOrViewer => "viewer|node",
            Who::Node => "node",
            Who::Operator => "operator",
            Who::PolicyAuthor => "policy-author",
            Who::Admin => "admin",
        }
    }
}

struct Route {
    who: Who,
    method: &'static str,
    path: &'static str,
    /// What may be asked behind the path; nothing else is let through.
    parameters: &'static [&'static str],
    scope: Scope,
    is_form: bool,
    handler: MethodRouter<Arc<Server>>,
}

impl Route {
    /// With these parameters behind the path.
    fn asked(self, parameters: &'static [&'static str]) -> Route {
        Route { parameters, ..self }
    }

    /// For forms of pages, and for nothing else.
    fn form(self) -> Route {
        let handler = self.handler.layer(DefaultBodyLimit::max(FORM_BYTES_MAX));
        Route { is_form: true, handler, ..self }
    }

    /// For whoever has a scope, too.
    fn scoped(self, scope: Scope) -> Route {
        Route { scope, ..self }
    }
}

fn route(who: Who, method: &'static str, path: &'static str, handler: MethodRouter<Arc<Server>>) -> Route {
    Route { who, method, path, parameters: &[], scope: Scope::Fleet, is_form: false, handler }
}

/// Every route there is.
fn routes() -> Vec<Route> {
    use Who::{Admin, Anyone, Node, NodeOrViewer, Operator, PolicyAuthor, Viewer};
    vec![
        route(Anyone, "GET", "/", get(page::fleet::page)).asked(fleet::PARAMETERS),
        route(
            Anyone,
            "POST",
            "/sign-in",
            post(page::sign_in::sign_in).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(Anyone, "GET", "/sign-in/oidc", get(oidc::begin)),
        route(Anyone, "GET", "/sign-in/oidc/back", get(oidc::back)).asked(oidc::PARAMETERS),
        route(Anyone, "POST", "/sign-out", post(page::sign_in::sign_out)),
        route(Anyone, "GET", "/assets/console.css", get(page::css)),
        route(Anyone, "GET", "/assets/console.js", get(page::js)),
        route(Anyone, "GET", "/assets/icon.svg", get(page::icon)),
        route(Viewer, "GET", access::EVENTS, get(events::stream))
            .asked(events::PARAMETERS)
            .scoped(Scope::Listed),
        route(Viewer, "GET", "/devices", get(page::devices::page))
            .asked(page::devices::PARAMETERS)
            .scoped(Scope::Listed),
        route(Viewer, "GET", "/devices/{device}", get(page::device::page))
            .asked(page::device::PARAMETERS)
            .scoped(Scope::Device),
        route(Viewer, "GET", "/devices/{device}/evidence", get(page::evidence::page))
            .asked(evidence::PARAMETERS)
            .scoped(Scope::Device),
        route(Operator, "POST", "/devices/{device}/revoke", post(page::device::revoke))
            .form()
            .scoped(Scope::Device),
        route(Operator, "POST", "/devices/{device}/readmit", post(page::device::readmit))
            .form()
            .scoped(Scope::Device),
        route(Operator, "POST", "/devices/{device}/approve", post(page::device::approve)).form(),
        route(Operator, "POST", "/devices/{device}/label", post(page::device::relabel)).form(),
        route(Viewer, "GET", "/policies", get(page::policies::list)),
        route(Viewer, "GET", "/policies/{name}", get(page::policies::page)).asked(page::policies::PARAMETERS),
        route(PolicyAuthor, "POST", "/policies/{name}/widen", post(page::policies::widen)).form(),
        route(PolicyAuthor, "POST", "/policies/{name}/finish", post(page::policies::finish)).form(),
        route(PolicyAuthor, "POST", "/policies/{name}/abort", post(page::policies::abort)).form(),
        route(Viewer, "GET", "/certificates", get(page::certificates::page)).asked(certificates::PARAMETERS),
        route(Viewer, "GET", "/ledger", get(page::ledger::page)).asked(page::ledger::PARAMETERS),
        route(Admin, "GET", "/people", get(page::people::page)),
        route(Admin, "POST", "/people/tokens", post(page::people::create)).form(),
        route(Admin, "POST", "/people/tokens/{name}/revoke", post(page::people::revoke)).form(),
        route(Anyone, "GET", "/health", get(public::health)),
        route(Anyone, "GET", "/metrics", get(metrics::public)),
        route(Anyone, "GET", "/crl", get(public::crl)),
        route(Anyone, "GET", "/bundle", get(public::bundle)),
        route(Anyone, "GET", "/jwks.json", get(public::jwks)),
        route(Anyone, "GET", "/spiffe-bundle", get(public::spiffe_bundle)),
        route(Anyone, "GET", "/.well-known/openid-configuration", get(public::openid_configuration)),
        route(Anyone, "GET", "/keys", get(public::openid_keys)),
        route(Anyone, "GET", "/ledger/head", get(public::ledger_head)),
        route(Anyone, "GET", "/ledger/key", get(public::ledger_key)),
        route(Anyone, "GET", "/ledger/checkpoint", get(public::ledger_checkpoint)),
        route(Viewer, "GET", "/ledger/tile/{*path}", get(records::tile)),
        route(Anyone, "GET", "/trust/status", get(public::trust_status)).asked(&["id", "after", "limit"]),
        route(Anyone, "GET", "/trust/ca-certificate", get(trust::authority)).asked(&["profile"]),
        route(Anyone, "GET", "/trust/certificate/{id}", get(trust::certificate)).asked(&["profile"]),
        route(Anyone, "GET", "/trust/classic.crl", get(trust::classic_list)),
        route(Anyone, "GET", "/ak/ca.pem", get(trust::ak_authority)),
        route(Anyone, "GET", "/ak/crl", get(trust::ak_list)),
        route(NodeOrViewer, "POST", "/trust/verify/{id}", post(trust::verify)),
        route(Operator, "POST", "/trust/revoke/{id}", post(trust::revoke)),
        route(Node, "POST", "/secure/data", post(trust::receive)),
        route(Anyone, "GET", "/metrics/summary", get(trust::summary)),
        route(Anyone, "POST", "/event/attestation", post(trust::hearsay)),
        route(Anyone, "POST", "/event/message", post(trust::hearsay)),
        route(Viewer, "GET", "/v1/devices", get(fleet::list)).asked(fleet::PARAMETERS).scoped(Scope::Listed),
        route(Viewer, "GET", "/v1/devices/{device}", get(devices::show)).scoped(Scope::Device),
        route(Viewer, "GET", "/v1/devices/{device}/explain", get(devices::explain)).scoped(Scope::Device),
        route(Viewer, "GET", "/v1/devices/{device}/evidence", get(evidence::show))
            .asked(evidence::PARAMETERS)
            .scoped(Scope::Device),
        route(Viewer, "GET", "/v1/devices/{device}/ear", get(devices::ear))
            .asked(&["nonce"])
            .scoped(Scope::Device),
        route(Operator, "POST", "/v1/devices/{device}/revoke", post(devices::revoke)).scoped(Scope::Device),
        route(Operator, "POST", "/v1/devices/{device}/readmit", post(devices::readmit)).scoped(Scope::Device),
        route(Operator, "POST", "/v1/devices/{device}/approve", post(devices::approve)),
        route(
            Operator,
            "POST",
            "/v1/devices/{device}/labels",
            post(devices::label).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(
            Operator,
            "POST",
            "/v1/devices/{device}/name",
            post(devices::rename).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(
            Operator,
            "POST",
            "/v1/devices/{device}/replace",
            post(devices::replace).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(Viewer, "GET", "/v1/pending", get(pending::list)),
        route(Operator, "POST", "/v1/pending/{device}/admit", post(pending::admit)),
        route(Operator, "POST", "/v1/pending/{device}/deny", post(pending::deny)),
        route(Viewer, "GET", "/v1/policy", get(policy::show))
            .asked(&["device", "selector", "name", "version"]),
        route(PolicyAuthor, "PUT", "/v1/policy", put(policy::set)).asked(&["selector", "force"]),
        route(Viewer, "GET", "/v1/policies", get(policies::list)),
        route(PolicyAuthor, "POST", "/v1/policies/unassign", post(policies::unassign)),
        route(PolicyAuthor, "POST", "/v1/policies/rollouts", post(policies::start))
            .asked(&["selector", "percent", "force"]),
        route(Viewer, "GET", "/v1/policies/rollouts/{name}", get(policies::status)),
        route(PolicyAuthor, "POST", "/v1/policies/rollouts/{name}/widen", post(policies::widen)),
        route(PolicyAuthor, "POST", "/v1/policies/rollouts/{name}/finish", post(policies::finish)),
        route(PolicyAuthor, "POST", "/v1/policies/rollouts/{name}/abort", post(policies::abort)),
        route(PolicyAuthor, "POST", "/v1/policy/try", post(trial::start))
            .asked(&["since_seconds", "selector"]),
        route(Viewer, "GET", "/v1/results", get(results::list)).asked(&["device", "limit"]),
        route(Viewer, "GET", "/v1/results/{result}/evidence", get(results::evidence)),
        route(Viewer, "GET", "/v1/entries", get(entries::list)).asked(entries::PARAMETERS),
        route(Operator, "POST", "/v1/entries", post(entries::create)),
        route(Operator, "POST", "/v1/entries/apply", post(entries::apply)),
        route(Viewer, "GET", "/v1/entries/{entry}", get(entries::show)),
        route(Viewer, "GET", "/v1/entries/{entry}/who", get(entries::who)),
        route(Operator, "PUT", "/v1/entries/{entry}", put(entries::update)),
        route(Operator, "DELETE", "/v1/entries/{entry}", delete(entries::remove)),
        route(Viewer, "GET", "/v1/federations", get(federations::list)),
        route(Admin, "POST", "/v1/federations", post(federations::create)),
        route(Viewer, "GET", "/v1/federations/{domain}", get(federations::show)),
        route(Admin, "PUT", "/v1/federations/{domain}", put(federations::update)),
        route(Admin, "DELETE", "/v1/federations/{domain}", delete(federations::end)),
        route(Operator, "POST", "/v1/federations/{domain}/refresh", post(federations::refresh)),
        route(Admin, "PUT", "/v1/federations/{domain}/bundle", put(federations::set_bundle)),
        route(Admin, "DELETE", "/v1/federations/{domain}/bundle", delete(federations::remove_bundle))
            .asked(&["entries"]),
        route(Viewer, "GET", "/v1/certificates", get(certificates::list)).asked(certificates::PARAMETERS),
        route(Viewer, "GET", "/v1/authorities", get(certificates::authorities)),
        route(Viewer, "GET", "/v1/gateways", get(gateways::list)),
        route(Admin, "POST", "/v1/gateways", post(gateways::issue)),
        route(Admin, "POST", "/v1/gateways/{name}/revoke", post(gateways::revoke)),
        route(Viewer, "GET", "/v1/operators", get(operators::list)),
        route(Admin, "POST", "/v1/operators", post(operators::issue)),
        route(Admin, "POST", "/v1/operators/{name}/revoke", post(operators::revoke)),
        route(Viewer, "GET", "/v1/whoami", get(who::whoami)).scoped(Scope::Listed),
        route(Admin, "GET", "/v1/tokens", get(who::tokens)),
        route(Admin, "POST", "/v1/tokens", post(who::create).layer(DefaultBodyLimit::max(FORM_BYTES_MAX))),
        route(Admin, "DELETE", "/v1/tokens/{name}", delete(who::revoke)),
        route(Admin, "GET", "/v1/people", get(who::people)),
        route(Viewer, "GET", "/v1/telemetry", get(records::telemetry)).asked(&["device", "limit"]),
        route(Viewer, "GET", "/v1/telemetry/{leaf}/{sequence}", get(records::batch)),
        route(Viewer, "GET", "/v1/telemetry-keys", get(telemetry_keys::list)).asked(&["device"]),
        route(
            Operator,
            "POST",
            "/v1/telemetry-keys",
            post(telemetry_keys::add).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(Operator, "DELETE", "/v1/telemetry-keys/{hash}", delete(telemetry_keys::remove)),
        route(Viewer, "GET", "/v1/tasks", get(tasks::list)).asked(&["status", "limit"]),
        route(Operator, "POST", "/v1/tasks", post(tasks::submit)),
        route(Viewer, "GET", "/v1/tasks/{task}", get(tasks::show)),
        route(Viewer, "GET", "/v1/tasks/{task}/explain", get(tasks::explain)),
        route(Viewer, "GET", "/v1/tasks/{task}/result", get(tasks::result)).asked(&["attempt"]),
        route(
            Operator,
            "POST",
            "/v1/tasks/{task}/cancel",
            post(tasks::cancel).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(Viewer, "GET", "/v1/audit", get(records::audit)).asked(&["after", "limit"]),
        route(Viewer, "GET", "/v1/secrets", get(secrets::list)),
        route(
            Operator,
            "POST",
            "/v1/secrets",
            post(secrets::put).layer(DefaultBodyLimit::max(SECRET_BODY_BYTES_MAX)),
        ),
        route(Viewer, "GET", "/v1/secrets/{name}", get(secrets::show)),
        route(Operator, "DELETE", "/v1/secrets/{name}", delete(secrets::revoke)),
        route(
            Operator,
            "POST",
            "/v1/secrets/{name}/rotate",
            post(secrets::rotate).layer(DefaultBodyLimit::max(SECRET_BODY_BYTES_MAX)),
        ),
        route(
            Operator,
            "POST",
            "/v1/secrets/{name}/assign",
            post(secrets::assign).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        ),
        route(Viewer, "GET", "/v1/security", get(security::list)).asked(&["limit"]),
        route(Viewer, "GET", "/v1/webhooks", get(webhooks::list)),
        route(Viewer, "GET", "/v1/webhooks/{name}/letters", get(webhooks::letters)),
        route(Operator, "POST", "/v1/webhooks/{name}/again", post(webhooks::again)),
    ]
}

/// The routes, who may call them and with which parameters, a line each: what `surface/routes.txt` has to say. `exporter`: whoever
/// reaches the address of `metrics_listen`.
pub fn surface() -> String {
    let line = |route: Route| {
        let Route { who, method, path, parameters, scope, .. } = route;
        let parameters =
            if parameters.is_empty() { String::new() } else { format!(" ?{}", parameters.join("&")) };
        let scope = if scope == Scope::Fleet { "" } else { " (scoped)" };
        format!("{:13} {method:6} {path}{parameters}{scope}\n", who.name())
    };
    let exporter = metrics::exporter_routes();
    let exported =
        exporter.into_iter().map(|(method, path, _)| format!("{:13} {method:6} {path}\n", "exporter"));
    routes().into_iter().map(line).chain(exported).collect()
}

/// The whole console.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let guarded = |route: Route| {
        let known = middleware::from_fn_with_state(route.parameters, parameters::known);
        let handler = route.handler.route_layer(known);
        // Who asks is looked at before what they ask.
        let handler = match (route.who, route.who.role()) {
            (_, Some(role)) => {
                let Route { scope, is_form, .. } = route;
                let guard = Guard { server: server.clone(), role, scope, is_form };
                handler.route_layer(middleware::from_fn_with_state(guard, access::guard))
            }
            (Who::NodeOrViewer, None) => {
                handler.route_layer(middleware::from_fn_with_state(server.clone(), message::node_or_viewer))
            }
            (Who::Node, None) => {
                handler.route_layer(middleware::from_fn_with_state(server.clone(), message::node))
            }
            (_, None) => handler,
        };
        let handler = if trust::IN_ITS_WORDS.iter().any(|prefix| route.path.starts_with(prefix)) {
            handler.layer(middleware::from_fn(trust::in_its_words))
        } else {
            handler
        };
        (route.path, handler)
    };
    routes()
        .into_iter()
        .map(guarded)
        .fold(Router::new(), |router, (path, handler)| router.route(path, handler))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(server.clone(), within_time_and_safely))
        .with_state(server.clone())
}

async fn nothing_here() -> Refusal {
    Refusal::new(Kind::NotFound, "no-route", "there is nothing at this path")
}

async fn within_time_and_safely(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let asks = request.headers().clone();
    let _busy = request.extensions().get::<Caller>().map(Caller::begin);
    let (request, unread) = unread::hold(request);
    let response = match timeout(REQUEST_WITHIN, caught(next.run(request))).await {
        Ok(Ok(response)) => response,
        Ok(Err(panicked)) => Refusal::from(panicked).into_response(),
        Err(_) => Refusal::new(Kind::Late, "deadline", "the request took too long").into_response(),
    };
    if let Some(unread) = unread.filter(|_| !response.status().is_success()) {
        unread.discard().await;
    }
    let mut response = page::tell_people(&server, &asks, response);
    protect(response.headers_mut());
    response
}

/// The page loads its own style and script and nothing else, and nothing else may frame it.
fn protect(headers: &mut HeaderMap) {
    let headers_and_values: [(HeaderName, &'static str); 6] = [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers_and_values {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                              img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A policy of 100,000 files has some 15 MB and 20 in its envelope, and nothing else comes near.
const BODY_BYTES_MAX: usize = ENVELOPE_BYTES_MAX;
/// A token is 43 bytes, and labels that a device may have some 2,000.
const FORM_BYTES_MAX: usize = 4096;
/// In Base64, with a name and labels.
const SECRET_BODY_BYTES_MAX: usize = SECRET_BYTES_MAX / 3 * 4 + FORM_BYTES_MAX;
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
