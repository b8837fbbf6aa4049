//! Taking a node in by what it showed: once what it showed holds, load, decide, commit, and sign its certificate.

use assay_evidence::time::UnixTime;
use assay_identity::selector::Written;
use assay_identity::{Csr, SpiffeId, TrustDomain};
use assay_trust::{Basis, Event, Status, TrustState};

use super::token;
use super::{SpireAgent, SpireError, columns, until};
use crate::device::Device;
use crate::grant::svid::Granting;
use crate::keys::Chain;
use crate::store::{
    AttestSpireAgent, Attested, RenewSpireAgent, SpireAgentRecord, Store, StoreError, TokenHash,
};

/// What taking nodes in needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining<'a> {
    pub store: &'a Store,
    pub granting: &'a Granting,
    pub agent_ttl_seconds: u64,
    pub agents_max: u64,
}

/// What a node showed, and who it is by that.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub id: SpiffeId,
    pub attestor: &'static str,
    pub basis: Basis,
    /// What else it says, which aliases choose by.
    pub selectors: Vec<Written>,
    /// Whether it can show it again.
    pub can_reattest: bool,
    /// When what it showed ends, if that is known.
    pub until: Option<UnixTime>,
    /// Whether it comes in for the first time on an operator's word.
    pub on_word: bool,
    /// A token, which is spent with this.
    pub spends: Option<TokenHash>,
}

impl Shown {
    /// A join token, which names the node.
    pub(crate) fn join_token(trust_domain: &TrustDomain, payload: &[u8]) -> Result<Shown, SpireError> {
        let text = std::str::from_utf8(payload).map_err(|_| SpireError::Malformed("the token is no text"))?;
        Ok(Shown {
            id: token::node(trust_domain, text)?,
            attestor: JOIN_TOKEN,
            basis: Basis::JoinToken,
            selectors: Vec::new(),
            can_reattest: false,
            until: None,
            on_word: false,
            spends: Some(TokenHash::of(text)),
        })
    }
}

/// Takes the node in, and gives it its certificate.
pub(crate) async fn join(
    joining: Joining<'_>,
    shown: &Shown,
    csr: &Csr,
    now: UnixTime,
) -> Result<Chain, SpireError> {
    for _ in 0..ATTEMPTS_MAX {
        match attempt(joining, shown, csr, now).await {
            Err(SpireError::Store(StoreError::Conflict)) => {}
            outcome => return outcome,
        }
    }
    Err(StoreError::Conflict.into())
}

async fn attempt(joining: Joining<'_>, shown: &Shown, csr: &Csr, now: UnixTime) -> Result<Chain, SpireError> {
    let Joining { store, granting, agent_ttl_seconds, agents_max, .. } = joining;
    if Device::load(store, &shown.id).await.map_err(|error| error.0)?.is_some() {
        return Err(SpireError::Quotes);
    }
    let known = SpireAgent::load(store, &shown.id).await?;
    if known.as_ref().is_some_and(|known| known.state.status() == Status::Revoked) {
        return Err(SpireError::Banned);
    }
    let from_version = known.as_ref().map(|known| known.state.version());
    let agent_version = known.as_ref().map(|known| known.record.agent_version.clone()).unwrap_or_default();
    let before = known.map_or_else(|| TrustState::pending(shown.id.clone()), |known| known.state);
    let until = shown.until.into_iter().fold(until(now, agent_ttl_seconds), UnixTime::min);
    let event = Event::vouched(now, shown.basis, csr, until);
    let state = before.apply(&event);
    let agent = SpireAgentRecord {
        id: shown.id.to_string(),
        attestor: shown.attestor.to_owned(),
        selectors: shown.selectors.clone(),
        can_reattest: shown.can_reattest,
        agent_version,
        attested_at: now,
        trust: columns(&state),
    };
    let detail = serde_json::to_string(event.record()).map_err(|_| StoreError::Unwritable)?;
    let spends = shown.spends.clone();
    let on_word = shown.on_word && from_version.is_none();
    let attest = AttestSpireAgent { agent, from_version, spends, on_word, agents_max, detail };
    match store.commit_and_follow(attest).await? {
        Attested::In(_) => {}
        Attested::NoToken => return Err(SpireError::NoToken),
        Attested::LateToken => return Err(SpireError::LateToken),
    }
    tracing::warn!(node = %shown.id, basis = %shown.basis, "a node that does not quote attested");
    let ttl_seconds = until.0.saturating_sub(now.0);
    Ok(granting.own_svid(&state, csr.spki_der(), ttl_seconds, now).await?)
}

/// Gives a node that cannot attest again its next certificate; it stands for as long as that.
pub(crate) async fn renew(
    joining: Joining<'_>,
    agent: &SpireAgent,
    csr: &Csr,
    now: UnixTime,
) -> Result<Chain, SpireError> {
    if agent.record.can_reattest {
        return Err(SpireError::MustReattest);
    }
    let Joining { store, granting, agent_ttl_seconds, .. } = joining;
    let event = Event::vouched(now, agent.state.basis(), csr, until(now, agent_ttl_seconds));
    let state = agent.state.apply(&event);
    let (id, from_version) = (agent.id.to_string(), agent.state.version());
    store.commit(RenewSpireAgent { id, from_version, trust: columns(&state) }).await?;
    Ok(granting.own_svid(&state, csr.spki_der(), agent_ttl_seconds, now).await?)
}

/// What SPIRE calls it.
pub(crate) const JOIN_TOKEN: &str = "join_token";
/// A node that attests twice at once.
const ATTEMPTS_MAX: usize = 3;
