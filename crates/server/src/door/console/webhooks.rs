//! Receivers of notices, for operators: how far each is, what it was not given, and sending that again.

use std::sync::Arc;

use assay_wire::console::webhook::{Letter, Letters, SendAgain, SentAgain, Webhook, Webhooks};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};

use super::devices::read;
use crate::actor::Actor;
use crate::door::webhook::Receiver;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store;

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Webhooks>, Refusal> {
    let mut webhooks = Vec::new();
    for receiver in &server.receivers {
        let name = receiver.name();
        let (next_leaf, leaves) = server.store.webhook(name).await?;
        let dead_letters = u64::try_from(server.store.letters(name, false).await?.len()).unwrap_or(u64::MAX);
        webhooks.push(Webhook {
            name: name.to_owned(),
            url: receiver.url().to_owned(),
            next_leaf,
            behind: leaves.saturating_sub(next_leaf),
            dead_letters,
        });
    }
    Ok(Json(Webhooks { webhooks }))
}

pub(super) async fn letters(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Letters>, Refusal> {
    let receiver = find(&server, &name)?;
    let mut letters = Vec::new();
    for letter in server.store.letters(receiver.name(), false).await?.into_iter().take(LETTERS_SHOWN_MAX) {
        let leaf = server.store.audit_leaves(letter.leaf, 1).await?.pop();
        let (kind, subject) = leaf.map(|leaf| (leaf.kind, leaf.subject)).unwrap_or_default();
        let store::Letter { leaf, at, reason, again } = letter;
        letters.push(Letter { leaf, kind, subject, at, reason, again });
    }
    Ok(Json(Letters { letters }))
}

pub(super) async fn again(
    State(server): State<Arc<Server>>,
    by: Actor,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<SentAgain>, Refusal> {
    let SendAgain { leaves } = read(&body)?;
    let receiver = find(&server, &name)?;
    let (webhook, asked) = (receiver.name().to_owned(), leaves.len());
    let again = server.store.commit(store::SendAgain { webhook, leaves }).await?;
    if again == 0 && asked > 0 {
        let message =
            format!("{name} was not refused any of these: assay webhook letters {name} shows what it was");
        return Err(Refusal::new(Kind::NotFound, "unknown-letter", message));
    }
    tracing::info!(webhook = name, again, %by, "notices are sent again");
    Ok(Json(SentAgain { again }))
}

fn find<'s>(server: &'s Server, name: &str) -> Result<&'s Receiver, Refusal> {
    let found = server.receivers.iter().find(|receiver| receiver.name() == name);
    found.map(Arc::as_ref).ok_or_else(|| {
        let message =
            format!("there is no webhook {name}: assay webhook list shows those that are configured");
        Refusal::new(Kind::NotFound, "unknown-webhook", message)
    })
}

const LETTERS_SHOWN_MAX: usize = 1000;
