//! One policy out of several: a device that each of them is meant for should pass.
//!
//! Lists hold what any of them lists. A demand holds if any of them makes it, and where only some have a list at all,
//! that list holds for all; each such case is said. A boot is good if it is, as a whole, what one of them says: see
//! `alternative.rs`.

use super::alternative::Boots;
use super::list::Role;
use super::section::Section;
use super::{Field, Policy, PolicyError, Remark, Severity};

/// A merged policy, and where one policy's word held over another's.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The policy.
    pub policy: Policy,
    /// Every case in which the policies did not agree on what is demanded.
    pub remarks: Vec<Remark>,
}

/// Merges policies, in whatever order; the version is the highest.
pub fn merge(name: &str, policies: &[Policy]) -> Result<Merged, PolicyError> {
    let Some((first, others)) = policies.split_first() else { return Err(PolicyError::MeasuresNothing) };
    let mut policy = Policy { name: name.to_owned(), ..first.clone() };
    for other in others {
        policy.version = policy.version.max(other.version);
        policy.join_sections(other);
    }
    policy.sort_sections();
    Boots::of_all(policies).put_into(&mut policy);
    match policy.lint().into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Merged { remarks: disagreements(&policy, policies), policy }),
    }
}

fn disagreements(merged: &Policy, policies: &[Policy]) -> Vec<Remark> {
    let apart: Vec<_> = policies.iter().map(|policy| (policy, policy.sections_beside_boots())).collect();
    let mut remarks = Vec::new();
    remarks.extend(of_boots(merged, policies));
    for (number, section) in merged.sections_beside_boots().into_iter().enumerate() {
        let of_each = apart.iter().filter_map(|(policy, sections)| Some((*policy, *sections.get(number)?)));
        let question = Question { merged, section, apart: of_each.collect() };
        question.demands(&mut remarks);
        if question.is_judged_by_all(&mut remarks) {
            question.lists(&mut remarks);
        }
    }
    remarks
}

/// Whose word on the boot holds for whom.
fn of_boots(merged: &Policy, policies: &[Policy]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let (with, without): (Vec<&Policy>, Vec<&Policy>) =
        policies.iter().partition(|policy| policy.speaks_of_boots());
    if !with.is_empty() && !without.is_empty() {
        let message = format!(
            "only boots as {} says are accepted from devices of {} as well, which says nothing of the boot",
            names(with.iter().copied()),
            names(without)
        );
        remarks.push(Remark::new(Severity::Warning, Field::of(["boot"]), message));
    }
    let boots = merged.boots().count();
    if with.iter().any(|policy| Boots::of(policy).len() < boots) {
        let message = format!(
            "{boots} boots are accepted, each as a whole: every device has to have booted as one of {} says",
            names(with)
        );
        remarks.push(Remark::new(Severity::Note, Field::of(["alternative"]), message));
    }
    remarks
}

/// One section of the merged policy, and the same of each policy that went into it.
struct Question<'a> {
    merged: &'a Policy,
    section: &'a dyn Section,
    apart: Vec<(&'a Policy, &'a dyn Section)>,
}

impl Question<'_> {
    /// Whose demand holds where they demand different things.
    fn demands(&self, remarks: &mut Vec<Remark>) {
        let manufacturers: Vec<&str> = self.merged.endorsement.vendor.keys().map(String::as_str).collect();
        let apart: Vec<_> =
            self.apart.iter().map(|(policy, section)| (policy, section.demands(&manufacturers))).collect();
        for held in self.section.demands(&manufacturers) {
            let (mut by, mut others) = (Vec::new(), Vec::new());
            for (policy, demands) in &apart {
                match demands.iter().find(|demand| demand.field == held.field) {
                    Some(demand) if demand.strictness == held.strictness => by.push(policy.citation()),
                    Some(demand) => others.push(format!("{} says {}", policy.citation(), demand.word)),
                    None => {}
                }
            }
            if others.is_empty() {
                continue;
            }
            let by = match by.is_empty() {
                // Demands of several that only a third meets.
                true => "which meets all of them".to_owned(),
                false => format!("as {} says", by.join(" and ")),
            };
            let message = format!("{}, {by}; {}", held.word, others.join(", "));
            remarks.push(Remark::new(Severity::Note, held.field, message));
        }
    }

    /// Whether no policy leaves the section out; says which do.
    fn is_judged_by_all(&self, remarks: &mut Vec<Remark>) -> bool {
        let judges = |section: &dyn Section| section.presence().is_none_or(|presence| presence.is_there);
        let (with, without): (Vec<_>, Vec<_>) =
            self.apart.iter().copied().partition(|(_, section)| judges(*section));
        if !judges(self.section) || without.is_empty() {
            return judges(self.section);
        }
        let [with, without] = [with, without].map(|some| names(some.into_iter().map(|(policy, _)| policy)));
        let message = format!("files are judged, as {with} does; {without} did not judge them");
        remarks.push(Remark::new(Severity::Warning, Field::of([self.section.key()]), message));
        true
    }

    /// Which lists hold for devices of policies that have none, or another one.
    fn lists(&self, remarks: &mut Vec<Remark>) {
        let apart: Vec<_> = self
            .apart
            .iter()
            .filter(|(_, section)| section.presence().is_none_or(|presence| presence.is_there))
            .map(|(policy, section)| (*policy, section.lists()))
            .collect();
        let merged = self.section.lists();
        for (field, list) in merged.iter().filter(|(field, _)| !is_per_file(field)) {
            let (mut with, mut without, mut differs) = (Vec::new(), Vec::new(), false);
            for (policy, lists) in &apart {
                let items = lists.get(field).map_or_else(|| list.role.absent(), |list| list.items.clone());
                differs |= items != list.items;
                if items.is_some() { with.push(*policy) } else { without.push(*policy) }
            }
            if list.role == Role::Restricts && list.items.is_some() && !without.is_empty() {
                let message = format!(
                    "only what {} lists is accepted from devices of {} as well, which listed nothing",
                    names(with),
                    names(without)
                );
                remarks.push(Remark::new(Severity::Warning, field.clone(), message));
            } else if field.starts_with("ima") && differs {
                let message = "what any of them has counts for all";
                remarks.push(Remark::new(Severity::Note, field.clone(), message));
            }
        }
    }
}

/// A list of a single file or keyring is no demand on other devices.
fn is_per_file(field: &Field) -> bool {
    field.starts_with("ima") && field.len() > 2
}

fn names<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> String {
    policies.into_iter().map(Policy::citation).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::diff::{Effect, diff};
    use crate::policy::sample::policies;
    use proptest::prelude::*;

    fn policy(name: &str, rest: &str) -> Policy {
        let text = format!("name = \"{name}\"\nversion = 1\n{rest}");
        Policy::from_toml(&text.replace("AA", &"aa".repeat(32)).replace("BB", &"bb".repeat(32))).unwrap()
    }

    #[test]
    fn lists_are_joined_and_the_stricter_demand_holds() {
        let a = policy("a", "[boot]\nsecure_boot = \"optional\"\n[ima.allow]\n\"/a\" = [\"sha256:AA\"]\n");
        let b = policy("b", "[pcr.sha256]\n\"7\" = [\"AA\"]\n[ima.allow]\n\"/a\" = [\"sha256:BB\"]\n");
        let merged = merge("both", &[a, b]).unwrap();
        assert_eq!(merged.policy.ima.as_ref().unwrap().allow.get("/a").unwrap().len(), 2);
        let said: Vec<_> = merged.remarks.iter().map(|r| format!("{}: {}", r.field, r.message)).collect();
        assert_eq!(
            said,
            [
                "alternative: 2 boots are accepted, each as a whole: every device has to have booted as one of a v1 and b v1 says",
            ]
        );
    }

    #[test]
    fn a_policy_that_says_nothing_of_the_boot_opens_none() {
        let files = policy("a", "[ima.allow]\n\"/a\" = [\"sha256:AA\"]\n");
        let boot = policy("b", "[pcr.sha256]\n\"7\" = [\"AA\"]\n");
        let merged = merge("both", &[files, boot.clone()]).unwrap();
        assert_eq!((merged.policy.alternative, merged.policy.pcr), (Vec::new(), boot.pcr));
        let said: Vec<_> = merged.remarks.iter().map(|r| format!("{}: {}", r.field, r.message)).collect();
        assert_eq!(
            said,
            [
                "boot: only boots as b v1 says are accepted from devices of a v1 as well, which says nothing of the boot",
                "ima: files are judged, as a v1 does; b v1 did not judge them",
            ]
        );
    }

    #[test]
    fn nothing_merges_to_nothing() {
        assert_eq!(merge("none", &[]).unwrap_err(), PolicyError::MeasuresNothing);
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter(a in policies(), b in policies(), c in policies()) {
            let one = merge("m", &[a.clone(), b.clone(), c.clone()]).unwrap().policy;
            prop_assert_eq!(&one, &merge("m", &[c.clone(), a.clone(), b.clone()]).unwrap().policy);
            let pair = merge("m", &[a, b]).unwrap().policy;
            prop_assert_eq!(&one, &merge("m", &[pair, c]).unwrap().policy);
        }

        #[test]
        fn a_policy_merged_with_itself_is_itself(a in policies()) {
            let merged = merge(&a.name, &[a.clone(), a.clone()]).unwrap();
            prop_assert_eq!(diff(&a, &merged.policy), []);
            prop_assert!(merged.remarks.is_empty(), "{:?}", merged.remarks);
        }

        #[test]
        fn what_is_listed_stays_and_no_demand_is_loosened(a in policies(), b in policies()) {
            let merged = merge(&a.name, &[a.clone(), b]).unwrap().policy;
            // What the other's boots leave open is open in the merge.
            let of_boots = |c: &crate::policy::Change| c.field.starts_with("coverage");
            let mut changes = diff(&a, &merged).into_iter().filter(|c| !of_boots(c));
            let taken = changes.find(|c| matches!(c.effect, Effect::Refused | Effect::Looser));
            prop_assert_eq!(taken, None);
        }

        #[test]
        fn what_is_written_is_read_again(a in policies(), b in policies()) {
            let merged = merge("m", &[a, b]).unwrap().policy;
            prop_assert_eq!(Policy::from_toml(&merged.to_toml()).unwrap(), merged);
        }
    }
}
