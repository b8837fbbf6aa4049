//! The invariants of the trust state, each over arbitrary histories.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use proptest::prelude::*;

use super::*;
use crate::condition::Holding;

fn device() -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/spire/agent/tpm/{}", "0".repeat(64))).unwrap()
}

fn enrolled(at: u64) -> EventRecord {
    EventRecord::Enrolled { at: UnixTime(at), device_key: Some("k".to_owned()) }
}

fn appraised(at: u64, tier: Tier) -> EventRecord {
    appraised_under(at, tier, Recovery::Automatic)
}

fn appraised_under(at: u64, tier: Tier, recovery: Recovery) -> EventRecord {
    EventRecord::Appraised(Appraised {
        at: UnixTime(at),
        tier,
        valid_until: UnixTime(at + AGE),
        policy: Some("edge v1".to_owned()),
        reset_count: Some(1),
        restart_count: Some(0),
        recovery,
        reason: "because".to_owned(),
        holding: Holding::default(),
    })
}

fn approved(at: u64) -> EventRecord {
    EventRecord::Approved { at: UnixTime(at), by: "op".to_owned() }
}

fn revoked(at: u64) -> EventRecord {
    EventRecord::Revoked { at: UnixTime(at), by: "op".to_owned(), reason: "lost".to_owned() }
}

fn readmitted(at: u64) -> EventRecord {
    EventRecord::Readmitted { at: UnixTime(at), by: "op".to_owned() }
}

fn unanswered(at: u64) -> EventRecord {
    let (at, until) = (UnixTime(at), UnixTime(at + UNANSWERED));
    EventRecord::Unanswered { at, until, reason: "a challenge was not answered".to_owned() }
}

fn check(events: &[EventRecord], expected: Status) -> TrustState {
    let state = TrustState::fold(device(), events);
    assert_eq!(state.status(), expected, "{events:?}");
    state
}

#[test]
fn the_life_of_a_device() {
    check(&[], Status::Pending);
    check(&[enrolled(1)], Status::Enrolled);
    let trusted = check(&[enrolled(1), appraised(2, Tier::Affirming)], Status::Trusted);
    assert_eq!(trusted.status_at(UnixTime(2 + AGE - 1)), Status::Trusted);
    assert_eq!(trusted.status_at(UnixTime(2 + AGE)), Status::Expired);
    for tier in [Tier::None, Tier::Warning, Tier::Contraindicated] {
        check(&[enrolled(1), appraised(2, Tier::Affirming), appraised(3, tier)], Status::Suspect);
    }
    check(
        &[enrolled(1), appraised(2, Tier::Contraindicated), appraised(3, Tier::Affirming)],
        Status::Trusted,
    );
    check(&[enrolled(1), appraised(2, Tier::Affirming), revoked(3)], Status::Revoked);
}

#[test]
fn nothing_is_appraised_before_enrollment() {
    check(&[appraised(1, Tier::Affirming)], Status::Pending);
}

#[test]
fn expiry_needs_stale_evidence() {
    let history = [enrolled(1), appraised(2, Tier::Affirming), EventRecord::Expired { at: UnixTime(3) }];
    check(&history, Status::Trusted);
    let history =
        [enrolled(1), appraised(2, Tier::Affirming), EventRecord::Expired { at: UnixTime(2 + AGE) }];
    check(&history, Status::Expired);
    let back = [history.as_slice(), &[appraised(3 + AGE, Tier::Affirming)]].concat();
    check(&back, Status::Trusted);
}

#[test]
fn finding_13_silence_shortens_what_stands_and_good_evidence_makes_up_for_it() {
    let good = |at| appraised(at, Tier::Affirming);
    let silent = check(&[enrolled(1), good(2), unanswered(3)], Status::Trusted);
    assert_eq!(silent.valid_until(), Some(UnixTime(3 + UNANSWERED)));
    assert_eq!(silent.version(), 2, "no grant falls yet");
    // Repeated, it wins nothing; nor does it take more.
    let still = check(&[enrolled(1), good(2), unanswered(3), unanswered(5)], Status::Trusted);
    assert_eq!(still.valid_until(), silent.valid_until());
    let too_late = UnixTime(3 + UNANSWERED);
    assert_eq!(silent.status_at(too_late), Status::Expired);
    check(&[enrolled(1), good(2), unanswered(3), EventRecord::Expired { at: too_late }], Status::Expired);
    let heard = check(&[enrolled(1), good(2), unanswered(3), good(4)], Status::Trusted);
    assert_eq!(heard.valid_until(), Some(UnixTime(4 + AGE)));
    // Evidence that ends sooner than the bound ends when it does.
    let old = check(&[enrolled(1), good(2), unanswered(2 + AGE - 1)], Status::Trusted);
    assert_eq!(old.valid_until(), Some(UnixTime(2 + AGE)));
    // Good evidence that waits for an operator waits no longer either.
    let bad = appraised_under(2, Tier::Contraindicated, Recovery::Approve);
    let waiting = appraised_under(3, Tier::Affirming, Recovery::Approve);
    let late = approved(4 + UNANSWERED);
    check(&[enrolled(1), bad, waiting, unanswered(4), late], Status::Suspect);
}

#[test]
fn an_overtaken_good_result_restores_nothing() {
    let history = [enrolled(1), appraised(9, Tier::Contraindicated), appraised(8, Tier::Affirming)];
    check(&history, Status::Suspect);
}

#[test]
fn a_counter_that_goes_back_is_suspect() {
    let counted = |at, boot, restarts| match appraised(at, Tier::Affirming) {
        EventRecord::Appraised(result) => {
            let (reset_count, restart_count) = (Some(boot), Some(restarts));
            EventRecord::Appraised(Appraised { reset_count, restart_count, ..result })
        }
        other => other,
    };
    let of_boot = |at, boot| counted(at, boot, 0);
    check(&[enrolled(1), counted(2, 5, 2), counted(3, 5, 3)], Status::Trusted);
    check(&[enrolled(1), counted(2, 5, 2), counted(3, 5, 1)], Status::Suspect);
    // A reset starts the restarts anew.
    check(&[enrolled(1), counted(2, 5, 2), counted(3, 6, 0)], Status::Trusted);
    check(&[enrolled(1), of_boot(2, 5), of_boot(3, 6)], Status::Trusted);
    check(&[enrolled(1), of_boot(2, 5), of_boot(3, 4)], Status::Suspect);
    // Enrolling again is no way around it.
    check(&[enrolled(1), of_boot(2, 5), enrolled(3), of_boot(4, 4)], Status::Suspect);
    check(&[enrolled(1), counted(2, 5, 2), enrolled(3), enrolled(4), counted(5, 5, 1)], Status::Suspect);
    check(&[enrolled(1), of_boot(2, 5), enrolled(3), of_boot(4, 6)], Status::Trusted);
    // A cleared TPM counts from zero: whoever cleared it says so.
    check(&[enrolled(1), of_boot(2, 5), enrolled(3), of_boot(4, 1)], Status::Suspect);
    check(
        &[enrolled(1), of_boot(2, 5), revoked(3), readmitted(3), enrolled(3), of_boot(4, 1)],
        Status::Trusted,
    );
}

#[test]
fn approval_is_for_one_suspicion() {
    let bad = |at| appraised_under(at, Tier::Contraindicated, Recovery::Approve);
    let good = |at| appraised_under(at, Tier::Affirming, Recovery::Approve);
    assert!(check(&[enrolled(1), bad(2), good(3)], Status::Suspect).awaiting_approval());
    check(&[enrolled(1), bad(2), good(3), approved(4)], Status::Trusted);
    check(&[enrolled(1), bad(2), approved(3), good(4)], Status::Trusted);
    check(&[enrolled(1), bad(2), approved(3), bad(4), good(5)], Status::Suspect);
    // Good evidence that has run out meanwhile is not good evidence.
    check(&[enrolled(1), bad(2), good(3), approved(3 + AGE)], Status::Suspect);
    // Before anything was suspected, good evidence needs no approval.
    check(&[enrolled(1), good(2)], Status::Trusted);
}

#[test]
fn a_new_binding_ends_what_the_old_one_was_granted() {
    let before = check(&[enrolled(1), appraised(2, Tier::Affirming)], Status::Trusted);
    let after = check(&[enrolled(1), appraised(2, Tier::Affirming), enrolled(3)], Status::Enrolled);
    assert!(after.withdraws(&before));
    let again = [enrolled(1), enrolled(2)];
    assert!(check(&again, Status::Enrolled).version() > check(&[enrolled(1)], Status::Enrolled).version());
}

#[test]
fn enrolling_again_is_no_way_around_an_approval() {
    let bad = appraised_under(2, Tier::Contraindicated, Recovery::Approve);
    let good = appraised_under(4, Tier::Affirming, Recovery::Approve);
    assert!(check(&[enrolled(1), bad, enrolled(3), good], Status::Suspect).awaiting_approval());
}

#[test]
fn only_an_operator_readmits() {
    check(&[enrolled(1), revoked(2), enrolled(3)], Status::Revoked);
    check(&[enrolled(1), revoked(2), readmitted(3)], Status::Pending);
    check(&[enrolled(1), revoked(2), readmitted(3), enrolled(4)], Status::Enrolled);
}

#[test]
fn a_record_that_no_fold_leaves_is_refused() {
    let lie = TrustRecord { status: Status::Trusted, device_key: Some("k".into()), ..TrustRecord::default() };
    assert_eq!(TrustState::from_record(device(), lie), Err(RecordError::TrustedWithoutEvidence));
    let lie = TrustRecord { status: Status::Enrolled, ..TrustRecord::default() };
    assert_eq!(
        TrustState::from_record(device(), lie),
        Err(RecordError::Unbound { status: Status::Enrolled })
    );
}

fn any_event() -> impl Strategy<Value = EventRecord> {
    let tier = prop_oneof![
        3 => Just(Tier::Affirming),
        1 => Just(Tier::None),
        1 => Just(Tier::Warning),
        1 => Just(Tier::Contraindicated)
    ];
    let recovery = prop_oneof![Just(Recovery::Automatic), Just(Recovery::Approve)];
    let at = 1..HORIZON;
    prop_oneof![
        2 => at.clone().prop_map(enrolled),
        6 => (at.clone(), tier, recovery).prop_map(|(at, tier, recovery)| appraised_under(at, tier, recovery)),
        1 => at.clone().prop_map(|at| EventRecord::Expired { at: UnixTime(at) }),
        2 => at.clone().prop_map(unanswered),
        1 => at.clone().prop_map(revoked),
        1 => at.clone().prop_map(readmitted),
        2 => at.prop_map(approved),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<EventRecord>> {
    proptest::collection::vec(any_event(), 0..24)
}

proptest! {
    #[test]
    fn state_is_the_fold_of_its_events(history in any_history(), cut in 0usize..24) {
        let (before, after) = history.split_at(cut.min(history.len()));
        let stored = serde_json::to_string(TrustState::fold(device(), before).to_record()).unwrap();
        let mut state = TrustState::from_record(device(), serde_json::from_str(&stored).unwrap()).unwrap();
        for event in after {
            let stored = serde_json::to_string(event).unwrap();
            let event: EventRecord = serde_json::from_str(&stored).unwrap();
            state = TrustState { record: state.record.after(&event), ..state };
        }
        prop_assert_eq!(state, TrustState::fold(device(), &history));
    }

    #[test]
    fn trusted_only_by_a_fresh_affirming_result(history in any_history(), now in 0..2 * HORIZON) {
        let state = TrustState::fold(device(), &history);
        if state.status_at(UnixTime(now)) == Status::Trusted {
            let carried = history.iter().any(|event| matches!(event, EventRecord::Appraised(result)
                if result.tier == Tier::Affirming && now < result.valid_until.0));
            prop_assert!(carried);
        }
    }

    #[test]
    fn finding_13_nothing_but_later_good_evidence_outlasts_silence(
        history in any_history(), at in 0..HORIZON, later in any_history(), now in 0..2 * HORIZON
    ) {
        let before = TrustState::fold(device(), &history);
        let silent = TrustState { record: before.record.after(&unanswered(at)), ..before.clone() };
        prop_assert!(silent.valid_until() <= before.valid_until(), "never longer");
        prop_assert_eq!((silent.status(), silent.version()), (before.status(), before.version()));
        let reconnects = later.iter().filter(|event| !matches!(event, EventRecord::Appraised(_)));
        let all: Vec<_> = history.iter().chain([&unanswered(at)]).chain(reconnects).cloned().collect();
        if now >= at + UNANSWERED {
            prop_assert!(TrustState::fold(device(), &all).status_at(UnixTime(now)) != Status::Trusted);
        }
    }

    #[test]
    fn revoked_stays_revoked(history in any_history(), later in any_history()) {
        let mut all = [history, vec![revoked(1)]].concat();
        all.extend(later.into_iter().filter(|event| !matches!(event, EventRecord::Readmitted { .. })));
        prop_assert_eq!(TrustState::fold(device(), &all).status(), Status::Revoked);
    }

    #[test]
    fn worse_state_always_bumps_version(history in any_history(), event in any_event()) {
        let before = TrustState::fold(device(), &history);
        let after = TrustState { record: before.record.after(&event), ..before.clone() };
        prop_assert!(after.version() >= before.version());
        if before.status() == Status::Trusted && after.status() != Status::Trusted {
            prop_assert!(after.version() > before.version());
            prop_assert!(after.withdraws(&before));
        }
    }

    #[test]
    fn no_version_ever_returns(history in any_history(), now in 0..2 * HORIZON) {
        let mut carried = Vec::new();
        for end in 0..=history.len() {
            let state = TrustState::fold(device(), &history[..end]);
            carried.push((state.version(), state.carries(state.version(), UnixTime(now))));
        }
        // Once a version stopped being carried by a change of status, no later state carries it again.
        for (index, (version, _)) in carried.iter().enumerate() {
            let left = carried[index..].iter().position(|(later, _)| later != version);
            if let Some(left) = left {
                prop_assert!(carried[index + left..].iter().all(|(later, _)| later != version));
            }
        }
    }

    #[test]
    fn a_repeated_event_changes_no_status(history in any_history(), event in any_event()) {
        prop_assume!(!matches!(event, EventRecord::Approved { .. } | EventRecord::Enrolled { .. }));
        let once = TrustState::fold(device(), &history).record.after(&event);
        let twice = once.after(&event);
        prop_assert_eq!((once.status, once.version), (twice.status, twice.version));
    }
}

const AGE: u64 = 10;
const UNANSWERED: u64 = 4;
const HORIZON: u64 = 60;

fn vouched(at: u64, basis: Basis) -> EventRecord {
    EventRecord::Vouched { at: UnixTime(at), basis, device_key: "n".to_owned(), until: UnixTime(at + AGE) }
}

#[test]
fn a_node_that_does_not_quote_stands_for_as_long_as_it_was_vouched_for_and_is_of_no_tier() {
    let joined = check(&[vouched(1, Basis::JoinToken)], Status::Trusted);
    assert_eq!((joined.basis(), joined.tier()), (Basis::JoinToken, Tier::None));
    assert_eq!(joined.status_at(UnixTime(1 + AGE)), Status::Expired);
    // Again is no other state: what its workloads have stays.
    let again = check(&[vouched(1, Basis::JoinToken), vouched(2, Basis::JoinToken)], Status::Trusted);
    assert_eq!(again.version(), joined.version());
    let evicted = EventRecord::Evicted { at: UnixTime(3), by: "op".to_owned() };
    for events in [vec![vouched(1, Basis::X509Pop)], vec![vouched(1, Basis::X509Pop), revoked(2)]] {
        let state = check(&[events, vec![evicted.clone()]].concat(), Status::Pending);
        assert!(state.version() > joined.version());
    }
    check(&[vouched(1, Basis::JoinToken), revoked(2), vouched(3, Basis::JoinToken)], Status::Revoked);
    let record = serde_json::to_value(joined.to_record()).unwrap();
    let read = TrustState::from_record(device(), serde_json::from_value(record).unwrap()).unwrap();
    assert_eq!(read, joined);
}

#[test]
fn a_device_that_quotes_is_not_taken_down_to_less_nor_raised_from_it_by_evidence_of_nobody() {
    let quotes = check(&[enrolled(1), appraised(2, Tier::Affirming)], Status::Trusted);
    let vouching = check(
        &[enrolled(1), appraised(2, Tier::Affirming), vouched(3, Basis::EkActivation)],
        Status::Trusted,
    );
    assert_eq!(vouching, quotes);
    let evicting = EventRecord::Evicted { at: UnixTime(3), by: "op".to_owned() };
    assert_eq!(check(&[enrolled(1), appraised(2, Tier::Affirming), evicting], Status::Trusted), quotes);
    let node = check(&[vouched(1, Basis::EkActivation)], Status::Trusted);
    assert_eq!(
        check(&[vouched(1, Basis::EkActivation), appraised(2, Tier::Contraindicated)], Status::Trusted),
        node
    );
    // Enrolled, it is a device like any other.
    let enrolled = check(&[vouched(1, Basis::EkActivation), enrolled(2)], Status::Enrolled);
    assert_eq!(enrolled.basis(), Basis::Quote);
}
