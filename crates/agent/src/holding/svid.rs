//! Workloads' SVIDs: which are due, which are asked for, and what came of it.
//!
//! A state machine without I/O: [`Requests::due`] says what to ask for, whoever speaks with the server asks, and
//! [`Requests::answered`] takes the answer. Keys are made here and never leave the agent's memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_clock::{Backoff, jitter};
use assay_identity::key::KeyError;
use assay_identity::tls::TrustSource;
use assay_identity::{PrivateKey, SpiffeId, SvidError};
use thiserror::Error;

use super::bundle::unix_time;
use super::{Entry, Workload};

/// An X.509-SVID with its key.
#[derive(Clone)]
pub struct Svid {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8; never logged, never written.
    pub key: Vec<u8>,
    /// From then on a new one is asked for.
    pub renew_at: SystemTime,
    /// From then on it is worth nothing.
    pub not_after: SystemTime,
}

/// A request that is to be signed and sent.
#[derive(Debug)]
pub struct Due {
    request_id: String,
    entry_id: String,
    key: Arc<PrivateKey>,
}

/// What the server says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the request.
    pub request_id: String,
    /// The chain, DER, leaf first; empty if denied.
    pub svid: Vec<Vec<u8>>,
    /// Why not.
    pub denied: String,
}

/// An answer that cannot be used.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The SVID does not verify.
    #[error("the SVID for {spiffe_id} does not verify")]
    Svid {
        /// Whose it should be.
        spiffe_id: String,
        /// What did not hold.
        source: SvidError,
    },
    /// The SVID is somebody else's.
    #[error("the SVID for {spiffe_id} is for another identity or key")]
    OtherSvid {
        /// Whose it should be.
        spiffe_id: String,
    },
}

/// The requests of one device.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// On their way, by request id.
    asked: HashMap<String, Asked>,
    /// Entries that were denied or failed, and when to ask again: after longer each time, since each answer costs a certificate.
    later: HashMap<String, (SystemTime, Backoff)>,
    made: u64,
}

#[derive(Debug)]
struct Asked {
    entry_id: String,
    key: Arc<PrivateKey>,
    since: SystemTime,
}

impl Requests {
    /// What was asked is not answered any more.
    pub(super) fn forget(&mut self) {
        self.asked.clear();
        self.later.clear();
    }

    /// Only these entries are there now, and all may be asked for.
    pub(super) fn keep(&mut self, workloads: &[Workload]) {
        self.asked.retain(|_, asked| workloads.iter().any(|workload| workload.entry.id == asked.entry_id));
        self.later.clear();
    }

    /// What to ask for now: entries without an SVID, and those at half of its life. Makes a key for each.
    pub(super) fn due(&mut self, workloads: &[Workload], now: SystemTime) -> Result<Vec<Due>, KeyError> {
        self.asked.retain(|_, asked| asked.since + ANSWER_WITHIN > now);
        let wanted: Vec<&Entry> = workloads
            .iter()
            .filter(|workload| workload.svid.as_ref().is_none_or(|svid| svid.renew_at <= now))
            .map(|workload| workload.entry.as_ref())
            .filter(|entry| self.later.get(&entry.id).is_none_or(|(later, _)| *later <= now))
            .filter(|entry| !self.asked.values().any(|asked| asked.entry_id == entry.id))
            .take(ASKED_MAX.saturating_sub(self.asked.len()))
            .collect();
        wanted.into_iter().map(|entry| self.ask(&entry.id, now)).collect()
    }

    fn ask(&mut self, entry_id: &str, now: SystemTime) -> Result<Due, KeyError> {
        self.made += 1;
        let request_id = self.made.to_string();
        let key = Arc::new(PrivateKey::generate()?);
        let asked = Asked { entry_id: entry_id.to_owned(), key: key.clone(), since: now };
        self.asked.insert(request_id.clone(), asked);
        Ok(Due { request_id, entry_id: entry_id.to_owned(), key })
    }

    /// Takes an answer: the entry it is for and its SVID, if it has one. One that was not asked for, or no longer, is
    /// dropped.
    pub(super) fn answered(
        &mut self,
        answer: Answer,
        workloads: &[Workload],
        trust: &TrustSource,
        now: SystemTime,
    ) -> Result<Option<(String, Svid)>, AnswerError> {
        let Some(Asked { entry_id, key, .. }) = self.asked.remove(&answer.request_id) else {
            return Ok(None);
        };
        // Whatever is wrong with the answer, it is not asked for again at once.
        let (later, backoff) = self.later.entry(entry_id.clone()).or_insert((now, AGAIN));
        *later = now + backoff.wait();
        if answer.svid.is_empty() {
            tracing::warn!(entry = %entry_id, reason = %answer.denied, "workload svid denied");
            return Ok(None);
        }
        let Some(workload) = workloads.iter().find(|workload| workload.entry.id == entry_id) else {
            return Ok(None);
        };
        let spiffe_id = &workload.entry.spiffe_id;
        let svid = inspect(spiffe_id, answer.svid, &key, trust, now)?;
        self.later.remove(&entry_id);
        tracing::info!(%spiffe_id, entry = %entry_id, "workload svid received");
        Ok(Some((entry_id, svid)))
    }
}

/// Refuses to hand a workload anything but a verified SVID for its identity and its key.
fn inspect(
    spiffe_id: &str,
    chain: Vec<Vec<u8>>,
    key: &PrivateKey,
    trust: &TrustSource,
    now: SystemTime,
) -> Result<Svid, AnswerError> {
    let peer = trust
        .verify(&chain, unix_time(now))
        .map_err(|source| AnswerError::Svid { spiffe_id: spiffe_id.to_owned(), source })?;
    if SpiffeId::parse(spiffe_id).as_ref() != Ok(peer.spiffe_id()) || peer.spki() != key.spki() {
        return Err(AnswerError::OtherSvid { spiffe_id: spiffe_id.to_owned() });
    }
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(peer.not_after().as_secs());
    let life = not_after.duration_since(now).unwrap_or_default();
    Ok(Svid { chain, key: key.pkcs8().to_vec(), renew_at: now + jitter(life / 2), not_after })
}

impl Due {
    /// The number the answer will carry.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The entry it is for.
    pub fn entry_id(&self) -> &str {
        &self.entry_id
    }

    /// The workload's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Requests on their way at a time; the TPM signs them one after the other.
const ASKED_MAX: usize = 8;
/// A request without an answer after this is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// After a denial, or an answer that makes no sense or does not hold by the device's clock.
const AGAIN: Backoff = Backoff::between(Duration::from_secs(10), Duration::from_secs(600));
