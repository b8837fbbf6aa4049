//! The pages: what people run a fleet with. Rendered here; each works without a script, and says the same as JSON to whoever asks
//! for that.
//!
//! What is shown is of `fleet.rs`, `devices.rs`, `device.rs`, `evidence.rs`, `policies.rs`, `certificates.rs`, `ledger.rs` and `people.rs`; what a page changes is sent by a form of it
//! ([`Confirmed`](super::access::Confirmed)) and done by the same use case as everywhere.

pub(super) mod certificates;
pub(super) mod device;
pub(super) mod devices;
pub(super) mod evidence;
pub(super) mod fleet;
pub(super) mod ledger;
pub(super) mod people;
pub(super) mod policies;
pub(super) mod sign_in;

use askama::Template;
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::header::{ACCEPT, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::access::session::Session;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::{Principal, Role};

/// What stands around every page.
struct Frame {
    trust_domain: String,
    who: String,
    role: &'static str,
    /// The page's place in the navigation.
    at: &'static str,
    is_admin: bool,
    is_scoped: bool,
}

impl Frame {
    fn of(server: &Server, principal: &Principal, at: &'static str) -> Frame {
        Frame {
            trust_domain: server.config.trust_domain.to_string(),
            who: principal.actor.to_string(),
            role: principal.role.name(),
            at,
            is_admin: principal.role == Role::Admin,
            is_scoped: !principal.scope.is_empty(),
        }
    }

    fn is_at(&self, path: &str) -> bool {
        self.at == path
    }

    /// Where whoever looks can go.
    fn pages(&self) -> Vec<(&'static str, &'static str)> {
        let mut pages = vec![("/devices", "Devices")];
        if !self.is_scoped {
            pages.insert(0, ("/", "Fleet"));
            pages.push(("/policies", "Policies"));
            pages.push(("/certificates", "Certificates"));
            pages.push(("/ledger", "Ledger"));
        }
        if self.is_admin {
            pages.push(("/people", "People"));
        }
        pages
    }
}

pub(super) async fn css() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../../../assets/console.css"))
}

pub(super) async fn js() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../../../../assets/console.js"))
}

pub(super) async fn icon() -> impl IntoResponse {
    ([(CONTENT_TYPE, "image/svg+xml")], include_str!("../../../../assets/icon.svg"))
}

/// Whether a program asks, that reads JSON.
fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/html")
}

/// Tells people on a page what programs are told as JSON: of a refusal, why, and whoever is not signed in how.
pub(super) fn tell_people(server: &Server, asks: &HeaderMap, response: Response) -> Response {
    let accept = asks.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let Some(refusal) = response.extensions().get::<Refusal>().filter(|_| accept.contains("text/html"))
    else {
        return response;
    };
    let page = match refusal.kind {
        Kind::Unauthenticated if refusal.code() == "token" => sign_in::door(server, None),
        _ => render(&Refused { code: refusal.code(), message: refusal.message.clone() }),
    };
    let status = response.status();
    page.map_or(response, |page| (status, Html(page)).into_response())
}

#[derive(Template)]
#[template(path = "refused.html")]
struct Refused {
    code: &'static str,
    message: String,
}

/// What has to be in every form of a page; nothing, where a program looks at it.
fn word(session: Option<&Session>) -> String {
    session.map(|session| session.word.clone()).unwrap_or_default()
}

/// A page. What is in it was said by devices and others: nothing of that turns text around or hides some.
fn render(template: &impl Template) -> Result<String, Refusal> {
    let html = template.render();
    let html = html.map_err(|error| Refusal::new(Kind::Unavailable, "page", error.to_string()))?;
    Ok(html.chars().map(|c| if hides(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
}

/// Controls, and what Unicode has to steer the direction of text (UAX #9) or to be seen by nobody.
fn hides(c: char) -> bool {
    let is_space = matches!(c, '\n' | '\t');
    (c.is_control() && !is_space)
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn with_cookie(cookie: &str) -> Result<Response, Refusal> {
    Ok(([(SET_COOKIE, cookie_value(cookie)?)], Redirect::to("/")).into_response())
}

fn cookie_value(cookie: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(cookie)
        .map_err(|_| Refusal::new(Kind::Unavailable, "cookie", "the cookie could not be set"))
}

/// The start of the hash in a device's ID.
fn short(id: &str) -> String {
    let hex = SpiffeId::parse(id).ok().and_then(|id| id.device_hex().map(str::to_owned));
    hex.as_deref().and_then(|hex| hex.get(..12)).unwrap_or(id).to_owned()
}

fn age(at: UnixTime, now: UnixTime) -> String {
    match now.0.saturating_sub(at.0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Hours, minutes and seconds of the day, UTC.
fn clock_time(at: UnixTime) -> String {
    at.to_string().get(11..19).unwrap_or_default().to_owned()
}

/// The day and the time of it, UTC, and how long ago that is.
fn moment(at: UnixTime, now: UnixTime) -> String {
    let text = at.to_string().replace('T', " ");
    let text = text.get(..19).unwrap_or(&text);
    match at <= now {
        true => format!("{text} UTC, {} ago", age(at, now)),
        false => format!("{text} UTC, in {}", age(now, at)),
    }
}

/// What colours an event.
fn mood(kind: &str, event: &Value) -> &'static str {
    let tier = event.get("tier").and_then(Value::as_str).unwrap_or_default();
    match (kind, tier) {
        ("device.appraised", "affirming") | ("device.approved", _) => "good",
        ("device.appraised", "contraindicated") | ("device.revoked", _) => "bad",
        ("device.appraised", _) | ("device.expired", _) => "odd",
        _ => "plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        assert_eq!(age(UnixTime(100), UnixTime(103)), "3 s");
        assert_eq!(age(UnixTime(0), UnixTime(600)), "10 min");
        assert_eq!(age(UnixTime(0), UnixTime(90_000)), "25 h");
        assert_eq!(age(UnixTime(0), UnixTime(900_000)), "10 days");
        assert_eq!(age(UnixTime(9), UnixTime(3)), "0 s");
    }

    #[test]
    fn moments_say_how_long_ago_they_are() {
        assert_eq!(moment(UnixTime(0), UnixTime(60)), "1970-01-01 00:00:00 UTC, 60 s ago");
        assert_eq!(moment(UnixTime(600), UnixTime(0)), "1970-01-01 00:10:00 UTC, in 10 min");
    }

    #[test]
    fn nothing_on_a_page_turns_text_around() {
        #[derive(Template)]
        #[template(source = "<b>{{ said }}</b>", ext = "html")]
        struct Said {
            said: &'static str,
        }
        let html = render(&Said { said: "a\u{202e}b\u{200b}\u{1b}<i>\n" }).unwrap();
        assert_eq!(html, "<b>a\u{fffd}b\u{fffd}\u{fffd}&#60;i&#62;\n</b>");
    }

    #[test]
    fn a_browser_is_shown_a_page_and_a_program_told() {
        let asks = |accept: &str| wants_json(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        assert!(asks("application/json") && asks("application/json, */*"));
        assert!(!asks("text/html,application/xhtml+xml,application/json;q=0.1") && !asks("*/*"));
        assert!(!wants_json(&HeaderMap::new()));
    }
}
