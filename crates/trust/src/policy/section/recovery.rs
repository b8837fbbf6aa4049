//! How a device that was suspect comes back.

use serde::{Deserialize, Serialize};

use super::{Join, Section};
use crate::policy::choice::{Demanded, Ranked};
use crate::policy::list::Lists;
use crate::policy::remark::Notes;
use crate::policy::{PcrSection, PolicyError};

/// How a device that was suspect comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverySection {
    /// By itself, or by an operator's word.
    pub mode: Recovery,
}

/// Whether fresh good evidence is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recovery {
    /// Fresh good evidence is enough.
    #[default]
    Automatic,
    /// An operator must approve as well.
    Approve,
}

impl Ranked for Recovery {
    fn rank(self) -> u64 {
        match self {
            Recovery::Automatic => 0,
            Recovery::Approve => 1,
        }
    }
}

impl Section for RecoverySection {
    fn key(&self) -> &'static str {
        "recovery"
    }

    fn lint(&self, _errors: &mut Vec<PolicyError>) {
        let RecoverySection { mode: _ } = self;
    }

    fn review(&self, _pcr: &PcrSection, _notes: &mut Notes<'_>) {
        let RecoverySection { mode: _ } = self;
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let RecoverySection { mode } = self;
        vec![Demanded::ranked(["recovery", "mode"], *mode)]
    }

    fn lists(&self) -> Lists {
        Lists::default()
    }
}

impl Join for RecoverySection {
    fn join(&mut self, other: &Self) {
        let RecoverySection { mode } = self;
        mode.tighten(other.mode);
    }

    fn sort(&mut self) {}
}
