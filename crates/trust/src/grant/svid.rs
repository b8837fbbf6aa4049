//! X.509-SVIDs: for the device itself, and for workloads that an operator entitled on it.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_identity::csr::Csr;

use super::{Denied, Entitlement, require_trust};
use crate::state::{Basis, TrustState, key_fingerprint};

/// Who asks for an SVID, and for which key.
#[derive(Debug)]
pub enum SvidRequest<'a> {
    /// The device, for the TPM-resident key that its AK certified.
    Device {
        /// SubjectPublicKeyInfo of the key, DER.
        key: &'a [u8],
        /// How long it should live.
        ttl_seconds: u64,
    },
    /// A workload on the device, for a key that it proved to hold.
    Workload {
        /// What the operator entitled it to.
        entitlement: &'a Entitlement,
        /// The workload's request, its self-signature verified.
        csr: &'a Csr,
    },
}

/// The right to one X.509-SVID, to be signed once.
#[derive(Debug, PartialEq, Eq)]
pub struct SvidGrant {
    spiffe_id: SpiffeId,
    public_key_spki: Vec<u8>,
    dns_names: Vec<String>,
    not_before: UnixTime,
    not_after: UnixTime,
    state_version: u64,
    basis: Basis,
}

impl SvidGrant {
    /// The identity.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// SubjectPublicKeyInfo of the key, DER.
    pub fn public_key_spki(&self) -> &[u8] {
        &self.public_key_spki
    }

    /// DNS names for the SVID.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// From when it is valid: a little before now, for clocks that are behind.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The version of the trust state that carries it.
    pub fn state_version(&self) -> u64 {
        self.state_version
    }

    /// What that state stands on.
    pub fn basis(&self) -> Basis {
        self.basis
    }
}

/// Decides whether a device, or a workload on it, gets an SVID now.
pub fn decide(state: &TrustState, request: SvidRequest<'_>, now: UnixTime) -> Result<SvidGrant, Denied> {
    require_trust(state, now)?;
    let (spiffe_id, key, ttl_seconds, dns_names) = match request {
        SvidRequest::Device { key, ttl_seconds } => {
            if state.device_key() != Some(key_fingerprint(key).as_str()) {
                return Err(Denied::KeyNotBound);
            }
            (state.device().clone(), key, ttl_seconds, Vec::new())
        }
        SvidRequest::Workload { entitlement, csr } => {
            entitlement.require_own(state)?;
            let Entitlement { spiffe_id, ttl_seconds, dns_names, .. } = entitlement;
            (spiffe_id.clone(), csr.spki_der(), *ttl_seconds, dns_names.clone())
        }
    };
    Ok(SvidGrant {
        spiffe_id,
        public_key_spki: key.to_vec(),
        dns_names,
        not_before: UnixTime(now.0.saturating_sub(CLOCK_SKEW_SECONDS)),
        not_after: now.plus(ttl_seconds.clamp(1, TTL_MAX_SECONDS)),
        state_version: state.version(),
        basis: state.basis(),
    })
}

/// A withdrawn SVID stays on the CRL until it ends, so a day bounds the CRL.
const TTL_MAX_SECONDS: u64 = 24 * 3600;
/// How far behind a peer's clock may be.
const CLOCK_SKEW_SECONDS: u64 = 10;
