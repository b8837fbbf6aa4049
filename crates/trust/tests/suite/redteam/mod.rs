//! A red team: machines that somebody changed, whose evidence is bent in every way that honest hardware lets it be.
//!
//! The property: what a policy closes is never affirmed once it was really changed, and every good machine is. A
//! number of cases is drawn, each from its seed; `SEEDS` says how many, `SEED` from which (`make sim`). What fails is told with
//! the fewest steps that still do it.

mod alone;
mod approval;
mod closed;
mod fleet;
mod kept;

use std::collections::BTreeMap;
use std::fmt;

use assay_evidence::verify::Claims;
use assay_testkit::redteam::{Blindness, BootPath, Deviation, Installation, Random, Scene, Step};
use assay_trust::policy::{Cover, Coverage, Row, review};
use assay_trust::{CompiledPolicy, Tier, learn, learn_rules};

use closed::{is_claimed, is_closed};
use fleet::{FLEET, GoodMachine, PolicyKind};

/// One attack: what was changed on which machine, and what was said about it.
#[derive(Clone)]
struct Attack {
    machine: usize,
    deviations: Vec<Deviation>,
    steps: Vec<Step>,
    /// What the verifier is made to overlook.
    blindness: Option<Blindness>,
}

impl Attack {
    fn draw(seed: u64, blindness: Option<Blindness>) -> Attack {
        let mut random = Random::new(seed);
        let machine = random.below(FLEET.machines.len());
        let good = &FLEET.machines[machine].installation;
        let possible: Vec<Deviation> =
            Deviation::ALL.into_iter().filter(|deviation| deviation.applies_to(good)).collect();
        let mut deviations = vec![*random.choose(&possible).unwrap()];
        if random.percent(20) {
            deviations.extend(random.choose(&possible));
            deviations.dedup();
        }
        let mut attack = Attack { machine, deviations, steps: Vec::new(), blindness };
        let mut scene = attack.scene();
        for _ in 0..random.below(STEPS_MAX + 1) {
            let step = Step::draw(&scene, &mut random);
            step.apply(&mut scene);
            attack.steps.push(step);
        }
        attack
    }

    fn good(&self) -> &'static GoodMachine {
        &FLEET.machines[self.machine]
    }

    fn scene(&self) -> Scene {
        let good = &self.good().installation;
        let mut real = good.clone();
        self.deviations.iter().for_each(|deviation| deviation.apply(&mut real));
        let is_kernel_ruled = self.deviations.iter().any(|deviation| deviation.rules_the_kernel());
        let mut scene = Scene::boot_seen(good, &real, is_kernel_ruled, self.blindness);
        self.steps.iter().for_each(|step| step.apply(&mut scene));
        scene
    }

    /// The kinds of policy that affirm it though they close what was changed.
    fn affirmed_by(&self) -> Vec<PolicyKind> {
        let good = self.good();
        let closing = good.policies.iter().filter(|(kind, _)| self.is_closed_by(*kind));
        let closing: Vec<_> = closing.collect();
        if closing.is_empty() {
            return Vec::new();
        }
        let claims = FLEET.claims(&FLEET.submit(self.scene()));
        let affirm = |(_, policy): &&&(PolicyKind, _)| FLEET.tier(claims.as_ref(), policy) == Tier::Affirming;
        closing.iter().filter(affirm).map(|(kind, _)| *kind).collect()
    }

    /// Whether the policy closes it. Where what it leaves open gives the kernel away, nothing that the kernel or the
    /// boot loader measures later is closed either.
    fn is_closed_by(&self, kind: PolicyKind) -> bool {
        let good = &self.good().installation;
        let (closed, open): (Vec<Deviation>, Vec<Deviation>) =
            self.deviations.iter().partition(|deviation| is_closed(kind, good, **deviation));
        !closed.is_empty() && !open.iter().any(|deviation| deviation.rules_the_kernel())
    }

    /// The same with the fewest changes and steps by which `kind` still affirms it.
    fn shrunk(mut self, kind: PolicyKind) -> Attack {
        let still = |attack: &Attack| attack.affirmed_by().contains(&kind);
        let mut index = 0;
        while index < self.steps.len() + self.deviations.len() {
            let mut fewer = self.clone();
            match index.checked_sub(self.steps.len()) {
                None => drop(fewer.steps.remove(index)),
                Some(deviation) => drop(fewer.deviations.remove(deviation)),
            }
            if still(&fewer) { self = fewer } else { index += 1 }
        }
        self
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Installation { path, style, secure_boot, banks, measured_banks, .. } = &self.good().installation;
        write!(f, "{path:?}, {style:?}, Secure Boot {secure_boot}, banks {banks:?}/{measured_banks:?}")?;
        write!(f, ": {:?}", self.deviations)?;
        self.steps.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

#[test]
fn what_a_policy_closes_is_never_affirmed_once_it_was_changed() {
    let (first, count) = (number("SEED", 0), number("SEEDS", SEEDS));
    let mut holes = BTreeMap::new();
    for seed in first..first + count {
        let attack = Attack::draw(seed, None);
        for kind in attack.affirmed_by() {
            let attack = attack.clone().shrunk(kind);
            let good = &attack.good().installation;
            let hole = (kind, attack.deviations.clone(), good.path);
            holes.entry(hole).or_insert_with(|| format!("seed {seed}, policy {kind:?}, {attack}"));
        }
    }
    let told: Vec<&str> = holes.values().map(String::as_str).collect();
    assert!(holes.is_empty(), "{} of {count} kinds:\n{}", holes.len(), told.join("\n"));
}

/// Root appends what a good boot leaves in the PCRs in which boot loaders measure, or leaves out what they measured: none of it
/// counts for a boot that was over.
#[test]
fn what_is_appended_or_left_out_never_stands_for_the_boot() {
    let append = |pcr| Step::AppendGoodBoot { pcr };
    let omit = |pcr| Step::OmitPcr { pcr };
    let together = [
        vec![],
        vec![append(8)],
        vec![append(12)],
        vec![append(8), append(9)],
        vec![append(4), append(8)],
        vec![append(4), append(8), append(9), append(12)],
        vec![omit(8)],
        vec![omit(8), omit(9)],
        vec![omit(9), omit(14)],
        vec![omit(9), append(12)],
    ];
    let mut holes = Vec::new();
    for (machine, GoodMachine { installation, .. }) in FLEET.machines.iter().enumerate() {
        for deviation in Deviation::ALL.into_iter().filter(|one| one.applies_to(installation)) {
            for steps in together.clone() {
                let attack = Attack { machine, deviations: vec![deviation], steps, blindness: None };
                let kinds = attack.affirmed_by();
                holes.extend((!kinds.is_empty()).then(|| format!("{kinds:?}, {attack}")));
            }
        }
    }
    assert!(holes.is_empty(), "{} kinds:\n{}", holes.len(), holes.join("\n"));
}

/// A policy learned from two boots accepts either, and not the ramdisk of one with the line of the other.
#[test]
fn boots_that_were_learned_are_not_mixed() {
    let is_told = |machine: &&GoodMachine| {
        Deviation::CommandLine.applies_to(&machine.installation) && machine.installation.is_stub_measuring
    };
    for GoodMachine { installation, .. } in FLEET.machines.iter().filter(is_told) {
        let boot = |deviations: &[Deviation]| {
            let mut real = installation.clone();
            deviations.iter().for_each(|deviation| deviation.apply(&mut real));
            FLEET.claims(&FLEET.submit(Scene::boot(installation, &real, false))).unwrap()
        };
        let good = [boot(&[]), boot(&[Deviation::Initrd, Deviation::CommandLine])];
        let mixed = [boot(&[Deviation::Initrd]), boot(&[Deviation::CommandLine])];
        for policy in
            [learn("values", &[], &good.each_ref()).ok(), learn_rules("rules", &[], &good.each_ref()).ok()]
        {
            let Some(policy) = policy.map(|policy| CompiledPolicy::new(policy).unwrap()) else { continue };
            let tiers =
                |claims: &[Claims; 2]| claims.each_ref().map(|claims| FLEET.tier(Some(claims), &policy));
            assert_eq!(tiers(&good), [Tier::Affirming; 2], "{:?} {}", installation.path, policy.name());
            assert_eq!(
                tiers(&mixed),
                [Tier::Contraindicated; 2],
                "{:?} {}",
                installation.path,
                policy.name()
            );
        }
    }
}

/// systemd-boot tells a line in PCR 12, and so can root when the boot is over: where the kernel does not bear it out, and a set
/// of images does not say that systemd-boot ran, it is no line.
#[test]
fn a_line_that_can_be_told_late_is_none() {
    let is_silent = |machine: &&GoodMachine| {
        let good = &machine.installation;
        good.path == BootPath::SystemdBoot && !good.is_stub_measuring && good.secure_boot
    };
    let GoodMachine { installation, .. } = FLEET.machines.iter().find(is_silent).unwrap();
    let good = FLEET.submit(Scene::boot(installation, installation, false));
    let mut attacked = installation.clone();
    Deviation::StartedDirectly.apply(&mut attacked);
    let mut scene = Scene::boot(installation, &attacked, true);
    Step::AppendGoodBoot { pcr: 12 }.apply(&mut scene);
    let attack = FLEET.submit(scene);
    let policies = fleet::policies(&FLEET.claims(&good).unwrap(), true);
    // Signers alone leave the boot loader open, and images alone the line: their coverage tables say so.
    let is_closed = |kind: &PolicyKind| !matches!(kind, PolicyKind::Signers | PolicyKind::Images);
    for (kind, policy) in policies.into_iter().filter(|(kind, _)| is_closed(kind)) {
        let tier = |sent| FLEET.tier(FLEET.claims(sent).as_ref(), &policy);
        assert_eq!(tier(&attack), Tier::Contraindicated, "{kind:?}");
        // Where PCR 4 is known event by event, it is known that systemd-boot ran first.
        let is_ordered = matches!(kind, PolicyKind::Values | PolicyKind::Rules);
        assert_eq!(tier(&good) == Tier::Affirming, is_ordered, "{kind:?}");
    }
}

/// What a policy says of itself is what holds: each row that its table calls closed is closed against these attacks.
#[test]
fn the_coverage_table_claims_no_more_than_holds() {
    let mut claimed = 0;
    for GoodMachine { installation, policies } in &FLEET.machines {
        for (kind, policy) in policies {
            for deviation in Deviation::ALL.into_iter().filter(|one| one.applies_to(installation)) {
                if is_claimed(policy.coverage(), deviation) {
                    claimed += 1;
                    let what = (kind, installation.path, installation.secure_boot, deviation);
                    assert!(is_closed(*kind, installation, deviation), "{what:?}");
                }
            }
        }
    }
    assert!(claimed > 500, "{claimed}");
}

/// Where neither GRUB nor the kernel's stub measures the initial ramdisk, what is learned says so, and lint does.
#[test]
fn a_ramdisk_that_nothing_measures_is_an_open_row() {
    for GoodMachine { installation, .. } in &FLEET.machines {
        let good = Scene::boot(installation, installation, false);
        let claims = FLEET.claims(&FLEET.submit(good)).unwrap();
        let learned = [learn("values", &[], &[&claims]).ok(), learn_rules("rules", &[], &[&claims]).ok()];
        for policy in learned.into_iter().flatten() {
            let is_open = Coverage::of(&policy).cover(Row::Initrd) == Cover::Open;
            let is_named =
                review(&policy.to_toml()).iter().any(|remark| remark.message.contains("initial ramdisk"));
            let is_measured = closed::measures_initrd(installation);
            let what = (installation.path, installation.style, &policy.name);
            assert_eq!((is_open, is_named), (!is_measured, !is_measured), "{what:?}");
        }
    }
}

#[test]
fn a_verifier_that_overlooks_something_is_found_out() {
    for blindness in Blindness::ALL {
        let is_found = |seed| !Attack::draw(seed, Some(blindness)).affirmed_by().is_empty();
        assert!((0..SEEDS).any(is_found), "{blindness:?}");
    }
}

#[test]
fn every_good_machine_is_affirmed_whatever_the_order_and_the_phase() {
    let mut random = Random::new(7);
    for GoodMachine { installation, policies } in &FLEET.machines {
        for phases in 0..=4 {
            let mut booted = installation.clone();
            for place in (1..booted.programs.len()).rev() {
                booted.programs.swap(place, random.below(place + 1));
            }
            let mut scene = Scene::boot(installation, &booted, false);
            if installation.path == BootPath::UnifiedKernel {
                scene.reach_phases(phases);
            }
            let sent = FLEET.submit(scene);
            for (kind, policy) in policies {
                let tier = FLEET.tier(FLEET.claims(&sent).as_ref(), policy);
                let machine = (installation.path, installation.style, installation.secure_boot);
                assert_eq!(tier, Tier::Affirming, "{machine:?} {kind:?} {}", FLEET.findings(&sent, policy));
            }
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

const SEEDS: u64 = 5000;
const STEPS_MAX: usize = 6;
