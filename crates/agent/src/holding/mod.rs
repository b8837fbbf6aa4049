//! What the device holds right now, in memory and nowhere else: its SVID, its workloads' SVIDs, bundle and CRL.
//!
//! One task writes it, the one that speaks with the server, through [`Grants`]; the doors and telemetry watch it. What
//! is not in it is withdrawn. Nothing here knows how the server is spoken with, or what time it is.

mod bundle;
mod entry;
mod foreign;
mod grants;
pub(crate) mod kept;
mod own;
pub mod secret;
mod svid;
mod task;
mod token;

use std::sync::Arc;
use std::time::SystemTime;

use assay_identity::Selector;
use assay_identity::selector::unix::Unix;
use assay_identity::signed_message::NodeId;
use tokio::sync::watch;

pub use bundle::{Announced, Remembered, Signed, TrustError};
pub use entry::Entry;
pub use foreign::Foreign;
pub use grants::{Granted, Grants};
pub use kept::{Grace, KeptError};
pub(crate) use own::OwnLife;
pub use secret::{SealedSecret, Secret, SecretAnswer};
pub use svid::{Answer, AnswerError, Due, Svid};
pub use task::PlacedTask;
pub use token::{JwtKeys, Token, TokenError};

/// The holding of this moment.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// Whether the server has said anything since the agent started.
    pub ready: bool,
    /// When the server was heard last. Who watches is not woken for it.
    pub heard_at: Option<SystemTime>,
    /// Whether it may be served after a restart without a server, and for how long; `None`: it may not.
    pub grace: Option<Grace>,
    /// Until when it may be served, where it is one of an earlier run of the agent that no server has confirmed.
    pub until: Option<SystemTime>,
    /// Why there is nothing, where it was withdrawn.
    pub withdrawn: Option<String>,
    /// What is to be said of the device's clock where something is missing; `None`: it is not the clock.
    pub clock: Option<String>,
    /// The device's number, by which messages are signed in its name.
    pub node: Option<NodeId>,
    /// Its certificate for the RSA key, where the server signs such.
    pub classic: Option<Classic>,
    /// The certificate of its AK, where the server signs such.
    pub ak_certificate: AkCertificate,
    /// The device's own SVID, DER, leaf first.
    pub device_svid: Vec<Vec<u8>>,
    /// The trust domain's authorities, concatenated DER.
    pub bundle: Vec<u8>,
    /// The revocation list, DER; may be empty.
    pub crl: Vec<u8>,
    /// What verifies the tokens of the trust domain.
    pub jwt_keys: JwtKeys,
    /// Whom to believe of the trust domains that its entries federate with.
    pub foreign: Vec<Arc<Foreign>>,
    /// The policy the device was last judged by.
    pub policy: String,
    /// Until when the last verdict that was good is worth something, and secrets with it.
    pub vouched_until: Option<SystemTime>,
    /// The secrets that it may have.
    pub secrets: Vec<Secret>,
    /// One for each entry the device is entitled to, in the server's order.
    pub workloads: Vec<Workload>,
    /// The tasks that are placed on it.
    pub tasks: Vec<Arc<PlacedTask>>,
}

/// A certificate of the device's RSA key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classic {
    /// DER.
    pub certificate: Vec<u8>,
    /// From then on a new one is asked for.
    pub renew_at: SystemTime,
}

/// The certificate of the device's AK, or why there is none; both empty: the server signs none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AkCertificate {
    /// DER, with the root above it.
    pub chain: Vec<Vec<u8>>,
    /// Why there is none.
    pub denied: String,
}

/// An entry and the SVID for it, once it is there.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Who gets it.
    pub entry: Arc<Entry>,
    /// What they get.
    pub svid: Option<Svid>,
    /// The tokens that were asked for, the newest last.
    pub tokens: Vec<Token>,
}

impl Holding {
    /// The holding of a device from which everything was taken.
    pub fn withdrawn(reason: String, crl: Vec<u8>) -> Self {
        Holding { ready: true, withdrawn: Some(reason), crl, ..Holding::default() }
    }

    /// Whether an entry names this user by its number.
    pub(crate) fn names_user(&self, uid: u32) -> bool {
        let names = |one: &Selector| *one == Selector::Unix(Unix::Uid(uid));
        self.workloads.iter().any(|workload| workload.entry.selectors.iter().any(names))
    }

    /// A token for an entry and an audience that is good for a while.
    pub(crate) fn token(&self, entry_id: &str, audience: &[String], now: SystemTime) -> Option<Token> {
        let workload = self.workloads.iter().find(|workload| workload.entry.id == entry_id)?;
        workload.tokens.iter().rfind(|token| token.serves(audience, now)).cloned()
    }

    /// Until when secrets may stay: as long as the evidence they were released for counts, or as the policy lets a device be
    /// without a server.
    fn secrets_until(&self) -> Option<SystemTime> {
        let alone = self.heard_at.zip(self.grace.as_ref()).map(|(heard_at, grace)| heard_at + grace.duration);
        self.vouched_until.max(alone)
    }

    /// Drops every SVID that has expired, and all of them where their grace is over; true if there was one.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        if self.until.is_some_and(|until| until < now) {
            let reason = "offline for longer than the policy allows";
            tracing::warn!(reason, "grants of an earlier run withdrawn");
            *self = Holding::withdrawn(reason.to_owned(), std::mem::take(&mut self.crl));
            return true;
        }
        let mut expired = false;
        if !self.secrets.is_empty() && self.secrets_until().is_none_or(|until| until < now) {
            tracing::warn!(
                "secrets withdrawn: the server was not heard from for longer than the last verdict is worth"
            );
            self.secrets.clear();
            expired = true;
        }
        for workload in &mut self.workloads {
            workload.tokens.retain(|token| token.not_after > now);
            if workload.svid.take_if(|svid| svid.not_after <= now).is_some() {
                tracing::warn!(spiffe_id = %workload.entry.spiffe_id, "svid expired before it could be renewed");
                expired = true;
            }
        }
        expired
    }
}

/// Where the one writer puts it.
pub type Held = watch::Sender<Holding>;
