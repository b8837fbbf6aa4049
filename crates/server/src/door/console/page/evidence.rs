//! One result on record: judged again, and its evidence read aloud.

use std::sync::Arc;

use askama::Template;
use assay_wire::console::reading::{QuotedPcr, Read, Reading, Stage};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use http::HeaderMap;

use super::devices::hash;
use super::{Frame, moment, render, wants_json};
use crate::door::console::devices::find;
use crate::door::console::evidence::{Which, read};
use crate::door::console::parameters::Asked;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::principal::Principal;

#[derive(Template)]
#[template(path = "evidence.html")]
struct Page {
    frame: Frame,
    name: String,
    hash: String,
    at: String,
    again: String,
    read: Read,
    others: Vec<Other>,
}

/// Another result of the device.
struct Other {
    result: u64,
    at: String,
    tier: String,
    policy: String,
    is_kept: bool,
    is_this: bool,
}

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    headers: HeaderMap,
    Path(name): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<Response, Refusal> {
    let device = find(&server, &name).await?;
    let read = read(&server, &device, which).await?;
    if wants_json(&headers) {
        return Ok(Json(read).into_response());
    }
    let now = server.now();
    let results = server.store.appraisals(device.id.as_str(), OTHERS_MAX).await?;
    let others = results.into_iter().map(|(result, appraisal, is_kept)| Other {
        result,
        at: moment(appraisal.at, now),
        tier: appraisal.tier,
        policy: appraisal.policy,
        is_kept,
        is_this: result == read.result,
    });
    let page = Page {
        frame: Frame::of(&server, &principal, "/devices"),
        name: device.record.name.clone(),
        hash: hash(device.id.as_str()),
        at: read.at.map(|at| moment(at, now)).unwrap_or_default(),
        again: again(&read),
        others: others.collect(),
        read,
    };
    Ok(Html(render(&page)?).into_response())
}

/// How the result stands up to being judged again.
fn again(Read { again, tier, .. }: &Read) -> String {
    match (&again.error, again.is_same) {
        (Some(error), _) => format!("It cannot be judged again: {error}."),
        (None, true) => format!("Judged again just now from what is kept: {tier}, to the last word."),
        (None, false) => {
            format!(
                "Judged again just now from what is kept it is {}, and on record is {tier}: another version of Assay may have judged it then.",
                again.tier
            )
        }
    }
}

/// How a stage stands before the policy: refused where no listed value of one of its PCRs is the quoted one, and else as far as
/// what covers it least does.
fn mark(stage: &Stage, reading: &Reading) -> &'static str {
    let is_pinned_otherwise = |pcr: &&QuotedPcr| {
        let pinned = || pcr.lines.iter().filter_map(|line| line.holds);
        pinned().next().is_some() && !pinned().any(|holds| holds)
    };
    let mut pcrs = reading.pcrs.iter().filter(|pcr| stage.pcrs.contains(&pcr.index));
    let is = |cover: &str| stage.covered.iter().any(|covered| covered.cover == cover);
    match () {
        () if pcrs.any(|pcr| is_pinned_otherwise(&pcr)) => "refused",
        () if stage.covered.is_empty() => "unjudged",
        () if is("open") => "open",
        () if is("ruled") => "ruled",
        () => "pinned",
    }
}

/// What tells how a PCR came to be, to people.
fn told(pcr: &QuotedPcr) -> String {
    match pcr.told_by.as_str() {
        "nothing" => "never extended".to_owned(),
        "boot-log" if pcr.events == 1 => "1 event of the boot log".to_owned(),
        "boot-log" => format!("{} events of the boot log", pcr.events),
        "ima-list" => "the list of files".to_owned(),
        _ => "no log tells".to_owned(),
    }
}

/// Nothing was measured there, and the policy says nothing of it.
fn is_idle(pcr: &QuotedPcr) -> bool {
    pcr.told_by == "nothing" && pcr.lines.is_empty()
}

fn idle(reading: &Reading) -> String {
    let idle = reading.pcrs.iter().filter(|pcr| is_idle(pcr)).map(|pcr| pcr.index.to_string());
    match idle.collect::<Vec<_>>().join(", ") {
        idle if idle.is_empty() => String::new(),
        idle => format!("Quoted too, never extended, and nothing is said of them: {idle}."),
    }
}

const OTHERS_MAX: u32 = 20;
