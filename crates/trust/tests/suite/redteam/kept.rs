//! What a verifier remembers of a good boot, and what somebody makes of that later: in the same boot, or in another.

use assay_evidence::verify::Baseline;
use assay_testkit::Program;
use assay_testkit::redteam::{Deviation, Installation, Random, Scene, Step};
use assay_trust::Tier;

use super::closed::is_closed;
use super::fleet::{FLEET, GoodMachine, PolicyKind};

/// A good boot that was judged, what happened then, and what is said of it.
struct Later {
    machine: usize,
    /// The change; programs run in the same boot, everything else takes another.
    deviation: Deviation,
    steps: Vec<Step>,
}

impl Later {
    fn draw(seed: u64) -> Later {
        let mut random = Random::new(seed);
        let machine = random.below(FLEET.machines.len());
        let good = &FLEET.machines[machine].installation;
        let possible: Vec<Deviation> =
            Deviation::ALL.into_iter().filter(|deviation| deviation.applies_to(good)).collect();
        let runs = [Deviation::UnknownProgram, Deviation::AlteredProgram];
        let of = if random.percent(40) { runs.to_vec() } else { possible };
        let mut later = Later { machine, deviation: *random.choose(&of).unwrap(), steps: Vec::new() };
        let mut scene = later.scene();
        // The verifier asks for what is new: no log, and the list from where it was good.
        if random.percent(70) {
            later.take(Step::OmitLog, &mut scene);
        }
        if random.percent(70) {
            let entries = random.below(scene.entries() + 3);
            let [told, skipped] = [0, 1].map(|_| if random.percent(60) { known(good) } else { entries });
            later.take(Step::TellFrom { told, skipped }, &mut scene);
        }
        for _ in 0..random.below(3) {
            let step = Step::draw(&scene, &mut random);
            later.take(step, &mut scene);
        }
        later
    }

    fn take(&mut self, step: Step, scene: &mut Scene) {
        step.apply(scene);
        self.steps.push(step);
    }

    fn good(&self) -> &'static GoodMachine {
        &FLEET.machines[self.machine]
    }

    fn scene(&self) -> Scene {
        let good = &self.good().installation;
        let mut real = good.clone();
        self.deviation.apply(&mut real);
        let mut scene = match is_of_same_boot(self.deviation) {
            true => {
                let mut scene = Scene::boot(good, good, false);
                let new: Vec<Program> = real
                    .programs
                    .iter()
                    .filter(|program| !good.programs.contains(program))
                    .cloned()
                    .collect();
                scene.run(&new);
                scene
            }
            false => Scene::boot(good, &real, self.deviation.rules_the_kernel()).after(1),
        };
        self.steps.iter().for_each(|step| step.apply(&mut scene));
        scene
    }

    fn affirmed_by(&self) -> Vec<PolicyKind> {
        let GoodMachine { installation, policies } = self.good();
        let closing = policies.iter().filter(|(kind, _)| is_closed(*kind, installation, self.deviation));
        let sent = FLEET.submit(self.scene());
        let affirm = |(_, policy): &&(PolicyKind, _)| {
            let baseline = remembered(installation, policy);
            FLEET.tier(FLEET.claims_since(&sent, Some(&baseline)).as_ref(), policy) == Tier::Affirming
        };
        closing.filter(affirm).map(|(kind, _)| *kind).collect()
    }
}

fn is_of_same_boot(deviation: Deviation) -> bool {
    matches!(deviation, Deviation::UnknownProgram | Deviation::AlteredProgram)
}

/// Entries of a good boot's list.
fn known(good: &Installation) -> usize {
    good.programs.len() + 1
}

/// What is remembered of a good boot that was affirmed.
fn remembered(good: &Installation, policy: &assay_trust::CompiledPolicy) -> Baseline {
    let claims = FLEET.claims(&FLEET.submit(Scene::boot(good, good, false))).unwrap();
    let result = FLEET.result(&claims, policy);
    assert_eq!(result.tier(), Tier::Affirming);
    assert_eq!(result.good_ima_entries(), known(good) as u64);
    claims.baseline(result.good_ima_entries())
}

#[test]
fn what_is_remembered_of_a_good_boot_excuses_nothing_later() {
    let (first, count) = (super::number("SEED", 0), super::number("SEEDS", SEEDS) / 10);
    let mut holes = Vec::new();
    for seed in first..first + count {
        let later = Later::draw(seed);
        let kinds = later.affirmed_by();
        if !kinds.is_empty() {
            let Later { deviation, steps, .. } = &later;
            let path = later.good().installation.path;
            holes.push(format!("seed {seed}: {kinds:?}, {path:?}, {deviation:?}, {steps:?}"));
        }
    }
    assert!(holes.is_empty(), "{} of {count}:\n{}", holes.len(), holes.join("\n"));
}

/// Who goes on as before, and tells only what is new, stays good; in another boot all is told anew.
#[test]
fn a_good_boot_goes_on_by_what_is_remembered_of_it() {
    for GoodMachine { installation, policies } in &FLEET.machines {
        for (kind, policy) in policies {
            let baseline = remembered(installation, policy);
            let tier = |mut scene: Scene, steps: &[Step]| {
                steps.iter().for_each(|step| step.apply(&mut scene));
                FLEET.tier(FLEET.claims_since(&FLEET.submit(scene), Some(&baseline)).as_ref(), policy)
            };
            let all = known(installation);
            let new = [Step::OmitLog, Step::TellFrom { told: all, skipped: all }];
            let boot = || Scene::boot(installation, installation, false);
            let mut same = boot();
            same.run(&installation.programs);
            let what = (kind, installation.path);
            assert_eq!(tier(same, &new), Tier::Affirming, "{what:?}");
            assert_eq!(tier(boot().after(1), &[]), Tier::Affirming, "{what:?}");
            assert_ne!(tier(boot().after(1), &new), Tier::Affirming, "{what:?}");
        }
    }
}

/// A tenth of these are drawn: each takes a good boot as well.
const SEEDS: u64 = 10_000;
