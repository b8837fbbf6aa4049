//! Turns what the server grants into what the device holds: complete states, so that what is absent is gone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_identity::TrustDomain;
use assay_identity::key::KeyError;
use assay_identity::secret::SecretName;
use assay_identity::signed_message::NodeId;
use assay_identity::tls::TrustSource;
use thiserror::Error;

use super::bundle::{Announced, Authorities, Remembered, Signed, TrustError, verifies};
use super::secret::{SecretRequests, named};
use super::svid::{Answer, AnswerError, Due, Requests};
use super::{
    AkCertificate, Classic, Entry, Foreign, Grace, Held, Holding, PlacedTask, Secret, SecretAnswer, Token,
    TokenError, Workload,
};

/// Everything that the server grants the device at one moment.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// The device's own SVID, DER, leaf first.
    pub device_svid: Vec<Vec<u8>>,
    /// What its workloads are entitled to.
    pub entries: Vec<Entry>,
    /// The policy that judged the device.
    pub policy: String,
    /// Whether it may be served after a restart without a server.
    pub grace: Option<Grace>,
    /// The device's number.
    pub node: Option<NodeId>,
    /// Whether the server signs certificates of RSA keys.
    pub classic_wanted: bool,
    /// The certificate of its AK.
    pub ak_certificate: AkCertificate,
    /// The secrets that it may ask for, by name and version.
    pub secrets: Vec<(String, u64)>,
    /// Whom to believe of other trust domains.
    pub foreign: Vec<Foreign>,
    /// What it is to run.
    pub tasks: Vec<PlacedTask>,
}

/// A certificate of the RSA key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClassicError {
    /// It is none.
    #[error("it does not read as a certificate")]
    Malformed,
    /// It is over.
    #[error("it has ended by this machine's clock")]
    Ended,
}

/// The grants of one device.
#[derive(Debug)]
pub struct Grants {
    held: Held,
    authorities: Authorities,
    requests: Requests,
    secret_requests: SecretRequests,
}

impl Grants {
    /// Nothing granted yet. `trust` is what TLS connections are verified with; it follows what is announced.
    pub fn new(
        held: Held,
        trust: Arc<TrustSource>,
        trust_domain: TrustDomain,
        remembered: Remembered,
    ) -> Self {
        let authorities = Authorities::new(trust, trust_domain, remembered);
        Grants {
            held,
            authorities,
            requests: Requests::default(),
            secret_requests: SecretRequests::default(),
        }
    }

    /// This device has a place for secrets.
    #[must_use]
    pub fn with_secrets(mut self) -> Self {
        self.secret_requests.takes = true;
        self
    }

    /// Who else may look at the holding.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// A new stream: what was asked on the old one is not answered any more.
    pub fn reconnected(&mut self) {
        self.requests.forget();
        self.secret_requests.forget();
    }

    /// The revocation list in force, DER; empty: none was heard yet.
    pub fn list(&self) -> &[u8] {
        self.authorities.crl()
    }

    /// What has to be known over restarts.
    pub fn remembered(&self) -> &Remembered {
        self.authorities.remembered()
    }

    /// The device enrolled anew: its trust state begins anew.
    pub fn enrolled(&mut self) {
        self.authorities.forget_state();
    }

    /// Takes over whom everybody of the trust domain believes; SVIDs that no longer stand are gone when this returns.
    pub fn announced(
        &mut self,
        signed: &Signed,
        announced: Announced,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        self.authorities.take(signed, announced, now)?;
        let trust = self.authorities.source().current();
        let (bundle, crl) = (self.authorities.bundle(), self.authorities.crl().to_vec());
        let (_, jwt_keys) = self.authorities.jwt_keys();
        self.held.send_modify(|holding| {
            holding.crl = crl;
            // Tokens of keys that are gone are no good to anybody.
            let others = holding.jwt_keys.json() != jwt_keys.json();
            if holding.ready && holding.withdrawn.is_none() {
                holding.bundle = bundle;
                holding.jwt_keys = jwt_keys.clone();
            }
            for workload in &mut holding.workloads {
                workload.svid.take_if(|svid| !verifies(svid, &trust, now));
                if others {
                    workload.tokens.clear();
                }
            }
        });
        Ok(())
    }

    /// Whether the trust domain said this to a device.
    pub fn hear(&mut self, signed: &Signed, now: SystemTime) -> Result<(), TrustError> {
        self.authorities.hear(signed, now)?;
        self.held.send_if_modified(|holding| {
            holding.heard_at = Some(now);
            false
        });
        Ok(())
    }

    /// Takes over what an earlier run of the agent held, until the server is heard.
    pub(crate) fn restore(&mut self, holding: Holding) {
        self.held.send_replace(holding);
    }

    /// Takes note of the version of the device's trust state, which never goes back.
    pub fn note(&mut self, state_version: u64) -> Result<(), TrustError> {
        self.authorities.note(state_version)
    }

    /// Takes the complete state over; whatever is not in it is gone when this returns.
    pub fn apply(&mut self, granted: Granted, now: SystemTime) {
        let trust = self.authorities.source().current();
        let before = self.held.borrow().clone();
        let workloads: Vec<Workload> = granted
            .entries
            .into_iter()
            .take(ENTRIES_MAX)
            .map(|entry| {
                let old = before.workloads.iter().find(|old| old.entry.is_same_identity(&entry));
                // What was withdrawn while we were away is on the list now.
                let svid = old.and_then(|old| old.svid.clone()).filter(|svid| verifies(svid, &trust, now));
                let tokens = old.map(|old| old.tokens.clone()).unwrap_or_default();
                Workload { entry: Arc::new(entry), svid, tokens }
            })
            .collect();
        self.requests.keep(&workloads);
        if before.withdrawn.is_some() || !before.ready {
            tracing::info!(policy = %granted.policy, "grants received");
        }
        self.held.send_replace(Holding {
            ready: true,
            heard_at: Some(now),
            grace: granted.grace,
            until: None,
            withdrawn: None,
            clock: before.clock,
            node: granted.node,
            classic: before.classic.filter(|_| granted.classic_wanted),
            ak_certificate: granted.ak_certificate,
            device_svid: granted.device_svid,
            bundle: self.authorities.bundle(),
            crl: self.authorities.crl().to_vec(),
            jwt_keys: self.authorities.jwt_keys().1.clone(),
            policy: granted.policy,
            vouched_until: before.vouched_until,
            secrets: named(granted.secrets, &before.secrets),
            foreign: granted.foreign.into_iter().map(Arc::new).collect(),
            workloads,
            tasks: granted.tasks.into_iter().map(Arc::new).collect(),
        });
    }

    /// Takes note of what is to be said of the device's clock.
    pub fn clock_is(&self, sentence: Option<String>) {
        self.held.send_if_modified(|holding| {
            let changed = holding.clock != sentence;
            holding.clock = sentence;
            changed
        });
    }

    /// Drops everything at once.
    pub fn withdraw(&mut self, reason: String) {
        self.requests.forget();
        self.secret_requests.forget();
        if self.held.borrow().withdrawn.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "grants withdrawn");
        }
        self.held.send_replace(Holding::withdrawn(reason, self.authorities.crl().to_vec()));
    }

    /// What to ask for now: entries without an SVID, and those at half of its life. Makes a key for each.
    pub fn due(&mut self, now: SystemTime) -> Result<Vec<Due>, KeyError> {
        self.requests.due(&self.held.borrow().workloads, now)
    }

    /// Takes an answer; one that was not asked for, or no longer, is dropped.
    pub fn answered(&mut self, answer: Answer, now: SystemTime) -> Result<(), AnswerError> {
        let workloads = self.held.borrow().workloads.clone();
        let taken = self.requests.answered(answer, &workloads, self.authorities.source(), now)?;
        let Some((entry_id, svid)) = taken else { return Ok(()) };
        self.held.send_modify(|holding| {
            if let Some(workload) =
                holding.workloads.iter_mut().find(|workload| workload.entry.id == entry_id)
            {
                workload.svid = Some(svid);
            }
        });
        Ok(())
    }

    /// Takes note of how long the last verdict is worth something.
    pub fn vouched(&self, until: SystemTime) {
        self.held.send_if_modified(|holding| {
            holding.vouched_until = Some(until);
            false
        });
    }

    /// Which secrets to ask for now.
    pub fn due_secrets(&mut self, now: SystemTime) -> Vec<(SecretName, u64)> {
        self.secret_requests.due(&self.held.borrow().secrets, now)
    }

    /// Takes a secret, if it is one that the device may still have.
    pub fn secret(&mut self, answer: SecretAnswer) {
        let SecretAnswer { name, version, secret, denied } = answer;
        let Some(sealed) = secret else {
            tracing::warn!(secret = name, reason = denied, "secret denied");
            return;
        };
        self.held.send_if_modified(|holding| {
            let is_it = |secret: &&mut Secret| secret.name.as_str() == name && secret.version == version;
            match holding.secrets.iter_mut().find(is_it) {
                Some(secret) => secret.sealed = Some(Arc::new(sealed)),
                None => return false,
            }
            true
        });
    }

    /// Takes a certificate of the RSA key.
    pub fn classic(&mut self, certificate: Vec<u8>, now: SystemTime) -> Result<(), ClassicError> {
        let (from, until) = assay_identity::bundle::life(&certificate).ok_or(ClassicError::Malformed)?;
        let at =
            |time: assay_identity::UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
        let (from, until) = (at(from), at(until));
        let life = until.duration_since(from).map_err(|_| ClassicError::Malformed)?;
        if until <= now {
            return Err(ClassicError::Ended);
        }
        let classic = Classic { certificate, renew_at: from + life / 3 * 2 };
        self.held
            .send_modify(|holding| holding.classic = Some(classic).filter(|_| holding.withdrawn.is_none()));
        Ok(())
    }

    /// Takes a token that was asked for, if it is one for this entry and audience.
    pub fn token(
        &mut self,
        entry_id: &str,
        audience: &[String],
        compact: &str,
        now: SystemTime,
    ) -> Result<Token, TokenError> {
        let entry = {
            let holding = self.held.borrow();
            let mut workloads = holding.workloads.iter();
            workloads.find(|workload| workload.entry.id == entry_id).map(|workload| workload.entry.clone())
        };
        let entry = entry.ok_or(TokenError::NoEntry)?;
        let token = Token::inspect(compact, (&entry, audience), self.authorities.jwt_keys(), now)?;
        self.held.send_if_modified(|holding| {
            let mut workloads = holding.workloads.iter_mut();
            if let Some(workload) = workloads.find(|workload| workload.entry.id == entry_id) {
                workload.tokens.retain(|old| *old.audience != *audience);
                if workload.tokens.len() >= TOKENS_PER_ENTRY_MAX {
                    workload.tokens.remove(0);
                }
                workload.tokens.push(token.clone());
            }
            // Nobody waits for a token by watching.
            false
        });
        Ok(token)
    }
}

/// Audiences of one workload; of more, each is asked for anew.
const TOKENS_PER_ENTRY_MAX: usize = 64;
/// Entries of one device.
const ENTRIES_MAX: usize = 1000;
