//! The fleet: how it stands, at a glance, and what just happened.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use askama::Template;
use assay_evidence::time::UnixTime;
use assay_trust::Status;
use assay_trust::labels::Selector;
use assay_trust::policy::Covered;
use assay_wire::console::device::Finding;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::HeaderMap;
use serde_json::Value;

use super::sign_in::door;
use super::{Frame, age, clock_time, mood, render, short};
use crate::audit::Leaf;
use crate::device::Device;
use crate::door::console::access::viewer;
use crate::door::console::devices::{clock_sentence, findings, sentence};
use crate::door::console::parameters::Asked;
use crate::fate::IMA_POLICY;
use crate::fleet::Which;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::principal::Principal;
use crate::store::Word;

#[derive(Template)]
#[template(path = "fleet.html")]
struct Fleet {
    frame: Frame,
    /// Each policy in force, and for whom.
    policies: Vec<String>,
    /// What each of them covers of a device.
    coverages: Vec<PolicyCoverage>,
    /// What is wrong with the server and its gateways.
    concerns: Vec<String>,
    attached: usize,
    tiles: Vec<Tile>,
    /// Devices that wait for an operator's word.
    pending: Vec<PendingRow>,
    /// Which devices are looked for, as it was asked.
    which: Which,
    statuses: Vec<&'static str>,
    devices: Vec<DeviceRow>,
    /// Where those go on that were looked for.
    next: Option<String>,
    events: Vec<EventRow>,
    /// Who tried what they may not.
    refusals: Vec<RefusalRow>,
    time: String,
}

struct PolicyCoverage {
    citation: String,
    rows: Vec<Covered>,
}

struct Tile {
    status: &'static str,
    count: u64,
}

struct DeviceRow {
    name: String,
    id: String,
    /// The hash in it, which the page of the device goes by.
    hash: String,
    short_id: String,
    labels: String,
    status: &'static str,
    tier: &'static str,
    reason: String,
    refused: Option<Refused>,
    evidence_age: String,
    svids: u64,
    attached: bool,
}

/// A device that was never here, as it showed itself.
struct PendingRow {
    name: String,
    short_id: String,
    maker: String,
    serial: String,
    address: String,
    age: String,
}

/// Why a device is not trusted, finding by finding, and what would accept that.
struct Refused {
    findings: Vec<String>,
    command: Option<String>,
}

struct EventRow {
    time: String,
    device: String,
    kind: String,
    detail: String,
    /// What colours it.
    mood: &'static str,
}

struct RefusalRow {
    time: String,
    cause: String,
    who: String,
    from: String,
    why: String,
}

/// The way in for whoever has not signed in; of the fleet, for whoever may see some devices alone, these.
pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Asked(which): Asked<Which>,
) -> Result<Response, Refusal> {
    let Some(principal) = viewer(&server, &headers) else {
        return Ok(Html(door(&server, None)?).into_response());
    };
    if !principal.scope.is_empty() {
        return Ok(Redirect::to("/devices").into_response());
    }
    let fleet = Fleet::load(&server, &principal, which, server.now()).await?;
    Ok(Html(render(&fleet)?).into_response())
}

impl Fleet {
    async fn load(
        server: &Server,
        principal: &Principal,
        which: Which,
        now: UnixTime,
    ) -> Result<Fleet, Refusal> {
        let counts: HashMap<String, u64> = server.store.device_counts().await?.into_iter().collect();
        let shown = which
            .filter(DEVICES_SHOWN, Selector::default())?
            .page(&server.store, &server.registry, now)
            .await?;
        let devices = shown.devices.into_iter().map(Device::of).collect::<Result<Vec<_>, _>>()?;
        let events = server.store.recent_events(EVENTS_SHOWN_MAX).await?;
        // Things happen to devices that this page does not show as well.
        let subjects: Vec<&str> = events.iter().map(|leaf| leaf.subject.as_str()).collect();
        let named = server.store.devices_of(&subjects).await?;
        let names: HashMap<&str, &str> =
            named.iter().map(|record| (record.id.as_str(), record.name.as_str())).collect();
        let events = events
            .iter()
            .map(|leaf| {
                let event: Value = serde_json::from_str(&leaf.detail).unwrap_or_default();
                EventRow {
                    time: clock_time(leaf.at),
                    device: names
                        .get(leaf.subject.as_str())
                        .map_or_else(|| short(&leaf.subject), |name| (*name).to_owned()),
                    kind: leaf.kind.strip_prefix("device.").unwrap_or(&leaf.kind).to_owned(),
                    detail: sentence(&event),
                    mood: mood(&leaf.kind, &event),
                }
            })
            .collect();
        let mut refused = refusals(server, &devices, now).await?;
        let row = |device: &Device| {
            let svids = shown.svids.get(device.id.as_str()).copied().unwrap_or(0);
            row(server, device, (svids, refused.remove(device.id.as_str())), now)
        };
        let rows: Vec<DeviceRow> = devices.iter().map(row).collect();
        Ok(Fleet {
            frame: Frame::of(server, principal, "/"),
            policies: policies(server),
            coverages: coverages(server),
            concerns: server.concerns.current().iter().map(ToString::to_string).collect(),
            attached: server.registry.attached(),
            tiles: STATUSES
                .iter()
                .map(|status| Tile {
                    status: status.name(),
                    count: counts.get(status.name()).copied().unwrap_or(0),
                })
                .collect(),
            next: shown.next.map(|cursor| which.at(&cursor)),
            pending: pending(server, now).await?,
            which,
            statuses: STATUSES.iter().map(|status| status.name()).collect(),
            devices: rows,
            events,
            refusals: server
                .store
                .refusals(REFUSALS_ON_RECORD_SHOWN_MAX)
                .await?
                .iter()
                .map(refusal)
                .collect(),
            time: clock_time(now),
        })
    }
}

fn refusal(leaf: &Leaf) -> RefusalRow {
    let detail: Value = serde_json::from_str(&leaf.detail).unwrap_or_default();
    let text = |member| detail.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    RefusalRow {
        time: clock_time(leaf.at),
        cause: text("cause"),
        who: short(&leaf.subject),
        from: text("from"),
        why: text("why"),
    }
}

/// Those that wait, of which a page can bear so many.
async fn pending(server: &Server, now: UnixTime) -> Result<Vec<PendingRow>, Refusal> {
    let waiting = server.store.all_pending().await?.into_iter().filter(|one| one.word == Word::Waiting);
    let rows = waiting.take(PENDING_SHOWN_MAX).map(|one| PendingRow {
        short_id: short(&one.id),
        name: one.name,
        maker: one.ek_manufacturer,
        serial: if one.serial.is_empty() { one.ek_serial } else { one.serial },
        address: one.address,
        age: age(one.first_at, now),
    });
    Ok(rows.collect())
}

/// The findings of devices that were refused, of as many as a page can bear.
async fn refusals(
    server: &Server,
    devices: &[Device],
    now: UnixTime,
) -> Result<HashMap<String, Refused>, Refusal> {
    let suspect = devices.iter().filter(|device| device.state.status_at(now) == Status::Suspect);
    let mut refused = HashMap::new();
    for device in suspect.take(REFUSALS_SHOWN_MAX) {
        if let Some((_, last)) = server.store.last_appraisal(device.id.as_str()).await? {
            // A name may have spaces, or be an option's.
            let name = Some(device.record.name.as_str())
                .filter(|name| !name.contains(' ') && !name.starts_with('-'));
            let refusal = Refused::of(name.unwrap_or(device.id.as_str()), &findings(&last.findings)?);
            refused.insert(device.id.to_string(), refusal);
        }
    }
    Ok(refused)
}

impl Refused {
    fn of(device: &str, findings: &[Finding]) -> Refused {
        let is_of_boot = |finding: &Finding| finding.accept.is_some();
        let is_of_file = |finding: &Finding| finding.check == IMA_POLICY;
        let command = match (findings.iter().any(is_of_boot), findings.iter().any(is_of_file)) {
            (true, _) => Some(format!("assay device approve {device} --boot")),
            (false, true) => Some(format!("assay device approve {device}")),
            (false, false) => None,
        };
        let mut messages: Vec<String> = findings.iter().map(|finding| finding.message.clone()).collect();
        let more = messages.len().saturating_sub(FINDINGS_SHOWN_MAX);
        messages.truncate(FINDINGS_SHOWN_MAX);
        messages.extend((more > 0).then(|| format!("and {more} more: assay device explain {device}")));
        Refused { findings: messages, command }
    }
}

fn row(
    server: &Server,
    device: &Device,
    (svids, refused): (u64, Option<Refused>),
    now: UnixTime,
) -> DeviceRow {
    let state = &device.state;
    let said = [Some(state.reason().to_owned()), clock_sentence(server, &device.id)];
    let said = said.into_iter().flatten().filter(|text| !text.is_empty());
    DeviceRow {
        name: device.record.name.clone(),
        id: device.id.to_string(),
        hash: device.id.device_hex().unwrap_or_default().to_owned(),
        short_id: short(device.id.as_str()),
        labels: device.labels.to_string(),
        status: state.status_at(now).name(),
        tier: state.tier().name(),
        reason: said.collect::<Vec<_>>().join("; "),
        refused,
        evidence_age: state.evidence_at().map_or_else(|| "never".to_owned(), |at| age(at, now)),
        svids,
        attached: server.registry.is_attached(&device.id),
    }
}

/// `base v3`, and for whom or how far on its way where there is something to say.
fn policies(server: &Server) -> Vec<String> {
    let in_force = server.policies.current();
    let mut policies = Vec::new();
    for assigned in in_force.plan.assignments().iter().rev() {
        let mut text = in_force.citation(assigned.revision).to_owned();
        if let Some(rollout) = &assigned.rollout {
            text += &format!(" → {} ({} %)", in_force.citation(rollout.new), rollout.percent);
        }
        if !assigned.selector.is_empty() {
            text += &format!(" for {}", assigned.selector);
        }
        policies.push(text);
    }
    if let Some(more) = policies.len().checked_sub(POLICIES_SHOWN_MAX).filter(|more| *more > 0) {
        policies.truncate(POLICIES_SHOWN_MAX);
        policies.push(format!("{more} more"));
    }
    policies
}

/// The coverage of each policy in force, each once.
fn coverages(server: &Server) -> Vec<PolicyCoverage> {
    let in_force = server.policies.current();
    let revisions: BTreeSet<u64> =
        in_force.plan.assignments().iter().map(|assigned| assigned.revision).collect();
    let compiled = revisions.into_iter().filter_map(|revision| in_force.compiled(revision));
    let coverages = compiled.map(|policy| PolicyCoverage {
        citation: policy.citation().to_owned(),
        rows: policy.coverage().rows().to_vec(),
    });
    coverages.take(POLICIES_SHOWN_MAX).collect()
}

const STATUSES: [Status; 5] =
    [Status::Trusted, Status::Suspect, Status::Enrolled, Status::Expired, Status::Revoked];
const DEVICES_SHOWN: usize = 500;
const EVENTS_SHOWN_MAX: u32 = 30;
const REFUSALS_ON_RECORD_SHOWN_MAX: u32 = 10;
const PENDING_SHOWN_MAX: usize = 50;
const REFUSALS_SHOWN_MAX: usize = 50;
const FINDINGS_SHOWN_MAX: usize = 5;
const POLICIES_SHOWN_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_is_called_cannot_become_markup() {
        let words = ["check", "tier", "claim", "expected", "found"].map(|member| (member, "".into()));
        let told =
            words.into_iter().chain([("message", "<b>press".into()), ("accept", serde_json::json!({}))]);
        let of_boot: Finding = serde_json::from_value(told.collect()).unwrap();
        let devices = vec![DeviceRow {
            name: "<script>".to_owned(),
            id: "spiffe://td/x".to_owned(),
            hash: "ab".to_owned(),
            short_id: "x".to_owned(),
            labels: String::new(),
            status: "trusted",
            tier: "affirming",
            reason: "a & b".to_owned(),
            refused: Some(Refused::of("x", &[of_boot])),
            evidence_age: "1 s".to_owned(),
            svids: 1,
            attached: true,
        }];
        let (tiles, events) = (Vec::new(), Vec::new());
        let frame = Frame {
            trust_domain: "td".to_owned(),
            who: "operator".to_owned(),
            role: "admin",
            at: "/",
            is_admin: true,
            is_scoped: false,
        };
        let fleet = Fleet {
            frame,
            refusals: Vec::new(),
            concerns: Vec::new(),
            policies: Vec::new(),
            coverages: Vec::new(),
            attached: 1,
            tiles,
            devices,
            pending: Vec::new(),
            which: Which { name: "\"><b>x".to_owned(), ..Which::default() },
            statuses: vec!["trusted"],
            next: None,
            events,
            time: String::new(),
        };
        let html = fleet.render().unwrap();
        assert!(!html.contains("<script>") && html.contains("a &#38; b"), "{html}");
        assert!(
            !html.contains("<b>x")
                && !html.contains("<b>press")
                && html.contains("assay device approve x --boot"),
            "{html}"
        );
    }
}
