//! A certificate of a year for a node, by an RSA key that its AK certified: for programs that know no SPIFFE.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::CertifiedKey;
use assay_evidence::tpm::public_key::PublicKey;
use assay_identity::SpiffeId;

use super::{Denied, require_trust};
use crate::state::TrustState;

/// The right to one certificate, to be signed once.
#[derive(Debug, PartialEq, Eq)]
pub struct ClassicGrant {
    device: SpiffeId,
    public_key_spki: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    state_version: u64,
}

impl ClassicGrant {
    /// Whose.
    pub fn device(&self) -> &SpiffeId {
        &self.device
    }

    /// SubjectPublicKeyInfo of the key, DER.
    pub fn public_key_spki(&self) -> &[u8] {
        &self.public_key_spki
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
}

/// Decides whether a device gets one now.
pub fn decide(state: &TrustState, key: &CertifiedKey, now: UnixTime) -> Result<ClassicGrant, Denied> {
    require_trust(state, now)?;
    if !matches!(key.public_area().key(), PublicKey::Rsa { .. }) {
        return Err(Denied::NotRsa);
    }
    Ok(ClassicGrant {
        device: state.device().clone(),
        public_key_spki: key.spki_der().to_vec(),
        not_before: UnixTime(now.0.saturating_sub(CLOCK_SKEW_SECONDS)),
        not_after: now.plus(LIFE_SECONDS),
        state_version: state.version(),
    })
}

const LIFE_SECONDS: u64 = 365 * 24 * 3600;
/// Programs of old run where clocks are further behind.
const CLOCK_SKEW_SECONDS: u64 = 300;
