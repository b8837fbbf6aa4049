//! Turns what the server grants into what the device holds: complete states, so that what is absent is gone.

use std::sync::Arc;
use std::time::SystemTime;

use assay_identity::TrustDomain;
use assay_identity::key::KeyError;
use assay_identity::tls::TrustSource;

use super::bundle::{Authorities, TrustError, verifies};
use super::svid::{Answer, AnswerError, Due, Requests};
use super::{Entry, Held, Holding, Workload};

/// Everything that the server grants the device at one moment.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// The device's own SVID, DER, leaf first.
    pub device_svid: Vec<Vec<u8>>,
    /// The trust domain's authorities, concatenated DER.
    pub bundle: Vec<u8>,
    /// The revocation list, DER.
    pub crl: Vec<u8>,
    /// What its workloads are entitled to.
    pub entries: Vec<Entry>,
    /// The policy that judged the device.
    pub policy: String,
}

/// The grants of one device.
#[derive(Debug)]
pub struct Grants {
    held: Held,
    authorities: Authorities,
    requests: Requests,
}

impl Grants {
    /// Nothing granted yet. `trust` is what TLS connections are verified with; it follows the granted bundle.
    pub fn new(held: Held, trust: Arc<TrustSource>, trust_domain: TrustDomain) -> Self {
        Grants { held, authorities: Authorities::new(trust, trust_domain), requests: Requests::default() }
    }

    /// Who else may look at the holding.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// A new stream: what was asked on the old one is not answered any more.
    pub fn reconnected(&mut self) {
        self.requests.forget();
    }

    /// Takes the complete state over; whatever is not in it is gone when this returns.
    pub fn apply(&mut self, granted: Granted, now: SystemTime) -> Result<(), TrustError> {
        let trust = self.authorities.parse(&granted.bundle, &granted.crl)?;
        let before = self.held.borrow().clone();
        let workloads: Vec<Workload> = granted
            .entries
            .into_iter()
            .take(ENTRIES_MAX)
            .map(|entry| {
                let old = before.workloads.iter().find(|old| old.entry.is_same_identity(&entry));
                // What was withdrawn while we were away is on the list now.
                let svid = old.and_then(|old| old.svid.clone()).filter(|svid| verifies(svid, &trust, now));
                Workload { entry: Arc::new(entry), svid }
            })
            .collect();
        self.authorities.replace(trust);
        self.requests.keep(&workloads);
        if before.withdrawn.is_some() || !before.ready {
            tracing::info!(policy = %granted.policy, "grants received");
        }
        self.held.send_replace(Holding {
            ready: true,
            withdrawn: None,
            device_svid: granted.device_svid,
            bundle: granted.bundle,
            crl: granted.crl,
            policy: granted.policy,
            workloads,
        });
        Ok(())
    }

    /// Drops everything at once.
    pub fn withdraw(&mut self, reason: String, crl: Vec<u8>) {
        self.requests.forget();
        if self.held.borrow().withdrawn.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "grants withdrawn");
        }
        self.held.send_replace(Holding::withdrawn(reason, crl));
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
}

/// Entries of one device.
const ENTRIES_MAX: usize = 1000;
