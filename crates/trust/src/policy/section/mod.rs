//! The sections of a policy. Each file holds one: its type, and everything that is asked of it.
//!
//! [`Section`] and [`Join`] are the questions. `lint`, `review`, `diff` and `merge` ask them of [`Policy::sections`], one
//! after the other. Each answer takes the section apart without a wildcard, so that a new field does not compile until
//! every question about it has an answer.

pub(super) mod boot;
pub(super) mod clock;
pub(super) mod endorsement;
pub(super) mod freshness;
pub(super) mod ima;
pub(super) mod location;
pub(super) mod pcr;
pub(super) mod recovery;
pub(super) mod rego;
pub(super) mod tee;

use super::choice::Demanded;
use super::list::Lists;
use super::remark::Notes;
use super::{PcrSection, Policy, PolicyError};

/// What a section is asked.
pub(super) trait Section {
    /// The key it stands under.
    fn key(&self) -> &'static str;

    /// Adds everything that keeps it from doing its work.
    fn lint(&self, errors: &mut Vec<PolicyError>);

    /// Says what is there twice, never counts, or lets in more than its writer may have meant; `pcr` are the PCR values
    /// that belong with it.
    fn review(&self, pcr: &PcrSection, notes: &mut Notes<'_>);

    /// Whether it judges anything that a device measured.
    fn measures(&self) -> bool;

    /// Every demand, each with how strict it is. Of TPM manufacturers, what holds for each of `manufacturers`.
    fn demands(&self, manufacturers: &[&str]) -> Vec<Demanded>;

    /// Every list.
    fn lists(&self) -> Lists;

    /// Whether it judges at all, in a few words; `None` for a section that is always there.
    fn presence(&self) -> Option<Presence> {
        None
    }
}

/// Whether a section that may be left out is there.
pub(super) struct Presence {
    pub(super) is_there: bool,
    /// What that means.
    pub(super) words: String,
}

/// How a section and another of its kind become one. What is said of a boot is never joined: see `alternative.rs`.
pub(super) trait Join {
    /// Accepts what the other accepts, and demands what it demands.
    fn join(&mut self, other: &Self);

    /// Puts everything in the one order in which equal sections are equal values.
    fn sort(&mut self);
}

impl Policy {
    /// Every section, in the order in which policies are written; of boots, those of the policy's own.
    pub(super) fn sections(&self) -> [&dyn Section; 10] {
        let Policy {
            name: _,
            version: _,
            freshness,
            recovery,
            clock,
            endorsement,
            location,
            pcr,
            boot,
            alternative: _,
            ima,
            tee,
            rego,
        } = self;
        [freshness, recovery, clock, endorsement, location, pcr, boot, ima, tee, rego]
    }

    /// Every section but for those that speak of a boot.
    pub(super) fn sections_beside_boots(&self) -> [&dyn Section; 8] {
        let [freshness, recovery, clock, endorsement, location, _, _, ima, tee, rego] = self.sections();
        [freshness, recovery, clock, endorsement, location, ima, tee, rego]
    }

    /// Joins each section with the other policy's, but for those that speak of a boot.
    pub(super) fn join_sections(&mut self, other: &Policy) {
        let Policy {
            name: _,
            version: _,
            freshness,
            recovery,
            clock,
            endorsement,
            location,
            pcr: _,
            boot: _,
            alternative: _,
            ima,
            tee,
            rego,
        } = self;
        freshness.join(&other.freshness);
        recovery.join(&other.recovery);
        clock.join(&other.clock);
        endorsement.join(&other.endorsement);
        location.join(&other.location);
        ima.join(&other.ima);
        tee.join(&other.tee);
        rego.join(&other.rego);
    }

    /// Sorts each section that [`Policy::join_sections`] joins.
    pub(super) fn sort_sections(&mut self) {
        self.freshness.sort();
        self.recovery.sort();
        self.clock.sort();
        self.endorsement.sort();
        self.location.sort();
        self.ima.sort();
        self.tee.sort();
        self.rego.sort();
    }
}
