//! Evidence that is judged once, for whoever asks: by the same verification and appraisal, and put on no record.

use assay_evidence::request::{Evidence, Quote};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::verify::{self, Expectation, QuoteEvidence, Verification, verify};
use assay_evidence::{Check, Failure};
use assay_trust::policy::{EkSha256, EndorsementKind};
use assay_trust::{AttestationResult, CompiledPolicy, appraise, refuse};
use bytes::Bytes;

use super::policy::{NotSet, Parts};
use crate::enroll::EnrollError;

/// What somebody wants judged.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    pub evidence: Evidence,
    /// TPM2B_PUBLIC of the EK that whoever asks vouches for: that the AK is in its TPM is theirs to know.
    pub ek_public: Bytes,
    /// TPM2B_PUBLIC of the AK.
    pub ak_public: Bytes,
}

/// Verifies and appraises it: pure.
pub(crate) fn judge(
    presented: &Presented,
    parts: Parts<'_>,
    now: UnixTime,
) -> Result<AttestationResult, NotSet> {
    let Presented { evidence, ek_public, ak_public } = presented;
    let ek = PublicArea::parse_tpm2b(ek_public).map_err(|error| {
        let failure = Failure::new(Check::EkPublic, "EK", "a TPM2B_PUBLIC", error.to_string());
        NotSet::Ek(Box::new(EnrollError::Malformed(failure)))
    })?;
    let endorsement = Endorsement::without_certificate(&ek, Vec::new());
    let mut policy = parts.policy("evidence")?;
    policy.endorsement.required = EndorsementKind::Allowlist;
    policy.endorsement.ek_sha256 = EkSha256::new(endorsement.ek_sha256()).into_iter().collect();
    let policy = CompiledPolicy::new(policy)?;
    let Quote { message, signature, pcrs } = &evidence.quote;
    let quote = QuoteEvidence {
        label: "quote",
        message,
        signature,
        pcrs: pcrs.clone(),
        nonce: &evidence.nonce,
        ak_public: None,
    };
    let evidence = verify::Evidence {
        ak_public,
        quotes: vec![quote],
        boot_log: evidence.boot_log(),
        measure_log: None,
        ima_log: evidence.ima_log(),
        ima_from_entry: 0,
        banks: None,
    };
    let Verification { claims, mut failures, .. } = verify(&evidence, &Expectation::default());
    failures.extend(ek.check_ek());
    Ok(match claims.filter(|_| failures.is_empty()) {
        Some(claims) => appraise(&claims, Some(&policy), Some(&endorsement), now),
        None => refuse(&failures, Some(&policy), now),
    })
}
