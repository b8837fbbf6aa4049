//! What ends a node that does not quote: an operator's word, and the clock.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::Event;

use super::{SpireAgent, SpireError, columns};
use crate::actor::Actor;
use crate::store::{FallSpireAgent, SpireAgentFall, Store, StoreError, Withdrawn};

/// Ends a node: what it holds falls now, and it does not come back until it is evicted.
pub(crate) async fn ban(store: &Store, id: &SpiffeId, by: Actor, now: UnixTime) -> Result<(), SpireError> {
    let event = Event::revoked(now, by.name(), "banned");
    fall(store, id, (SpireAgentFall::Banned, &event, by), now).await
}

/// Forgets a node, banned or not: what it holds falls now, and it may attest anew.
pub(crate) async fn evict(store: &Store, id: &SpiffeId, by: Actor, now: UnixTime) -> Result<(), SpireError> {
    fall(store, id, (SpireAgentFall::Evicted, &Event::evicted(now, by.name()), by), now).await
}

/// Takes from the nodes that did not renew in time what they hold.
pub(crate) async fn expire(store: &Store, now: UnixTime) -> Result<(), SpireError> {
    loop {
        let late = store.spire_agents_to_expire(now, EXPIRE_AT_ONCE_MAX).await?;
        for record in &late {
            let agent = SpireAgent::of(record.clone())?;
            fall(store, &agent.id, (SpireAgentFall::Expired, &Event::expired(now), Actor::Server), now)
                .await?;
        }
        if late.len() < usize::try_from(EXPIRE_AT_ONCE_MAX).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

async fn fall(
    store: &Store,
    id: &SpiffeId,
    (fall, event, by): (SpireAgentFall, &Event, Actor),
    now: UnixTime,
) -> Result<(), SpireError> {
    for _ in 0..ATTEMPTS_MAX {
        let agent = SpireAgent::load(store, id).await?.ok_or(SpireError::Unknown)?;
        let state = agent.state.apply(event);
        if state == agent.state {
            return Ok(());
        }
        let change = FallSpireAgent {
            fall,
            id: id.to_string(),
            from_version: agent.state.version(),
            trust: columns(&state),
            at: now,
            actor: by.name().to_owned(),
            detail: serde_json::to_string(event.record()).map_err(|_| StoreError::Unwritable)?,
        };
        match store.commit_and_follow(change).await {
            Ok(Withdrawn { serials, .. }) => {
                tracing::warn!(node = %id, svids = serials.len(), ?fall, %by, "a node that does not quote fell");
                return Ok(());
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

const ATTEMPTS_MAX: usize = 5;
const EXPIRE_AT_ONCE_MAX: u32 = 500;
