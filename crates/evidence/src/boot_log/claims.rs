//! Claims: everything that one verified boot log says, and what a verifier keeps of it.

use super::facts::extends;
use super::remark::remark;
use super::{BootFacts, BootLog, EventType, facts};
use crate::tpm::pcr::PcrValues;
use crate::{Digest, HashAlgorithm, PcrIndex};

/// Everything about one verified boot log. Only verification makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootClaims {
    log_sha256: Digest,
    /// What the whole log replays to, whether or not the quotes said the same.
    logged: PcrValues,
    replayed: PcrValues,
    facts: BootFacts,
    events: Vec<EventSummary>,
}

impl BootClaims {
    /// The SHA-256 of the log: the same log says the same.
    pub fn log_sha256(&self) -> &Digest {
        &self.log_sha256
    }

    /// The PCR values it replays to, in every bank, but for those of PCRs that hold more than it tells.
    pub fn replayed(&self) -> &PcrValues {
        &self.replayed
    }

    /// The facts.
    pub fn facts(&self) -> &BootFacts {
        &self.facts
    }

    /// The events that extended a PCR.
    pub fn events(&self) -> &[EventSummary] {
        &self.events
    }

    /// What to hold against the quotes when the same log comes again.
    pub(crate) fn logged(&self) -> &PcrValues {
        &self.logged
    }

    /// The claims without anything that stands on these PCRs, which hold more than the log tells.
    pub(crate) fn without(mut self, unexplained: &[PcrIndex]) -> Self {
        let kept = self.replayed.iter().filter(|(_, index, _)| !unexplained.contains(index));
        self.replayed = kept.map(|(_, index, value)| (index, *value)).collect();
        self.events.retain(|event| !unexplained.contains(&event.pcr));
        self.facts.drop_pcrs(unexplained);
        self
    }
}

/// Makes claims of a log with this SHA-256 that replays to these values, which verification has found to be the quoted
/// PCRs of `bank`.
pub(crate) fn claims(
    log: &BootLog<'_>,
    log_sha256: Digest,
    replayed: PcrValues,
    bank: HashAlgorithm,
) -> BootClaims {
    let events = extends(log, bank).map(|(event, pcr, digest)| EventSummary {
        number: event.number(),
        pcr,
        event_type: event.event_type(),
        digest,
        remark: remark(event),
    });
    BootClaims {
        log_sha256,
        logged: replayed.clone(),
        replayed,
        facts: facts(log, bank),
        events: events.collect(),
    }
}

/// One event in short, for telling two boots apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSummary {
    /// Its place in the log.
    pub number: usize,
    /// The PCR it extended.
    pub pcr: PcrIndex,
    /// Its type, a remark.
    pub event_type: EventType,
    /// What it extended, in the facts' bank.
    pub digest: Digest,
    /// What the log calls it.
    pub remark: String,
}
