//! Signed messages to this server: by a node that is trusted now, about this request, once.

use assay_evidence::time::UnixTime;
use assay_identity::SvidError;
use assay_identity::signed_message::{
    Accept, MessageError, NodeId, Opened, ReplayError, Request, Signed, open,
};
use assay_identity::tls::Trust;
use assay_trust::Status;
use thiserror::Error;

use crate::clock::certificate_time;
use crate::device::{Device, DeviceError};
use crate::in_force::messages::Messages;
use crate::metrics::trust::Fate;
use crate::outcome::{Kind, Outcome};
use crate::store::{Profile, Store, StoreError};

/// What hearing needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hearing<'a> {
    pub store: &'a Store,
    pub messages: &'a Messages,
    pub trust: &'a Trust,
    /// What is above the certificate, DER; nothing above a classic one but its root.
    pub above: &'a [Vec<u8>],
    pub accept: Accept,
}

/// Hears a message that came with its node's certificate, and takes it once. Nothing is looked up for who has not shown whose words
/// they are.
pub(crate) async fn hear(
    hearing: Hearing<'_>,
    signed: Signed<'_>,
    certificate: Vec<u8>,
    request: &Request<'_>,
    now: UnixTime,
) -> Result<Opened, HearError> {
    let Hearing { store, messages, trust, above, accept } = hearing;
    let chain: Vec<Vec<u8>> = std::iter::once(certificate).chain(above.iter().cloned()).collect();
    let peer = messages.peer(&chain, trust, now)?;
    let opened = open(signed, &peer, request, accept, certificate_time(now))?;
    let device = device(store, opened.from).await?;
    if device.id != *peer.spiffe_id() {
        return Err(HearError::OtherNode(opened.from));
    }
    // The certificate falls with the state, and the list is told a moment later.
    if device.state.status_at(now) != Status::Trusted {
        return Err(HearError::NotTrusted);
    }
    messages.take(&opened, now)?;
    Ok(opened)
}

/// The newest certificate of a kind that is kept of a node, for messages that come without.
pub(crate) async fn certificate(store: &Store, node: NodeId, profile: Profile) -> Result<Vec<u8>, HearError> {
    let device = device(store, node).await?;
    let kept = store.node_certificate(device.id.as_str(), profile).await?;
    kept.map(|kept| kept.certificate).ok_or(HearError::NoCertificate)
}

async fn device(store: &Store, node: NodeId) -> Result<Device, HearError> {
    let record = store.device_of_node(node).await?.ok_or(HearError::UnknownNode(node))?;
    Ok(Device::of(record)?)
}

/// Why a message is not heard.
#[derive(Debug, Error)]
pub(crate) enum HearError {
    /// Nobody has the number.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// There is nothing to verify with.
    #[error("no certificate of the node is kept: send it as X-Node-Certificate")]
    NoCertificate,
    /// The certificate is good and somebody else's.
    #[error("the certificate is not that of node {0}")]
    OtherNode(NodeId),
    /// The chain does not hold.
    #[error(transparent)]
    Certificate(#[from] SvidError),
    /// The device is not trusted now.
    #[error("the node is not trusted now")]
    NotTrusted,
    /// The words.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It was there before.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HearError {
    /// What it says of the message; `None`: nothing, the fault is ours.
    pub(crate) fn fate(&self) -> Option<Fate> {
        match self {
            HearError::UnknownNode(_)
            | HearError::NoCertificate
            | HearError::OtherNode(_)
            | HearError::Certificate(_) => Some(Fate::Distrusted),
            HearError::Message(MessageError::Signature) => Some(Fate::Forged),
            HearError::Message(_)
            | HearError::NotTrusted
            | HearError::Replay(ReplayError::Full | ReplayError::NodeIsFull(_)) => {
                Some(Fate::Refused { replayed: false })
            }
            HearError::Replay(_) => Some(Fate::Refused { replayed: true }),
            HearError::Store(_) => None,
        }
    }
}

impl From<DeviceError> for HearError {
    fn from(error: DeviceError) -> Self {
        HearError::Store(error.0)
    }
}

impl Outcome for HearError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            HearError::UnknownNode(_)
            | HearError::NoCertificate
            | HearError::OtherNode(_)
            | HearError::Certificate(_)
            | HearError::NotTrusted => (Kind::Unauthenticated, "certificate"),
            HearError::Replay(ReplayError::Full | ReplayError::NodeIsFull(_)) => {
                (Kind::Exhausted, "too-many-messages")
            }
            HearError::Replay(_) => (Kind::Unauthenticated, "replayed"),
            HearError::Message(_) => (Kind::Unauthenticated, "message"),
            HearError::Store(error) => error.told(),
        }
    }
}
