//! Signing in with the provider: there, and back.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{AppendHeaders, Html, IntoResponse, Redirect, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::access::{cookie_named, session_cookie};
use super::page::sign_in::door;
use super::parameters::Asked;
use crate::access::session::OpenedBy;
use crate::door::listen::Caller;
use crate::door::oidc::{BACK, Oidc, SignInError, Vouched};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::security::{Cause, Refused};
use crate::store::{NoteSignIn, PersonRecord};

/// What a provider answers by the browser (OpenID Connect Core 1.0 §3.1.2.5, §3.1.2.6; RFC 9207).
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    state: String,
    #[serde(default)]
    code: String,
    iss: Option<String>,
    #[serde(default)]
    error: String,
}

pub(super) const PARAMETERS: &[&str] = &[
    "state",
    "code",
    "iss",
    "error",
    "error_description",
    "error_uri",
    "session_state",
    "scope",
    "authuser",
    "prompt",
    "hd",
];

pub(super) async fn begin(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    let oidc = provider(&server)?;
    let (secret, url) = match oidc.begin(server.now()).await {
        Ok(begun) => begun,
        Err(error) => return refused(&server, None, error),
    };
    let cookie = format!("{COOKIE_NAME}={secret}; Path=/; Max-Age=600; {COOKIE_RULES}");
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&url)).into_response())
}

pub(super) async fn back(
    State(server): State<Arc<Server>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    Asked(answer): Asked<Answer>,
) -> Result<Response, Refusal> {
    let (oidc, now) = (provider(&server)?, server.now());
    let caller = caller.as_ref().map(|Extension(caller)| caller);
    if !answer.error.is_empty() {
        let page = door(&server, Some("The provider did not sign you in.".to_owned()))?;
        return Ok((StatusCode::UNAUTHORIZED, Html(page)).into_response());
    }
    let secret = cookie_named(&headers, COOKIE_NAME).unwrap_or_default();
    let said = (answer.state.as_str(), answer.code.as_str(), answer.iss.as_deref());
    let Vouched { principal, issuer, subject } = match oidc.finish(secret, said, now).await {
        Ok(vouched) => vouched,
        Err(error) => return refused(&server, caller, error),
    };
    let person = PersonRecord {
        issuer,
        subject,
        name: principal.actor.to_string(),
        role: principal.role.name().to_owned(),
        scope: principal.scope.to_string(),
        first_at: now,
        last_at: now,
    };
    let from = caller.map(|caller| caller.address().to_string()).unwrap_or_default();
    server.store.commit(NoteSignIn { person, from }).await?;
    tracing::info!(who = %principal.actor, role = %principal.role, "signed in");
    let session = session_cookie(&server.sessions.open(OpenedBy::Provider(principal), now)?);
    let ended = format!("{COOKIE_NAME}=; Path=/; Max-Age=0; {COOKIE_RULES}");
    // A redirect would still come from the provider's site, and a strict cookie not go with it: the page goes on by itself.
    Ok((AppendHeaders([(SET_COOKIE, session), (SET_COOKIE, ended)]), Html(SIGNED_IN)).into_response())
}

fn provider(server: &Server) -> Result<&Oidc, Refusal> {
    let off = || Refusal::new(Kind::NotFound, "no-route", "no provider is configured: [oidc] says which");
    server.oidc.as_deref().ok_or_else(off)
}

/// Says why on the page, and notes it where somebody may have tried what they may not.
fn refused(server: &Server, caller: Option<&Caller>, error: SignInError) -> Result<Response, Refusal> {
    let refusal = Refusal::from(error);
    if matches!(refusal.kind, Kind::Unauthenticated | Kind::Forbidden) {
        let from = caller.map(|caller| caller.address().to_string()).unwrap_or_default();
        let why = format!("at {BACK}: {}", refusal.message);
        server.refused(Refused { cause: Cause::SignIn, who: String::new(), from, why });
    }
    let status = super::status::status(refusal.kind);
    Ok((status, Html(door(server, Some(refusal.message))?)).into_response())
}

/// Sent along from the provider's site, which a strict one is not.
const COOKIE_NAME: &str = "__Host-assay-attempt";
const COOKIE_RULES: &str = "Secure; HttpOnly; SameSite=Lax";
const SIGNED_IN: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
    <meta http-equiv=\"refresh\" content=\"0; url=/\"><title>Signed in</title></head>\
    <body><p><a href=\"/\">Go on</a></p></body></html>";
