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
    /// Seconds for which it carries trust at most once the device, attached, did not answer a challenge in time or hung up
    /// on it, or what came in its name was not its evidence. Never longer than the evidence would have stood anyway.
    #[serde(default = "unanswered_default")]
    pub unanswered_max_seconds: u64,
    /// Seconds for which it carries trust at most once the device is offline: its connection ended, and no challenge was open.
    /// Without it, as long as the evidence stands anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_max_seconds: Option<u64>,
    /// Seconds after its last word with the server for which an agent that starts again without one serves what it was
    /// granted before, sealed to its TPM and the boot it was granted in. Without it, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_offline_max_seconds: Option<u64>,
}

impl FreshnessSection {
    /// A bound past the end of the evidence bounds nothing.
    fn unanswered_seconds(&self) -> u64 {
        self.unanswered_max_seconds.min(self.evidence_age_max_seconds)
    }

    /// Seconds for which a device that is offline is trusted at most.
    pub(crate) fn offline_seconds(&self) -> u64 {
        let age = self.evidence_age_max_seconds;
        self.offline_max_seconds.map_or(age, |offline| offline.min(age))
    }
}

impl Default for FreshnessSection {
    fn default() -> Self {
        FreshnessSection {
            evidence_age_max_seconds: EVIDENCE_AGE_DEFAULT_SECONDS,
            unanswered_max_seconds: UNANSWERED_DEFAULT_SECONDS,
            offline_max_seconds: None,
            restart_offline_max_seconds: None,
        }
    }
}

impl Section for FreshnessSection {
    fn key(&self) -> &'static str {
        "freshness"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let FreshnessSection {
            evidence_age_max_seconds,
            unanswered_max_seconds,
            offline_max_seconds,
            restart_offline_max_seconds,
        } = *self;
        let stated = [
            ("evidence_age_max_seconds", Some(evidence_age_max_seconds)),
            ("unanswered_max_seconds", Some(unanswered_max_seconds)),
            ("offline_max_seconds", offline_max_seconds),
            ("restart_offline_max_seconds", restart_offline_max_seconds),
        ];
        for (field, seconds) in stated.into_iter().filter_map(|(field, stated)| Some((field, stated?))) {
            if !(1..=EVIDENCE_AGE_MAX_SECONDS).contains(&seconds) {
                errors.push(PolicyError::EvidenceAge { field, seconds, max: EVIDENCE_AGE_MAX_SECONDS });
            }
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let FreshnessSection { evidence_age_max_seconds: seconds, unanswered_max_seconds, .. } = *self;
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
        if unanswered_max_seconds > UNANSWERED_USUAL_SECONDS {
            notes.warn(
                Field::of(["freshness", "unanswered_max_seconds"]),
                format!(
                    "an attached device that stops answering is trusted for {} seconds more: use \
                     {UNANSWERED_DEFAULT_SECONDS}, or {UNANSWERED_USUAL_SECONDS} at most",
                    self.unanswered_seconds()
                ),
            );
        }
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let age = self.evidence_age_max_seconds;
        let (unanswered, offline) = (self.unanswered_seconds(), self.offline_seconds());
        let bounds = [
            ("evidence_age_max_seconds", age),
            ("unanswered_max_seconds", unanswered),
            ("offline_max_seconds", offline),
            ("restart_offline_max_seconds", self.restart_offline_max_seconds.unwrap_or_default()),
        ];
        bounds
            .map(|(field, seconds)| {
                Demanded::least(Field::of(["freshness", field]), seconds, u64::MAX - seconds)
            })
            .into()
    }

    fn lists(&self) -> Lists {
        Lists::default()
    }
}

impl Join for FreshnessSection {
    fn join(&mut self, other: &Self) {
        let offline = self.offline_seconds().min(other.offline_seconds());
        let FreshnessSection {
            evidence_age_max_seconds,
            unanswered_max_seconds,
            offline_max_seconds,
            restart_offline_max_seconds,
        } = self;
        // Where one of them does not allow it, neither do both.
        *restart_offline_max_seconds =
            restart_offline_max_seconds.zip(other.restart_offline_max_seconds).map(|(one, two)| one.min(two));
        *evidence_age_max_seconds = (*evidence_age_max_seconds).min(other.evidence_age_max_seconds);
        *unanswered_max_seconds = (*unanswered_max_seconds).min(other.unanswered_max_seconds);
        if other.offline_max_seconds.is_some() || offline_max_seconds.is_some() {
            *offline_max_seconds = Some(offline);
        }
    }

    fn sort(&mut self) {}
}

fn unanswered_default() -> u64 {
    UNANSWERED_DEFAULT_SECONDS
}

/// Five missed attestations at one a minute.
const EVIDENCE_AGE_DEFAULT_SECONDS: u64 = 300;
/// An hour: a device that is taken over keeps its grants for as long.
const EVIDENCE_AGE_USUAL_SECONDS: u64 = 3600;
/// A week: longer is no freshness.
pub(in crate::policy) const EVIDENCE_AGE_MAX_SECONDS: u64 = 7 * 24 * 3600;
/// Two further challenges at half a minute each: a bad link or a slow TPM makes up for one that was lost, and whoever
/// took the device over has a fifth of the evidence's age.
const UNANSWERED_DEFAULT_SECONDS: u64 = 60;
/// As long as evidence stands by default.
const UNANSWERED_USUAL_SECONDS: u64 = EVIDENCE_AGE_DEFAULT_SECONDS;
