//! Grants: what a trust state entitles to. Each kind has a request, `decide`, a grant and a denial; a grant can be
//! made nowhere else, and remembers the state's version, so that it falls with the state.

pub mod ak;
pub mod classic;
mod entitlement;
pub mod jwt;
pub mod secret;
pub mod svid;
pub mod task;
pub mod telemetry;

#[cfg(test)]
mod tests;

use assay_evidence::time::UnixTime;
use assay_identity::jwt_svid::{AUDIENCE_BYTES_MAX, AUDIENCES_MAX};
pub use entitlement::Entitlement;
use thiserror::Error;

use crate::place::Refused;
use crate::state::{Basis, Status, TrustState};
use task::{Level, TeeLack};

/// Why nothing is granted. A denial is an answer, not a fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// The device is not trusted now.
    #[error("the device is {status}: {reason}")]
    NotTrusted {
        /// Where it stands.
        status: Status,
        /// Why it stands there.
        reason: String,
    },
    /// The key is not the one that the AK certified at enrollment.
    #[error("the key is not the device key that was certified at enrollment: enroll again to bind a new one")]
    KeyNotBound,
    /// The certificate of an AK says that a device quotes.
    #[error("the node is known by {basis} and does not quote")]
    NoQuote {
        /// What the node is known by.
        basis: Basis,
    },
    /// A classic certificate is for RSA.
    #[error("the key is not RSA")]
    NotRsa,
    /// The entry belongs to another device.
    #[error("the entry's parent is {parent}, and this device is {device}")]
    WrongParent {
        /// The entry's parent.
        parent: String,
        /// The device that asked.
        device: String,
    },
    /// The entry names something that is not for workloads, or of another trust domain.
    #[error("{spiffe_id} is not an identity for workloads of {trust_domain}")]
    NotAWorkload {
        /// The identity.
        spiffe_id: String,
        /// The device's trust domain.
        trust_domain: String,
    },
    /// Nobody said that a node that cannot quote may have it.
    #[error(
        "the node is known by {basis} and does not quote, and the entry does not say that it is for such nodes (unquoted = true)"
    )]
    Unquoted {
        /// What the node is known by.
        basis: Basis,
    },
    /// The device's last quote does not say what the entry asks of it.
    #[error("{condition} does not hold: the device's last verified quote says otherwise, or nothing of it")]
    ConditionUnmet {
        /// What the entry asks.
        condition: String,
    },
    /// The secret is for devices with other labels.
    #[error("the secret is for devices with {selector}")]
    OtherLabels {
        /// The labels.
        selector: String,
    },
    /// The secret is for devices that another policy judges.
    #[error("the secret is for devices that the policy {policy} judges, and this one is judged by {found}")]
    OtherPolicy {
        /// The policy.
        policy: String,
        /// The policy of the last result.
        found: String,
    },
    /// A token for nobody, or for more than one is for.
    #[error(
        "a token is for 1 to {AUDIENCES_MAX} audiences that can be printed, of {AUDIENCE_BYTES_MAX} bytes together"
    )]
    NoAudience,
    /// The statement was signed for another device.
    #[error("the statement is about {stated}, and this device is {device}")]
    WrongDevice {
        /// The device of the statement.
        stated: String,
        /// The device that the state is about.
        device: String,
    },
    /// The statement is from a boot that was not attested.
    #[error(
        "the statement is from boot {stated}, and boot {attested} was attested last: a new boot must attest first"
    )]
    BootNotAttested {
        /// The reset counter of the statement.
        stated: u32,
        /// The reset counter of the last affirming evidence.
        attested: u32,
    },
    /// The place is outside of the regions that the policy allows.
    #[error("{place} is not in the allowed regions ({allowed}); location.allow_… in the policy widens them")]
    LocationRefused {
        /// Where the device says it is.
        place: String,
        /// Where it may be.
        allowed: String,
    },
    /// The position, or what is said of the place, is not what the policy asks for.
    #[error(transparent)]
    PositionRefused(Refused),
    /// The task is for devices that quote.
    #[error("the task demands an attested device, and this one is known by {basis} and does not quote")]
    Unattested {
        /// What the node is known by.
        basis: Basis,
    },
    /// The device's evidence is older than the task lets it be.
    #[error("the task demands evidence of the last {oldest} s, and the device's is {}", age(*.seconds))]
    EvidenceTooOld {
        /// How old it is; `None`: there is none.
        seconds: Option<u64>,
        /// How old it may be.
        oldest: u64,
    },
    /// The task is none of those that are expected.
    #[error(
        "the task's measurement {measurement} is none of the {expected} that are expected: if it is meant, name it in \
         expected_measurements"
    )]
    MeasurementUnknown {
        /// The task's.
        measurement: String,
        /// How many are expected.
        expected: usize,
    },
    /// Nobody debugs such a task.
    #[error("a {level} task runs without debugging: leave allow_debug out")]
    Debug {
        /// The task's level.
        level: Level,
    },
    /// No hardware hides the task's memory.
    #[error("a secret task runs where hardware hides its memory, as fresh evidence of a TEE shows: {0}")]
    NoTee(TeeLack),
}

fn age(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "missing".to_owned(), |seconds| format!("{seconds} s old"))
}

impl Denied {
    /// The stable, kebab-case reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Denied::NotTrusted { status: Status::Revoked, .. } => "revoked",
            Denied::NotTrusted { status: Status::Expired, .. } => "expired",
            Denied::NotTrusted { .. } => "not-trusted",
            Denied::KeyNotBound => "key-not-bound",
            Denied::NoQuote { .. } => "no-quote",
            Denied::NotRsa => "not-rsa",
            Denied::WrongParent { .. } => "wrong-parent",
            Denied::NotAWorkload { .. } => "not-a-workload",
            Denied::Unquoted { .. } => "unquoted",
            Denied::ConditionUnmet { .. } => "condition-unmet",
            Denied::OtherLabels { .. } => "other-labels",
            Denied::OtherPolicy { .. } => "other-policy",
            Denied::NoAudience => "no-audience",
            Denied::WrongDevice { .. } => "wrong-device",
            Denied::BootNotAttested { .. } => "boot-not-attested",
            Denied::LocationRefused { .. } => "location-refused",
            Denied::PositionRefused(_) => "position-refused",
            Denied::Unattested { .. } => "unattested",
            Denied::EvidenceTooOld { .. } => "evidence-too-old",
            Denied::MeasurementUnknown { .. } => "measurement-unknown",
            Denied::Debug { .. } => "debug",
            Denied::NoTee(_) => "no-tee",
        }
    }
}

/// The gate that every kind of grant goes through first.
fn require_trust(state: &TrustState, now: UnixTime) -> Result<(), Denied> {
    match state.status_at(now) {
        Status::Trusted => Ok(()),
        Status::Expired => {
            let reason = "its last good evidence is too old: is the agent attached?".to_owned();
            Err(Denied::NotTrusted { status: Status::Expired, reason })
        }
        status => Err(Denied::NotTrusted { status, reason: state.reason().to_owned() }),
    }
}
