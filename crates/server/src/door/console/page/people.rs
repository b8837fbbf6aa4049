//! Who may do what: tokens and people, for admins.

use std::sync::Arc;

use askama::Template;
use assay_evidence::time::UnixTime;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use http::HeaderMap;

use super::{Frame, moment, render, wants_json, word};
use crate::access::session::Session;
use crate::access::token;
use crate::door::console::access::Confirmed;
use crate::door::console::who::{new_token, person, told};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::{Principal, Role};
use crate::store::{AccessTokenRecord, PersonRecord};

#[derive(Template)]
#[template(path = "people.html")]
struct Page {
    frame: Frame,
    /// A token that was just made.
    shown: Option<Shown>,
    problem: Option<String>,
    tokens: Vec<TokenRow>,
    people: Vec<PersonRow>,
    roles: [&'static str; 4],
    word: String,
}

struct Shown {
    name: String,
    text: String,
}

struct TokenRow {
    name: String,
    role: String,
    scope: String,
    created_by: String,
    ends: String,
    used: String,
    stands: bool,
}

struct PersonRow {
    name: String,
    role: String,
    scope: String,
    issuer: String,
    first_at: String,
    last_at: String,
}

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    session: Option<Extension<Session>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if wants_json(&headers) {
        let people = server.store.people().await?.into_iter().map(person).collect::<Vec<_>>();
        let tokens = server.store.access_tokens().await?;
        let tokens = tokens.into_iter().map(|token| told(&server, token)).collect::<Vec<_>>();
        return Ok(Json(serde_json::json!({ "tokens": tokens, "people": people })).into_response());
    }
    let word = word(session.as_deref());
    Ok(Html(render(&Page::load(&server, &principal, word).await?)?).into_response())
}

/// Makes a token and shows it, this once.
pub(in crate::door::console) async fn create(
    State(server): State<Arc<Server>>,
    Confirmed { principal, fields, word }: Confirmed,
) -> Result<Response, Refusal> {
    let text = |name: &str| fields.get(name).map_or("", String::as_str);
    let days: u64 = text("days").parse().unwrap_or(0);
    let made = async {
        let seconds = days.saturating_mul(86_400);
        let new = new_token(text("name").to_owned(), text("role"), text("scope"), seconds)?;
        Ok::<_, Refusal>(token::create(&server.store, new, (principal.actor, server.now())).await?)
    };
    let (shown, problem) = match made.await {
        Ok((token, text)) => (Some(Shown { name: format!("token/{}", token.name), text }), None),
        Err(refusal) if matches!(refusal.kind, Kind::Malformed | Kind::Duplicate) => {
            (None, Some(refusal.message))
        }
        Err(refusal) => return Err(refusal),
    };
    let page = Page { shown, problem, ..Page::load(&server, &principal, word).await? };
    Ok(Html(render(&page)?).into_response())
}

pub(in crate::door::console) async fn revoke(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Confirmed { principal, .. }: Confirmed,
) -> Result<Redirect, Refusal> {
    token::revoke(&server.store, &name, (principal.actor, server.now())).await?;
    Ok(Redirect::to("/people"))
}

impl Page {
    async fn load(server: &Server, principal: &Principal, word: String) -> Result<Page, Refusal> {
        let now = server.now();
        let tokens = server.store.access_tokens().await?;
        let people = server.store.people().await?;
        Ok(Page {
            frame: Frame::of(server, principal, "/people"),
            shown: None,
            problem: None,
            tokens: tokens.into_iter().map(|token| token_row(server, token, now)).collect(),
            people: people.into_iter().map(|person| person_row(person, now)).collect(),
            roles: Role::ALL.map(Role::name),
            word,
        })
    }
}

fn token_row(server: &Server, token: AccessTokenRecord, now: UnixTime) -> TokenRow {
    let used = server.access.used_at(&token.sha256);
    TokenRow {
        stands: token.stands(now),
        ends: match token.revoked_at {
            Some(at) => format!("revoked {}", moment(at, now)),
            None => moment(token.expires_at, now),
        },
        used: used.map_or_else(|| "not since the server started".to_owned(), |at| moment(at, now)),
        name: token.name,
        role: token.role,
        scope: if token.scope.is_empty() { "all".to_owned() } else { token.scope },
        created_by: token.created_by,
    }
}

fn person_row(person: PersonRecord, now: UnixTime) -> PersonRow {
    PersonRow {
        first_at: moment(person.first_at, now),
        last_at: moment(person.last_at, now),
        name: person.name,
        role: person.role,
        scope: if person.scope.is_empty() { "all".to_owned() } else { person.scope },
        issuer: person.issuer,
    }
}
