//! The trust state: what we hold about a device now, and until when.
//!
//! `pending → enrolled → trusted ⇄ suspect → revoked`, and `expired` when evidence is stale. Every change is an
//! event; the state is the fold of its events. `version` grows whenever the status changes, so a grant that
//! remembers the version it came from is carried only while that very state lasts.

mod basis;
mod event;
mod record;

#[cfg(test)]
mod tests;

use assay_evidence::time::UnixTime;
use assay_identity::selector::tpm::Tpm;
use assay_identity::{Selector, SpiffeId};

pub use basis::Basis;
pub(crate) use event::key_fingerprint;
pub use event::{Appraised, Event, EventRecord};
pub use record::{RecordError, TrustRecord};

use crate::condition::Holding;
use crate::finding::Tier;
use crate::policy::Recovery;

/// Where a device stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Known by name only.
    #[default]
    Pending,
    /// EK, AK and, where its agent has one, device key are bound; nothing was appraised yet.
    Enrolled,
    /// The last evidence is affirming and fresh, or who vouched for a node that cannot quote still counts. The only status
    /// that grants anything.
    Trusted,
    /// The last evidence is not affirming, or an operator has yet to approve.
    Suspect,
    /// The evidence is too old.
    Expired,
    /// An operator ended it.
    Revoked,
}

impl Status {
    /// The lowercase word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Enrolled => "enrolled",
            Status::Trusted => "trusted",
            Status::Suspect => "suspect",
            Status::Expired => "expired",
            Status::Revoked => "revoked",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A device's trust state. Made by folding events, or read back from the record of such a fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustState {
    device: SpiffeId,
    record: TrustRecord,
}

impl TrustState {
    /// A device that nothing happened to yet.
    pub fn pending(device: SpiffeId) -> Self {
        TrustState { device, record: TrustRecord::default() }
    }

    /// The state that these events lead to, oldest first.
    pub fn fold<'a>(device: SpiffeId, events: impl IntoIterator<Item = &'a EventRecord>) -> Self {
        let record = events.into_iter().fold(TrustRecord::default(), |record, event| record.after(event));
        TrustState { device, record }
    }

    /// The state after one more event.
    #[must_use]
    pub fn apply(&self, event: &Event) -> Self {
        TrustState { device: self.device.clone(), record: self.record.after(event.record()) }
    }

    /// The device it is about.
    pub fn device(&self) -> &SpiffeId {
        &self.device
    }

    /// The status at `now`: trust that ran out is expired, recorded or not.
    pub fn status_at(&self, now: UnixTime) -> Status {
        match self.record.status {
            Status::Trusted if !self.record.is_fresh(now) => Status::Expired,
            status => status,
        }
    }

    /// The status as last recorded.
    pub fn status(&self) -> Status {
        self.record.status
    }

    /// Whether grants of this state's version are carried at `now`.
    pub fn carries(&self, version: u64, now: UnixTime) -> bool {
        self.status_at(now) == Status::Trusted && self.record.version == version
    }

    /// Whether grants that `previous` carried fall with the step to this state.
    pub fn withdraws(&self, previous: &TrustState) -> bool {
        previous.record.status == Status::Trusted && previous.record.version != self.record.version
    }

    /// Counts the changes of status.
    pub fn version(&self) -> u64 {
        self.record.version
    }

    /// When the status last changed.
    pub fn since(&self) -> UnixTime {
        self.record.since
    }

    /// When the last evidence was appraised.
    pub fn evidence_at(&self) -> Option<UnixTime> {
        self.record.evidence_at
    }

    /// Until when the last affirming result carries trust.
    pub fn valid_until(&self) -> Option<UnixTime> {
        self.record.valid_until
    }

    /// What it stands on.
    pub fn basis(&self) -> Basis {
        self.record.basis
    }

    /// The tier of the last result.
    pub fn tier(&self) -> Tier {
        self.record.tier
    }

    /// The boot that was attested last: the TPM's reset counter.
    pub fn reset_count(&self) -> Option<u32> {
        self.record.reset_count
    }

    /// The TPM's restart counter in that boot.
    pub fn restart_count(&self) -> Option<u32> {
        self.record.restart_count
    }

    /// Whether good evidence waits for an operator's word.
    pub fn awaiting_approval(&self) -> bool {
        self.record.awaiting_approval
    }

    /// Why the device stands where it stands, in a sentence.
    pub fn reason(&self) -> &str {
        &self.record.reason
    }

    /// Name and version of the policy of the last result.
    pub fn policy(&self) -> Option<&str> {
        self.record.policy.as_deref()
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the device key that the AK certified, in hex.
    pub fn device_key(&self) -> Option<&str> {
        self.record.device_key.as_deref()
    }

    /// What entries ask of the device and its last affirming evidence fulfils.
    pub fn holding(&self) -> &Holding {
        &self.record.holding
    }

    /// The first of these selectors that has to hold of the device and does not. What the agent alone can tell is left
    /// to it. Of a node that does not quote none holds but the TPM's own, where that was activated.
    pub fn unmet<'a>(&self, selectors: &'a [Selector]) -> Option<&'a Selector> {
        selectors.iter().filter(|one| one.is_condition()).find(|condition| match condition {
            Selector::Tpm(Tpm::PubHash(hash)) => {
                let is_proven = matches!(self.basis(), Basis::Quote | Basis::EkActivation);
                !is_proven || self.device.device_hex() != Some(hash.to_string().as_str())
            }
            condition => !self.record.holding.has(condition),
        })
    }

    /// The plain data to store.
    pub fn to_record(&self) -> &TrustRecord {
        &self.record
    }

    /// Reads back what was stored of this device.
    pub fn from_record(device: SpiffeId, record: TrustRecord) -> Result<Self, RecordError> {
        record.check()?;
        Ok(TrustState { device, record })
    }
}

impl TrustRecord {
    /// The one transition function: what a state becomes by an event.
    fn after(&self, event: &EventRecord) -> TrustRecord {
        match event {
            EventRecord::Enrolled { at, device_key } => self.enrolled(*at, device_key.as_deref()),
            EventRecord::Readmitted { at, by } => self.readmitted(*at, by),
            EventRecord::Appraised(appraised) => self.appraised(appraised),
            EventRecord::Unanswered { at: _, until, reason } => self.unanswered(*until, reason),
            EventRecord::Expired { at } => self.expired(*at),
            EventRecord::Revoked { at, by, reason } => self.revoked(*at, by, reason),
            EventRecord::Approved { at, by } => self.approved(*at, by),
            EventRecord::Vouched { at, basis, device_key, until } => {
                self.vouched(*at, *basis, device_key, *until)
            }
            EventRecord::Evicted { at, by } => self.evicted(*at, by),
        }
    }

    /// A new binding starts over; what the old keys were granted falls. A revoked device must be readmitted first,
    /// and a suspect one stays suspect: enrolling again is no way around an operator's approval. Nor is it a way to take a
    /// TPM back to an earlier state: its counters are known still. TPM2_Clear takes them back to zero as well, so that a TPM
    /// that was cleared has to be readmitted.
    fn enrolled(&self, at: UnixTime, device_key: Option<&str>) -> TrustRecord {
        let (version, ak_alone, device_key) =
            (self.version, device_key.is_none(), device_key.map(str::to_owned));
        let (reset_count, restart_count) = (self.reset_count, self.restart_count);
        match self.status {
            Status::Revoked => self.clone(),
            Status::Suspect => TrustRecord {
                approved: false,
                awaiting_approval: false,
                device_key,
                ak_alone,
                ..self.clone()
            },
            Status::Pending | Status::Enrolled | Status::Trusted | Status::Expired => {
                let bound = TrustRecord { version, device_key, ak_alone, ..TrustRecord::default() };
                TrustRecord { reset_count, restart_count, ..bound }.moved(
                    Status::Enrolled,
                    at,
                    "enrolled; no evidence was appraised yet".to_owned(),
                )
            }
        }
    }

    fn readmitted(&self, at: UnixTime, by: &str) -> TrustRecord {
        if self.status != Status::Revoked {
            return self.clone();
        }
        let (status, version) = (self.status, self.version);
        let fresh = TrustRecord { status, version, ..TrustRecord::default() };
        fresh.moved(Status::Pending, at, format!("readmitted by {by}; it has to enroll again"))
    }

    fn appraised(&self, result: &Appraised) -> TrustRecord {
        let unbound = matches!(self.status, Status::Pending | Status::Revoked) || !self.basis.is_quote();
        // A good result that is older than the last one says nothing about now.
        let overtaken =
            result.tier == Tier::Affirming && self.evidence_at.is_some_and(|last| result.at < last);
        if unbound || overtaken {
            return self.clone();
        }
        // Verification refuses it already, where it is told the last count; no caller can forget to.
        let went_back = (result.reset_count, result.restart_count) < (self.reset_count, self.restart_count);
        if went_back && result.tier == Tier::Affirming {
            let reason = "the TPM's counters went back: old evidence, or another TPM state".to_owned();
            let (tier, holding) = (Tier::Contraindicated, Holding::default());
            let fallen = TrustRecord { tier, holding, valid_until: None, ..self.clone() };
            return fallen.moved(Status::Suspect, result.at, reason);
        }
        let next = TrustRecord {
            tier: result.tier,
            policy: result.policy.clone(),
            evidence_at: self.evidence_at.max(Some(result.at)),
            reset_count: result.reset_count.or(self.reset_count),
            restart_count: result.restart_count.or(self.restart_count),
            valid_until: Some(result.valid_until).filter(|_| result.tier == Tier::Affirming),
            needs_approval: result.recovery == Recovery::Approve,
            holding: if result.tier == Tier::Affirming { result.holding.clone() } else { Holding::default() },
            ..self.clone()
        };
        match result.tier {
            Tier::Affirming => next.affirmed(result),
            _ => TrustRecord { awaiting_approval: false, approved: false, ..next }.moved(
                Status::Suspect,
                result.at,
                result.reason.clone(),
            ),
        }
    }

    fn affirmed(self, result: &Appraised) -> TrustRecord {
        let good = format!("evidence is affirming until {}", result.valid_until);
        if self.status == Status::Suspect && self.needs_approval && !self.approved {
            let reason =
                "evidence is good again; the policy wants an operator's approval: assay device approve"
                    .to_owned();
            return TrustRecord { awaiting_approval: true, ..self }.moved(Status::Suspect, result.at, reason);
        }
        TrustRecord { awaiting_approval: false, approved: false, ..self }.moved(
            Status::Trusted,
            result.at,
            good,
        )
    }

    /// Silence is no evidence, for or against: no status moves by it, and nothing stands longer for it. Good evidence that
    /// comes in time makes up for it.
    fn unanswered(&self, until: UnixTime, reason: &str) -> TrustRecord {
        if self.valid_until.is_none_or(|stands| stands <= until) {
            return self.clone();
        }
        let shortened = TrustRecord { valid_until: Some(until), ..self.clone() };
        match self.status {
            Status::Trusted => {
                TrustRecord { reason: format!("{reason}; trusted until {until}"), ..shortened }
            }
            Status::Pending | Status::Enrolled | Status::Suspect | Status::Expired | Status::Revoked => {
                shortened
            }
        }
    }

    fn expired(&self, at: UnixTime) -> TrustRecord {
        if self.status != Status::Trusted || self.is_fresh(at) {
            return self.clone();
        }
        self.clone().moved(Status::Expired, at, "no fresh evidence came in time".to_owned())
    }

    fn revoked(&self, at: UnixTime, by: &str, reason: &str) -> TrustRecord {
        if self.status == Status::Revoked {
            return self.clone();
        }
        let fallen =
            TrustRecord { awaiting_approval: false, approved: false, valid_until: None, ..self.clone() };
        fallen.moved(Status::Revoked, at, format!("revoked by {by}: {reason}"))
    }

    /// An approval is for the suspicion it was given on: the next bad result takes it back.
    fn approved(&self, at: UnixTime, by: &str) -> TrustRecord {
        if self.status != Status::Suspect {
            return self.clone();
        }
        let approved = TrustRecord { approved: true, awaiting_approval: false, ..self.clone() };
        if self.awaiting_approval && self.is_fresh(at) {
            let reason = format!("evidence is affirming and {by} approved");
            return TrustRecord { approved: false, ..approved }.moved(Status::Trusted, at, reason);
        }
        approved.moved(Status::Suspect, at, format!("approved by {by}; waiting for good evidence"))
    }

    /// A node that cannot quote stands for as long as it was vouched for, and is of no tier. A device that quotes is not taken
    /// down to that, and whom an operator ended does not come back by it.
    fn vouched(&self, at: UnixTime, basis: Basis, device_key: &str, until: UnixTime) -> TrustRecord {
        let quotes = self.basis.is_quote() && self.is_bound();
        if quotes || basis.is_quote() || self.status == Status::Revoked {
            return self.clone();
        }
        let next = TrustRecord {
            status: self.status,
            version: self.version,
            since: self.since,
            basis,
            device_key: Some(device_key.to_owned()),
            valid_until: Some(until),
            ..TrustRecord::default()
        };
        next.moved(
            Status::Trusted,
            at,
            format!("vouched for by {basis} until {until}; what it runs is not known"),
        )
    }

    /// Only who was vouched for is evicted: it may come again, and until then it is known by name only.
    fn evicted(&self, at: UnixTime, by: &str) -> TrustRecord {
        if self.basis.is_quote() {
            return self.clone();
        }
        let (status, version, since) = (self.status, self.version, self.since);
        let fresh = TrustRecord { status, version, since, basis: self.basis, ..TrustRecord::default() };
        fresh.moved(Status::Pending, at, format!("evicted by {by}; it has to attest again"))
    }

    fn is_fresh(&self, now: UnixTime) -> bool {
        let is_good = self.tier == Tier::Affirming || !self.basis.is_quote();
        is_good && self.valid_until.is_some_and(|until| now < until)
    }

    /// The only place where a status is set, so that no change goes uncounted.
    fn moved(mut self, status: Status, at: UnixTime, reason: String) -> TrustRecord {
        if self.status != status {
            self.status = status;
            self.since = at;
            self.version += 1;
        }
        self.reason = reason;
        self
    }
}
