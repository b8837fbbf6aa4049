//! The TPM's clock.

use serde::{Deserialize, Serialize};

use super::{Join, Section};
use crate::policy::choice::{Demanded, Ranked};
use crate::policy::list::Lists;
use crate::policy::remark::Notes;
use crate::policy::{Field, PcrSection, PolicyError, Weight};

/// The TPM's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockSection {
    /// What `safe = 0` weighs: after a power cut the TPM's clock may have gone back until it catches up.
    pub unsafe_clock: Weight,
}

impl Default for ClockSection {
    fn default() -> Self {
        ClockSection { unsafe_clock: Weight::Report }
    }
}

impl Section for ClockSection {
    fn key(&self) -> &'static str {
        "clock"
    }

    fn lint(&self, _errors: &mut Vec<PolicyError>) {
        let ClockSection { unsafe_clock: _ } = self;
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let ClockSection { unsafe_clock } = self;
        if *unsafe_clock == Weight::Ignore {
            notes.warn(
                Field::of(["clock", "unsafe_clock"]),
                "a TPM clock that went back is not even said: use \"report\"",
            );
        }
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let ClockSection { unsafe_clock } = self;
        vec![Demanded::ranked(["clock", "unsafe_clock"], *unsafe_clock)]
    }

    fn lists(&self) -> Lists {
        Lists::default()
    }
}

impl Join for ClockSection {
    fn join(&mut self, other: &Self) {
        let ClockSection { unsafe_clock } = self;
        unsafe_clock.tighten(other.unsafe_clock);
    }

    fn sort(&mut self) {}
}
