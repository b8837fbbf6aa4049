//! One policy out of several: a device that each of them is meant for should pass.
//!
//! Lists hold what any of them lists. A demand holds if any of them makes it, and where only some have a list at all,
//! that list holds for all; each such case is said.

use std::collections::BTreeSet;

use super::demands::{Role, Strictness, absent, demands, lists};
use super::{
    BootSection, EndorsementSection, ImaSection, PcrSection, Policy, PolicyError, Remark, Severity,
    VendorRule,
};
use crate::policy::Field;
use crate::region::RegionList;

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
        join(&mut policy, other);
    }
    sort(&mut policy);
    match policy.lint().into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Merged { remarks: disagreements(&policy, policies), policy }),
    }
}

fn join(policy: &mut Policy, other: &Policy) {
    policy.version = policy.version.max(other.version);
    let age = &mut policy.freshness.evidence_age_max_seconds;
    *age = (*age).min(other.freshness.evidence_age_max_seconds);
    stricter(&mut policy.recovery.mode, other.recovery.mode);
    stricter(&mut policy.clock.unsafe_clock, other.clock.unsafe_clock);
    join_endorsement(&mut policy.endorsement, &other.endorsement);
    for (_, index, values) in other.pcr.iter() {
        values.iter().for_each(|value| policy.pcr.allow(index, *value));
    }
    join_option(&mut policy.location, &other.location, join_regions);
    join_boot(&mut policy.boot, &other.boot);
    join_option(&mut policy.ima, &other.ima, join_files);
    // Each module is judged by itself, and what any of them denies is denied.
    join_option(&mut policy.rego, &other.rego, |rego, other| rego.modules.extend_from_slice(&other.modules));
}

fn join_endorsement(endorsement: &mut EndorsementSection, other: &EndorsementSection) {
    let names: BTreeSet<String> = endorsement.vendor.keys().chain(other.vendor.keys()).cloned().collect();
    for name in names {
        // Whoever has no rule of its own for a manufacturer demands of it what it demands of all.
        let (mine, theirs) = (endorsement.rule(Some(&name)), other.rule(Some(&name)));
        let said = |section: &EndorsementSection| {
            section.vendor.get(&name).is_some_and(|rule| rule.required.is_some())
        };
        let required = mine.required.zip(theirs.required).map(|(mine, theirs)| mine.and(theirs));
        let rule = VendorRule {
            required: required.filter(|_| said(endorsement) || said(other)),
            firmware_version_min: mine.firmware_version_min.max(theirs.firmware_version_min),
        };
        endorsement.vendor.insert(name, rule);
    }
    endorsement.required = endorsement.required.and(other.required);
    stricter(&mut endorsement.stale_crl, other.stale_crl);
    stricter(&mut endorsement.idevid, other.idevid);
    endorsement.manufacturers.extend_from_slice(&other.manufacturers);
    endorsement.ek_sha256.extend_from_slice(&other.ek_sha256);
}

fn join_boot(boot: &mut BootSection, other: &BootSection) {
    stricter(&mut boot.event_log, other.event_log);
    stricter(&mut boot.secure_boot, other.secure_boot);
    join_lists(&mut boot.kernel_command_lines, &other.kernel_command_lines);
    boot.kernel_command_line_patterns.extend_from_slice(&other.kernel_command_line_patterns);
    join_lists(&mut boot.applications, &other.applications);
    join_lists(&mut boot.kernels, &other.kernels);
    join_lists(&mut boot.signers, &other.signers);
    join_lists(&mut boot.firmware_versions, &other.firmware_versions);
    boot.dbx_contains.extend_from_slice(&other.dbx_contains);
    boot.dbx_entries_min = boot.dbx_entries_min.max(other.dbx_entries_min);
    for (pcr, events) in &other.events {
        let known = boot.events.entry(*pcr).or_default();
        for (digest, remark) in events {
            // Of two descriptions one is as good as the other, but it has to be the same one in any order.
            let description = known.entry(*digest).or_insert_with(|| remark.clone());
            if remark < description {
                description.clone_from(remark);
            }
        }
    }
}

fn join_files(ima: &mut ImaSection, other: &ImaSection) {
    stricter(&mut ima.list, other.list);
    stricter(&mut ima.violations, other.violations);
    ima.weakest_digest = ima.weakest_digest.max(other.weakest_digest);
    ima.exclude.extend_from_slice(&other.exclude);
    ima.signing_keys.extend_from_slice(&other.signing_keys);
    for (keyring, digests) in &other.keyrings {
        ima.keyrings.entry(keyring.clone()).or_default().extend_from_slice(digests);
    }
    for (path, digests) in &other.allow {
        ima.allow.entry(path.clone()).or_default().extend_from_slice(digests);
    }
}

fn join_regions(regions: &mut RegionList, other: &RegionList) {
    regions.allow_countries.extend_from_slice(&other.allow_countries);
    regions.allow_subdivisions.extend_from_slice(&other.allow_subdivisions);
    regions.allow_cities.extend_from_slice(&other.allow_cities);
}

/// An absent list demands nothing, so one that is there holds.
fn join_option<T: Clone>(mine: &mut Option<T>, other: &Option<T>, join: impl FnOnce(&mut T, &T)) {
    match (mine, other) {
        (Some(mine), Some(other)) => join(mine, other),
        (mine @ None, other) => mine.clone_from(other),
        (Some(_), None) => {}
    }
}

fn join_lists<T: Clone>(mine: &mut Option<Vec<T>>, other: &Option<Vec<T>>) {
    join_option(mine, other, |list, more| list.extend_from_slice(more));
}

fn stricter<T: Strictness>(mine: &mut T, other: T) {
    if other.strictness() > mine.strictness() {
        *mine = other;
    }
}

/// The same policy, whatever order its parts came in.
fn sort(policy: &mut Policy) {
    sorted(&mut policy.endorsement.manufacturers);
    sorted(&mut policy.endorsement.ek_sha256);
    let mut pcr = PcrSection::default();
    for (_, index, values) in policy.pcr.iter() {
        let mut values = values.to_vec();
        sorted(&mut values);
        values.into_iter().for_each(|value| pcr.allow(index, value));
    }
    policy.pcr = pcr;
    if let Some(regions) = &mut policy.location {
        sorted(&mut regions.allow_countries);
        sorted(&mut regions.allow_subdivisions);
        sorted(&mut regions.allow_cities);
    }
    let boot = &mut policy.boot;
    boot.kernel_command_lines.iter_mut().for_each(sorted);
    boot.kernel_command_line_patterns.sort_by_cached_key(ToString::to_string);
    boot.kernel_command_line_patterns.dedup();
    for digests in [&mut boot.applications, &mut boot.kernels, &mut boot.signers] {
        digests.iter_mut().for_each(sorted);
    }
    boot.firmware_versions.iter_mut().for_each(sorted);
    sorted(&mut boot.dbx_contains);
    if let Some(rego) = &mut policy.rego {
        sorted(&mut rego.modules);
    }
    if let Some(ima) = &mut policy.ima {
        ima.exclude.sort_by_cached_key(ToString::to_string);
        ima.exclude.dedup();
        sorted(&mut ima.signing_keys);
        ima.keyrings.values_mut().chain(ima.allow.values_mut()).for_each(sorted);
    }
}

fn sorted<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

fn disagreements(merged: &Policy, policies: &[Policy]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut note = |severity, field: Field, message| remarks.push(Remark::new(severity, field, message));
    for held in demands(merged, merged.endorsement.vendor.keys()) {
        let mut others = Vec::new();
        let mut by = Vec::new();
        for policy in policies {
            let demands = demands(policy, merged.endorsement.vendor.keys());
            match demands.into_iter().find(|demand| demand.field == held.field) {
                Some(demand) if demand.strictness == held.strictness => by.push(policy.citation()),
                Some(demand) => others.push(format!("{} says {}", policy.citation(), demand.word)),
                None => {}
            }
        }
        if !others.is_empty() {
            let by = match by.is_empty() {
                // Demands of several that only a third meets.
                true => "which meets all of them".to_owned(),
                false => format!("as {} says", by.join(" and ")),
            };
            let message = format!("{}, {by}; {}", held.word, others.join(", "));
            note(Severity::Note, held.field, message);
        }
    }
    let judging = |policy: &&Policy| policy.ima.is_some();
    let (with, without): (Vec<&Policy>, Vec<&Policy>) = policies.iter().partition(judging);
    if merged.ima.is_some() && !without.is_empty() {
        let message =
            format!("files are judged, as {} does; {} did not judge them", names(&with), names(&without));
        note(Severity::Warning, Field::of(["ima"]), message);
    }
    let apart: Vec<_> = policies.iter().map(|policy| (policy, lists(policy))).collect();
    for (field, list) in lists(merged).into_iter().filter(|(field, _)| !is_per_file(field)) {
        let (mut with, mut without, mut differs) = (Vec::new(), Vec::new(), false);
        for (policy, lists) in &apart {
            let items = lists.get(&field).map_or_else(|| absent(&field), |list| list.items.clone());
            differs |= policy.ima.is_some() && items != list.items;
            if items.is_some() { with.push(*policy) } else { without.push(*policy) }
        }
        if list.role == Role::Accepts && list.items.is_some() && !without.is_empty() {
            let message = format!(
                "only what {} lists is accepted from devices of {} as well, which listed nothing",
                names(&with),
                names(&without)
            );
            note(Severity::Warning, field, message);
        } else if field.starts_with("ima") && differs {
            note(Severity::Note, field, "what any of them has counts for all".to_owned());
        }
    }
    remarks
}

/// A list of a single file or keyring is no demand on other devices.
fn is_per_file(field: &Field) -> bool {
    field.starts_with("ima") && field.len() > 2
}

fn names(policies: &[&Policy]) -> String {
    policies.iter().map(|policy| policy.citation()).collect::<Vec<_>>().join(" and ")
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
                "boot.secure_boot: required, as b v1 says; a v1 says optional",
                "pcr.sha256.7: only what b v1 lists is accepted from devices of a v1 as well, which listed nothing",
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
            let taken = diff(&a, &merged).into_iter().find(|c| matches!(c.effect, Effect::Refused | Effect::Looser));
            prop_assert_eq!(taken, None);
        }

        #[test]
        fn what_is_written_is_read_again(a in policies(), b in policies()) {
            let merged = merge("m", &[a, b]).unwrap().policy;
            prop_assert_eq!(Policy::from_toml(&merged.to_toml()).unwrap(), merged);
        }
    }
}
