//! The devices that somebody searches for, a page at a time: for people, as JSON, and as CSV.

use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use assay_evidence::time::UnixTime;
use assay_wire::console::device::Devices;
use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use thiserror::Error;

use super::{Frame, age, clock_time, moment, render, short, wants_json};
use crate::device::Device;
use crate::door::console::devices::told;
use crate::door::console::parameters::Asked;
use crate::fleet::Which;
use crate::outcome::{Kind, Outcome, Refusal};
use crate::parts::Server;
use crate::principal::Principal;

#[derive(Template)]
#[template(path = "devices.html")]
struct Page {
    frame: Frame,
    /// What was searched for.
    q: String,
    /// Why nothing could be.
    problem: Option<String>,
    rows: Vec<Row>,
    /// Where these go on, and where they are as CSV: what stands behind the `?`.
    next: Option<String>,
    csv: String,
    time: String,
}

struct Row {
    name: String,
    id: String,
    hash: String,
    short_id: String,
    labels: String,
    status: String,
    since: String,
    policy: String,
    reason: String,
    evidence_age: String,
    svids: u64,
    attached: bool,
}

/// What the page is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::door::console) struct Search {
    q: String,
    cursor: String,
    format: String,
}

pub(in crate::door::console) const PARAMETERS: &[&str] = &["q", "cursor", "format"];

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    headers: HeaderMap,
    Asked(search): Asked<Search>,
) -> Result<Response, Refusal> {
    let is_for_people = !wants_json(&headers) && search.format.is_empty();
    let found = find(&server, &principal, &search).await;
    let (found, problem) = match found {
        Ok(found) => (found, None),
        // People are told where they searched.
        Err(refusal) if is_for_people && refusal.kind == Kind::Malformed => {
            (Devices::default(), Some(refusal.message))
        }
        Err(refusal) => return Err(refusal),
    };
    match search.format.as_str() {
        "csv" => Ok(csv(&found)),
        "" | "json" if !is_for_people => Ok(Json(found).into_response()),
        "" => html(&server, &principal, search, found, problem),
        format => {
            let message = format!("format: {format:?} is neither csv nor json");
            Err(Refusal::new(Kind::Malformed, "parameter", message))
        }
    }
}

async fn find(server: &Server, principal: &Principal, search: &Search) -> Result<Devices, Refusal> {
    let which = Which { cursor: search.cursor.clone(), ..meant(&search.q)? };
    let now = server.now();
    let limit = if search.format.is_empty() { DEVICES_SHOWN } else { DEVICES_EXPORTED };
    let page =
        which.filter(limit, principal.scope.clone())?.page(&server.store, &server.registry, now).await?;
    let devices = page.devices.into_iter().map(|record| {
        let device = Device::of(record).map_err(|error| error.0)?;
        let held = page.svids.get(device.id.as_str()).copied().unwrap_or(0);
        Ok(told(server, &device, held, now))
    });
    Ok(Devices { devices: devices.collect::<Result<_, Refusal>>()?, next: page.next })
}

fn html(
    server: &Server,
    principal: &Principal,
    search: Search,
    found: Devices,
    problem: Option<String>,
) -> Result<Response, Refusal> {
    let now = server.now();
    let query = |pairs: &[(&str, &str)]| {
        let said: Vec<_> = pairs.iter().filter(|(_, value)| !value.is_empty()).collect();
        serde_urlencoded::to_string(said).unwrap_or_default()
    };
    let Search { q, cursor, .. } = search;
    let page = Page {
        frame: Frame::of(server, principal, "/devices"),
        problem,
        rows: found.devices.iter().map(|device| row(device, now)).collect(),
        next: found.next.map(|next| query(&[("q", &q), ("cursor", &next)])),
        csv: query(&[("q", &q), ("cursor", &cursor), ("format", "csv")]),
        time: clock_time(now),
        q,
    };
    Ok(Html(render(&page)?).into_response())
}

fn row(device: &assay_wire::console::device::Device, now: UnixTime) -> Row {
    let said = [Some(device.reason.clone()), device.clock.clone()];
    let said = said.into_iter().flatten().filter(|text| !text.is_empty());
    Row {
        name: device.name.clone(),
        hash: hash(&device.id),
        short_id: short(&device.id),
        id: device.id.clone(),
        labels: labels(device),
        status: device.status.clone(),
        since: device.since.map(|at| moment(at, now)).unwrap_or_default(),
        policy: device.policy.clone().unwrap_or_default(),
        reason: said.collect::<Vec<_>>().join("; "),
        evidence_age: device.evidence_at.map_or_else(|| "never".to_owned(), |at| age(at, now)),
        svids: device.svids,
        attached: device.attached,
    }
}

pub(super) fn hash(id: &str) -> String {
    id.rsplit('/').next().unwrap_or_default().to_owned()
}

pub(super) fn labels(device: &assay_wire::console::device::Device) -> String {
    let labels = device.labels.iter().map(|(key, value)| format!("{key}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

fn csv(found: &Devices) -> Response {
    let mut text =
        String::from("name,id,status,tier,since,evidence_at,policy,labels,attached,svids,reason\r\n");
    for device in &found.devices {
        let time = |at: Option<UnixTime>| at.map(|at| at.to_string()).unwrap_or_default();
        let (since, evidence_at) = (time(device.since), time(device.evidence_at));
        let (labels, svids) = (labels(device), device.svids.to_string());
        let attached = if device.attached { "yes" } else { "no" };
        let policy = device.policy.as_deref().unwrap_or_default();
        let cells = [
            &device.name,
            &device.id,
            &device.status,
            &device.tier,
            &since,
            &evidence_at,
            policy,
            &labels,
            attached,
            &svids,
            &device.reason,
        ];
        let cells: Vec<String> = cells.into_iter().map(cell).collect();
        let _ = write!(text, "{}\r\n", cells.join(","));
    }
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"devices.csv\""),
    ];
    (headers, text).into_response()
}

/// A cell of RFC 4180. What a spreadsheet would take for a formula is text, and says so.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = text.replace('"', "\"\"");
    format!("\"{}{text}\"", if is_formula { "'" } else { "" })
}

/// What words mean: `state:` and the like, and a name or how it begins.
fn meant(q: &str) -> Result<Which, NotASearch> {
    if q.len() > SEARCH_BYTES_MAX {
        return Err(NotASearch::Long);
    }
    let mut which = Which::default();
    let mut labels = Vec::new();
    for word in q.split_whitespace() {
        let (place, value) = match word.split_once(':') {
            Some(("state" | "status", value)) => (&mut which.status, value),
            Some(("name", value)) => (&mut which.name, value),
            Some(("attached", "yes" | "true")) => (&mut which.attached, "true"),
            Some(("attached", "no" | "false")) => (&mut which.attached, "false"),
            Some(("label", value)) => {
                labels.push(value);
                continue;
            }
            Some((key, _)) => return Err(NotASearch::Key { key: key.to_owned() }),
            None => (&mut which.name, word),
        };
        if !place.is_empty() {
            return Err(NotASearch::Twice { word: word.to_owned() });
        }
        value.clone_into(place);
    }
    which.label = labels.join(",");
    Ok(which)
}

/// Why nothing can be searched for by it.
#[derive(Debug, PartialEq, Eq, Error)]
enum NotASearch {
    #[error(
        "{key:?} is nothing to search by: there are state:, label:, name: and attached:yes or attached:no"
    )]
    Key { key: String },
    #[error("{word:?} says a second time what was said already")]
    Twice { word: String },
    #[error("a search has at most {SEARCH_BYTES_MAX} bytes")]
    Long,
}

impl Outcome for NotASearch {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Malformed, "search")
    }
}

const DEVICES_SHOWN: usize = 100;
const DEVICES_EXPORTED: usize = 1000;
const SEARCH_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_say_which_devices_are_meant() {
        let which = meant(" state:suspect label:site=paris press-*  label:tier=edge attached:no").unwrap();
        let Which { status, label, name, attached, .. } = which;
        let said = [status, label, name, attached];
        assert_eq!(said, ["suspect", "site=paris,tier=edge", "press-*", "false"]);
        assert_eq!(meant("seen:1h").unwrap_err(), NotASearch::Key { key: "seen".to_owned() });
        assert_eq!(meant("press pump").unwrap_err(), NotASearch::Twice { word: "pump".to_owned() });
        assert!(meant(&"a".repeat(1025)).is_err() && meant("").is_ok());
        assert!(meant("attached:perhaps").is_err());
    }

    #[test]
    fn a_name_is_text_to_a_spreadsheet() {
        assert_eq!(cell("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(
            (cell("press-1"), cell("-1"), cell("@x")),
            ("\"press-1\"".into(), "\"'-1\"".into(), "\"'@x\"".into())
        );
    }

    proptest! {
        #[test]
        fn no_search_makes_it_panic(q in ".{0,80}") {
            let _ = meant(&q);
        }
    }
}
