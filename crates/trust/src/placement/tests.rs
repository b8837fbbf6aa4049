//! Who gets a task, and why the others do not.

use assay_evidence::task::{Backend, Definition, Limits, Sha384, sha384};
use assay_identity::SpiffeId;

use super::*;
use crate::condition::Holding;
use crate::finding::Tier;
use crate::grant::task::{Level, MeasurementPolicy};
use crate::policy::Recovery;
use crate::state::{Appraised, EventRecord};

const NOW: UnixTime = UnixTime(1000);
const ALL: Room = Room { memory_bytes: 1000, cpu_millis: 4000, tasks: 4 };

fn state(tier: Tier, at: u64) -> TrustState {
    let id = format!("spiffe://example.org/spire/agent/tpm/{}", "1".repeat(64));
    let enrolled = EventRecord::Enrolled { at: UnixTime(1), device_key: Some("key".to_owned()) };
    let appraised = EventRecord::Appraised(Appraised {
        at: UnixTime(at),
        tier,
        valid_until: UnixTime(at + 600),
        policy: None,
        reset_count: Some(1),
        restart_count: Some(0),
        recovery: Recovery::Automatic,
        reason: "because".to_owned(),
        holding: Holding::default(),
    });
    TrustState::fold(SpiffeId::parse(&id).unwrap(), [&enrolled, &appraised])
}

fn definition() -> Definition {
    Definition {
        backend: Backend::Wasm,
        image: sha384(b"image"),
        entry: "_start".to_owned(),
        arguments: Vec::new(),
        environment: Default::default(),
        capabilities: Default::default(),
        limits: Limits { memory_bytes: 1, fuel: 0, milliseconds: 1, output_bytes: 0 },
    }
}

fn demand<'a>(definition: &'a Definition, expected: &'a [Sha384], selector: &'a Selector) -> Demand<'a> {
    Demand {
        request: TaskRequest {
            definition,
            level: Level::Confidential,
            require_attestation: true,
            evidence_seconds_max: 0,
            allow_debug: false,
            measurement_policy: MeasurementPolicy::Strict,
            expected,
            tee: None,
        },
        room: Room { memory_bytes: 100, cpu_millis: 1000, tasks: 1 },
        selector,
        spread: "",
    }
}

fn with(check: impl FnOnce(&Demand<'_>, Candidate<'_>)) {
    let (definition, selector) = (definition(), "site=paris".parse().unwrap());
    let (state, labels) = (state(Tier::Affirming, 990), "site=paris,rack=1".parse().unwrap());
    let candidate = Candidate {
        state: &state,
        labels: &labels,
        room: Some(ALL),
        taken: Room::default(),
        failed: 0,
        neighbours: 0,
    };
    check(&demand(&definition, &[definition.measurement()], &selector), candidate);
}

#[test]
fn whoever_is_unfit_is_told_why() {
    with(|demand, good| {
        assert!(weigh(demand, &good, NOW).is_ok());
        let unfit = |candidate: Candidate<'_>, words: &str| {
            let unfit = weigh(demand, &candidate, NOW).unwrap_err().to_string();
            assert!(unfit.contains(words), "{unfit}, not {words}");
            assert_eq!(place(demand, [candidate], NOW), None);
        };
        let fallen = state(Tier::Contraindicated, 990);
        unfit(Candidate { state: &fallen, ..good }, "the device is suspect: because");
        unfit(Candidate { room: None, ..good }, "[tasks]");
        unfit(Candidate { labels: &"site=rome".parse().unwrap(), ..good }, "site=paris");
        let taken = |memory_bytes, cpu_millis, tasks| Candidate {
            taken: Room { memory_bytes, cpu_millis, tasks },
            ..good
        };
        unfit(taken(950, 0, 1), "50 of 1000 left of its memory, and 100 wanted");
        unfit(taken(0, 3500, 1), "500 of 4000 left of its processors");
        unfit(taken(0, 0, 4), "0 of 4 left of its places");
        // More taken than there is, as when a device says less than before.
        unfit(taken(2000, 0, 9), "0 of 1000 left");
    });
}

#[test]
fn the_better_of_two_gets_it() {
    with(|demand, good| {
        let busy = Candidate { taken: Room { memory_bytes: 100, cpu_millis: 1000, tasks: 1 }, ..good };
        let failed = Candidate { failed: 1, ..good };
        let crowded = Candidate { neighbours: 1, ..good };
        let (old, small) = (state(Tier::Affirming, 500), Room { memory_bytes: 120, ..ALL });
        let stale = Candidate { state: &old, ..good };
        let small = Candidate { room: Some(small), ..good };
        for worse in [busy, failed, crowded, stale, small] {
            assert_eq!(place(demand, [worse, good], NOW).unwrap().0, 1, "{worse:?}");
            assert_eq!(place(demand, [good, worse], NOW).unwrap().0, 0, "{worse:?}");
        }
        assert_eq!(place(demand, [good, good], NOW).unwrap().0, 0);
        assert_eq!(place(demand, [], NOW), None);
    });
}

#[test]
fn a_task_that_may_run_nowhere_is_placed_nowhere() {
    with(|demand, good| {
        let unknown = Demand { request: TaskRequest { expected: &[], ..demand.request }, ..*demand };
        assert_eq!(place(&unknown, [good], NOW), None);
    });
}

#[test]
fn a_score_is_the_sum_of_its_parts_and_no_part_is_more_than_it_can_be() {
    with(|demand, good| {
        let score = weigh(demand, &good, NOW).unwrap();
        assert_eq!(score.parts().iter().map(|(_, points, _)| points).sum::<u32>(), score.total());
        assert!(score.parts().iter().all(|(_, points, most)| points <= most));
        assert_eq!(score.parts().iter().map(|(_, _, most)| most).sum::<u32>(), 1000);
    });
}
