//! What goes between an `Attester` and whoever drives it: the steps that it asks for, and what came of them.

use assay_evidence::request::{Evidence, NONCE_BYTES};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::banks::ActiveBanks;
use assay_evidence::verify::Baseline;
use assay_trust::condition::{Conditions, Holding, Searched};
use assay_trust::{AttestationResult, Event, Finding, Status, Tier, TrustState};

use super::judge::Job;
use crate::archive::keeper::{Draft, JudgedEvidence, Progress};
use crate::fate::{findings_json, vector_json};
use crate::in_force::policies::PolicyInForce;
use crate::store::{AppraisalRecord, Change, Kept, LostEntry, RenewTrust};

/// A challenge that waits for its evidence.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) known: Known,
    /// What entries ask of the device.
    pub(super) conditions: Conditions,
    /// The policy it was made under.
    pub(super) revision: u64,
    /// The endorsers it was made under.
    pub(super) endorsed: u64,
}

impl Asked {
    /// What the answer has to bear.
    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.nonce
    }
}

/// What evidence has to add to.
#[derive(Debug)]
pub(crate) enum Known {
    /// Nothing: it has to be whole.
    Nothing,
    /// What is kept, which is judged anew with it.
    Kept(Progress),
    /// What was judged before, and searched.
    Judged(Baseline, Searched),
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Challenge again at once: what was asked for is no longer enough, or not all of it came.
    AskAgain,
    /// Put what is kept of the boot before what was sent, and go on with `Attester::completed`.
    Complete(Pending, Evidence),
    /// Verify and appraise, and go on with `Attester::judged`.
    Judge(Pending, Job),
    /// Put the result on record, and say what became of it with `Attester::recorded`.
    Record(Finished),
}

/// Evidence on its way to a verdict.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) asked: Asked,
    pub(super) policy: PolicyInForce,
    pub(super) now: UnixTime,
    pub(super) kept_bytes: Option<usize>,
}

impl Pending {
    /// The boot that is kept.
    pub(crate) fn progress(&self) -> Option<&Progress> {
        match &self.asked.known {
            Known::Kept(progress) => Some(progress),
            Known::Nothing | Known::Judged(..) => None,
        }
    }
}

/// A result to be put on record.
#[derive(Debug)]
pub(crate) struct Finished {
    /// It.
    pub result: AttestationResult,
    pub(super) appraisal: AppraisalRecord,
    pub(super) event: Event,
    pub(super) judged: Option<(JudgedEvidence, Option<(Baseline, Searched)>)>,
}

/// How a result goes on record as of now; made anew when the device moved on meanwhile.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// A step of the state, or its new times alone.
    pub change: StateChange,
    /// Entries that the device loses though it stays trusted.
    pub lost: Vec<LostEntry>,
    /// What to keep of the evidence.
    pub draft: Option<Draft>,
    pub(super) next: TrustState,
}

/// What a result does to a device's state.
#[derive(Debug)]
pub(crate) enum StateChange {
    /// It is another result, or moves the state.
    Moves(Box<(Change, AppraisalRecord)>),
    /// The same, with new times.
    Renews(RenewTrust),
}

/// What the store made of a result.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Whether the last result on record says the same; else the device's results differ too often for each to be there.
    pub on_record: bool,
    /// Where its evidence was put, if it was.
    pub kept: Option<Kept>,
}

/// What a device is told.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub tier: Tier,
    pub state: Status,
    /// The gravest.
    pub findings: Vec<Finding>,
    pub valid_for_seconds: u64,
    /// Name and version; empty: there is none.
    pub policy: String,
}

impl Finished {
    pub(super) fn new(
        result: AttestationResult,
        holding: Holding,
        judged: Option<(JudgedEvidence, Option<(Baseline, Searched)>)>,
    ) -> Finished {
        let appraisal = AppraisalRecord {
            at: result.at(),
            tier: result.tier().name().to_owned(),
            policy: citation(&result),
            findings: findings_json(result.findings()),
            vector: vector_json(result.vector()),
        };
        Finished { event: Event::appraised(&result, holding), appraisal, judged, result }
    }
}

impl Known {
    pub(super) fn baseline(&self) -> Option<&Baseline> {
        match self {
            Known::Judged(baseline, _) => Some(baseline),
            Known::Nothing | Known::Kept(_) => None,
        }
    }

    /// The active PCR banks: by whatever else is known of a boot, nobody knows them.
    pub(super) fn banks(&self) -> Option<&ActiveBanks> {
        self.baseline().and_then(Baseline::banks)
    }

    pub(super) fn searched(&self) -> Searched {
        match self {
            Known::Judged(_, searched) => searched.clone(),
            Known::Nothing | Known::Kept(_) => Searched::default(),
        }
    }

    pub(super) fn boot_log_wanted(&self) -> bool {
        match self {
            Known::Nothing => true,
            Known::Kept(progress) => progress.boot_log_wanted(),
            Known::Judged(baseline, _) => !baseline.has_boot_log(),
        }
    }

    pub(super) fn ima_entries(&self) -> u64 {
        match self {
            Known::Nothing => 0,
            Known::Kept(progress) => progress.entries,
            Known::Judged(baseline, _) => baseline.ima_entries(),
        }
    }
}

pub(super) fn citation(result: &AttestationResult) -> String {
    result.policy().map(|(name, version)| format!("{name} v{version}")).unwrap_or_default()
}
