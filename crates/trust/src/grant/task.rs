//! Placement of tasks: whether one may run on a device now, by its level.
//!
//! A level is decided from the trust state and from results alone, never from what a device says of itself. What a device has room
//! for, and which of several gets a task, is [`placement`](crate::placement)'s.

use std::fmt;
use std::str::FromStr;

use assay_evidence::task::{Definition, Occasion, Sha384};
use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Denied, require_trust};
use crate::appraisal::TeeAppraisal;
use crate::finding::Tier;
use crate::state::TrustState;

/// What a task demands of the device that it runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// That it is trusted.
    #[default]
    Public,
    /// That its own quote says what it runs, that the task is one that is known, and that nobody debugs it.
    Confidential,
    /// That hardware hides the task's memory from the device as well, by a fresh result on evidence of that hardware.
    Secret,
}

/// How a task's measurement is held against those that are expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasurementPolicy {
    /// It has to be one of them, at every level.
    #[default]
    Strict,
    /// It has to be one of them where the level demands that it is known.
    Permissive,
}

/// Not a level.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no level: public, confidential or secret")]
pub struct NotALevel(String);

impl Level {
    /// The lowercase word.
    pub fn name(self) -> &'static str {
        match self {
            Level::Public => "public",
            Level::Confidential => "confidential",
            Level::Secret => "secret",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Self, NotALevel> {
        let levels = [Level::Public, Level::Confidential, Level::Secret];
        levels.into_iter().find(|level| level.name() == text).ok_or_else(|| NotALevel(text.to_owned()))
    }
}

/// What a result on evidence of a device's TEE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TeeStanding {
    tier: Tier,
    hides_memory: bool,
    at: UnixTime,
}

impl TeeStanding {
    /// Of a result, on evidence that answered a nonce at that time.
    pub fn of(appraisal: &TeeAppraisal, at: UnixTime) -> TeeStanding {
        let hides_memory = appraisal.vector().runtime_opaque.tier() == Tier::Affirming;
        TeeStanding { tier: appraisal.tier(), hides_memory, at }
    }
}

/// What is asked for: one attempt at a task on one device.
#[derive(Clone, Copy, Debug)]
pub struct TaskRequest<'a> {
    /// What is to be run.
    pub definition: &'a Definition,
    /// What it demands.
    pub level: Level,
    /// Whether the device has to have quoted, whatever the level.
    pub require_attestation: bool,
    /// How old its evidence may be; 0: as old as its policy lets it be.
    pub evidence_seconds_max: u64,
    /// Whether it may be debugged.
    pub allow_debug: bool,
    /// How its measurement is judged.
    pub measurement_policy: MeasurementPolicy,
    /// Measurements that are expected.
    pub expected: &'a [Sha384],
    /// What is known of the device's TEE; `None`: no evidence of one was verified.
    pub tee: Option<TeeStanding>,
}

/// The right of one attempt at a task to run on one device.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskGrant {
    occasion: Occasion,
    measurement: Sha384,
    level: Level,
    state_version: u64,
}

impl TaskGrant {
    /// Which attempt, and on which device.
    pub fn occasion(&self) -> &Occasion {
        &self.occasion
    }

    /// The measurement of what is run.
    pub fn measurement(&self) -> &Sha384 {
        &self.measurement
    }

    /// The level that it was decided at.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The version of the trust state that carries it.
    pub fn state_version(&self) -> u64 {
        self.state_version
    }
}

/// Decides whether an attempt at a task may run on the device that it names.
pub fn decide(
    state: &TrustState,
    request: TaskRequest<'_>,
    occasion: Occasion,
    now: UnixTime,
) -> Result<TaskGrant, Denied> {
    if occasion.device != state.device().as_str() {
        return Err(Denied::WrongDevice { stated: occasion.device, device: state.device().to_string() });
    }
    check(state, &request, now)?;
    let (measurement, level) = (request.definition.measurement(), request.level);
    check_task(&request, &measurement)?;
    Ok(TaskGrant { occasion, measurement, level, state_version: state.version() })
}

/// What there is against a task, wherever it runs.
pub fn check_task(request: &TaskRequest<'_>, measurement: &Sha384) -> Result<(), Denied> {
    let must_be_known =
        request.level >= Level::Confidential || request.measurement_policy == MeasurementPolicy::Strict;
    // A public task of which nobody expects anything has nothing to be held against.
    let is_asked = request.level >= Level::Confidential || !request.expected.is_empty();
    if must_be_known && is_asked && !request.expected.contains(measurement) {
        let measurement = data_encoding::HEXLOWER.encode(measurement);
        return Err(Denied::MeasurementUnknown { measurement, expected: request.expected.len() });
    }
    if request.level >= Level::Confidential && request.allow_debug {
        return Err(Denied::Debug { level: request.level });
    }
    Ok(())
}

/// What there is against a device, whatever the task is.
pub(crate) fn check(state: &TrustState, request: &TaskRequest<'_>, now: UnixTime) -> Result<(), Denied> {
    require_trust(state, now)?;
    if request.level == Level::Public && !request.require_attestation {
        return Ok(());
    }
    if !state.basis().is_quote() {
        return Err(Denied::Unattested { basis: state.basis() });
    }
    let oldest = request.evidence_seconds_max;
    let age = |at: UnixTime| now.0.saturating_sub(at.0);
    match state.evidence_at() {
        Some(at) if oldest == 0 || age(at) <= oldest => {}
        at => return Err(Denied::EvidenceTooOld { seconds: at.map(age), oldest }),
    }
    if request.level == Level::Secret {
        check_tee(request.tee, oldest, now)?;
    }
    Ok(())
}

/// Memory that is hidden from the device is shown by its hardware or not at all.
fn check_tee(tee: Option<TeeStanding>, oldest: u64, now: UnixTime) -> Result<(), Denied> {
    let lacks = match tee {
        None => TeeLack::NoEvidence,
        Some(TeeStanding { tier, .. }) if tier != Tier::Affirming => TeeLack::Tier(tier),
        Some(TeeStanding { hides_memory: false, .. }) => TeeLack::Memory,
        Some(TeeStanding { at, .. }) => {
            let bound = if oldest == 0 { TEE_SECONDS_MAX } else { oldest.min(TEE_SECONDS_MAX) };
            match now.0.checked_sub(at.0) {
                Some(age) if age <= bound => return Ok(()),
                _ => TeeLack::Stale { bound },
            }
        }
    };
    Err(Denied::NoTee(lacks))
}

/// What a device's TEE lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeLack {
    /// There is no verified evidence of one.
    NoEvidence,
    /// The result is not affirming.
    Tier(Tier),
    /// The result does not claim that memory is hidden.
    Memory,
    /// The result is not of now.
    Stale {
        /// How old it may be, in seconds.
        bound: u64,
    },
}

impl fmt::Display for TeeLack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TeeLack::NoEvidence => f.write_str("the device showed no evidence of one"),
            TeeLack::Tier(tier) => write!(f, "the result on its evidence is {}", tier.name()),
            TeeLack::Memory => f.write_str("its evidence does not show that memory is hidden from the host"),
            TeeLack::Stale { bound } => {
                write!(f, "the result on its evidence is not from the last {bound} s")
            }
        }
    }
}

/// As long as an attestation of a TPM is usually good for.
const TEE_SECONDS_MAX: u64 = 300;

#[cfg(test)]
mod tests {
    use assay_evidence::task::{Backend, Limits, sha384};
    use assay_identity::SpiffeId;
    use proptest::prelude::*;

    use super::*;
    use crate::condition::Holding;
    use crate::policy::Recovery;
    use crate::state::{Appraised, Basis, EventRecord};

    const NOW: UnixTime = UnixTime(1000);

    fn id() -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/spire/agent/tpm/{}", "1".repeat(64))).unwrap()
    }

    fn state(events: &[EventRecord]) -> TrustState {
        let enrolled = EventRecord::Enrolled { at: UnixTime(1), device_key: Some("key".to_owned()) };
        TrustState::fold(id(), std::iter::once(&enrolled).chain(events))
    }

    fn appraised(at: u64, tier: Tier) -> EventRecord {
        EventRecord::Appraised(Appraised {
            at: UnixTime(at),
            tier,
            valid_until: UnixTime(at + 600),
            policy: None,
            reset_count: Some(1),
            restart_count: Some(0),
            recovery: Recovery::Automatic,
            reason: String::new(),
            holding: Holding::default(),
        })
    }

    fn trusted() -> TrustState {
        state(&[appraised(990, Tier::Affirming)])
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

    fn occasion() -> Occasion {
        Occasion { task: "t".to_owned(), attempt: 1, device: id().to_string(), nonce: [0; 32] }
    }

    fn request<'a>(level: Level, definition: &'a Definition, expected: &'a [Sha384]) -> TaskRequest<'a> {
        TaskRequest {
            definition,
            level,
            require_attestation: false,
            evidence_seconds_max: 0,
            allow_debug: false,
            measurement_policy: MeasurementPolicy::Strict,
            expected,
            tee: None,
        }
    }

    fn code(state: &TrustState, request: TaskRequest<'_>) -> Option<&'static str> {
        decide(state, request, occasion(), NOW).err().map(|denied| denied.code())
    }

    const AFFIRMING: TeeStanding = TeeStanding { tier: Tier::Affirming, hides_memory: true, at: NOW };

    #[test]
    fn each_level_demands_more_than_the_one_before() {
        let definition = definition();
        let known = [definition.measurement()];
        let secret = TaskRequest { tee: Some(AFFIRMING), ..request(Level::Secret, &definition, &known) };
        for level in [Level::Public, Level::Confidential] {
            assert_eq!(code(&trusted(), request(level, &definition, &known)), None, "{level}");
        }
        assert_eq!(code(&trusted(), secret), None);
        assert_eq!(code(&trusted(), request(Level::Secret, &definition, &known)), Some("no-tee"));
        assert_eq!(code(&trusted(), request(Level::Public, &definition, &[])), None);
        assert_eq!(
            code(&trusted(), request(Level::Confidential, &definition, &[])),
            Some("measurement-unknown")
        );
        let unquoted = EventRecord::Vouched {
            at: UnixTime(2),
            basis: Basis::JoinToken,
            device_key: "key".to_owned(),
            until: UnixTime(2000),
        };
        let vouched = TrustState::fold(id(), [&unquoted]);
        assert_eq!(code(&vouched, request(Level::Public, &definition, &[])), None);
        assert_eq!(code(&vouched, request(Level::Confidential, &definition, &known)), Some("unattested"));
        let attested = TaskRequest { require_attestation: true, ..request(Level::Public, &definition, &[]) };
        assert_eq!(code(&vouched, attested), Some("unattested"));
    }

    #[test]
    fn a_measurement_that_nobody_expects_is_refused() {
        let definition = definition();
        let others = [sha384(b"another")];
        let permissive = MeasurementPolicy::Permissive;
        for (level, policy, code_of) in [
            (Level::Public, MeasurementPolicy::Strict, Some("measurement-unknown")),
            (Level::Public, permissive, None),
            (Level::Confidential, permissive, Some("measurement-unknown")),
        ] {
            let asked = TaskRequest { measurement_policy: policy, ..request(level, &definition, &others) };
            assert_eq!(code(&trusted(), asked), code_of, "{level}");
        }
    }

    #[test]
    fn nobody_debugs_what_is_confidential() {
        let definition = definition();
        let known = [definition.measurement()];
        let debug = |level| TaskRequest { allow_debug: true, ..request(level, &definition, &known) };
        assert_eq!(code(&trusted(), debug(Level::Public)), None);
        assert_eq!(code(&trusted(), debug(Level::Confidential)), Some("debug"));
    }

    #[test]
    fn old_evidence_is_no_evidence() {
        let definition = definition();
        let known = [definition.measurement()];
        let within = |seconds| TaskRequest {
            evidence_seconds_max: seconds,
            ..request(Level::Confidential, &definition, &known)
        };
        assert_eq!(code(&trusted(), within(10)), None);
        assert_eq!(code(&trusted(), within(9)), Some("evidence-too-old"));
    }

    #[test]
    fn a_secret_is_for_a_tee_whose_result_is_good_and_of_now() {
        let definition = definition();
        let known = [definition.measurement()];
        let lacks = |tee| {
            let asked = TaskRequest { tee: Some(tee), ..request(Level::Secret, &definition, &known) };
            match decide(&trusted(), asked, occasion(), NOW) {
                Ok(_) => None,
                Err(Denied::NoTee(lack)) => Some(lack),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(lacks(AFFIRMING), None);
        let warning = TeeStanding { tier: Tier::Warning, ..AFFIRMING };
        assert_eq!(lacks(warning), Some(TeeLack::Tier(Tier::Warning)));
        assert_eq!(lacks(TeeStanding { tier: Tier::None, ..AFFIRMING }), Some(TeeLack::Tier(Tier::None)));
        assert_eq!(lacks(TeeStanding { hides_memory: false, ..AFFIRMING }), Some(TeeLack::Memory));
        for at in [NOW.0 - TEE_SECONDS_MAX - 1, NOW.0 + 1] {
            let stale = TeeStanding { at: UnixTime(at), ..AFFIRMING };
            assert_eq!(lacks(stale), Some(TeeLack::Stale { bound: TEE_SECONDS_MAX }), "{at}");
        }
    }

    #[test]
    fn an_attempt_is_for_the_device_that_it_names() {
        let definition = definition();
        let other = Occasion { device: "spiffe://example.org/other".to_owned(), ..occasion() };
        let denied = decide(&trusted(), request(Level::Public, &definition, &[]), other, NOW).unwrap_err();
        assert_eq!(denied.code(), "wrong-device");
        let grant = decide(&trusted(), request(Level::Public, &definition, &[]), occasion(), NOW).unwrap();
        assert_eq!(grant.state_version(), trusted().version());
        assert_eq!((grant.occasion(), *grant.measurement()), (&occasion(), definition.measurement()));
    }

    fn level() -> impl Strategy<Value = Level> {
        prop_oneof![Just(Level::Public), Just(Level::Confidential), Just(Level::Secret)]
    }

    fn tier() -> impl Strategy<Value = Tier> {
        prop_oneof![Just(Tier::None), Just(Tier::Affirming), Just(Tier::Warning), Just(Tier::Contraindicated)]
    }

    proptest! {
        #[test]
        fn no_task_runs_where_the_device_is_not_trusted_and_fresh(
            level in level(), tiers in proptest::collection::vec((2..2000_u64, tier()), 0..4),
            now in 0..3000_u64, tee in proptest::option::of((tier(), any::<bool>(), 0..3000_u64)),
        ) {
            let events: Vec<_> = tiers.into_iter().map(|(at, tier)| appraised(at, tier)).collect();
            let (state, definition) = (state(&events), definition());
            let known = [definition.measurement()];
            let tee = tee.map(|(tier, hides_memory, at)| TeeStanding { tier, hides_memory, at: UnixTime(at) });
            let asked = TaskRequest { tee, ..request(level, &definition, &known) };
            if decide(&state, asked, occasion(), UnixTime(now)).is_ok() {
                prop_assert!(state.carries(state.version(), UnixTime(now)));
                prop_assert!(level != Level::Secret || tee.is_some_and(|tee| tee.hides_memory && tee.tier == Tier::Affirming));
            }
        }
    }
}
