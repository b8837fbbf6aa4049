//! Sessions of people in a browser. Kept in memory only, as hashes; a restart signs everyone out.
//!
//! A session ends twelve hours after it began, when nobody did anything for a quarter of an hour, and with what it was opened by.
//! Its cookie alone changes nothing: a change comes with the session's own word, which no other site knows.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_telemetry::{Sha256, sha256};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64URL_NOPAD;

use crate::keys::{KeysError, random};
use crate::principal::Principal;

/// Whoever signed in.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub opened_by: OpenedBy,
    /// What has to come with a change.
    pub word: String,
    ends: UnixTime,
    seen: UnixTime,
}

/// What a session was opened by, and ends with.
#[derive(Clone, Debug)]
pub(crate) enum OpenedBy {
    /// A token, by its hash.
    Token(Sha256),
    /// The first token of all.
    FirstToken,
    /// The configured provider said who it is.
    Provider(Principal),
}

/// Those who are signed in.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<Sha256, Session>>);

impl Sessions {
    /// Opens one, and says what its cookie has to have.
    pub(crate) fn open(&self, opened_by: OpenedBy, now: UnixTime) -> Result<String, KeysError> {
        let [secret, word] = [random::<32>()?, random::<32>()?].map(|bytes| BASE64URL_NOPAD.encode(&bytes));
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.stands(now));
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, one)| one.seen).map(|(hash, _)| *hash)
        {
            sessions.remove(&oldest);
        }
        let session = Session { opened_by, word, ends: now.plus(SECONDS_MAX), seen: now };
        sessions.insert(sha256(secret.as_bytes()), session);
        Ok(secret)
    }

    /// The one of this cookie. What a page does by itself is no reason to think that somebody is there.
    pub(crate) fn find(&self, secret: &str, now: UnixTime, somebody_is_there: bool) -> Option<Session> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(&sha256(secret.as_bytes())).filter(|session| session.stands(now))?;
        if somebody_is_there {
            session.seen = now;
        }
        Some(session.clone())
    }

    /// Ends one.
    pub(crate) fn close(&self, secret: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&sha256(secret.as_bytes()));
    }
}

impl Session {
    fn stands(&self, now: UnixTime) -> bool {
        now < self.ends && now < self.seen.plus(IDLE_SECONDS_MAX)
    }

    /// Whether what came with a change is this session's word.
    pub(crate) fn says(&self, word: &str) -> bool {
        verify_slices_are_equal(word.as_bytes(), self.word.as_bytes()).is_ok()
    }
}

/// From signing in to having to again.
pub(crate) const SECONDS_MAX: u64 = 12 * 3600;
const IDLE_SECONDS_MAX: u64 = 15 * 60;
const SESSIONS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(sessions: &Sessions, now: u64) -> String {
        sessions.open(OpenedBy::FirstToken, UnixTime(now)).unwrap()
    }

    #[test]
    fn a_session_holds_until_it_ends_or_is_ended() {
        let sessions = Sessions::default();
        let secret = opened(&sessions, 100);
        let is_there = |now, somebody| sessions.find(&secret, UnixTime(now), somebody).is_some();
        assert!(is_there(101, true) && sessions.find("guess", UnixTime(101), true).is_none());
        // A page that looks by itself does not keep it.
        assert!(is_there(1000, false) && !is_there(101 + IDLE_SECONDS_MAX, true));
        let secret = opened(&sessions, 100);
        for now in (100..100 + SECONDS_MAX).step_by(600) {
            assert!(sessions.find(&secret, UnixTime(now), true).is_some());
        }
        assert!(sessions.find(&secret, UnixTime(100 + SECONDS_MAX), true).is_none());
        let secret = opened(&sessions, 100);
        sessions.close(&secret);
        assert!(sessions.find(&secret, UnixTime(101), true).is_none());
    }

    #[test]
    fn each_has_a_word_of_its_own() {
        let sessions = Sessions::default();
        let [one, other] = [(); 2].map(|()| {
            let secret = opened(&sessions, 100);
            sessions.find(&secret, UnixTime(100), true).unwrap()
        });
        assert!(one.says(&one.word) && !one.says(&other.word) && !one.says(""));
    }

    #[test]
    fn who_was_away_longest_makes_room() {
        let sessions = Sessions::default();
        let first = opened(&sessions, 1);
        let second = opened(&sessions, 1);
        for _ in 2..SESSIONS_MAX {
            opened(&sessions, 2);
        }
        assert!(sessions.find(&first, UnixTime(3), true).is_some());
        opened(&sessions, 3);
        assert!(sessions.find(&first, UnixTime(3), true).is_some());
        assert!(sessions.find(&second, UnixTime(3), true).is_none());
    }
}
