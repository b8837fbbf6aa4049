//! Devices that were never here, for operators: who waits, and who may come in.

use std::sync::Arc;

use assay_wire::console::Because;
use assay_wire::console::pending::{Newcomer, Pending};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};

use super::devices::{as_beginning, as_id, read, said};
use crate::actor::Actor;
use crate::newcomer::say;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::{PendingRecord, Word};

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Pending>, Refusal> {
    let pending = server.store.all_pending().await?;
    Ok(Json(Pending { pending: pending.into_iter().map(newcomer).collect() }))
}

pub(super) async fn admit(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(device): Path<String>,
) -> Result<Json<Newcomer>, Refusal> {
    told(&server, &device, (Word::Admitted, ""), by).await
}

pub(super) async fn deny(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(device): Path<String>,
    body: Bytes,
) -> Result<Json<Newcomer>, Refusal> {
    let Because { reason } = read(&body)?;
    told(&server, &device, (Word::Denied, said(&reason)?), by).await
}

async fn told(
    server: &Server,
    device: &str,
    word: (Word, &str),
    by: Actor,
) -> Result<Json<Newcomer>, Refusal> {
    let PendingRecord { id, .. } = find(server, device).await?;
    say(&server.store, &id, word, by, server.now()).await?;
    Ok(Json(newcomer(find(server, &id).await?)))
}

/// One of those that wait, by its SPIFFE ID, the hash in it or the start of that, or by what it calls itself: a name that
/// nobody has given it, and that others may claim.
async fn find(server: &Server, device: &str) -> Result<PendingRecord, Refusal> {
    let domain = &server.config.trust_domain;
    let (id, beginning) = (as_id(device, domain), as_beginning(device, domain));
    let all = server.store.all_pending().await?;
    let is_by_id = |one: &&PendingRecord| {
        id.as_ref().is_some_and(|id| one.id == id.as_str())
            || beginning.as_ref().is_some_and(|beginning| one.id.starts_with(beginning))
    };
    let mut found: Vec<&PendingRecord> = all.iter().filter(is_by_id).collect();
    if found.is_empty() {
        found = all.iter().filter(|one| one.name == device).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let message =
                format!("no device {device} waits to be admitted: assay device pending shows those that do");
            Err(Refusal::new(Kind::NotFound, "unknown-device", message))
        }
        _ => {
            let message = format!("several devices that wait are called {device}: say the hash");
            Err(Refusal::new(Kind::OutOfTurn, "ambiguous", message))
        }
    }
}

fn newcomer(pending: PendingRecord) -> Newcomer {
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    Newcomer {
        ek_sha256: pending.id.rsplit('/').next().map(str::to_owned),
        id: pending.id,
        name: pending.name,
        ek_manufacturer: said(pending.ek_manufacturer),
        ek_issuer: said(pending.ek_issuer),
        ek_serial: said(pending.ek_serial),
        serial: said(pending.serial),
        idevid_subject: said(pending.idevid_subject),
        address: pending.address,
        first_at: pending.first_at,
        last_at: pending.last_at,
        word: pending.word.name().to_owned(),
        word_at: Some(pending.word_at).filter(|at| at.0 > 0),
        reason: said(pending.reason),
    }
}
