//! Registration entries.

use std::collections::HashMap;
use std::sync::Arc;

use assay_identity::SpiffeId;
use assay_trust::Status;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::devices::{find, read, told};
use super::parameters::Asked;
use crate::actor::Actor;
use crate::device::Device;
use crate::entry::{self, NewEntry, Which};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::{Applied, Carrier, EntryRecord, SvidRecord};

/// What entries are looked for by.
pub(super) const PARAMETERS: &[&str] = &["spiffe_id", "parent", "selector", "hint", "limit", "cursor"];

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(mut which): Asked<Which>,
) -> Result<Json<Value>, Refusal> {
    if !which.parent.is_empty() {
        which.parent = Parents::of(&server).id(&which.parent).await?;
    }
    let page = which.page(&server.entries.all())?;
    let entries: Vec<&EntryRecord> = page.entries.iter().map(Arc::as_ref).collect();
    Ok(Json(json!({ "entries": entries, "count": page.count, "next": page.next })))
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<EntryRecord>, Refusal> {
    Ok(Json(EntryRecord::clone(&*standing(&server, &id)?)))
}

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<EntryRecord>, Refusal> {
    let new = Parents::of(&server).named(read(&body)?).await?;
    Ok(Json(entry::create(&server.store, server.entry_rules(), new, by, server.now()).await?))
}

pub(super) async fn update(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<EntryRecord>, Refusal> {
    let new = Parents::of(&server).named(read(&body)?).await?;
    Ok(Json(entry::update(&server.store, server.entry_rules(), (id, new), by, server.now()).await?))
}

/// Many entries, all or none.
pub(super) async fn apply(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        entries: Vec<Value>,
    }
    let List { entries } = read(&body)?;
    let mut parents = Parents::of(&server);
    let mut list = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let place = |refusal: Refusal| Refusal {
            message: format!("entry {} of the list: {}", index + 1, refusal.message),
            ..refusal
        };
        list.push(parents.named(entry).await.map_err(place)?);
    }
    let applied = entry::apply(&server.store, server.entry_rules(), list, by, server.now()).await?;
    let told = applied.iter().map(|one| match one {
        Applied::Created(id) => json!({ "id": id, "outcome": "created" }),
        Applied::Updated(id) => json!({ "id": id, "outcome": "updated" }),
        Applied::Unchanged(id) => json!({ "id": id, "outcome": "unchanged" }),
    });
    Ok(Json(json!({ "entries": told.collect::<Vec<_>>() })))
}

/// Who has it now, or would if a workload asked: the device, what keeps it from that, and the certificates that stand.
pub(super) async fn who(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let (now, entry) = (server.now(), standing(&server, &id)?);
    let parent = SpiffeId::parse(&entry.parent).ok();
    let device = match &parent {
        Some(parent) => Device::load(&server.store, parent).await.map_err(|error| error.0)?,
        None => None,
    };
    let all = server.store.svids_of_device(&entry.parent, now, SVIDS_SHOWN_MAX).await?;
    let of_entry = |svid: &&SvidRecord| {
        matches!(&svid.carrier, Carrier::Device { entry_id: Some(of), .. } if *of == entry.id)
            && svid.withdrawn_at.is_none()
    };
    let svids: Vec<&SvidRecord> = all.iter().filter(of_entry).collect();
    let lacks = match &device {
        None => Some("the device has not enrolled".to_owned()),
        Some(device) if device.state.status_at(now) != Status::Trusted => {
            Some(format!("the device is {}: {}", device.state.status_at(now), device.state.reason()))
        }
        Some(device) => device.state.unmet(&entry.selectors).map(|unmet| {
            format!(
                "{unmet} does not hold: the device's last verified quote says otherwise, or nothing of it"
            )
        }),
    };
    let held = u64::try_from(svids.len()).unwrap_or(u64::MAX);
    Ok(Json(json!({
        "entry": *entry,
        "holds": lacks.is_none(),
        "lacks": lacks,
        "device": device.map(|device| told(&server, &device, held, now)),
        "svids": svids.iter().map(|svid| json!({
            "serial": svid.serial, "issued_at": svid.issued_at, "not_after": svid.not_after,
        })).collect::<Vec<_>>(),
    })))
}

pub(super) async fn remove(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let withdrawn = entry::remove(&server.store, &id, by, server.now()).await?;
    Ok(Json(json!({ "removed": id, "withdrawn": withdrawn.serials.len() })))
}

fn standing(server: &Server, id: &str) -> Result<Arc<EntryRecord>, Refusal> {
    let unknown = || Refusal::new(Kind::NotFound, "unknown-entry", format!("there is no entry {id}"));
    server.entries.get(id).ok_or_else(unknown)
}

/// Devices by what people call them; each is looked for once.
struct Parents<'a> {
    server: &'a Server,
    known: HashMap<String, String>,
}

impl Parents<'_> {
    fn of(server: &Server) -> Parents<'_> {
        Parents { server, known: HashMap::new() }
    }

    /// An entry as it was sent, with its device's ID in the place of a name.
    async fn named(&mut self, mut sent: Value) -> Result<NewEntry, Refusal> {
        if let Some(Value::String(parent)) = sent.get_mut("parent") {
            *parent = self.id(parent).await?;
        }
        serde_json::from_value(sent).map_err(|error| Refusal::new(Kind::Malformed, "json", error.to_string()))
    }

    async fn id(&mut self, named: &str) -> Result<String, Refusal> {
        // A device that has yet to enroll is known by its ID alone.
        if named.starts_with("spiffe://") {
            return Ok(named.to_owned());
        }
        if let Some(known) = self.known.get(named) {
            return Ok(known.clone());
        }
        let id = find(self.server, named).await?.id.to_string();
        self.known.insert(named.to_owned(), id.clone());
        Ok(id)
    }
}

/// Of a device: two of each entry stand at a time.
const SVIDS_SHOWN_MAX: u32 = 1000;
