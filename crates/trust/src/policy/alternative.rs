//! The boots that a policy accepts, each as a whole: PCR values and what the log shows belong together, and half of one
//! boot with half of another is a third that nobody has seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::section::Section;
use super::section::boot::join_events;
use super::{BootSection, PcrSection, Policy, PolicyError};

/// A boot that a policy accepts beside the one in its own `[pcr]` and `[boot]`: `[alternative.pcr.sha256]` and
/// `[alternative.boot]` under `[[alternative]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// PCR values.
    #[serde(default, skip_serializing_if = "PcrSection::is_empty")]
    pub pcr: PcrSection,
    /// What the boot log shows.
    #[serde(default)]
    pub boot: BootSection,
}

/// One boot of a policy, wherever it is written.
#[derive(Clone, Copy)]
pub(crate) struct Boot<'a> {
    pub(crate) pcr: &'a PcrSection,
    pub(crate) boot: &'a BootSection,
}

/// Boots of any number of policies, each once, in one order whatever order they came in.
#[derive(Default)]
pub(super) struct Boots(BTreeMap<String, Alternative>);

impl Policy {
    /// The boots that are accepted, the policy's own first.
    pub(crate) fn boots(&self) -> impl Iterator<Item = Boot<'_>> {
        let own = Boot { pcr: &self.pcr, boot: &self.boot };
        let others = self.alternative.iter().map(|Alternative { pcr, boot }| Boot { pcr, boot });
        std::iter::once(own).chain(others)
    }

    /// Accepts these boots instead of its own, each once.
    pub(crate) fn accept_boots(&mut self, boots: &[Alternative]) {
        let mut all = Boots::default();
        boots.iter().for_each(|boot| all.insert(boot));
        all.put_into(self);
    }

    /// Whether it says more of the boot than what is demanded of every one.
    pub(super) fn speaks_of_boots(&self) -> bool {
        !self.pcr.is_empty() || self.boot != BootSection::default() || !self.alternative.is_empty()
    }

    pub(super) fn lint_alternatives(&self, errors: &mut Vec<PolicyError>) {
        let count = self.boots().count();
        if count > BOOTS_MAX {
            return errors.push(PolicyError::TooManyBoots { count });
        }
        for (number, boot) in self.boots().skip(1).enumerate() {
            let mut found = Vec::new();
            boot.sections().into_iter().for_each(|section| section.lint(&mut found));
            found.extend(boot.weakness());
            let of_alternative = |error| PolicyError::Alternative { number, error: Box::new(error) };
            errors.extend(found.into_iter().map(of_alternative));
        }
    }
}

impl<'a> Boot<'a> {
    /// The sections that speak of a boot.
    pub(super) fn sections(self) -> [&'a dyn Section; 2] {
        let Boot { pcr, boot } = self;
        [pcr, boot]
    }

    /// That it stands on SHA-1 alone, of which collisions can be made.
    pub(super) fn weakness(self) -> Option<PolicyError> {
        (self.pcr.is_weak() && !self.boot.measures()).then_some(PolicyError::WeakBankAlone)
    }

    /// The same text for boots that accept the same: in one order, and without descriptions of events.
    fn key(self) -> String {
        serde_json::to_string(&self.plain()).expect("every key of a policy is text")
    }

    fn plain(self) -> Alternative {
        let mut plain = Alternative { pcr: self.pcr.clone(), boot: self.boot.without_events() };
        plain.pcr.sort();
        plain.boot.sort();
        plain
    }
}

impl Boots {
    /// The boots of one policy.
    pub(super) fn of(policy: &Policy) -> Self {
        let mut boots = Boots::default();
        boots.add(policy);
        boots
    }

    /// The boots of several policies. One that says nothing of the boot would accept every boot that shows Secure Boot; as
    /// long as others say something, theirs are what is good.
    pub(super) fn of_all(policies: &[Policy]) -> Self {
        let mut boots = Boots::default();
        policies.iter().filter(|policy| policy.speaks_of_boots()).for_each(|policy| boots.add(policy));
        if boots.0.is_empty() {
            policies.iter().for_each(|policy| boots.add(policy));
        }
        boots
    }

    /// Adds those of a policy that are not there yet; of equal ones the descriptions are joined.
    fn add(&mut self, policy: &Policy) {
        policy.boots().for_each(|boot| self.add_boot(boot));
    }

    fn add_boot(&mut self, boot: Boot<'_>) {
        let added = self.0.entry(boot.key()).or_insert_with(|| boot.plain());
        join_events(&mut added.boot.events, &boot.boot.events);
    }

    /// Adds one more.
    pub(super) fn insert(&mut self, Alternative { pcr, boot }: &Alternative) {
        self.add_boot(Boot { pcr, boot });
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&mut self, Alternative { pcr, boot }: &Alternative) {
        self.0.remove(&Boot { pcr, boot }.key());
    }

    /// Makes them the boots of a policy; without any it keeps its own.
    pub(super) fn put_into(self, policy: &mut Policy) {
        let mut boots = self.0.into_values();
        if let Some(Alternative { pcr, boot }) = boots.next() {
            (policy.pcr, policy.boot, policy.alternative) = (pcr, boot, boots.collect());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that the others do not have.
    pub(super) fn without<'a>(&'a self, others: &Boots) -> Vec<Boot<'a>> {
        let new = self.0.iter().filter(|(key, _)| !others.0.contains_key(*key));
        new.map(|(_, Alternative { pcr, boot })| Boot { pcr, boot }).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Boot<'_>> {
        self.0.values().map(|Alternative { pcr, boot }| Boot { pcr, boot })
    }
}

/// Each is judged for each device that no earlier one accepts. A roll-out has two; a merge of policies for as many kinds
/// of machine one for each.
pub const BOOTS_MAX: usize = 16;
