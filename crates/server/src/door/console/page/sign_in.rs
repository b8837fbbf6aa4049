//! Signing in and out.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, StatusCode};

use super::{render, with_cookie};
use crate::door::console::access::{cookie, no_cookie, opened_by, session_cookie, wrong_token};
use crate::door::listen::Caller;
use crate::outcome::Refusal;
use crate::parts::Server;

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignIn {
    trust_domain: String,
    /// What the provider is called that people may sign in with.
    provider: Option<String>,
    /// Nobody is an admin yet.
    is_first: bool,
    refused: Option<String>,
}

/// The page for whoever has not signed in, and perhaps why what they showed does not do.
pub(in crate::door::console) fn door(server: &Server, refused: Option<String>) -> Result<String, Refusal> {
    render(&SignIn {
        trust_domain: server.config.trust_domain.to_string(),
        provider: server.oidc.as_ref().map(|oidc| oidc.name().to_owned()),
        is_first: !server.access.has_admin(server.now()),
        refused,
    })
}

/// With a token, which is Base64url, so that the form's encoding leaves it as it is.
pub(in crate::door::console) async fn sign_in(
    State(server): State<Arc<Server>>,
    caller: Option<Extension<Caller>>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let form = std::str::from_utf8(&body).unwrap_or_default();
    let token = form.split('&').find_map(|field| field.strip_prefix("token=")).unwrap_or_default();
    let Some(opened_by) = opened_by(&server, token) else {
        wrong_token(&server, caller.as_ref().map(|Extension(caller)| caller), "/sign-in");
        let page = door(&server, Some("That is no token that is good.".to_owned()))?;
        return Ok((StatusCode::UNAUTHORIZED, Html(page)).into_response());
    };
    with_cookie(&session_cookie(&server.sessions.open(opened_by, server.now())?))
}

pub(in crate::door::console) async fn sign_out(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if let Some(secret) = cookie(&headers) {
        server.sessions.close(secret);
    }
    with_cookie(&no_cookie())
}
