//! Every certificate that was issued, those that end first before the others, and what signs them.

use std::sync::Arc;

use askama::Template;
use assay_evidence::time::UnixTime;
use assay_wire::console::certificate::{Authorities, Certificate, Certificates};
use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::HeaderMap;

use super::devices::hash;
use super::{Frame, clock_time, moment, render, wants_json};
use crate::certificate::Which;
use crate::door::console::certificates::{page as found, signing};
use crate::door::console::parameters::Asked;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::Principal;

#[derive(Template)]
#[template(path = "certificates.html")]
struct Page {
    frame: Frame,
    which: Which,
    /// Why nothing could be searched for.
    problem: Option<String>,
    rows: Vec<Row>,
    authorities: Vec<AuthorityRow>,
    list: String,
    /// Where these go on: what stands behind the `?`.
    next: Option<String>,
    time: String,
}

struct Row {
    name: String,
    kind: String,
    state: String,
    serial: String,
    device: String,
    device_hash: String,
    entry: String,
    issued: String,
    ends: String,
    withdrawn: String,
    leaf: u64,
}

struct AuthorityRow {
    name: String,
    until: String,
    stage: String,
}

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    headers: HeaderMap,
    Asked(which): Asked<Which>,
) -> Result<Response, Refusal> {
    let is_for_people = !wants_json(&headers);
    let (certificates, problem) = match found(&server, &which, CERTIFICATES_SHOWN).await {
        Ok(certificates) => (certificates, None),
        // People are told where they searched.
        Err(refusal) if is_for_people && matches!(refusal.kind, Kind::Malformed | Kind::NotFound) => {
            (Certificates::default(), Some(refusal.message))
        }
        Err(refusal) => return Err(refusal),
    };
    if !is_for_people {
        return Ok(Json(certificates).into_response());
    }
    let now = server.now();
    let Authorities { authorities, revocation_list: list } = signing(&server);
    let authorities = authorities.into_iter().map(|authority| AuthorityRow {
        until: moment(authority.until, now),
        name: authority.name,
        stage: authority.stage,
    });
    let page = Page {
        frame: Frame::of(&server, &principal, "/certificates"),
        problem,
        rows: certificates.certificates.into_iter().map(|certificate| row(certificate, now)).collect(),
        authorities: authorities.collect(),
        list: format!(
            "number {}, {} certificates in {} bytes, to be used until {}",
            list.number,
            list.entries,
            list.bytes,
            moment(list.until, now)
        ),
        next: certificates.next.map(|next| which.at(&next)),
        time: clock_time(now),
        which,
    };
    Ok(Html(render(&page)?).into_response())
}

fn row(certificate: Certificate, now: UnixTime) -> Row {
    let device = certificate.device.unwrap_or_default();
    Row {
        name: certificate.spiffe_id,
        kind: certificate.kind,
        state: certificate.state,
        serial: certificate.serial,
        device_hash: hash(&device),
        device: certificate.device_name.unwrap_or(device),
        entry: certificate.entry.unwrap_or_default(),
        issued: moment(certificate.issued_at, now),
        ends: moment(certificate.not_after, now),
        withdrawn: certificate.withdrawn_at.map(|at| moment(at, now)).unwrap_or_default(),
        leaf: certificate.leaf,
    }
}

const CERTIFICATES_SHOWN: usize = 50;
