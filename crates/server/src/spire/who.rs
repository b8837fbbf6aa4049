//! Whether who shows a node's certificate is that node now. A revocation list is not asked: each request looks the certificate
//! up, which says more, and says why.

use assay_evidence::time::UnixTime;
use assay_identity::VerifiedPeer;
use assay_trust::Status;
use thiserror::Error;

use super::SpireAgent;
use crate::outcome::{Kind, Outcome};
use crate::store::{PromoteSvid, Store, StoreError};

/// Why it is not.
#[derive(Debug, Error)]
pub(crate) enum Inactive {
    /// It is somebody else's certificate.
    #[error("only a node that attested may ask for this")]
    NotANode,
    /// The certificate, or what the node is trusted by, has ended.
    #[error("the node's certificate has expired")]
    Expired,
    /// Nobody knows it, or an operator forgot it.
    #[error("the node has not attested")]
    NotAttested,
    /// Another certificate took the place of this one.
    #[error("the certificate is not the node's any more")]
    NotActive,
    /// An operator ended it.
    #[error("the node is banned")]
    Banned,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for Inactive {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            Inactive::NotANode => (Kind::Forbidden, "not-a-node"),
            Inactive::Expired => (Kind::Forbidden, "expired"),
            Inactive::NotAttested => (Kind::Forbidden, "not-attested"),
            Inactive::NotActive => (Kind::Forbidden, "not-active"),
            Inactive::Banned => (Kind::Forbidden, "banned"),
            Inactive::Store(error) => error.told(),
        }
    }
}

/// The node that shows this certificate, if the certificate is its last, or the one before it that it may still be using.
pub(crate) async fn active(
    store: &Store,
    peer: &VerifiedPeer,
    now: UnixTime,
) -> Result<SpireAgent, Inactive> {
    if !peer.spiffe_id().is_spire_agent() {
        return Err(Inactive::NotANode);
    }
    let agent = SpireAgent::load(store, peer.spiffe_id()).await?.ok_or(Inactive::NotAttested)?;
    match agent.state.status_at(now) {
        Status::Trusted => {}
        Status::Revoked => return Err(Inactive::Banned),
        Status::Expired => return Err(Inactive::Expired),
        Status::Pending | Status::Enrolled | Status::Suspect => return Err(Inactive::NotAttested),
    }
    if peer.not_after().as_secs() <= now.0 {
        return Err(Inactive::Expired);
    }
    let standing = store.own_svids(agent.id.as_str(), now).await?;
    let serial = peer.serial().to_string();
    match standing.iter().position(|own| own.serial == serial) {
        None => return Err(Inactive::NotActive),
        // Once it shows the newest, the one before it is nobody's.
        Some(0) if standing.len() > 1 => {
            let leaf = standing.first().map_or(0, |newest| newest.leaf);
            store.commit(PromoteSvid { id: agent.id.to_string(), leaf, at: now }).await?;
        }
        Some(_) => {}
    }
    Ok(agent)
}
