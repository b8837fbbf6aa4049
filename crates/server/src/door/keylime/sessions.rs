//! Sessions: challenges that wait for a proof, and tokens of agents that gave one. Both are in memory alone, and of tokens their
//! hashes; after a restart agents show their keys again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_admission::{Crowded, Peer, Place, Places, Room};
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_telemetry::{Sha256, sha256};
use assay_wire::keylime::AgentId;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::keys::{KeysError, random};

#[derive(Debug)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Debug)]
struct Table {
    places: Places<Peer, String>,
    opening: HashMap<String, (Place, Opening)>,
    tokens: HashMap<Sha256, Session>,
    /// Of each agent the one that counts.
    by_agent: HashMap<AgentId, Sha256>,
}

/// A session that waits for a proof.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub id: String,
    pub agent_id: AgentId,
    pub challenge: [u8; CHALLENGE_BYTES],
    pub created_at: UnixTime,
    pub until: UnixTime,
}

/// A session of an agent that gave one.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub agent_id: AgentId,
    pub device: SpiffeId,
    until: UnixTime,
}

/// What a token is worth.
#[derive(Debug)]
pub(super) enum Worth {
    /// A session.
    Session(Session),
    /// Nothing: it was never given, or ended.
    Nothing,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        let room = Room { total: OPENING_MAX, of_a_key: OPENING_MAX / 2, safe_for: SAFE_FOR };
        Sessions(Mutex::new(Table {
            places: Places::new(room),
            opening: HashMap::new(),
            tokens: HashMap::new(),
            by_agent: HashMap::new(),
        }))
    }

    /// Begins one for whoever asks. Nothing is looked up before the proof, so that nobody learns who is known.
    pub(super) fn open(
        &self,
        peer: Peer,
        agent_id: AgentId,
        challenge: [u8; CHALLENGE_BYTES],
        (now, instant): (UnixTime, Instant),
    ) -> Result<Opening, Crowded> {
        // It is no secret, and what is drawn to be a challenge is drawn once.
        let id = HEXLOWER.encode(sha256(&challenge).get(..16).unwrap_or_default());
        let opening = Opening { id, agent_id, challenge, created_at: now, until: now.plus(ANSWER_SECONDS) };
        let mut table = self.table();
        let admitted = table.places.admit(peer, instant, opening.id.clone())?;
        if let Some(evicted) = admitted.evicted {
            table.opening.remove(&evicted);
        }
        table.opening.insert(opening.id.clone(), (admitted.place, opening.clone()));
        Ok(opening)
    }

    /// Takes one to be proven: whatever comes of it, it is proven once.
    pub(super) fn take(&self, id: &str) -> Option<Opening> {
        let mut table = self.table();
        let (place, opening) = table.opening.remove(id)?;
        table.places.release(place);
        Some(opening)
    }

    /// Gives an agent that has shown its key a token, in the place of the one that it had.
    pub(super) fn grant(
        &self,
        opening: Opening,
        device: SpiffeId,
        until: UnixTime,
    ) -> Result<String, KeysError> {
        let token = format!("{}.{}", opening.id, BASE64URL_NOPAD.encode(&random::<TOKEN_BYTES>()?));
        let (hash, mut table) = (sha256(token.as_bytes()), self.table());
        if let Some(earlier) = table.by_agent.insert(opening.agent_id.clone(), hash) {
            table.tokens.remove(&earlier);
        }
        table.tokens.insert(hash, Session { agent_id: opening.agent_id, device, until });
        Ok(token)
    }

    /// What a token is worth now.
    pub(super) fn worth(&self, token: &str, now: UnixTime) -> Worth {
        let session = self.table().tokens.get(&sha256(token.as_bytes())).cloned();
        session.filter(|session| now < session.until).map_or(Worth::Nothing, Worth::Session)
    }

    /// Good evidence makes a session last longer.
    pub(super) fn extend(&self, agent_id: &AgentId, until: UnixTime) {
        let mut table = self.table();
        let Some(hash) = table.by_agent.get(agent_id).copied() else { return };
        if let Some(session) = table.tokens.get_mut(&hash) {
            session.until = session.until.max(until);
        }
    }

    /// Forgets what has ended.
    pub(super) fn forget_old(&self, now: UnixTime) {
        let mut table = self.table();
        let old = table.opening.iter().filter(|(_, (_, opening))| opening.until <= now);
        let old: Vec<(String, Place)> = old.map(|(id, (place, _))| (id.clone(), *place)).collect();
        for (id, place) in old {
            table.opening.remove(&id);
            table.places.release(place);
        }
        table.tokens.retain(|_, session| now < session.until);
        let Table { tokens, by_agent, .. } = &mut *table;
        by_agent.retain(|_, hash| tokens.contains_key(hash));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As much as fits into what every TPM signs.
pub(super) const CHALLENGE_BYTES: usize = 32;
const TOKEN_BYTES: usize = 32;
/// Each takes some 300 bytes; those with a token are agents that are registered.
const OPENING_MAX: usize = 16_384;
/// A discrete TPM certifies within a second or two.
const ANSWER_SECONDS: u64 = 30;
const SAFE_FOR: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(sessions: &Sessions, last: u8, agent: &str, now: u64) -> Result<Opening, Crowded> {
        let agent_id = AgentId::parse(agent).unwrap();
        let challenge: [u8; CHALLENGE_BYTES] = random().unwrap();
        sessions.open(
            Peer::at([192, 0, 2, last].into()),
            agent_id,
            challenge,
            (UnixTime(now), Instant::now()),
        )
    }

    fn device() -> SpiffeId {
        SpiffeId::parse("spiffe://td/spire/agent/tpm/0").unwrap()
    }

    fn is_worth_something(sessions: &Sessions, token: &str, now: u64) -> bool {
        matches!(sessions.worth(token, UnixTime(now)), Worth::Session(_))
    }

    #[test]
    fn a_token_counts_until_its_end_which_good_evidence_puts_off() {
        let sessions = Sessions::new();
        let opening = sessions.take(&opened(&sessions, 1, "a", 100).unwrap().id).unwrap();
        let (id, agent_id) = (opening.id.clone(), opening.agent_id.clone());
        assert!(sessions.take(&id).is_none(), "it is proven once");
        let token = sessions.grant(opening, device(), UnixTime(280)).unwrap();
        assert!(token.starts_with(&format!("{id}.")));
        assert_eq!(
            (is_worth_something(&sessions, &token, 279), is_worth_something(&sessions, &token, 280)),
            (true, false)
        );
        sessions.extend(&agent_id, UnixTime(460));
        assert!(is_worth_something(&sessions, &token, 459));
        sessions.extend(&agent_id, UnixTime(300));
        assert!(is_worth_something(&sessions, &token, 459), "no evidence shortens it");
        assert!(!is_worth_something(&sessions, &id, 200) && !is_worth_something(&sessions, "", 200));
        sessions.forget_old(UnixTime(460));
        assert!(sessions.table().tokens.is_empty() && sessions.table().by_agent.is_empty());
    }

    #[test]
    fn an_agent_has_one_session_and_the_newest_counts() {
        let sessions = Sessions::new();
        let grant = |sessions: &Sessions| {
            let opening = sessions.take(&opened(sessions, 1, "a", 100).unwrap().id).unwrap();
            sessions.grant(opening, device(), UnixTime(280)).unwrap()
        };
        let (first, second) = (grant(&sessions), grant(&sessions));
        assert_eq!(
            (is_worth_something(&sessions, &first, 101), is_worth_something(&sessions, &second, 101)),
            (false, true)
        );
    }

    #[test]
    fn who_opens_many_keeps_nobody_out_and_what_is_not_proven_is_forgotten() {
        let sessions = Sessions::new();
        let taken = (0..OPENING_MAX).filter(|_| opened(&sessions, 1, "a", 100).is_ok()).count();
        assert_eq!(taken, OPENING_MAX / 2);
        assert!(opened(&sessions, 2, "b", 100).is_ok());
        sessions.forget_old(UnixTime(100 + ANSWER_SECONDS));
        assert!(sessions.table().opening.is_empty());
        assert_eq!(sessions.table().places.taken(), 0);
    }
}
