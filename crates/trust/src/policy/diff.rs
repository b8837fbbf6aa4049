//! What changes when one policy takes another's place: what is allowed from then on, what no longer is, and which
//! demands become stricter or looser.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::alternative::{Boot, Boots};
use super::choice::{Demanded, word};
use super::coverage::{Cover, Coverage, Row};
use super::list::{List, Lists, Role};
use super::section::Section;
use super::{Field, Policy};

/// One difference between two policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about.
    pub field: Field,
    /// What it means for a device.
    pub effect: Effect,
    /// The value, or both.
    pub value: String,
}

impl Change {
    fn of_boot(effect: Effect, value: String) -> Self {
        Change { field: Field::of(["alternative"]), effect, value }
    }
}

/// What a difference means for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The value is accepted, and was not.
    Allowed,
    /// The value was accepted, and no longer is.
    Refused,
    /// More is demanded.
    Stricter,
    /// Less is demanded.
    Looser,
    /// Nothing is accepted or refused by it.
    Changed,
}

/// Every difference from one policy to another; none between equal ones.
pub fn diff(from: &Policy, to: &Policy) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut changed = |field: Field, from: &dyn fmt::Display, to: &dyn fmt::Display| {
        changes.push(Change { field, effect: Effect::Changed, value: format!("{from} → {to}") });
    };
    if from.name != to.name {
        changed(Field::of(["name"]), &from.name, &to.name);
    }
    if from.version != to.version {
        changed(Field::of(["version"]), &from.version, &to.version);
    }
    for (old, new) in from.sections_beside_boots().into_iter().zip(to.sections_beside_boots()) {
        diff_section(old, new, &manufacturers(from, to), &mut changes);
    }
    diff_boots(&Boots::of(from), &Boots::of(to), &mut changes);
    diff_coverage(&Coverage::of(from), &Coverage::of(to), &mut changes);
    changes
}

/// A row that opens lets in more than any one field says, since what other fields demand may have stood on it.
fn diff_coverage(from: &Coverage, to: &Coverage, changes: &mut Vec<Change>) {
    for row in Row::ALL {
        let (old, new) = (from.cover(row), to.cover(row));
        let effect = match (old, new) {
            (Cover::Open, Cover::Ruled | Cover::Pinned) => Effect::Stricter,
            (Cover::Ruled | Cover::Pinned, Cover::Open) => Effect::Looser,
            _ => continue,
        };
        changes.push(Change {
            field: Field::of(["coverage", &word(row)]),
            effect,
            value: format!("{old} → {new}"),
        });
    }
}

/// Boots are accepted each as a whole. A single one that takes another's place is told field by field; of several, which
/// is accepted that was not and the other way round.
fn diff_boots(from: &Boots, to: &Boots, changes: &mut Vec<Change>) {
    let (gone, new) = (from.without(to), to.without(from));
    if let ([old], [new], 1, 1) = (gone.as_slice(), new.as_slice(), from.len(), to.len()) {
        changes.extend(diff_boot(*old, *new));
    } else {
        changes.extend(not_covered(&new, from).map(|value| Change::of_boot(Effect::Allowed, value)));
        changes.extend(not_covered(&gone, to).map(|value| Change::of_boot(Effect::Refused, value)));
    }
    let known = |boots: &Boots| {
        boots.iter().flat_map(|boot| boot.boot.events.values().map(|events| events.len())).sum::<usize>()
    };
    let events = |boots: &Boots| boots.iter().map(|boot| boot.boot.events.clone()).collect::<Vec<_>>();
    if gone.is_empty() && new.is_empty() && events(from) != events(to) || known(from) != known(to) {
        let value = format!("{} → {} descriptions of known events", known(from), known(to));
        changes.push(Change { field: Field::of(["boot", "events"]), effect: Effect::Changed, value });
    }
}

fn diff_boot(from: Boot<'_>, to: Boot<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (old, new) in from.sections().into_iter().zip(to.sections()) {
        diff_section(old, new, &[], &mut changes);
    }
    changes
}

/// Those boots of which something is accepted that none of the others accepts, by how they differ from the nearest.
fn not_covered(boots: &[Boot<'_>], others: &Boots) -> impl Iterator<Item = String> {
    let lets_in = |change: &&Change| matches!(change.effect, Effect::Allowed | Effect::Looser);
    boots.iter().filter_map(move |boot| {
        let apart = others.iter().map(|other| diff_boot(other, *boot));
        let nearest = apart.min_by_key(|changes| (changes.iter().filter(lets_in).count(), changes.len()))?;
        let fields: BTreeSet<String> = nearest.iter().map(|change| change.field.to_string()).collect();
        let is_covered = !nearest.iter().any(|change| lets_in(&change));
        (!is_covered).then(|| format!("a boot of its own, as a whole: it differs in {}", in_words(&fields)))
    })
}

/// The manufacturers that either policy has rules for.
fn manufacturers<'a>(from: &'a Policy, to: &'a Policy) -> Vec<&'a str> {
    let names: BTreeSet<&str> = [from, to]
        .into_iter()
        .flat_map(|policy| policy.endorsement.vendor.keys())
        .map(String::as_str)
        .collect();
    names.into_iter().collect()
}

fn diff_section(from: &dyn Section, to: &dyn Section, manufacturers: &[&str], changes: &mut Vec<Change>) {
    // Whether a section judges at all is one change, not one for each thing it says.
    if let (Some(old), Some(new)) = (from.presence(), to.presence())
        && old.is_there != new.is_there
    {
        let effect = if new.is_there { Effect::Stricter } else { Effect::Looser };
        let value = format!("{} → {}", old.words, new.words);
        return changes.push(Change { field: Field::of([to.key()]), effect, value });
    }
    for (old, new) in from.demands(manufacturers).into_iter().zip(to.demands(manufacturers)) {
        diff_demand(&old, &new, changes);
    }
    diff_lists(&from.lists(), &to.lists(), changes);
}

fn diff_demand(old: &Demanded, new: &Demanded, changes: &mut Vec<Change>) {
    let effects = [
        (Effect::Stricter, new.strictness.refuses_more_than(old.strictness)),
        (Effect::Looser, old.strictness.refuses_more_than(new.strictness)),
    ];
    for (effect, _) in effects.into_iter().filter(|(_, is_so)| *is_so) {
        let value = format!("{} → {}", old.word, new.word);
        changes.push(Change { field: new.field.clone(), effect, value });
    }
}

fn diff_lists(from: &Lists, to: &Lists, changes: &mut Vec<Change>) {
    let fields: BTreeSet<&Field> = from.fields().chain(to.fields()).collect();
    for field in fields {
        let (old, new) = (from.get(field), to.get(field));
        let Some(role) = old.or(new).map(|list| list.role) else { continue };
        let items = |list: Option<&List>| list.map_or_else(|| role.absent(), |list| list.items.clone());
        let mut say = |effect, value: String| changes.push(Change { field: field.clone(), effect, value });
        match (items(old), items(new)) {
            (None, None) => {}
            (None, Some(new)) => say(Effect::Stricter, format!("anything → {}", some_of(&new))),
            (Some(old), None) => say(Effect::Looser, format!("{} → anything", some_of(&old))),
            (Some(old), Some(new)) => {
                let (more, less) = match role {
                    Role::Accepts | Role::Restricts => (Effect::Allowed, Effect::Refused),
                    Role::Demands => (Effect::Stricter, Effect::Looser),
                };
                old.difference(&new).for_each(|item| say(less, item.clone()));
                new.difference(&old).for_each(|item| say(more, item.clone()));
            }
        }
    }
}

/// A few items of a list that nothing else is accepted of.
fn some_of(items: &BTreeSet<String>) -> String {
    format!("only {}", in_words(items))
}

/// A few items, and how many more there are.
fn in_words(items: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = items.iter().take(ITEMS_SHOWN_MAX).map(String::as_str).collect();
    let more = items.len().saturating_sub(ITEMS_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Allowed => "now allowed",
            Effect::Refused => "no longer allowed",
            Effect::Stricter => "stricter",
            Effect::Looser => "looser",
            Effect::Changed => "changed",
        })
    }
}

const ITEMS_SHOWN_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sample::policies;
    use proptest::prelude::*;

    const A: &str = "name = \"edge\"\nversion = 1\n[ima.allow]\n\"/a\" = [\"sha256:AA\", \"sha256:BB\"]\n";

    fn policy(text: &str) -> Policy {
        Policy::from_toml(&text.replace("AA", &"aa".repeat(32)).replace("BB", &"bb".repeat(32))).unwrap()
    }

    fn check(to: &str, expected: &[(&str, Effect, &str)]) {
        let mut changes = diff(&policy(A), &policy(to));
        changes.retain(|change| !change.field.starts_with("coverage"));
        let said: Vec<_> =
            changes.iter().map(|c| (c.field.to_string(), c.effect, c.value.as_str())).collect();
        let wanted: Vec<_> =
            expected.iter().map(|(f, effect, value)| ((*f).to_owned(), *effect, *value)).collect();
        assert_eq!(said, wanted);
    }

    #[test]
    fn what_becomes_allowed_and_what_no_longer_is() {
        let (aa, bb) = (format!("sha256:{}", "aa".repeat(32)), format!("sha256:{}", "bb".repeat(32)));
        check(
            "name = \"edge\"\nversion = 2\n[ima.allow]\n\"/a\" = [\"sha256:BB\"]\n\"/b\" = [\"sha256:BB\"]\n",
            &[
                ("version", Effect::Changed, "1 → 2"),
                ("ima.allow.\"/a\"", Effect::Refused, &aa),
                ("ima.allow.\"/b\"", Effect::Allowed, &bb),
            ],
        );
    }

    #[test]
    fn demands_become_stricter_and_looser() {
        let value = "aa".repeat(32);
        check(
            &format!(
                "{A}[boot]\nsecure_boot = \"optional\"\ndbx_contains = [\"sha256:AA\"]\n[freshness]\nevidence_age_max_seconds = 60\n\
                 [pcr.sha256]\n\"7\" = [\"AA\"]\n"
            ),
            &[
                ("freshness.evidence_age_max_seconds", Effect::Stricter, "300 → 60"),
                ("freshness.offline_max_seconds", Effect::Stricter, "300 → 60"),
                ("pcr.sha256.7", Effect::Stricter, &format!("anything → only {value}")),
                ("boot.secure_boot", Effect::Looser, "required → optional"),
                ("boot.dbx_contains", Effect::Stricter, &format!("sha256:{value}")),
            ],
        );
    }

    #[test]
    fn finding_13_a_longer_silence_is_looser() {
        let silence = |seconds: u64| {
            format!("{A}[freshness]\nevidence_age_max_seconds = 300\nunanswered_max_seconds = {seconds}\n")
        };
        check(&silence(90), &[("freshness.unanswered_max_seconds", Effect::Looser, "60 → 90")]);
        check(&silence(30), &[("freshness.unanswered_max_seconds", Effect::Stricter, "60 → 30")]);
    }

    #[test]
    fn finding_13_how_long_a_device_may_be_offline_is_said_or_is_the_age_of_its_evidence() {
        let offline = |seconds: u64| {
            format!("{A}[freshness]\nevidence_age_max_seconds = 300\noffline_max_seconds = {seconds}\n")
        };
        check(&offline(90), &[("freshness.offline_max_seconds", Effect::Stricter, "300 → 90")]);
        // Past the end of the evidence it bounds nothing.
        check(&offline(400), &[]);
    }

    #[test]
    fn a_row_that_opens_is_looser() {
        let pins = "[pcr.sha256]\n\"4\" = [\"AA\"]\n\"8\" = [\"AA\"]\n";
        let (closed, open) =
            (policy(&format!("{A}{pins}")), policy(&format!("{A}{}", pins.replace("\"4\"", "\"5\""))));
        let rows = |from, to| {
            let changes = diff(from, to).into_iter().filter(|change| change.field.starts_with("coverage"));
            changes.map(|change| (change.field.to_string(), change.effect)).collect::<Vec<_>>()
        };
        let names = ["boot-loader", "kernel", "command-line", "files"];
        let expected = |effect| names.map(|row| (format!("coverage.{row}"), effect)).to_vec();
        assert_eq!(rows(&closed, &open), expected(Effect::Looser));
        assert_eq!(rows(&open, &closed), expected(Effect::Stricter));
    }

    /// Pairs that were once called the same or stricter though more is accepted.
    #[test]
    fn what_accepts_more_in_one_place_and_less_in_another_is_looser() {
        let looser = |from: &str, to: &str| {
            let effects: Vec<_> =
                diff(&policy(from), &policy(to)).iter().map(|change| change.effect).collect();
            assert!(effects.contains(&Effect::Looser) || effects.contains(&Effect::Allowed), "{from} → {to}");
        };
        let boot = |lines: &str| format!("{A}[boot]\n{lines}\n");
        looser(
            &boot("kernel_command_lines = [\"/k-* ro\"]"),
            &boot("kernel_command_line_patterns = [\"/k-* ro\"]"),
        );
        looser(
            &boot("applications = [\"sha256:AA\"]"),
            &boot("applications = [\"sha256:AA\"]\nkernels = [\"sha256:BB\"]"),
        );
        let vouched = |kind: &str| format!("{A}[endorsement]\nrequired = \"{kind}\"\nek_sha256 = [\"AA\"]\n");
        looser(&vouched("allowlist"), &vouched("certificate"));
        looser(&vouched("certificate"), &vouched("allowlist"));
        looser(&vouched("both"), &vouched("either"));
    }

    #[test]
    fn files_that_are_no_longer_judged_are_one_change() {
        check(
            "name = \"edge\"\nversion = 1\n[pcr.sha256]\n\"7\" = [\"AA\"]\n",
            &[
                ("ima", Effect::Looser, "1 files allowed → files are not judged"),
                ("pcr.sha256.7", Effect::Stricter, &format!("anything → only {}", "aa".repeat(32))),
            ],
        );
    }

    proptest! {
        #[test]
        fn equal_policies_do_not_differ(policy in policies()) {
            prop_assert_eq!(diff(&policy, &policy), []);
        }

        #[test]
        fn the_way_back_undoes_each_change(a in policies(), b in policies()) {
            let count = |changes: &[Change], effect| changes.iter().filter(|c| c.effect == effect).count();
            let (there, back) = (diff(&a, &b), diff(&b, &a));
            prop_assert_eq!(there.len(), back.len());
            prop_assert_eq!(count(&there, Effect::Allowed), count(&back, Effect::Refused));
            prop_assert_eq!(count(&there, Effect::Stricter), count(&back, Effect::Looser));
        }
    }
}
