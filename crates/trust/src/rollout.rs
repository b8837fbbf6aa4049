//! Roll-outs: how a policy takes another's place without any device falling.
//!
//! From *old* over *old or new*, under which a device is good before and after its update, to *new*. The middle one
//! reaches the fleet by percent, in an order that depends on nothing but the device and the roll-out.

use std::fmt;

use assay_evidence::HashAlgorithm;
use assay_identity::SpiffeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::assignment::{Assignment, Plan, PlanError};
use crate::labels::Selector;
use crate::policy::{Change, Effect, Policy, PolicyError, diff, merge};

/// A policy on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Tells roll-outs apart, so that it is not always the same devices that come first.
    pub id: u64,
    /// The revision under which a device is good before and after its update.
    pub union: u64,
    /// The revision that will be in force in the end.
    pub new: u64,
    /// How many of the assignment's devices the union judges.
    pub percent: Percent,
}

/// A share of a fleet, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Percent(u8);

/// Why a number is no percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("percent: {0} is out of range: give 1 to 100")]
pub struct PercentError(u64);

/// The policy between old and new.
#[derive(Clone, Debug)]
pub struct Union {
    /// What any of both accepts.
    pub policy: Policy,
    /// What it refuses of devices that pass one of both alone.
    pub strains: Vec<Strain>,
}

/// Something that a union refuses, and one of its parts does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Strain {
    /// The part.
    pub part: Part,
    /// What becomes stricter for devices that pass it.
    pub change: Change,
}

/// What a union is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The version in force.
    Old,
    /// The version that takes its place.
    New,
}

/// Makes the policy under which devices should be good before and after the update.
///
/// A boot is good if it is what one of both says, as a whole. Lists of files and keys are joined, since a device amid its
/// update has run old and new programs. Of two other demands the stricter one holds: a device that passes one policy
/// alone may fall.
pub fn unite(old: &Policy, new: &Policy) -> Result<Union, PolicyError> {
    let policy = merge(&new.name, &[old.clone(), new.clone()])?.policy;
    let parts = [(Part::Old, old), (Part::New, new)];
    let strains = parts.into_iter().flat_map(|(part, alone)| strains(part, alone, &policy)).collect();
    Ok(Union { policy, strains })
}

impl fmt::Display for Strain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Strain { part, change } = self;
        let part = match part {
            Part::Old => "old",
            Part::New => "new",
        };
        write!(f, "{} for devices of the {part} version: {} ({})", change.field, change.value, change.effect)
    }
}

fn strains(part: Part, alone: &Policy, union: &Policy) -> Vec<Strain> {
    let harms = |change: &Change| matches!(change.effect, Effect::Refused | Effect::Stricter);
    let harmful = diff(alone, union).into_iter().filter(harms);
    harmful.map(|change| Strain { part, change }).collect()
}

impl Rollout {
    /// Whether a device of the assignment is judged by the union already.
    pub fn includes(&self, device: &SpiffeId) -> bool {
        place(self.id, device) < self.percent.0
    }
}

/// A device's place in a roll-out, 0 to 99. Whoever is in at some percentage is in at any higher one.
fn place(id: u64, device: &SpiffeId) -> u8 {
    let hash = HashAlgorithm::Sha256.hash(&[PLACE_DOMAIN, &id.to_be_bytes(), device.as_str().as_bytes()]);
    let draw = hash.as_bytes().iter().take(8).fold(0_u64, |draw, byte| draw << 8 | u64::from(*byte));
    u8::try_from((u128::from(draw) * u128::from(Percent::ALL.0)) >> 64).unwrap_or(u8::MAX)
}

impl Percent {
    /// Everyone.
    pub const ALL: Percent = Percent(100);
}

impl TryFrom<u64> for Percent {
    type Error = PercentError;

    fn try_from(number: u64) -> Result<Self, PercentError> {
        match u8::try_from(number) {
            Ok(percent @ 1..=100) => Ok(Percent(percent)),
            _ => Err(PercentError(number)),
        }
    }
}

impl From<Percent> for u64 {
    fn from(percent: Percent) -> Self {
        percent.0.into()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Plan {
    /// Begins to take a policy to its next version for those it is assigned to.
    pub fn start(&self, selector: &Selector, name: &str, rollout: Rollout) -> Result<Plan, PlanError> {
        self.may_start(selector, name)?;
        self.with(Assignment { rollout: Some(rollout), ..self.assigned(selector)?.clone() })
    }

    /// Whether a roll-out of this policy could begin there; what is assigned.
    pub fn may_start(&self, selector: &Selector, name: &str) -> Result<&Assignment, PlanError> {
        let assigned = self.assigned(selector)?;
        if assigned.name != name {
            let (assigned, offered) = (assigned.name.clone(), name.to_owned());
            return Err(PlanError::OtherName { selector: selector.clone(), assigned, offered });
        }
        match self.rolled_out(name) {
            Ok(_) => Err(PlanError::UnderWay { name: name.to_owned() }),
            Err(_) => Ok(assigned),
        }
    }

    /// Lets the union judge more devices.
    pub fn widen(&self, name: &str, percent: Percent) -> Result<Plan, PlanError> {
        let (assigned, rollout) = self.rolled_out(name)?;
        if percent <= rollout.percent {
            return Err(PlanError::NotWider { name: name.to_owned(), now: rollout.percent });
        }
        self.with(Assignment { rollout: Some(Rollout { percent, ..rollout }), ..assigned.clone() })
    }

    /// Puts the new version in force, alone and for everyone it is assigned to.
    pub fn finish(&self, name: &str) -> Result<Plan, PlanError> {
        let (assigned, rollout) = self.rolled_out(name)?;
        self.with(Assignment { revision: rollout.new, rollout: None, ..assigned.clone() })
    }

    /// Leaves the version in force that was.
    pub fn abort(&self, name: &str) -> Result<Plan, PlanError> {
        let (assigned, _) = self.rolled_out(name)?;
        self.with(Assignment { rollout: None, ..assigned.clone() })
    }

    /// Puts other revisions in the place of an assignment's; how far a roll-out is stays as it is.
    pub fn revise(&self, selector: &Selector, revised: impl Fn(u64) -> u64) -> Result<Plan, PlanError> {
        let mut assigned = self.assigned(selector)?.clone();
        assigned.revision = revised(assigned.revision);
        if let Some(rollout) = &mut assigned.rollout {
            (rollout.union, rollout.new) = (revised(rollout.union), revised(rollout.new));
        }
        self.with(assigned)
    }

    /// The assignment whose policy of this name is being rolled out; there is at most one.
    pub fn rolled_out(&self, name: &str) -> Result<(&Assignment, Rollout), PlanError> {
        let under_way = |assigned| rollout_of(assigned).filter(|(assigned, _)| assigned.name == name);
        let found = self.assignments().iter().find_map(under_way);
        found.ok_or_else(|| PlanError::NoRollout { name: name.to_owned() })
    }
}

fn rollout_of(assigned: &Assignment) -> Option<(&Assignment, Rollout)> {
    assigned.rollout.map(|rollout| (assigned, rollout))
}

/// Keeps this hash from being a hash of anything else.
const PLACE_DOMAIN: &[u8] = b"assay-rollout-place-v1";

#[cfg(test)]
mod tests;
