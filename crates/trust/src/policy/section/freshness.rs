//! How old evidence may be.

use serde::{Deserialize, Serialize};

use super::{Join, Section};
use crate::policy::choice::Demanded;
use crate::policy::list::Lists;
use crate::policy::remark::Notes;
use crate::policy::{Field, PcrSection, PolicyError};

/// How old evidence may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshnessSection {
    /// Seconds for which an affirming result carries trust.
    pub evidence_age_max_seconds: u64,
}

impl Default for FreshnessSection {
    fn default() -> Self {
        FreshnessSection { evidence_age_max_seconds: EVIDENCE_AGE_DEFAULT_SECONDS }
    }
}

impl Section for FreshnessSection {
    fn key(&self) -> &'static str {
        "freshness"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let FreshnessSection { evidence_age_max_seconds: seconds } = *self;
        if seconds == 0 || seconds > EVIDENCE_AGE_MAX_SECONDS {
            errors.push(PolicyError::EvidenceAge { seconds, max: EVIDENCE_AGE_MAX_SECONDS });
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let FreshnessSection { evidence_age_max_seconds: seconds } = *self;
        if seconds > EVIDENCE_AGE_USUAL_SECONDS {
            notes.warn(
                Field::of(["freshness", "evidence_age_max_seconds"]),
                format!(
                    "for {} minutes after its last good evidence a device is trusted, whatever becomes of it: use \
                     {EVIDENCE_AGE_DEFAULT_SECONDS}, or {EVIDENCE_AGE_USUAL_SECONDS} at most",
                    seconds / 60
                ),
            );
        }
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let FreshnessSection { evidence_age_max_seconds: seconds } = *self;
        vec![Demanded::least(
            Field::of(["freshness", "evidence_age_max_seconds"]),
            seconds,
            u64::MAX - seconds,
        )]
    }

    fn lists(&self) -> Lists {
        Lists::default()
    }
}

impl Join for FreshnessSection {
    fn join(&mut self, other: &Self) {
        let FreshnessSection { evidence_age_max_seconds } = self;
        *evidence_age_max_seconds = (*evidence_age_max_seconds).min(other.evidence_age_max_seconds);
    }

    fn sort(&mut self) {}
}

/// Five missed attestations at one a minute.
const EVIDENCE_AGE_DEFAULT_SECONDS: u64 = 300;
/// An hour: a device that is taken over keeps its grants for as long.
const EVIDENCE_AGE_USUAL_SECONDS: u64 = 3600;
/// A week: longer is no freshness.
pub(in crate::policy) const EVIDENCE_AGE_MAX_SECONDS: u64 = 7 * 24 * 3600;
