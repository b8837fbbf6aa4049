//! Who asks: a program by the token with each request, somebody in a browser by the cookie of having signed in.
//!
//! Every route says whom it is for, and [`guard`] lets nobody else through. What a cookie alone brings may look and changes
//! nothing: a change from a page is a form with the session's own word in it, which [`Confirmed`] reads. Whoever has a scope
//! sees the devices of it, and gets at nothing that concerns others.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;

use super::devices::find;
use super::{FORM_BYTES_MAX, Scope, Who};
use crate::access::session::{self, OpenedBy, Session};
use crate::actor::Actor;
use crate::door::listen::Caller;
use crate::keys::OperatorToken;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::{Principal, Role};
use crate::security::{Cause, Refused};

/// What a route demands of whoever asks.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub server: Arc<Server>,
    pub role: Role,
    pub scope: Scope,
    /// It is for forms of pages, and for nothing else.
    pub is_form: bool,
}

/// Somebody in a browser asks for a change, and has not confirmed yet that they do.
#[derive(Clone, Debug)]
struct Unconfirmed(Principal, Session);

/// A form that somebody sent from a page of ours.
#[derive(Debug)]
pub(super) struct Confirmed {
    /// Who.
    pub principal: Principal,
    pub fields: BTreeMap<String, String>,
    /// The session's word, for the page that is the answer.
    pub word: String,
}

/// Lets through who has the role that the route is for.
pub(super) async fn guard(
    State(Guard { server, role, scope, is_form }): State<Guard>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let is_local = request.extensions().get::<Caller>().is_none();
    let by_token = by_token(&server, request.headers(), is_local);
    let (principal, session) = match by_token {
        Some(principal) => (principal, None),
        None => match by_session(&server, request.headers(), request.uri().path()) {
            Some((principal, session)) => (principal, Some(session)),
            None => {
                note_wrong_token(&server, &request);
                return Err(unauthenticated(&server));
            }
        },
    };
    known(&request)?;
    if !principal.role.covers(role) {
        let Principal { actor, role: has, .. } = principal;
        let message = format!("{actor} is {has}, and this is for {role}");
        return Err(Refusal::new(Kind::Forbidden, "role", message));
    }
    if !principal.scope.is_empty() {
        request = within_scope(&server, &principal, scope, request).await?;
    }
    let changes = !request.method().is_safe();
    let extensions = request.extensions_mut();
    match session {
        Some(_) if changes && !is_form => return Err(unconfirmed()),
        Some(session) if changes => {
            extensions.insert(Unconfirmed(principal, session));
        }
        Some(session) => {
            extensions.insert(session);
            extensions.insert(principal);
        }
        None => {
            extensions.insert(principal);
        }
    }
    Ok(next.run(request).await)
}

/// Whoever has a scope gets no further than it. A device outside is to them one that there is not.
async fn within_scope(
    server: &Arc<Server>,
    principal: &Principal,
    scope: Scope,
    request: Request,
) -> Result<Request, Refusal> {
    match scope {
        Scope::Listed => Ok(request),
        Scope::Fleet => {
            let Principal { actor, scope, .. } = principal;
            let message = format!("{actor} is for devices with {scope}, and this concerns others as well");
            Err(Refusal::new(Kind::Forbidden, "scope", message))
        }
        Scope::Device => {
            let (mut parts, body) = request.into_parts();
            let malformed = |_| Refusal::new(Kind::Malformed, "path", "the path does not read");
            let named = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(malformed)?;
            let name = named.iter().find(|(name, _)| *name == "device").map_or("", |(_, device)| device);
            let device = find(server, name).await?;
            match principal.sees(&device.labels) {
                true => Ok(Request::from_parts(parts, body)),
                false => Err(super::devices::unknown(name)),
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Refusal;

    /// Of a route that asks who it is; where nobody was asked, nothing is done in anyone's name.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let nobody = || Refusal::new(Kind::Fault, "actor", "nobody was asked who they are on this route");
        parts.extensions.get::<Principal>().cloned().ok_or_else(nobody)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Principal::from_request_parts(parts, state).await.map(|principal| principal.actor)
    }
}

impl<S: Send + Sync> FromRequest<S> for Confirmed {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let Some(Unconfirmed(principal, session)) = parts.extensions.get().cloned() else {
            let message = "this is for a page: programs use the routes under /v1/";
            return Err(Refusal::new(Kind::Malformed, "not-a-page", message));
        };
        let malformed = |_| Refusal::new(Kind::Malformed, "form", "the form does not read");
        let body = to_bytes(body, FORM_BYTES_MAX).await.map_err(malformed)?;
        let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(&body)
            .map_err(|_| Refusal::new(Kind::Malformed, "form", "the form does not read"))?;
        let mut fields = BTreeMap::new();
        for (name, value) in pairs {
            if fields.insert(name, value).is_some() {
                return Err(Refusal::new(Kind::Malformed, "form", "the form says something twice"));
            }
        }
        match fields.remove(WORD).is_some_and(|word| session.says(&word)) && is_from_here(&parts.headers) {
            true => Ok(Confirmed { principal, fields, word: session.word }),
            false => Err(unconfirmed()),
        }
    }
}

/// A browser says where a form comes from; one that does not is left to the session's word.
fn is_from_here(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

fn unconfirmed() -> Refusal {
    let message =
        "a browser may have asked for this by itself: open the page again and send the form from there";
    Refusal::new(Kind::Unauthenticated, "unconfirmed", message)
}

/// The connection is nobody's whom strangers could push out.
pub(super) fn known(request: &Request) -> Result<(), Refusal> {
    match request.extensions().get::<Caller>() {
        Some(caller) => Ok(caller.is_known()?),
        None => Ok(()),
    }
}

/// Whether somebody asks who may see every device.
pub(super) fn may_view(server: &Server, headers: &HeaderMap) -> bool {
    viewer(server, headers).is_some_and(|principal| principal.scope.is_empty())
}

/// Whoever asks, if they said who they are.
pub(super) fn viewer(server: &Server, headers: &HeaderMap) -> Option<Principal> {
    by_token(server, headers, false).or_else(|| Some(by_session(server, headers, "/")?.0))
}

/// Whose page it is that is still open, which does not say that somebody is there.
pub(super) fn looks_by_itself(server: &Server, headers: &HeaderMap) -> Option<Principal> {
    by_token(server, headers, false).or_else(|| Some(by_session(server, headers, EVENTS)?.0))
}

/// Whether an operator asks, by a token.
pub(super) fn has_token(server: &Server, headers: &HeaderMap) -> bool {
    let principal = by_token(server, headers, false);
    principal.is_some_and(|principal| principal.role.covers(Role::Operator) && principal.scope.is_empty())
}

/// Whose token is shown. The first of all stands for nobody once somebody else is an admin, but for whoever has the data folder.
fn by_token(server: &Server, headers: &HeaderMap, is_local: bool) -> Option<Principal> {
    let text = bearer(headers).or_else(|| admin_token(server, headers))?.trim();
    let now = server.now();
    if server.operator.is(text) {
        return Some(Principal::first()).filter(|_| is_local || !server.access.has_admin(now));
    }
    server.access.shown(text, now).map(|(_, principal)| principal)
}

/// What somebody signs in by, on the page.
pub(super) fn opened_by(server: &Server, token: &str) -> Option<OpenedBy> {
    let (token, now) = (token.trim(), server.now());
    match server.operator.is(token) {
        true => Some(OpenedBy::FirstToken).filter(|_| !server.access.has_admin(now)),
        false => server.access.shown(token, now).map(|(hash, _)| OpenedBy::Token(hash)),
    }
}

/// Who is signed in. A page that looks by itself is nobody who is there.
fn by_session(server: &Server, headers: &HeaderMap, path: &str) -> Option<(Principal, Session)> {
    let somebody_is_there = path != EVENTS && !headers.contains_key(BY_ITSELF);
    let now = server.now();
    let session = server.sessions.find(cookie(headers)?, now, somebody_is_there)?;
    let principal = match &session.opened_by {
        OpenedBy::Token(hash) => server.access.of(hash, now)?,
        OpenedBy::FirstToken => Some(Principal::first()).filter(|_| !server.access.has_admin(now))?,
        OpenedBy::Provider(principal) => principal.clone(),
    };
    Some((principal, session))
}

pub(super) fn shows_token(operator: &OperatorToken, headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|token| operator.is(token.trim()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Where programs of the trust API put it, who have no other place for it.
fn admin_token<'h>(server: &Server, headers: &'h HeaderMap) -> Option<&'h str> {
    server.config.trust_api.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION))?;
    headers.get(ADMIN_TOKEN)?.to_str().ok()
}

/// Whoever shows none has merely forgotten it; one that is nobody's was guessed, or is of another server.
fn note_wrong_token(server: &Server, request: &Request) {
    let headers = request.headers();
    if headers.contains_key(AUTHORIZATION) || admin_token(server, headers).is_some() {
        wrong_token(server, request.extensions().get(), request.uri().path());
    }
}

/// Notes that somebody showed a token that stands for nobody. It is in no note.
pub(super) fn wrong_token(server: &Server, caller: Option<&Caller>, path: &str) {
    let from = caller.map_or_else(|| OPERATORS_SOCKET.to_owned(), |caller| caller.address().to_string());
    server.refused(Refused {
        cause: Cause::OperatorToken,
        who: String::new(),
        from,
        why: format!("at {path}"),
    });
}

pub(super) fn unauthenticated(server: &Server) -> Refusal {
    match server.access.has_admin(server.now()) {
        false => show_the_first_token(),
        true => {
            let message = "show an access token: an admin makes one (assay token create NAME --role ROLE). The one in operator.token \
                           ended once somebody was an admin, and is good on the server's own machine alone";
            Refusal::new(Kind::Unauthenticated, "token", message)
        }
    }
}

pub(super) fn show_the_first_token() -> Refusal {
    let message = "show the operator's token: it is in operator.token of the server's data folder";
    Refusal::new(Kind::Unauthenticated, "token", message)
}

/// The cookie of a session that was opened.
pub(super) fn session_cookie(secret: &str) -> String {
    format!("{COOKIE_NAME}={secret}; Path=/; Max-Age={}; {COOKIE_RULES}", session::SECONDS_MAX)
}

/// The cookie of nobody.
pub(super) fn no_cookie() -> String {
    format!("{COOKIE_NAME}=; Path=/; Max-Age=0; {COOKIE_RULES}")
}

/// What the cookie of a session has.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_named(headers, COOKIE_NAME)
}

/// RFC 9113 §8.2.3: over HTTP/2 each may come in a field of its own.
pub(super) fn cookie_named<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let fields = headers.get_all(COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    let mut cookies = fields.flat_map(|field| field.split(';'));
    cookies.find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
}

impl Who {
    /// The role that a route is for, where it is for people.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Who::Anyone | Who::Node | Who::NodeOrViewer => None,
            Who::Viewer => Some(Role::Viewer),
            Who::Operator => Some(Role::Operator),
            Who::PolicyAuthor => Some(Role::PolicyAuthor),
            Who::Admin => Some(Role::Admin),
        }
    }
}

/// The field of a form that has the session's word.
pub(super) const WORD: &str = "word";
const ADMIN_TOKEN: &str = "x-trust-admin-token";
/// Where those come from who reach it: the same machine.
const OPERATORS_SOCKET: &str = "operator.sock";
/// Where a page hears of changes.
pub(super) const EVENTS: &str = "/events";
/// What the script of a page says when it fetches the page again.
const BY_ITSELF: &str = "x-looks-by-itself";
const COOKIE_NAME: &str = "__Host-assay";
const COOKIE_RULES: &str = "Secure; HttpOnly; SameSite=Strict";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_by_its_whole_name() {
        let with = |text: &str| HeaderMap::from_iter([(COOKIE, text.parse().unwrap())]);
        assert_eq!(cookie(&with("other=1; __Host-assay=x")), Some("x"));
        assert_eq!(cookie(&with("__Host-assay-attempt=y")), None);
        assert_eq!(cookie(&HeaderMap::new()), None);
        let mut apart = with("_session=y");
        apart.append(COOKIE, "__Host-assay=x".parse().unwrap());
        assert_eq!(cookie(&apart), Some("x"));
    }

    #[test]
    fn a_form_of_another_site_is_known_by_the_browser_that_says_so() {
        let from =
            |site: &str| HeaderMap::from_iter([("sec-fetch-site".parse().unwrap(), site.parse().unwrap())]);
        assert!(is_from_here(&from("same-origin")) && is_from_here(&HeaderMap::new()));
        assert!(!is_from_here(&from("cross-site")) && !is_from_here(&from("same-site")));
    }
}
