//! Secrets, for operators. What is secret comes in here and goes out nowhere.

use std::sync::Arc;

use assay_identity::hpke::Plain;
use assay_identity::secret::SecretName;
use assay_wire::console::secret::{
    Assign, Content, Held, Holder, Meant, Put, Revoked, Rotate, Secret, Secrets,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use data_encoding::BASE64;

use super::devices::read;
use crate::actor::Actor;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::secret::{self, NewSecret};
use crate::store::{AssignedTo, ReleaseRecord, SecretRecord};

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Secrets>, Refusal> {
    let holders = server.store.secret_holders().await?;
    let devices =
        |name: &str| holders.iter().find(|(held, _)| held == name).map_or(0, |(_, devices)| *devices);
    let secrets = server.store.secrets().await?;
    let secrets = secrets.into_iter().map(|record| {
        let devices = devices(&record.name);
        told(record, devices)
    });
    Ok(Json(Secrets { secrets: secrets.collect() }))
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Held>, Refusal> {
    let name = named(&name)?;
    let record = server.store.secret(name.as_str()).await?.ok_or_else(|| unknown(&name))?;
    let holders = server.store.devices_of_secret(name.as_str(), HOLDERS_SHOWN_MAX).await?;
    let devices = u64::try_from(holders.len()).unwrap_or(u64::MAX);
    let held_by = holders.into_iter().map(|ReleaseRecord { device_id, version, released_at, .. }| Holder {
        device: device_id,
        version,
        since: released_at,
    });
    Ok(Json(Held { secret: told(record, devices), held_by: held_by.collect() }))
}

pub(super) async fn put(
    State(server): State<Arc<Server>>,
    by: Actor,
    body: Bytes,
) -> Result<Json<Secret>, Refusal> {
    let Put { name, content, autorun, to } = read(&body)?;
    let to = to.as_ref().map(meant).transpose()?;
    let new = NewSecret { name: named(&name)?, content: plain(&content)?, autorun, to };
    let record = secret::put((&server.store, &server.releasing.key), new, (by, server.now())).await?;
    Ok(Json(told(record, 0)))
}

pub(super) async fn rotate(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Secret>, Refusal> {
    let Rotate { content } = read(&body)?;
    let (name, content) = (named(&name)?, plain(&content)?);
    let by = (by, server.now());
    let record = secret::rotate((&server.store, &server.releasing.key), &name, content, by).await?;
    let holders = server.store.devices_of_secret(name.as_str(), HOLDERS_SHOWN_MAX).await?;
    Ok(Json(told(record, u64::try_from(holders.len()).unwrap_or(u64::MAX))))
}

pub(super) async fn assign(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Held>, Refusal> {
    let Assign { to } = read(&body)?;
    let to = to.as_ref().map(meant).transpose()?;
    secret::assign(&server.store, &named(&name)?, to.as_ref(), (by, server.now())).await?;
    show(State(server), Path(name)).await
}

pub(super) async fn revoke(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
) -> Result<Json<Revoked>, Refusal> {
    let devices = secret::revoke(&server.store, &named(&name)?, (by, server.now())).await?;
    Ok(Json(Revoked { name, devices }))
}

fn named(name: &str) -> Result<SecretName, Refusal> {
    name.parse().map_err(|error: assay_identity::secret::NotAName| {
        Refusal::new(Kind::Malformed, "secret-name", error.to_string())
    })
}

fn unknown(name: &SecretName) -> Refusal {
    secret::SecretError::Unknown(name.clone()).into()
}

fn plain(Content(content): &Content) -> Result<Plain, Refusal> {
    let content = BASE64.decode(content.as_bytes());
    let content = content.map_err(|_| Refusal::new(Kind::Malformed, "content", "content: not Base64"))?;
    Ok(Plain::new(content))
}

fn meant(meant: &Meant) -> Result<secret::Meant, Refusal> {
    let labels = meant.labels.parse().map_err(|error: assay_trust::labels::LabelError| {
        Refusal::new(Kind::Malformed, "labels", error.to_string())
    })?;
    Ok(secret::Meant { labels, policy: meant.policy.clone().filter(|policy| !policy.is_empty()) })
}

fn told(record: SecretRecord, devices: u64) -> Secret {
    let SecretRecord { name, version, bytes, autorun, assigned, changed_at } = record;
    let to = assigned.map(|AssignedTo { labels, policy }| Meant {
        labels,
        policy: Some(policy).filter(|policy| !policy.is_empty()),
    });
    Secret { name, version, bytes, autorun, to, changed_at, devices }
}

const HOLDERS_SHOWN_MAX: u32 = 1000;
