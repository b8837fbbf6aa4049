//! What an operator accepts of a boot that was refused: that boot, as a whole, and no other.

use std::collections::BTreeSet;

use assay_evidence::verify::Claims;
use assay_testkit::redteam::{Deviation, Installation, Scene};
use assay_trust::policy::{Acceptable, AcceptedBoot};
use assay_trust::{CompiledPolicy, Policy, Tier, learn, learn_rules};

use super::fleet::FLEET;

/// What a machine shows on which this was changed, told as it was.
fn changed(good: &Installation, deviations: &[Deviation]) -> Option<Claims> {
    let mut real = good.clone();
    deviations.iter().for_each(|deviation| deviation.apply(&mut real));
    let is_kernel_ruled = deviations.iter().any(|deviation| deviation.rules_the_kernel());
    FLEET.claims(&FLEET.submit(Scene::boot(good, &real, is_kernel_ruled)))
}

fn learned(claims: &Claims) -> impl Iterator<Item = Policy> {
    learn("values", &[], &[claims]).into_iter().chain(learn_rules("rules", &[], &[claims]))
}

fn offered(claims: &Claims, policy: &CompiledPolicy) -> Vec<Acceptable> {
    let mut offered: Vec<Acceptable> = Vec::new();
    for rule in FLEET.result(claims, policy).findings().iter().filter_map(|finding| finding.accept.clone()) {
        if !offered.contains(&rule) {
            offered.push(rule);
        }
    }
    offered
}

fn widened(policy: &Policy, accepted: &AcceptedBoot) -> CompiledPolicy {
    let mut policy = policy.clone();
    policy.accept_boot(accepted);
    CompiledPolicy::new(policy).unwrap()
}

/// The same line is the same line, whichever command gave it.
fn is_same(one: Deviation, other: Deviation) -> bool {
    let lines = [Deviation::CommandLine, Deviation::CommandLineByOtherCommand];
    one == other || [one, other].iter().all(|deviation| lines.contains(deviation))
}

#[test]
fn an_accepted_boot_is_that_boot_and_no_other() {
    let mut back = BTreeSet::new();
    for machine in FLEET.machines.iter().step_by(EACH_PATH_ONCE) {
        let good = &machine.installation;
        let good_claims = changed(good, &[]).unwrap();
        let possible = Deviation::ALL.into_iter().filter(|deviation| deviation.applies_to(good));
        let shown: Vec<(Deviation, Claims)> =
            possible.filter_map(|deviation| Some((deviation, changed(good, &[deviation])?))).collect();
        for policy in learned(&good_claims) {
            let before = CompiledPolicy::new(policy.clone()).unwrap();
            for (deviation, claims) in &shown {
                let rules = offered(claims, &before);
                if rules.is_empty() {
                    continue;
                }
                let after = widened(&policy, &policy.accepted_boot(&rules).unwrap());
                assert_eq!(FLEET.tier(Some(&good_claims), &after), Tier::Affirming, "{deviation:?}");
                if FLEET.tier(Some(claims), &after) == Tier::Affirming {
                    back.insert(format!("{deviation:?}"));
                }
                for (other, claims) in shown.iter().filter(|(other, _)| !is_same(*other, *deviation)) {
                    let tiers = [&before, &after].map(|policy| FLEET.tier(Some(claims), policy));
                    assert_eq!(
                        tiers[0], tiers[1],
                        "{:?} {:?} {}: {other:?} once {deviation:?} was accepted: {rules:?}",
                        good.path, good.style, policy.name
                    );
                }
            }
        }
    }
    for accepted in
        ["BootLoader", "CommandLine", "FirmwareCode", "FirmwareVersion", "Initrd", "Kernel", "MokListed"]
    {
        assert!(back.contains(accepted), "{accepted} is in none of {back:?}");
    }
    // What is refused because of what it is, and not because nobody knows it, is not offered.
    for refused in ["MokInsecure", "SecureBootOff"] {
        assert!(!back.contains(refused), "{refused}");
    }
}

/// A new kernel comes with a new line: neither is good with what the other had.
#[test]
fn half_of_an_accepted_boot_is_not_accepted() {
    let both = [Deviation::Kernel, Deviation::CommandLine];
    let mut tried = 0;
    for machine in &FLEET.machines {
        let good = &machine.installation;
        let Some(claims) = changed(good, &both) else { continue };
        for policy in learned(&changed(good, &[]).unwrap()) {
            let before = CompiledPolicy::new(policy.clone()).unwrap();
            let rules = offered(&claims, &before);
            let halves = both.map(|half| changed(good, &[half]).unwrap());
            if rules.is_empty()
                || halves.iter().any(|half| FLEET.tier(Some(half), &before) == Tier::Affirming)
            {
                continue;
            }
            let after = widened(&policy, &policy.accepted_boot(&rules).unwrap());
            assert_eq!(FLEET.tier(Some(&claims), &after), Tier::Affirming, "{:?} {rules:?}", good.path);
            for half in &halves {
                assert_ne!(FLEET.tier(Some(half), &after), Tier::Affirming, "{:?} {rules:?}", good.path);
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

/// Six machines are of each path, by what their firmware says and whether Secure Boot is on.
const EACH_PATH_ONCE: usize = 5;
