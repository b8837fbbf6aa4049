//! Turns what the server grants into what the device holds: asks for workload SVIDs, renews them, drops everything
//! when told to.
//!
//! A state machine without I/O of its own: [`Grants::due`] says what to ask for, and the session asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, PrivateKey, SpiffeId, TrustDomain, UnixTime, csr};
use assay_telemetry::pae;
use assay_wire::binding::{WORKLOAD_SVID_TYPE, workload_svid_body};
use assay_wire::edge::{self, WorkloadEntry, WorkloadSvidRequest, WorkloadSvidResponse};
use thiserror::Error;

use crate::backoff::jitter;
use crate::device::Device;
use crate::holding::{Held, Holding, Svid, Workload};
use crate::tpm::TpmError;

/// A grant, or an answer to a request, that cannot be used.
#[derive(Debug, Error)]
pub enum GrantError {
    /// The bundle does not parse.
    #[error("the bundle cannot be read")]
    Bundle(#[from] assay_identity::bundle::BundleError),
    /// The revocation list does not parse.
    #[error("the revocation list cannot be read")]
    Crl(#[from] assay_identity::crl::CrlError),
    /// A workload SVID does not verify.
    #[error("the SVID for {spiffe_id} does not verify")]
    Svid {
        /// Whose it should be.
        spiffe_id: String,
        /// What did not hold.
        source: assay_identity::SvidError,
    },
    /// A workload SVID for somebody or something else.
    #[error("the SVID for {spiffe_id} is for another identity or key")]
    OtherSvid {
        /// Whose it should be.
        spiffe_id: String,
    },
    /// A key or a request could not be made.
    #[error("no key or certificate request could be made")]
    Key(#[from] assay_identity::key::KeyError),
    /// A request could not be made.
    #[error("no certificate request could be made")]
    Request(#[from] assay_identity::csr::CsrError),
    /// The TPM did not sign the request.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

/// The grants of one device.
pub struct Grants {
    held: Held,
    trust: Arc<TrustSource>,
    trust_domain: TrustDomain,
    /// Requests on their way, by request id.
    asked: HashMap<String, Asked>,
    /// Entries that were denied or failed, and when to ask again.
    later: HashMap<String, SystemTime>,
    requests: u64,
}

struct Asked {
    entry_id: String,
    key: Arc<PrivateKey>,
    since: SystemTime,
}

/// A request that is to be signed and sent.
pub struct Due {
    request_id: String,
    entry_id: String,
    key: Arc<PrivateKey>,
}

impl Grants {
    /// Nothing granted yet. `trust` is what TLS connections are verified with; it follows the granted bundle.
    pub fn new(held: Held, trust: Arc<TrustSource>, trust_domain: TrustDomain) -> Self {
        let (asked, later) = (HashMap::new(), HashMap::new());
        Grants { held, trust, trust_domain, asked, later, requests: 0 }
    }

    /// Who else may look at the holding.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// A new stream: what was asked on the old one is not answered any more.
    pub fn reconnected(&mut self) {
        self.asked.clear();
        self.later.clear();
    }

    /// Takes the complete state over; whatever is not in it is gone when this returns.
    pub fn apply(&mut self, grants: edge::Grants) -> Result<(), GrantError> {
        if grants.withdrawn {
            self.withdraw(grants.reason, grants.crl.to_vec());
            return Ok(());
        }
        let trust = self.parse_trust(&grants.bundle, &grants.crl)?;
        let before = self.held.borrow().clone();
        let workloads = grants
            .entries
            .into_iter()
            .take(ENTRIES_MAX)
            .map(|entry| {
                let old = before.workloads.iter().find(|old| is_same_identity(&old.entry, &entry));
                // What was withdrawn while we were away is on the list now.
                let svid = old.and_then(|old| old.svid.clone()).filter(|svid| verifies(svid, &trust));
                Workload { entry, svid }
            })
            .collect();
        self.trust.replace(trust);
        let withdrawn_before = before.withdrawn.is_some();
        if withdrawn_before || !before.ready {
            tracing::info!(policy = %grants.policy, "grants received");
        }
        self.held.send_replace(Holding {
            ready: true,
            withdrawn: None,
            device_svid: grants.device_svid.iter().map(|der| der.to_vec()).collect(),
            bundle: grants.bundle.to_vec(),
            crl: grants.crl.to_vec(),
            policy: grants.policy,
            workloads,
        });
        self.asked.retain(|_, asked| {
            self.held.borrow().workloads.iter().any(|workload| workload.entry.id == asked.entry_id)
        });
        self.later.clear();
        Ok(())
    }

    /// Drops everything at once.
    pub fn withdraw(&mut self, reason: String, crl: Vec<u8>) {
        self.asked.clear();
        self.later.clear();
        if self.held.borrow().withdrawn.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "grants withdrawn");
        }
        self.held.send_replace(Holding::withdrawn(reason, crl));
    }

    /// What to ask for now: entries without an SVID, and those at half of its life. Makes a key for each.
    pub fn due(&mut self, now: SystemTime) -> Result<Vec<Due>, GrantError> {
        let timed_out = |asked: &Asked| asked.since + ANSWER_WITHIN <= now;
        self.asked.retain(|_, asked| !timed_out(asked));
        let wanted: Vec<String> = self
            .held
            .borrow()
            .workloads
            .iter()
            .filter(|workload| workload.svid.as_ref().is_none_or(|svid| svid.renew_at <= now))
            .map(|workload| workload.entry.id.clone())
            .filter(|id| self.later.get(id).is_none_or(|later| *later <= now))
            .filter(|id| !self.asked.values().any(|asked| asked.entry_id == *id))
            .take(ASKED_MAX.saturating_sub(self.asked.len()))
            .collect();
        wanted.into_iter().map(|entry_id| self.ask(entry_id, now)).collect()
    }

    fn ask(&mut self, entry_id: String, now: SystemTime) -> Result<Due, GrantError> {
        self.requests += 1;
        let request_id = self.requests.to_string();
        let key = Arc::new(PrivateKey::generate()?);
        let asked = Asked { entry_id: entry_id.clone(), key: key.clone(), since: now };
        self.asked.insert(request_id.clone(), asked);
        Ok(Due { request_id, entry_id, key })
    }

    /// Takes an answer; one that was not asked for, or no longer, is dropped.
    pub fn answered(&mut self, answer: WorkloadSvidResponse, now: SystemTime) -> Result<(), GrantError> {
        let Some(asked) = self.asked.remove(&answer.request_id) else { return Ok(()) };
        // Whatever is wrong with the answer, it is not asked for again at once.
        self.later.insert(asked.entry_id.clone(), now + jitter(AGAIN_AFTER));
        if answer.svid.is_empty() {
            tracing::warn!(entry = %asked.entry_id, reason = %answer.denied, "workload svid denied");
            return Ok(());
        }
        let chain: Vec<Vec<u8>> = answer.svid.iter().map(|der| der.to_vec()).collect();
        let Some(spiffe_id) = self.spiffe_id(&asked.entry_id) else { return Ok(()) };
        let svid = self.inspect(&spiffe_id, chain, &asked.key, now)?;
        self.later.remove(&asked.entry_id);
        tracing::info!(%spiffe_id, entry = %asked.entry_id, "workload svid received");
        self.held.send_modify(|holding| {
            let wanted = |workload: &&mut Workload| workload.entry.id == asked.entry_id;
            if let Some(workload) = holding.workloads.iter_mut().find(wanted) {
                workload.svid = Some(svid);
            }
        });
        Ok(())
    }

    /// Refuses to hand a workload anything but a verified SVID for its identity and its key.
    fn inspect(
        &self,
        spiffe_id: &str,
        chain: Vec<Vec<u8>>,
        key: &PrivateKey,
        now: SystemTime,
    ) -> Result<Svid, GrantError> {
        let peer = self
            .trust
            .verify(&chain, UnixTime::now())
            .map_err(|source| GrantError::Svid { spiffe_id: spiffe_id.to_owned(), source })?;
        if SpiffeId::parse(spiffe_id).as_ref() != Ok(peer.spiffe_id()) || peer.spki() != key.spki() {
            return Err(GrantError::OtherSvid { spiffe_id: spiffe_id.to_owned() });
        }
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(peer.not_after().as_secs());
        let life = not_after.duration_since(now).unwrap_or_default();
        Ok(Svid { chain, key: key.pkcs8().to_vec(), renew_at: now + jitter(life / 2), not_after })
    }

    fn spiffe_id(&self, entry_id: &str) -> Option<String> {
        let holding = self.held.borrow();
        let workload = holding.workloads.iter().find(|workload| workload.entry.id == entry_id)?;
        Some(workload.entry.spiffe_id.clone())
    }

    fn parse_trust(&self, bundle: &[u8], crl: &[u8]) -> Result<Trust, GrantError> {
        let bundle = Bundle::from_der(self.trust_domain.clone(), bundle)?;
        let crls = CrlSet::from_der(Some(crl).filter(|crl| !crl.is_empty()))?;
        Ok(Trust { bundle, crls })
    }
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

    /// The workload's public key, SubjectPublicKeyInfo DER.
    pub fn spki(&self) -> Vec<u8> {
        self.key.spki()
    }

    /// Makes the request and has the TPM sign it: the server gives SVIDs to this device's agent alone.
    pub fn sign(self, device: &Device) -> Result<WorkloadSvidRequest, GrantError> {
        let csr = csr::request(&self.key)?;
        let body = workload_svid_body(&self.entry_id, &csr);
        let device_signature = device.key.sign_message(&pae(WORKLOAD_SVID_TYPE, &body))?;
        Ok(WorkloadSvidRequest {
            request_id: self.request_id,
            entry_id: self.entry_id,
            csr: csr.into(),
            device_signature: device_signature.into(),
        })
    }
}

/// Selectors and hints may change under an SVID; what is in the certificate may not.
fn is_same_identity(old: &WorkloadEntry, new: &WorkloadEntry) -> bool {
    (&old.id, &old.spiffe_id, &old.dns_names) == (&new.id, &new.spiffe_id, &new.dns_names)
}

fn verifies(svid: &Svid, trust: &Trust) -> bool {
    assay_identity::verify_svid(&svid.chain, &trust.bundle, &trust.crls, UnixTime::now()).is_ok()
}

/// Entries of one device.
const ENTRIES_MAX: usize = 1000;
/// Requests on their way at a time; the TPM signs them one after the other.
const ASKED_MAX: usize = 8;
/// A request without an answer after this is made again.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// After a denial, or an answer that makes no sense.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
