//! Nodes that attest as SPIRE's agents do.
//!
//! Such a node shows who it is and never what it runs, so that its state stands on less than a quote (`Basis`), is of no
//! tier, and gives what an entry gives to nodes of that kind and nothing else. Everything it gets is decided in
//! `trust::grant` like everything that a device gets. A device that quotes is never such a node.

pub(crate) mod attest;
pub(crate) mod fate;
pub(crate) mod token;
pub(crate) mod tpm;
mod who;
pub(crate) mod x509pop;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ShownEkError;
use assay_identity::csr::CsrError;
use assay_identity::selector::Written;
use assay_identity::spiffe_id::SpiffeIdError;
use assay_identity::x509pop::X509PopError;
use assay_identity::{Selector, SpiffeId};
use assay_trust::TrustState;
use thiserror::Error;

use crate::enroll::EnrollError;
use crate::grant::svid::SvidError;
use crate::keys::KeysError;
use crate::outcome::{Kind, Outcome};
use crate::store::{SpireAgentRecord, Store, StoreError, TrustColumns};
pub(crate) use who::active;

/// A node that attested so.
#[derive(Clone, Debug)]
pub(crate) struct SpireAgent {
    /// Its identity.
    pub id: SpiffeId,
    /// What is known of it.
    pub record: SpireAgentRecord,
    /// What we hold about it.
    pub state: TrustState,
}

impl SpireAgent {
    /// Loads a node; that it is not there is an answer.
    pub(crate) async fn load(store: &Store, id: &SpiffeId) -> Result<Option<SpireAgent>, StoreError> {
        store.spire_agent(id.as_str()).await?.map(SpireAgent::of).transpose()
    }

    /// Reads a record back.
    pub(crate) fn of(record: SpireAgentRecord) -> Result<SpireAgent, StoreError> {
        let corrupt = |column| StoreError::Corrupt { column };
        let id = SpiffeId::parse(&record.id).map_err(|_| corrupt("spire_agents.id"))?;
        let trust = serde_json::from_str(&record.trust.record).map_err(|_| corrupt("spire_agents.trust"))?;
        let state = TrustState::from_record(id.clone(), trust).map_err(|_| corrupt("spire_agents.trust"))?;
        Ok(SpireAgent { id, record, state })
    }

    /// What aliases choose it by.
    pub(crate) fn selectors(&self) -> Vec<Selector> {
        let read = |written: &Written| Selector::try_from(written.clone()).ok();
        let own = Selector::parse("spiffe_id", self.id.as_str()).ok();
        self.record.selectors.iter().filter_map(read).chain(own).collect()
    }
}

/// A state as it is stored.
fn columns(state: &TrustState) -> TrustColumns {
    crate::device::columns(state)
}

/// Why a node does not get what it asks for, or an operator.
#[derive(Debug, Error)]
pub(crate) enum SpireError {
    /// It attests by something that nobody accepts here.
    #[error("{kind:?} is nothing that a node attests by here: {why}")]
    Attestor {
        /// What it says it attests by.
        kind: String,
        /// What does.
        why: String,
    },
    /// What it showed cannot be read.
    #[error("what was shown is malformed: {0}")]
    Malformed(&'static str),
    /// No such token, or it was shown before.
    #[error("the join token is unknown, or was shown before")]
    NoToken,
    /// The token's time is over.
    #[error("the join token has expired")]
    LateToken,
    /// A device that quotes is not taken in as less.
    #[error("the TPM is enrolled as a device that quotes: its identity is not for an agent that does not")]
    Quotes,
    /// An operator ended it.
    #[error("the node is banned")]
    Banned,
    /// It attests again instead.
    #[error("the node attests again instead of renewing")]
    MustReattest,
    /// No such node.
    #[error("there is no such node")]
    Unknown,
    /// A token that is no name.
    #[error("a token is part of the node's SPIFFE ID: {0}")]
    NotAToken(SpiffeIdError),
    /// A token that is there.
    #[error("there is such a token already")]
    TokenExists,
    /// Out of range.
    #[error("ttl: give 1 to {max} seconds")]
    Ttl {
        /// The most there is.
        max: u64,
    },
    /// What it showed of its TPM.
    #[error("what was shown of the TPM: {0}")]
    Ek(#[from] ShownEkError),
    /// Its TPM does not come in.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The certificate that it showed.
    #[error(transparent)]
    X509Pop(#[from] X509PopError),
    /// The request for its certificate.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// Its certificate.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl SpireError {
    /// Whether somebody tried what they may not, and did not just say it wrong.
    pub(crate) fn is_about_trust(&self) -> bool {
        let is_of_token = matches!(self, SpireError::NoToken | SpireError::LateToken);
        is_of_token || matches!(self.told().0, Kind::Unauthenticated | Kind::Forbidden)
    }
}

impl Outcome for SpireError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            SpireError::Attestor { .. } => (Kind::Malformed, "attestor"),
            SpireError::Malformed(_) => (Kind::Malformed, "payload"),
            SpireError::NoToken => (Kind::Malformed, "no-token"),
            SpireError::LateToken => (Kind::Malformed, "late-token"),
            SpireError::Quotes => (Kind::Forbidden, "quotes"),
            SpireError::Banned => (Kind::Forbidden, "banned"),
            SpireError::MustReattest => (Kind::Forbidden, "must-reattest"),
            SpireError::Unknown => (Kind::NotFound, "unknown-node"),
            SpireError::NotAToken(_) => (Kind::Malformed, "token"),
            SpireError::TokenExists => (Kind::Duplicate, "token-exists"),
            SpireError::Ttl { .. } => (Kind::Malformed, "ttl"),
            SpireError::Ek(ShownEkError::OtherKey) => (Kind::Forbidden, "ek-certificate-key"),
            SpireError::Ek(_) => (Kind::Malformed, "ek"),
            SpireError::Enroll(error) => error.told(),
            SpireError::X509Pop(error) => (x509pop::kind(error), "x509pop"),
            SpireError::Csr(_) => (Kind::Malformed, "csr"),
            SpireError::Svid(error) => error.told(),
            SpireError::Store(error) => error.told(),
            SpireError::Keys(error) => error.told(),
        }
    }
}

/// Until when what a node showed counts, if it is shown now.
fn until(now: UnixTime, ttl_seconds: u64) -> UnixTime {
    now.plus(ttl_seconds)
}
