//! Receivers of notices, for operators: how far each is, what it was not given, and sending that again.

use std::sync::Arc;

use assay_wire::console::webhook::{Letter, Letters, SendAgain, SentAgain, Webhook, Webhooks};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};

use super::devices::read;
use crate::actor::Actor;
use crate::audit::Leaf;
use crate::door::webhook::Receiver;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::{self, Progress};

pub(super) async fn list(State(server): State<Arc<Server>>) -> Result<Json<Webhooks>, Refusal> {
    let mut webhooks = Vec::new();
    for receiver in &server.receivers {
        let name = receiver.name();
        let Progress { next_leaf, leaves, dead_letters } = server.store.webhook(name).await?;
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
    let letters = server.store.letters(receiver.name(), false, LETTERS_SHOWN_MAX).await?;
    let told = |store::Letter { leaf, at, reason, again }| {
        let Leaf { index, kind, subject, .. } = leaf;
        Letter { leaf: index, kind, subject, at, reason, again }
    };
    Ok(Json(Letters { letters: letters.into_iter().map(told).collect() }))
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

const LETTERS_SHOWN_MAX: u32 = 1000;
