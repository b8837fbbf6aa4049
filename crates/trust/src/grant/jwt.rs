//! JWT-SVIDs: for workloads that an operator entitled on a device.
//!
//! A bearer token cannot be taken back, so that its life is what withdrawal comes to: it never reaches beyond what the
//! device's evidence is worth now, and never beyond a few minutes.

use assay_evidence::time::UnixTime;
use assay_identity::jwt_svid::{JwtSvid, is_audience};

use super::{Denied, Entitlement, require_trust};
use crate::state::{Basis, TrustState};

/// What is asked for on behalf of a workload.
#[derive(Clone, Copy, Debug)]
pub struct JwtRequest<'a> {
    /// What the operator entitled it to.
    pub entitlement: &'a Entitlement,
    /// For whom the token is to be.
    pub audience: &'a [String],
}

/// The right to one JWT-SVID, to be signed once.
#[derive(Debug, PartialEq, Eq)]
pub struct JwtGrant {
    svid: JwtSvid,
    state_version: u64,
    basis: Basis,
}

impl JwtGrant {
    /// What the token says.
    pub fn svid(&self) -> &JwtSvid {
        &self.svid
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

/// Decides whether a workload gets a token now.
pub fn decide(state: &TrustState, request: JwtRequest<'_>, now: UnixTime) -> Result<JwtGrant, Denied> {
    require_trust(state, now)?;
    let JwtRequest { entitlement, audience } = request;
    entitlement.require_own(state)?;
    if !is_audience(audience) {
        return Err(Denied::NoAudience);
    }
    let said = match entitlement.jwt_ttl_seconds {
        0 => entitlement.ttl_seconds,
        said => said,
    };
    let ttl_seconds = said.clamp(1, JWT_TTL_MAX_SECONDS);
    let expires_at = now.plus(ttl_seconds).min(state.valid_until().unwrap_or(now));
    let svid = JwtSvid {
        spiffe_id: entitlement.spiffe_id.clone(),
        audience: audience.to_vec(),
        issued_at: now.0,
        expires_at: expires_at.0,
    };
    Ok(JwtGrant { svid, state_version: state.version(), basis: state.basis() })
}

/// SPIRE's default for such tokens.
pub const JWT_TTL_MAX_SECONDS: u64 = 300;
