//! Who asks: an operator by the token with each request, a viewer by a cookie from having signed in.
//!
//! The cookie opens the page and changes nothing: every change needs the token itself, so no other site can make a
//! browser do one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_telemetry::{Sha256, sha256};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;

use crate::actor::Actor;
use crate::door::listen::Caller;
use crate::keys::{KeysError, OperatorToken, random};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::security::{Cause, Refused};

/// Lets through who shows the operator's token.
pub(super) async fn operator(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if !has_token(&server, request.headers()) {
        note_wrong_token(&server, &request);
        return Err(unauthenticated());
    }
    known(&request)?;
    request.extensions_mut().insert(Actor::Operator);
    Ok(next.run(request).await)
}

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Refusal;

    /// Of a route that only an operator may call; where nobody was asked who they are, nothing is done in anyone's name.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let nobody = || Refusal::new(Kind::Fault, "actor", "nobody was asked who they are on this route");
        parts.extensions.get::<Actor>().copied().ok_or_else(nobody)
    }
}

/// Lets through who shows the token or has signed in.
pub(super) async fn viewer(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if !may_view(&server, request.headers()) {
        note_wrong_token(&server, &request);
        return Err(unauthenticated());
    }
    known(&request)?;
    Ok(next.run(request).await)
}

/// The connection is nobody's whom strangers could push out.
pub(super) fn known(request: &Request) -> Result<(), Refusal> {
    match request.extensions().get::<Caller>() {
        Some(caller) => Ok(caller.is_known()?),
        None => Ok(()),
    }
}

pub(super) fn may_view(server: &Server, headers: &HeaderMap) -> bool {
    has_token(server, headers) || server.sign_ins.knows(headers, server.now())
}

pub(super) fn has_token(server: &Server, headers: &HeaderMap) -> bool {
    shows_token(&server.operator, headers)
        || admin_token(server, headers).is_some_and(|token| server.operator.is(token.trim()))
}

pub(super) fn shows_token(operator: &OperatorToken, headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    token.is_some_and(|token| operator.is(token.trim()))
}

/// Where programs of the trust API put it, who have no other place for it.
fn admin_token<'h>(server: &Server, headers: &'h HeaderMap) -> Option<&'h str> {
    server.config.trust_api.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION))?;
    headers.get(ADMIN_TOKEN)?.to_str().ok()
}

/// Whoever shows none has merely forgotten it; one that is not the operator's was guessed, or is of another server.
fn note_wrong_token(server: &Server, request: &Request) {
    let headers = request.headers();
    if headers.contains_key(AUTHORIZATION) || admin_token(server, headers).is_some() {
        wrong_token(server, request.extensions().get(), request.uri().path());
    }
}

/// Notes that somebody showed a token that is not the operator's. It is in no note.
pub(super) fn wrong_token(server: &Server, caller: Option<&Caller>, path: &str) {
    let from = caller.map_or_else(|| OPERATORS_SOCKET.to_owned(), |caller| caller.address().to_string());
    server.refused(Refused {
        cause: Cause::OperatorToken,
        who: String::new(),
        from,
        why: format!("at {path}"),
    });
}

pub(super) fn unauthenticated() -> Refusal {
    let message = "show the operator's token: it is in operator.token of the server's data folder";
    Refusal::new(Kind::Unauthenticated, "token", message)
}

/// Those who signed in on the page. Kept in memory only, as hashes; a restart signs everyone out.
#[derive(Debug, Default)]
pub(crate) struct SignIns(Mutex<HashMap<Sha256, UnixTime>>);

impl SignIns {
    /// Signs someone in and returns the cookie to set.
    pub(super) fn add(&self, now: UnixTime) -> Result<String, KeysError> {
        let secret = BASE64URL_NOPAD.encode(&random::<32>()?);
        let mut sign_ins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sign_ins.retain(|_, ends| *ends > now);
        if sign_ins.len() >= SIGN_INS_MAX
            && let Some(oldest) = sign_ins.iter().min_by_key(|(_, ends)| **ends).map(|(hash, _)| *hash)
        {
            sign_ins.remove(&oldest);
        }
        sign_ins.insert(sha256(secret.as_bytes()), now.plus(SIGN_IN_SECONDS));
        Ok(format!("{COOKIE_NAME}={secret}; Path=/; Max-Age={SIGN_IN_SECONDS}; {COOKIE_RULES}"))
    }

    /// Signs someone out and returns the cookie to set.
    pub(super) fn remove(&self, headers: &HeaderMap) -> String {
        if let Some(secret) = secret(headers) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&sha256(secret.as_bytes()));
        }
        format!("{COOKIE_NAME}=; Path=/; Max-Age=0; {COOKIE_RULES}")
    }

    fn knows(&self, headers: &HeaderMap, now: UnixTime) -> bool {
        let Some(secret) = secret(headers) else { return false };
        let sign_ins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sign_ins.get(&sha256(secret.as_bytes())).is_some_and(|ends| *ends > now)
    }
}

fn secret(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

const ADMIN_TOKEN: &str = "x-trust-admin-token";
/// Where those come from who reach it: the same machine.
const OPERATORS_SOCKET: &str = "operator.sock";
const COOKIE_NAME: &str = "__Host-assay";
const COOKIE_RULES: &str = "Secure; HttpOnly; SameSite=Strict";
const SIGN_IN_SECONDS: u64 = 12 * 3600;
const SIGN_INS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cookie(set: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pair = set.split(';').next().unwrap();
        headers.insert(COOKIE, format!("other=1; {pair}").parse().unwrap());
        headers
    }

    #[test]
    fn a_sign_in_holds_until_it_ends_or_is_ended() {
        let sign_ins = SignIns::default();
        let headers = with_cookie(&sign_ins.add(UnixTime(100)).unwrap());
        assert!(sign_ins.knows(&headers, UnixTime(101)));
        assert!(!sign_ins.knows(&headers, UnixTime(100 + SIGN_IN_SECONDS)));
        assert!(!sign_ins.knows(&with_cookie("__Host-assay=guess"), UnixTime(101)));
        assert!(!sign_ins.knows(&HeaderMap::new(), UnixTime(101)));
        sign_ins.remove(&headers);
        assert!(!sign_ins.knows(&headers, UnixTime(101)));
    }

    #[test]
    fn the_oldest_makes_room() {
        let sign_ins = SignIns::default();
        let first = with_cookie(&sign_ins.add(UnixTime(1)).unwrap());
        for second in 2..=64 {
            sign_ins.add(UnixTime(second)).unwrap();
        }
        assert!(sign_ins.knows(&first, UnixTime(70)));
        sign_ins.add(UnixTime(65)).unwrap();
        assert!(!sign_ins.knows(&first, UnixTime(70)));
    }
}
