//! The certificate of a device's attestation key, for others that enrol devices by what their TPM says.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;

use super::{Denied, require_trust};
use crate::state::TrustState;

/// The right to one certificate, to be signed once.
#[derive(Debug, PartialEq, Eq)]
pub struct AkGrant {
    device: SpiffeId,
    public_key_spki: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    state_version: u64,
}

impl AkGrant {
    /// Whose.
    pub fn device(&self) -> &SpiffeId {
        &self.device
    }

    /// SubjectPublicKeyInfo of the AK, DER.
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

/// Decides whether the AK that credential activation has bound to a device gets one now.
pub fn decide(
    state: &TrustState,
    ak_spki: &[u8],
    life_seconds: u64,
    now: UnixTime,
) -> Result<AkGrant, Denied> {
    require_trust(state, now)?;
    if !state.basis().is_quote() {
        return Err(Denied::NoQuote { basis: state.basis() });
    }
    Ok(AkGrant {
        device: state.device().clone(),
        public_key_spki: ak_spki.to_vec(),
        not_before: UnixTime(now.0.saturating_sub(CLOCK_SKEW_SECONDS)),
        not_after: now.plus(life_seconds.min(LIFE_SECONDS_MAX)),
        state_version: state.version(),
    })
}

/// Who verifies one elsewhere may never have heard of the list.
pub const LIFE_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// Whoever verifies it is not of this system, and its clock further behind.
const CLOCK_SKEW_SECONDS: u64 = 300;
