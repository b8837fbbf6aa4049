//! The JSON telemetry protocol of the original services, at the gateway: what of it passes, how often, and what is said of it.
//!
//! Bodies pass as they came: what is signed in them is what their agents wrote. Which requests are refused, in which order and how, is as
//! the original has it; how often an address may ask is the operator's to say, since a site may have one for all of its devices.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use assay_admission::Peer;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::body::{AnswerBody, full};
use crate::refusal::Refusal;
use crate::route::Route;

/// The JSON protocol of the original services, passed on to the server, over HTTP/1.1 too.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonProtocol {
    /// What the gateway calls itself.
    pub service_name: String,
    /// Which version it says it is.
    pub service_version: String,
    /// Requests a minute of one address, for nonces, submissions and all else together; a submission takes two. The original has 100,
    /// which a site behind one address shares.
    pub requests_per_minute: u32,
}

impl Default for JsonProtocol {
    fn default() -> Self {
        JsonProtocol {
            service_name: "opentelemetry-gateway".to_owned(),
            service_version: "1.0.0".to_owned(),
            requests_per_minute: 6000,
        }
    }
}

/// The route of a path of the protocol.
pub(crate) fn find(path: &str) -> Option<(Method, Route)> {
    let route = |path| Route { path, standing: false };
    let get = |path| Some((Method::GET, route(path)));
    let post = |path| Some((Method::POST, route(path)));
    match path {
        "/nonce" => get("/nonce"),
        "/metrics" => post("/metrics"),
        "/metrics/status" => get("/metrics/status"),
        "/nonces/cleanup" => post("/nonces/cleanup"),
        _ => None,
    }
}

/// The protocol, as it is served.
pub(crate) struct Served {
    pub(crate) settings: JsonProtocol,
    asked: Mutex<Asked>,
}

/// How often each address asked in the last minute; of IPv6 a whole /64 is one.
#[derive(Default)]
struct Asked {
    by_address: HashMap<Peer, Window>,
    /// The second in which those were forgotten last that ask no more.
    swept_at: u64,
}

impl Asked {
    /// The requests of an address; `None`: so many ask that no other is counted, and so none is let through.
    fn of(&mut self, address: IpAddr, now: u64) -> Option<&mut Window> {
        let (peer, is_full) = (Peer::at(address), self.by_address.len() >= ADDRESSES_MAX);
        if is_full && !self.by_address.contains_key(&peer) {
            if self.swept_at < now {
                self.sweep(now);
            }
            if self.by_address.len() >= ADDRESSES_MAX {
                return None;
            }
        }
        let window = self.by_address.entry(peer).or_insert_with(|| Window::new(now));
        window.move_to(now);
        Some(window)
    }

    /// Forgets those that asked for nothing in the last minute.
    fn sweep(&mut self, now: u64) {
        self.by_address.retain(|_, window| window.at + WINDOW_SECONDS as u64 > now);
        self.swept_at = now;
    }
}

/// Requests of a minute, by second.
struct Window {
    counts: [u32; WINDOW_SECONDS],
    /// The second that was counted last.
    at: u64,
}

impl Window {
    fn new(now: u64) -> Window {
        Window { counts: [0; WINDOW_SECONDS], at: now }
    }

    /// Forgets the seconds that are a minute ago.
    fn move_to(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at).min(WINDOW_SECONDS as u64);
        for second in 1..=passed {
            *self.of(self.at.saturating_add(second)) = 0;
        }
        self.at = self.at.max(now);
    }

    fn of(&mut self, second: u64) -> &mut u32 {
        let index = usize::try_from(second % WINDOW_SECONDS as u64).unwrap_or(0);
        &mut self.counts[index]
    }

    fn sum(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Served {
    pub(crate) fn new(settings: JsonProtocol) -> Served {
        Served { settings, asked: Mutex::default() }
    }

    /// Looks at a request as the original does, before it passes; seconds count from any start.
    pub(crate) fn check(
        &self,
        address: IpAddr,
        (allowed, method, headers): (&Method, &Method, &HeaderMap),
        now: u64,
    ) -> Result<(), Unfit> {
        if method != allowed {
            return Err(Unfit::Method);
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let window = asked.of(address, now).ok_or(Unfit::TooOften)?;
        if window.sum() >= self.settings.requests_per_minute {
            return Err(Unfit::TooOften);
        }
        *window.of(now) += 1;
        if method == Method::POST && !is_json(headers) {
            return Err(Unfit::Type);
        }
        Ok(())
    }

    /// Adds to what the gateway says of itself what the original says.
    pub(crate) fn status(&self, said: &mut Value, now: u64) {
        let JsonProtocol { service_name, service_version, requests_per_minute } = &self.settings;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.sweep(now);
        let more = json!({
            "service": service_name, "version": service_version, "collector_url": COLLECTOR,
            "rate_limit": { "requests_per_minute": requests_per_minute, "window_seconds": WINDOW_SECONDS },
            "active_clients": asked.by_address.len(),
        });
        join(said, more);
    }

    /// The same of how often an address may ask, which takes none of it.
    pub(crate) fn rate_limits(&self, said: &mut Value, address: IpAddr, now: u64) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asked.by_address.get_mut(&Peer::at(address)).map_or(0, |window| {
            window.move_to(now);
            window.sum()
        });
        let limit = self.settings.requests_per_minute;
        let more = json!({
            "client_ip": address, "requests_in_window": count, "rate_limit": limit,
            "window_seconds": WINDOW_SECONDS, "remaining_requests": limit.saturating_sub(count),
        });
        join(said, more);
    }

    /// `/health`.
    pub(crate) fn health(&self, is_connected: bool) -> Value {
        json!({
            "status": "healthy", "service": self.settings.service_name, "version": self.settings.service_version,
            "collector_connected": is_connected,
        })
    }
}

/// Why a request of the protocol does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Another method than the path has.
    Method,
    /// Its address asked too often.
    TooOften,
    /// It says that it is no JSON.
    Type,
}

impl Unfit {
    /// What the original says of it.
    pub(crate) fn answer(self) -> Response<AnswerBody> {
        match self {
            Unfit::Method => error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Unfit::TooOften => too_often(),
            Unfit::Type => error(StatusCode::BAD_REQUEST, "Content-Type must be application/json"),
        }
    }
}

/// What the original says where the gateway refuses.
pub(crate) fn refused(refusal: Refusal) -> Response<AnswerBody> {
    match refusal {
        Refusal::Unknown => error(StatusCode::NOT_FOUND, "Endpoint not found"),
        Refusal::TooOften(_) => too_often(),
        Refusal::TooLarge => error(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large"),
        Refusal::TooLong | Refusal::Unavailable => {
            error(StatusCode::INTERNAL_SERVER_ERROR, "Proxy request failed")
        }
    }
}

fn too_often() -> Response<AnswerBody> {
    let mut refused = error(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded");
    refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    refused
}

fn error(status: StatusCode, why: &str) -> Response<AnswerBody> {
    let mut response = Response::new(full(format!("{}\n", json!({ "error": why }))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn join(said: &mut Value, more: Value) {
    if let (Some(said), Value::Object(more)) = (said.as_object_mut(), more) {
        said.extend(more);
    }
}

/// As the original's framework looks at it.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

const WINDOW_SECONDS: usize = 60;
/// Addresses that are counted at once; some 4 MiB.
const ADDRESSES_MAX: usize = 1 << 14;
/// Status pages are open to anyone, so they name no server.
const COLLECTOR: &str = "https://server.assay.internal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_addresses_ask_no_more_are_kept_and_a_network_is_one() {
        let served = Served::new(JsonProtocol { requests_per_minute: 2, ..JsonProtocol::default() });
        let headers = HeaderMap::new();
        let ask = |address: IpAddr, now| served.check(address, (&Method::GET, &Method::GET, &headers), now);
        let in_network = |host: u128| IpAddr::from((0x2001_0db8_u128 << 96 | host).to_be_bytes());
        let outcomes = [1, 2, 3].map(|host| ask(in_network(host), 0));
        assert_eq!(outcomes, [Ok(()), Ok(()), Err(Unfit::TooOften)]);
        let number = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        for asking in 1..ADDRESSES_MAX {
            assert_eq!(ask(number(asking), 1), Ok(()));
        }
        // One more has no place, and those that have one keep it.
        assert_eq!(ask(number(ADDRESSES_MAX), 1), Err(Unfit::TooOften));
        assert_eq!(ask(number(1), 1), Ok(()));
        assert_eq!(served.asked.lock().unwrap().by_address.len(), ADDRESSES_MAX);
        // A minute later there is room.
        assert_eq!(ask(number(ADDRESSES_MAX), 70), Ok(()));
        assert_eq!(served.asked.lock().unwrap().by_address.len(), 1);
    }

    #[test]
    fn an_address_asks_so_often_in_any_minute_and_each_for_itself() {
        let served = Served::new(JsonProtocol { requests_per_minute: 100, ..JsonProtocol::default() });
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let headers = HeaderMap::new();
        let ask = |address, now| {
            let asked = (&Method::GET, &Method::GET, &headers);
            served.check(address, asked, now)
        };
        for number in 0..100 {
            assert_eq!(ask(here, 1000 + number / 10), Ok(()));
        }
        assert_eq!((ask(here, 1010), ask(there, 1010)), (Err(Unfit::TooOften), Ok(())));
        let remaining = |now| {
            let mut said = json!({});
            served.rate_limits(&mut said, here, now);
            said["remaining_requests"].as_u64().unwrap()
        };
        assert_eq!((remaining(1059), remaining(1060), remaining(1064)), (0, 10, 50));
        assert_eq!(ask(here, 1060), Ok(()));
        assert_eq!(remaining(1200), 100);
        // The order of the original: how often, then of what type.
        let post = (&Method::POST, &Method::POST, &headers);
        assert_eq!(served.check(there, post, 1010), Err(Unfit::Type));
        assert_eq!(served.check(there, (&Method::GET, &Method::POST, &headers), 1010), Err(Unfit::Method));
    }
}
