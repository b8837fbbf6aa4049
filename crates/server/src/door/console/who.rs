//! Who may do what, for admins; and whoever asks, for themselves.

use std::sync::Arc;

use assay_trust::labels::{LabelError, Selector};
use assay_wire::console::access::{CreateToken, Created, Ended, People, Person, Token, Tokens, Whoami};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};

use super::devices::read;
use crate::access::token::{self, NewToken};
use crate::actor::Actor;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::{NotARole, Principal};
use crate::store::{AccessTokenRecord, PersonRecord};

pub(super) async fn whoami(principal: Principal) -> Json<Whoami> {
    let Principal { actor, role, scope } = principal;
    Json(Whoami { name: actor.to_string(), role: role.to_string(), scope: scope.to_string() })
}

pub(super) async fn tokens(State(server): State<Arc<Server>>) -> Result<Json<Tokens>, Refusal> {
    let tokens = server.store.access_tokens().await?;
    Ok(Json(Tokens { tokens: tokens.into_iter().map(|token| told(&server, token)).collect() }))
}

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<Created>, Refusal> {
    let CreateToken { name, role, scope, seconds } = read(&body)?;
    let new = new_token(name, &role, &scope, seconds)?;
    let (token, shown) = token::create(&server.store, new, (by, server.now())).await?;
    Ok(Json(Created { token: told(&server, token), shown }))
}

pub(super) fn new_token(name: String, role: &str, scope: &str, seconds: u64) -> Result<NewToken, Refusal> {
    let role = role.parse().map_err(|error: NotARole| malformed("role", error.to_string()))?;
    let scope: Selector =
        scope.parse().map_err(|error: LabelError| malformed("labels", error.to_string()))?;
    Ok(NewToken { name, role, scope, seconds })
}

pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
) -> Result<Json<Ended>, Refusal> {
    token::revoke(&server.store, &name, (by, server.now())).await?;
    Ok(Json(Ended { name }))
}

pub(super) async fn people(State(server): State<Arc<Server>>) -> Result<Json<People>, Refusal> {
    let people = server.store.people().await?;
    Ok(Json(People { people: people.into_iter().map(person).collect() }))
}

pub(super) fn told(server: &Server, token: AccessTokenRecord) -> Token {
    let used_at = server.access.used_at(&token.sha256);
    let AccessTokenRecord { name, role, scope, created_by, created_at, expires_at, revoked_at, .. } = token;
    Token { name, role, scope, created_by, created_at, expires_at, revoked_at, used_at }
}

pub(super) fn person(person: PersonRecord) -> Person {
    let PersonRecord { issuer, subject, name, role, scope, first_at, last_at } = person;
    Person { name, issuer, subject, role, scope, first_at, last_at }
}

fn malformed(code: &'static str, message: String) -> Refusal {
    Refusal::new(Kind::Malformed, code, message)
}
