//! What of a holding may outlast a restart of the agent: plain data to be sealed, and what reads it back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_evidence::tpm::pcr::PcrSelection;
use assay_identity::bundle::BundleError;
use assay_identity::crl::CrlError;
use assay_identity::jws::JwsError;
use assay_identity::tls::Trust;
use assay_identity::{Bundle, CrlSet, PrivateKey, Selector, SpiffeId, TrustDomain, verify_svid};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bundle::unix_time;
use super::{Entry, Foreign, Holding, JwtKeys, Svid, Workload};

/// For how long after the server's last word a holding may be served by an agent that starts again without it, and the PCRs
/// that it is sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Since the last statement that was heard.
    pub duration: Duration,
    /// They have to hold what they held then.
    pub pcrs: PcrSelection,
}

/// Bytes in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Bytes(pub Vec<u8>);

impl TryFrom<String> for Bytes {
    type Error = data_encoding::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64.decode(text.as_bytes()).map(Bytes)
    }
}

impl From<Bytes> for String {
    fn from(Bytes(bytes): Bytes) -> String {
        BASE64.encode(&bytes)
    }
}

/// A holding without what is asked for each time: tokens stay behind, as nothing takes them back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// When the server was heard last, in seconds since 1970.
    pub heard_at: u64,
    /// The last second in which it may be served.
    pub until: u64,
    policy: String,
    device_svid: Vec<Bytes>,
    bundle: Bytes,
    crl: Bytes,
    jwt_keys: Bytes,
    #[serde(default)]
    foreign: Vec<KeptForeign>,
    workloads: Vec<KeptWorkload>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptForeign {
    trust_domain: TrustDomain,
    bundle: Bytes,
    jwt_keys: Bytes,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptWorkload {
    id: String,
    spiffe_id: String,
    selectors: Vec<Selector>,
    dns_names: Vec<String>,
    hint: String,
    #[serde(default)]
    federates_with: Vec<String>,
    chain: Vec<Bytes>,
    key: Bytes,
}

/// What was kept cannot be served.
#[derive(Debug, Error)]
pub enum KeptError {
    /// Too long ago.
    #[error("the server was heard {age} seconds ago, and the policy allows {allowed}")]
    Over {
        /// How long ago.
        age: u64,
        /// How long it may be.
        allowed: u64,
    },
    /// The clock was set back, or is wrong.
    #[error("by this machine's clock it was sealed in the future")]
    Future,
    /// The authorities do not read.
    #[error("the bundle cannot be read")]
    Bundle(#[from] BundleError),
    /// The revocation list does not read.
    #[error("the revocation list cannot be read")]
    Crl(#[from] CrlError),
    /// The keys for tokens do not read.
    #[error("the keys for tokens cannot be read")]
    JwtKeys(#[from] JwsError),
    /// Everything has run out meanwhile.
    #[error("nothing of it stands any more: certificates or the revocation list are over")]
    Nothing,
}

impl Kept {
    /// What of a holding may be kept; `None`: nothing.
    pub(crate) fn of(holding: &Holding) -> Option<Kept> {
        let (grace, heard_at) = (holding.grace.as_ref()?, holding.heard_at?);
        let heard_at = unix_time(heard_at).as_secs();
        let workload = |workload: &Workload| {
            let (entry, svid) = (&workload.entry, workload.svid.as_ref()?);
            // What the next quote may take away is not for whoever cannot be asked for one.
            (!entry.by_quote).then(|| KeptWorkload {
                id: entry.id.clone(),
                spiffe_id: entry.spiffe_id.clone(),
                selectors: entry.selectors.clone(),
                dns_names: entry.dns_names.clone(),
                hint: entry.hint.clone(),
                federates_with: entry.federates_with.clone(),
                chain: svid.chain.iter().cloned().map(Bytes).collect(),
                key: Bytes(svid.key.clone()),
            })
        };
        Some(Kept {
            heard_at,
            until: heard_at.saturating_add(grace.duration.as_secs()),
            policy: holding.policy.clone(),
            device_svid: holding.device_svid.iter().cloned().map(Bytes).collect(),
            bundle: Bytes(holding.bundle.clone()),
            crl: Bytes(holding.crl.clone()),
            jwt_keys: Bytes(holding.jwt_keys.json().to_vec()),
            foreign: holding.foreign.iter().map(|foreign| KeptForeign::of(foreign)).collect(),
            workloads: holding.workloads.iter().filter_map(workload).collect(),
        })
    }

    /// Whether it is the same but for its age.
    pub(crate) fn is_as(&self, other: &Kept) -> bool {
        Kept { heard_at: 0, until: 0, ..self.clone() } == Kept { heard_at: 0, until: 0, ..other.clone() }
    }

    /// The holding again, with what of it still stands. Every SVID is verified as if it had just come.
    pub(crate) fn restore(self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Holding, KeptError> {
        let seconds = unix_time(now).as_secs();
        if seconds < self.heard_at {
            return Err(KeptError::Future);
        }
        if seconds > self.until {
            let (age, allowed) = (seconds - self.heard_at, self.until.saturating_sub(self.heard_at));
            return Err(KeptError::Over { age, allowed });
        }
        let trust = Trust {
            bundle: Bundle::from_der(trust_domain.clone(), &self.bundle.0)?,
            crls: CrlSet::from_der([&self.crl.0])?,
        };
        let workloads: Vec<Workload> =
            self.workloads.into_iter().filter_map(|workload| workload.restore(&trust, now)).collect();
        if workloads.is_empty() {
            return Err(KeptError::Nothing);
        }
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Holding {
            ready: true,
            heard_at: Some(at(self.heard_at)),
            until: Some(at(self.until)),
            device_svid: self.device_svid.into_iter().map(|Bytes(der)| der).collect(),
            bundle: self.bundle.0,
            crl: self.crl.0,
            jwt_keys: JwtKeys::parse(&self.jwt_keys.0)?,
            policy: self.policy,
            foreign: self.foreign.into_iter().filter_map(KeptForeign::restore).map(Arc::new).collect(),
            workloads,
            ..Holding::default()
        })
    }
}

impl KeptForeign {
    fn of(foreign: &Foreign) -> KeptForeign {
        let Foreign { trust_domain, bundle, jwt_json, .. } = foreign.clone();
        KeptForeign { trust_domain, bundle: Bytes(bundle), jwt_keys: Bytes(jwt_json) }
    }

    fn restore(self) -> Option<Foreign> {
        Foreign::read(self.trust_domain, self.bundle.0, self.jwt_keys.0).ok()
    }
}

impl KeptWorkload {
    fn restore(self, trust: &Trust, now: SystemTime) -> Option<Workload> {
        let chain: Vec<Vec<u8>> = self.chain.into_iter().map(|Bytes(der)| der).collect();
        let peer = verify_svid(&chain, &trust.bundle, &trust.crls, unix_time(now));
        let peer = peer.inspect_err(|error| {
            tracing::warn!(spiffe_id = self.spiffe_id, %error, "an svid that was kept does not stand any more");
        });
        let (peer, key) = (peer.ok()?, PrivateKey::from_pkcs8(&self.key.0).ok()?);
        let is_its = SpiffeId::parse(&self.spiffe_id).as_ref() == Ok(peer.spiffe_id());
        if !is_its || peer.spki() != key.spki() {
            return None;
        }
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(peer.not_after().as_secs());
        // With the first connection there is a new one.
        let svid = Svid { chain, key: self.key.0, renew_at: now, not_after };
        let entry = Entry {
            id: self.id,
            spiffe_id: self.spiffe_id,
            selectors: self.selectors,
            dns_names: self.dns_names,
            hint: self.hint,
            by_quote: false,
            // Nobody could tell it that its device has fallen.
            speaks_for_node: false,
            federates_with: self.federates_with,
        };
        Some(Workload { entry: Arc::new(entry), svid: Some(svid), tokens: Vec::new() })
    }
}
