//! Attestation results for relying parties anywhere: the claims of an EAR, draft-ietf-rats-ear-04.
//!
//! [`Ear::of`] makes the claims that a server may sign of a device, from its trust state and the recorded result;
//! [`EarClaims::read`] is the reader's side, after the signature. Signing and signatures are elsewhere. An EAR never
//! affirms a device that is not trusted, so whoever goes by it is no more generous than we are.

use std::collections::BTreeMap;

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::finding::Tier;
use crate::state::{Status, TrustState};
use crate::vector::TrustVector;

/// The claims of an EAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarClaims {
    /// Which rules the claims follow: [`PROFILE`].
    pub eat_profile: String,
    /// Who says so: the server's SPIFFE ID.
    pub iss: String,
    /// Of whom: the device's SPIFFE ID.
    pub sub: String,
    /// When it was said.
    pub iat: UnixTime,
    /// From when on it says nothing any more.
    pub exp: UnixTime,
    /// What the relying party gave so that it knows the token for a fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eat_nonce: Option<Nonce>,
    /// Which verifier judged.
    pub ear_verifier_id: VerifierId,
    /// The verdict on each part of the device; we judge one, [`SUBMODULE`].
    pub submods: BTreeMap<String, Appraisal>,
}

/// Who made the verifier, and which build of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierId {
    /// The maker.
    pub developer: String,
    /// The build.
    pub build: String,
}

/// The verdict on one part of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraisal {
    /// The verdict as one tier, never better than the worst of the vector.
    pub ear_status: Tier,
    /// The verdict in AR4SI's terms.
    #[serde(default)]
    pub ear_trustworthiness_vector: TrustVector,
    /// By which policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ear_appraisal_policy_ids: Vec<String>,
    /// What an EAR has no claim for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ear_assay_appraisal: Option<Details>,
}

/// Our own claim: what was found, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// When the newest evidence was judged.
    pub evidence_at: UnixTime,
    /// Where the device stands with the server.
    pub device_status: Status,
    /// How many findings there are; the gravest follow.
    pub findings_count: u64,
    /// The gravest findings.
    pub findings: Vec<FindingRecord>,
}

/// A finding as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// The check it comes from.
    pub check: String,
    /// What it means for the result.
    pub tier: Tier,
    /// What it is about.
    pub claim: String,
    /// What was wanted.
    pub expected: String,
    /// What was there.
    pub found: String,
    /// The sentence.
    pub message: String,
}

/// A relying party's nonce, echoed as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(String);

impl Nonce {
    /// RFC 9711 §4.1: 8 to 88 characters; the draft has them base64url.
    pub fn parse(text: &str) -> Result<Nonce, EarError> {
        let fits = NONCE_CHARACTERS.contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if fits { Ok(Nonce(text.to_owned())) } else { Err(EarError::Nonce) }
    }
}

impl TryFrom<String> for Nonce {
    type Error = EarError;

    fn try_from(text: String) -> Result<Nonce, EarError> {
        Nonce::parse(&text)
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> String {
        nonce.0
    }
}

/// A result as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedResult {
    /// The verdict.
    pub tier: Tier,
    /// The same in AR4SI's terms.
    pub vector: TrustVector,
    /// Name and version of the policy.
    pub policy: Option<String>,
    /// Every finding, the gravest first.
    pub findings: Vec<FindingRecord>,
}

/// What may be signed about a device. Made by [`Ear::of`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ear(EarClaims);

impl Ear {
    /// What can be said of a device now, by its state and its last recorded result.
    pub fn of(
        state: &TrustState,
        result: RecordedResult,
        server: &SpiffeId,
        nonce: Option<Nonce>,
        now: UnixTime,
    ) -> Result<Ear, NoResult> {
        let status = state.status_at(now);
        let evidence_at = match (status, state.evidence_at()) {
            (Status::Revoked, _) => return Err(NoResult::Revoked),
            (Status::Expired, _) => return Err(NoResult::Expired),
            (_, None) => return Err(NoResult::NotAppraised),
            (_, Some(at)) => at,
        };
        // State and result are read one after the other, so the worse of the two counts.
        let judged = worse(worse(result.tier, state.tier()), floor(&result.vector));
        let tier = match (judged, status) {
            (Tier::Affirming, Status::Trusted) => Tier::Affirming,
            // The evidence is good, but an operator has yet to say so.
            (Tier::Affirming, _) => Tier::Warning,
            (tier, _) => tier,
        };
        let exp = match (tier, state.valid_until()) {
            (Tier::Affirming, Some(until)) => until,
            _ => now.plus(BAD_NEWS_SECONDS),
        };
        let findings_count = u64::try_from(result.findings.len()).unwrap_or(u64::MAX);
        let mut findings = result.findings;
        findings.truncate(FINDINGS_MAX);
        let appraisal = Appraisal {
            ear_status: tier,
            ear_trustworthiness_vector: result.vector,
            ear_appraisal_policy_ids: result.policy.into_iter().collect(),
            ear_assay_appraisal: Some(Details {
                evidence_at,
                device_status: status,
                findings_count,
                findings,
            }),
        };
        Ok(Ear(EarClaims {
            eat_profile: PROFILE.to_owned(),
            iss: server.to_string(),
            sub: state.device().to_string(),
            iat: now,
            exp,
            eat_nonce: nonce,
            ear_verifier_id: VerifierId {
                developer: "Assay".to_owned(),
                build: concat!("assay-server ", env!("CARGO_PKG_VERSION")).to_owned(),
            },
            submods: BTreeMap::from([(SUBMODULE.to_owned(), appraisal)]),
        }))
    }

    /// The claims.
    pub fn claims(&self) -> &EarClaims {
        &self.0
    }
}

impl EarClaims {
    /// Reads the payload of a token whose signature was verified. Unknown claims are passed over.
    pub fn read(payload: &[u8], now: UnixTime) -> Result<EarClaims, EarError> {
        let claims: EarClaims =
            serde_json::from_slice(payload).map_err(|error| EarError::Claims { line: error.to_string() })?;
        if claims.eat_profile != PROFILE {
            return Err(EarError::Profile { found: claims.eat_profile });
        }
        if now >= claims.exp {
            return Err(EarError::Expired { at: claims.exp });
        }
        if claims.iat > now.plus(CLOCK_LEEWAY_SECONDS) {
            return Err(EarError::Future { at: claims.iat });
        }
        if claims.submods.is_empty() {
            return Err(EarError::NoSubmodule);
        }
        match claims.submods.iter().find(|(_, appraisal)| !appraisal.is_consistent()) {
            Some((name, _)) => Err(EarError::Inconsistent { submodule: name.clone() }),
            None => Ok(claims),
        }
    }
}

impl Appraisal {
    fn is_consistent(&self) -> bool {
        worse(self.ear_status, floor(&self.ear_trustworthiness_vector)) == self.ear_status
    }
}

/// Why nothing can be said of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoResult {
    /// No evidence was judged since it enrolled.
    #[error("no evidence of this device was appraised yet")]
    NotAppraised,
    /// The last result is too old to say anything about now.
    #[error("the device's last evidence is too old; it has to attest again")]
    Expired,
    /// An operator ended it.
    #[error("the device is revoked")]
    Revoked,
}

impl NoResult {
    /// The stable word for it.
    pub fn code(self) -> &'static str {
        match self {
            NoResult::NotAppraised => "not-appraised",
            NoResult::Expired => "evidence-expired",
            NoResult::Revoked => "revoked",
        }
    }
}

/// Why claims, or a nonce for them, are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EarError {
    /// Not the claims of an EAR.
    #[error("not the claims of an EAR: {line}")]
    Claims {
        /// What is wrong where, in the reader's words.
        line: String,
    },
    /// Another profile.
    #[error("eat_profile is {found:?}, not {PROFILE:?}")]
    Profile {
        /// Which.
        found: String,
    },
    /// Over.
    #[error("expired at {at}: ask for a new one")]
    Expired {
        /// When.
        at: UnixTime,
    },
    /// Not yet.
    #[error("issued at {at}, which is in the future: one of the clocks is wrong")]
    Future {
        /// When.
        at: UnixTime,
    },
    /// Nothing in it.
    #[error("submods is empty: nothing was judged")]
    NoSubmodule,
    /// A verdict that is better than its parts.
    #[error("ear_status of {submodule:?} is better than its trustworthiness vector allows")]
    Inconsistent {
        /// Of what.
        submodule: String,
    },
    /// Not a nonce.
    #[error("a nonce is 8 to 88 characters of base64url")]
    Nonce,
}

/// The less trusting of two tiers: nothing judged is less than affirming, and bad is worse than nothing.
fn worse(one: Tier, other: Tier) -> Tier {
    match (one, other) {
        (Tier::None, Tier::Affirming) | (Tier::Affirming, Tier::None) => Tier::None,
        _ => one.max(other),
    }
}

/// The best tier that a vector allows. A claim of 0 is about nothing, so it takes nothing from the others.
fn floor(vector: &TrustVector) -> Tier {
    match vector.worst() {
        Tier::None => Tier::Affirming,
        tier => tier,
    }
}

/// The `eat_profile` of draft-ietf-rats-ear-04.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
/// The `typ` of an EAT in a JWT: the media type `application/eat+jwt` (RFC 9782).
pub const TOKEN_TYPE: &str = "eat+jwt";
/// The label of what we judge: a device by its TPM.
pub const SUBMODULE: &str = "tpm";

const NONCE_CHARACTERS: std::ops::RangeInclusive<usize> = 8..=88;
/// How long a verdict that is not affirming is passed on: it may be over with the next evidence.
const BAD_NEWS_SECONDS: u64 = 300;
/// Findings in a token; with some 500 bytes each a token stays near 10 KiB, which proxies and logs still take.
const FINDINGS_MAX: usize = 16;
/// By how much a verifier's clock may be ahead of its reader's.
const CLOCK_LEEWAY_SECONDS: u64 = 60;

#[cfg(test)]
mod tests;
