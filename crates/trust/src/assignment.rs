//! Which policy is in force for which device: a plan of assignments, each of a policy to the devices that a selector
//! means.
//!
//! A device gets the assignment whose selector asks for the most labels. A plan in which two such selectors could mean
//! the same device cannot be made, so each device has exactly one policy, or none. Every change makes another plan, or
//! says why not; `rollout.rs` has those of a roll-out.

use assay_identity::SpiffeId;
use thiserror::Error;

use crate::labels::{Labels, Selector};
use crate::rollout::{Percent, Rollout};

/// Every assignment there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Those that ask for the most labels first.
    assignments: Vec<Assignment>,
}

/// A policy for the devices that a selector means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Whom it is for.
    pub selector: Selector,
    /// The policy's name.
    pub name: String,
    /// The policy in force; while one is rolled out, the one it takes the place of.
    pub revision: u64,
    /// The policy that is taking its place, if one is.
    pub rollout: Option<Rollout>,
}

/// Why a plan cannot become another.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Two selectors that are equally specific and can mean the same device.
    #[error(
        "{one} and {other} ask for equally many labels, and a device may have them all: first assign a policy to \
         {both}, then there is no doubt"
    )]
    Ambiguous {
        /// One selector.
        one: Selector,
        /// Another.
        other: Selector,
        /// What would decide.
        both: Labels,
    },
    /// More assignments than there may be.
    #[error("there are {ASSIGNMENTS_MAX} assignments already, and no more may be: assay policy unassign")]
    TooMany,
    /// Nothing is assigned to this selector itself.
    #[error("no policy is assigned to {}: assay policy list shows what is", selector.whom())]
    NotAssigned {
        /// The selector.
        selector: Selector,
    },
    /// What is in force there is called something else.
    #[error(
        "{assigned} is in force for {}, and {offered} is another policy: a roll-out takes a policy to its next version; \
         give the file the name, or put it in force with assay policy set",
        selector.whom()
    )]
    OtherName {
        /// The selector.
        selector: Selector,
        /// The policy assigned to it.
        assigned: String,
        /// The policy that was to be rolled out.
        offered: String,
    },
    /// A roll-out has to end first.
    #[error("{name} is being rolled out: finish or abort that first (assay policy rollout status)")]
    UnderWay {
        /// The policy.
        name: String,
    },
    /// Nothing of this name is being rolled out.
    #[error("no policy {name} is being rolled out: assay policy rollout status shows what is")]
    NoRollout {
        /// The name.
        name: String,
    },
    /// A roll-out only ever reaches more devices.
    #[error("{name} is rolled out to {now} % already: give more, or abort it")]
    NotWider {
        /// The policy.
        name: String,
        /// How far it is.
        now: Percent,
    },
}

impl Plan {
    /// Makes a plan of assignments, if no device could be meant by two of them alike.
    pub fn new(mut assignments: Vec<Assignment>) -> Result<Plan, PlanError> {
        if assignments.len() > ASSIGNMENTS_MAX {
            return Err(PlanError::TooMany);
        }
        assignments.sort_by(|one, other| {
            (other.selector.len(), &one.selector).cmp(&(one.selector.len(), &other.selector))
        });
        let plan = Plan { assignments };
        match plan.ambiguity() {
            Some(error) => Err(error),
            None => Ok(plan),
        }
    }

    /// Two selectors of equal weight for one device, unless a third outweighs both wherever they meet.
    fn ambiguity(&self) -> Option<PlanError> {
        for (number, one) in self.assignments.iter().enumerate() {
            let weight = one.selector.len();
            let equals =
                self.assignments.iter().skip(number + 1).take_while(|other| other.selector.len() == weight);
            for other in equals {
                let Some(both) = one.selector.both(&other.selector) else { continue };
                if self.of(&both).is_none_or(|decides| decides.selector.len() == weight) {
                    let (one, other) = (one.selector.clone(), other.selector.clone());
                    return Some(PlanError::Ambiguous { one, other, both });
                }
            }
        }
        None
    }

    /// The assignments; those that ask for the most labels first.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// What a device with these labels is assigned.
    pub fn of(&self, labels: &Labels) -> Option<&Assignment> {
        self.assignments.iter().find(|assignment| assignment.selector.matches(labels))
    }

    /// The revision of the policy that judges a device; `None`: none does, and nothing is granted.
    pub fn revision_for(&self, device: &SpiffeId, labels: &Labels) -> Option<u64> {
        self.of(labels).map(|assignment| assignment.revision_for(device))
    }

    /// What is assigned to a selector itself.
    pub fn assigned(&self, selector: &Selector) -> Result<&Assignment, PlanError> {
        let found = self.assignments.iter().find(|assignment| assignment.selector == *selector);
        found.ok_or_else(|| PlanError::NotAssigned { selector: selector.clone() })
    }

    /// Every revision that judges some device, or would if it enrolled.
    pub fn revisions(&self) -> impl Iterator<Item = u64> {
        self.assignments.iter().flat_map(Assignment::revisions)
    }

    /// Puts a policy in force for whom the selector means.
    pub fn assign(&self, selector: &Selector, name: &str, revision: u64) -> Result<Plan, PlanError> {
        if let Ok(Assignment { name, rollout: Some(_), .. }) = self.assigned(selector) {
            return Err(PlanError::UnderWay { name: name.clone() });
        }
        let (selector, name) = (selector.clone(), name.to_owned());
        self.with(Assignment { selector, name, revision, rollout: None })
    }

    /// Takes an assignment back: who had it gets the next best one, or none.
    pub fn unassign(&self, selector: &Selector) -> Result<Plan, PlanError> {
        let assigned = self.assigned(selector)?;
        if assigned.rollout.is_some() {
            return Err(PlanError::UnderWay { name: assigned.name.clone() });
        }
        Plan::new(self.others(selector).collect())
    }

    /// The plan with this assignment in place of the one to the same selector.
    pub(crate) fn with(&self, assignment: Assignment) -> Result<Plan, PlanError> {
        Plan::new(self.others(&assignment.selector).chain([assignment.clone()]).collect())
    }

    fn others(&self, selector: &Selector) -> impl Iterator<Item = Assignment> {
        self.assignments.iter().filter(move |assignment| assignment.selector != *selector).cloned()
    }
}

impl Assignment {
    /// The revision of the policy that judges a device of this assignment.
    pub fn revision_for(&self, device: &SpiffeId) -> u64 {
        match &self.rollout {
            Some(rollout) if rollout.includes(device) => rollout.union,
            _ => self.revision,
        }
    }

    /// The policy in force, and those of its roll-out.
    pub fn revisions(&self) -> impl Iterator<Item = u64> {
        let rollout = self.rollout.iter().flat_map(|rollout| [rollout.union, rollout.new]);
        std::iter::once(self.revision).chain(rollout)
    }
}

/// Selectors are compared pair by pair whenever the plan changes.
const ASSIGNMENTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        text.parse().unwrap()
    }

    fn plan(selectors: &[&str]) -> Result<Plan, PlanError> {
        let mut plan = Plan::default();
        for (number, text) in selectors.iter().enumerate() {
            plan = plan.assign(&selector(text), &format!("policy-{number}"), number as u64 + 1)?;
        }
        Ok(plan)
    }

    fn check(plan: &Plan, labels: &str, expected: Option<u64>) {
        let device = SpiffeId::parse("spiffe://td/device").unwrap();
        assert_eq!(plan.revision_for(&device, &labels.parse().unwrap()), expected, "{labels}");
    }

    #[test]
    fn the_selector_with_the_most_labels_decides() {
        let plan = plan(&["", "site=paris", "site=paris,line=3", "site=lyon"]).unwrap();
        check(&plan, "", Some(1));
        check(&plan, "site=metz", Some(1));
        check(&plan, "site=paris", Some(2));
        check(&plan, "site=paris,line=4", Some(2));
        check(&plan, "site=paris,line=3,model=x", Some(3));
        check(&plan, "site=lyon", Some(4));
        let plan = plan.unassign(&selector("site=paris,line=3")).unwrap();
        check(&plan, "site=paris,line=3", Some(2));
        let plan = plan.unassign(&selector("")).unwrap();
        check(&plan, "site=metz", None);
        assert_eq!(plan.revisions().collect::<Vec<_>>(), [4, 2]);
    }

    #[test]
    fn two_selectors_that_could_mean_one_device_alike_need_a_third() {
        let error = plan(&["site=paris", "line=3"]).unwrap_err();
        assert!(error.to_string().contains("assign a policy to line=3,site=paris"), "{error}");
        let decided = plan(&["site=paris", "line=3,site=paris", "line=3"]).unwrap();
        check(&decided, "site=paris,line=3", Some(2));
        let undecided = decided.unassign(&selector("line=3,site=paris")).unwrap_err();
        assert!(matches!(undecided, PlanError::Ambiguous { .. }), "{undecided}");
        // Values of one key exclude each other.
        assert!(plan(&["site=paris", "site=lyon", "site=metz,line=3", "site=lyon,line=3"]).is_ok());
    }

    #[test]
    fn selectors_that_no_device_has_the_labels_for_do_not_compete() {
        let labels = |prefix: char| (0..9).map(|n| format!("{prefix}{n}=1")).collect::<Vec<_>>().join(",");
        assert!(plan(&[&labels('a'), &labels('b')]).is_ok());
    }

    #[test]
    fn assignments_are_bounded() {
        let texts: Vec<String> = (0..=ASSIGNMENTS_MAX).map(|number| format!("site={number}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(plan(&texts), Err(PlanError::TooMany));
        assert!(plan(&texts[1..]).is_ok());
    }

    #[test]
    fn what_is_not_assigned_cannot_be_taken_back() {
        let error = plan(&[""]).unwrap().unassign(&selector("site=paris")).unwrap_err();
        assert_eq!(error, PlanError::NotAssigned { selector: selector("site=paris") });
    }
}
