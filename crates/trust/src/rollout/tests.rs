//! Plans after any sequence of changes, and what each change means for each device.

use proptest::prelude::*;

use super::*;
use crate::labels::Labels;
use crate::policy::sample::policies;

/// A change an operator may ask for; most of them cannot be made at most moments.
#[derive(Clone, Debug)]
enum Step {
    Assign(Selector, &'static str),
    Unassign(Selector),
    Start(Selector, &'static str, Percent),
    Widen(&'static str, Percent),
    Finish(&'static str),
    Abort(&'static str),
    Revise(Selector),
}

fn labels() -> impl Strategy<Value = Labels> {
    "(a=[12](,b=[12])?(,c=[12])?)?".prop_map(|text| text.parse().unwrap())
}

/// Few, so that most steps meet an assignment.
fn selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![Just(""), Just("a=1"), Just("a=2"), Just("a=1,b=1"), Just("b=1")]
        .prop_map(|text| text.parse().unwrap())
}

fn percents() -> impl Strategy<Value = Percent> {
    (1u64..=100).prop_map(|number| Percent::try_from(number).unwrap())
}

fn steps() -> impl Strategy<Value = Step> {
    let names = || prop_oneof![Just("base"), Just("edge")];
    let start = (selectors(), names(), percents());
    prop_oneof![
        3 => (selectors(), names()).prop_map(|(selector, name)| Step::Assign(selector, name)),
        4 => start.prop_map(|(selector, name, percent)| Step::Start(selector, name, percent)),
        1 => selectors().prop_map(Step::Unassign),
        1 => (names(), percents()).prop_map(|(name, percent)| Step::Widen(name, percent)),
        1 => names().prop_map(Step::Finish),
        1 => names().prop_map(Step::Abort),
        1 => selectors().prop_map(Step::Revise),
    ]
}

fn device(number: u8) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td/device/{number}")).unwrap()
}

fn fleet() -> impl Iterator<Item = SpiffeId> {
    (0..60).map(device)
}

/// The step's outcome, with revisions nobody had before.
fn take(plan: &Plan, step: &Step, fresh: u64) -> Result<Plan, PlanError> {
    match step {
        Step::Assign(selector, name) => plan.assign(selector, name, fresh),
        Step::Unassign(selector) => plan.unassign(selector),
        Step::Start(selector, name, percent) => {
            let rollout = Rollout { id: fresh, union: fresh, new: fresh + 1, percent: *percent };
            plan.start(selector, name, rollout)
        }
        Step::Widen(name, percent) => plan.widen(name, *percent),
        Step::Finish(name) => plan.finish(name),
        Step::Abort(name) => plan.abort(name),
        Step::Revise(selector) => plan.revise(selector, |revision| revision + 1_000_000),
    }
}

/// A plan that came about, one step at a time.
fn plans() -> impl Strategy<Value = Plan> {
    proptest::collection::vec(steps(), 4..40).prop_map(|steps| {
        steps.iter().enumerate().fold(Plan::default(), |plan, (number, step)| {
            take(&plan, step, 10 * (number as u64 + 1)).unwrap_or(plan)
        })
    })
}

/// A plan with a roll-out of `base` to everyone's share.
fn rolling(percent: Percent) -> Plan {
    let plan = Plan::default().assign(&Selector::default(), "base", 1).unwrap();
    plan.start(&Selector::default(), "base", Rollout { id: 2, union: 2, new: 3, percent }).unwrap()
}

proptest! {
    #[test]
    fn every_device_has_exactly_one_policy_or_none(plan in plans(), labels in labels()) {
        let mut weights: Vec<usize> = plan.assignments().iter()
            .filter(|assignment| assignment.selector.matches(&labels))
            .map(|assignment| assignment.selector.len())
            .collect();
        weights.sort_unstable();
        let most = weights.pop();
        prop_assert_ne!(weights.pop(), most.or(Some(usize::MAX)), "two are equally good");
        prop_assert_eq!(plan.of(&labels).map(|assignment| assignment.selector.len()), most);
        for device in fleet() {
            let revision = plan.revision_for(&device, &labels);
            prop_assert_eq!(revision.is_some(), most.is_some());
            prop_assert!(revision.is_none_or(|revision| plan.revisions().any(|known| known == revision)));
        }
    }

    #[test]
    fn a_name_is_rolled_out_in_one_place_at_most(plan in plans()) {
        for name in ["base", "edge"] {
            let under_way = |assignment: &&Assignment| assignment.name == name && assignment.rollout.is_some();
            prop_assert!(plan.assignments().iter().filter(under_way).count() <= 1);
        }
    }

    #[test]
    fn widening_moves_no_device_back(plan in plans(), percent in percents(), labels in labels()) {
        for name in ["base", "edge"] {
            let Ok(wider) = plan.widen(name, percent) else { continue };
            let (assigned, rollout) = plan.rolled_out(name).unwrap();
            for device in fleet() {
                let (before, after) =
                    (plan.revision_for(&device, &labels), wider.revision_for(&device, &labels));
                let joins = before == Some(assigned.revision) && after == Some(rollout.union);
                prop_assert!(before == after || joins);
            }
        }
    }

    #[test]
    fn finishing_leaves_no_device_on_the_union(plan in plans(), labels in labels()) {
        for name in ["base", "edge"] {
            let Ok((assigned, rollout)) = plan.rolled_out(name) else { continue };
            let ends = [(plan.finish(name), rollout.new), (plan.abort(name), assigned.revision)];
            for (ended, stays) in ends {
                let ended = ended.unwrap();
                prop_assert!(ended.rolled_out(name).is_err());
                for device in fleet() {
                    let (before, after) =
                        (plan.revision_for(&device, &labels), ended.revision_for(&device, &labels));
                    let concerned = before.is_some_and(|before| assigned.revisions().any(|one| one == before));
                    prop_assert_eq!(after, if concerned { Some(stays) } else { before });
                }
            }
        }
    }

    #[test]
    fn revising_moves_no_device(plan in plans(), selector in selectors(), labels in labels()) {
        if let Ok(revised) = plan.revise(&selector, |revision| revision + 1_000_000) {
            for device in fleet() {
                let before = plan.revision_for(&device, &labels);
                let concerned = plan.of(&labels).is_some_and(|assigned| assigned.selector == selector);
                let expected = before.map(|before| if concerned { before + 1_000_000 } else { before });
                prop_assert_eq!(revised.revision_for(&device, &labels), expected);
            }
        }
    }

    #[test]
    fn a_union_accepts_what_either_accepts_or_says_what_it_does_not(old in policies(), new in policies()) {
        let Ok(union) = unite(&old, &new) else { return Ok(()) };
        for (part, alone) in [(Part::Old, &old), (Part::New, &new)] {
            let refused = |change: &Change| matches!(change.effect, Effect::Refused | Effect::Stricter);
            let said = union.strains.iter().filter(|strain| strain.part == part).count();
            prop_assert_eq!(said, diff(alone, &union.policy).iter().filter(|change| refused(change)).count());
        }
    }
}

#[test]
fn the_share_is_what_the_percentage_says() {
    for percent in [1u64, 10, 50, 99, 100] {
        let rollout = Rollout { id: 7, union: 2, new: 3, percent: Percent::try_from(percent).unwrap() };
        let included = (0..10_000_u32)
            .filter(|number| rollout.includes(&SpiffeId::parse(&format!("spiffe://td/{number}")).unwrap()))
            .count() as u64;
        assert!(included.abs_diff(percent * 100) < 200, "{percent} %: {included} of 10000");
        assert!(percent < 100 || included == 10_000);
    }
}

#[test]
fn another_roll_out_begins_with_other_devices() {
    let first = |id| fleet().filter(|device| place(id, device) < 20).collect::<Vec<_>>();
    assert_ne!(first(1), first(2));
    assert_eq!(first(1), first(1));
}

#[test]
fn percentages_have_a_range() {
    for (number, valid) in [(0, false), (1, true), (100, true), (101, false), (256 + 50, false)] {
        assert_eq!(Percent::try_from(number).is_ok(), valid, "{number}");
    }
}

#[test]
fn a_roll_out_is_refused_where_it_makes_no_sense() {
    let everyone = Selector::default();
    let paris: Selector = "site=paris".parse().unwrap();
    let half = Percent::try_from(50).unwrap();
    let rollout = Rollout { id: 9, union: 9, new: 10, percent: half };
    let plan = rolling(half);
    let under_way = PlanError::UnderWay { name: "base".to_owned() };
    assert_eq!(plan.start(&everyone, "base", rollout), Err(under_way.clone()));
    assert_eq!(plan.assign(&everyone, "other", 9), Err(under_way.clone()));
    assert_eq!(plan.unassign(&everyone), Err(under_way.clone()));
    assert_eq!(plan.start(&paris, "base", rollout), Err(PlanError::NotAssigned { selector: paris.clone() }));
    let two = plan.assign(&paris, "base", 4).unwrap();
    assert_eq!(two.start(&paris, "base", rollout), Err(under_way));
    assert!(matches!(two.start(&paris, "edge", rollout), Err(PlanError::OtherName { .. })));
    assert_eq!(plan.widen("base", half), Err(PlanError::NotWider { name: "base".to_owned(), now: half }));
    for outcome in [plan.widen("edge", Percent::ALL), plan.finish("edge"), plan.abort("edge")] {
        assert_eq!(outcome, Err(PlanError::NoRollout { name: "edge".to_owned() }));
    }
}

#[test]
fn a_union_says_whom_its_stricter_demands_could_make_fall() {
    let policy = |rest: &str| {
        let text = format!("name = \"base\"\nversion = 1\n{rest}[pcr.sha256]\n\"0\" = [\"AA\"]\n");
        Policy::from_toml(&text.replace("AA", &"aa".repeat(32))).unwrap()
    };
    let (old, mut new) = (policy(""), policy("[clock]\nunsafe_clock = \"refuse\"\n"));
    new.version = 2;
    assert_eq!(unite(&old, &old).unwrap().strains, []);
    let strains = unite(&old, &new).unwrap().strains;
    assert_eq!(strains.len(), 1);
    assert_eq!(
        (strains[0].part, strains[0].change.field.to_string()),
        (Part::Old, "clock.unsafe_clock".into())
    );
}
