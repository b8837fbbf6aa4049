//! Appraisal: verified claims against a policy. A pure function, so stored evidence gives the same result anywhere.
//!
//! Each section of the policy is judged in its own file, and each says everything it finds, not the first thing.

mod banks;
mod boot;
mod clock;
mod demand;
mod endorsement;
pub(crate) mod files;
pub(crate) mod pcr;
#[cfg(feature = "rego")]
mod rego;
mod tee;
mod undecided;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::Claims;
use assay_evidence::{Check, Failure};

pub(crate) use boot::{CHANGED_SECTIONS, is_older, loaders_least, signers_of};
pub use endorsement::admit;
pub(crate) use pcr::meaning;
pub use tee::{TeeAppraisal, TeeClaims, appraise_tee, refuse_tee};

use crate::finding::{Finding, Tier};
use crate::policy::{Cover, Coverage, Covered, Demand, Recovery, Row};
use crate::reference::{BootReference, CompiledPolicy};
use crate::vector::{Executables, Judged, TrustVector};
use demand::{AttestedBoot, AttestedFiles, is_shown, witness_if};

/// The verdict on one piece of evidence. Made by [`appraise`], [`reappraise_endorsement`] and [`refuse`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct AttestationResult {
    at: UnixTime,
    tier: Tier,
    findings: Vec<Finding>,
    policy: Option<(String, u64)>,
    evidence_age_max_seconds: u64,
    recovery: Recovery,
    counters: Option<BootCounters>,
    good_ima_entries: u64,
    vector: TrustVector,
    open: Vec<Covered>,
}

impl AttestationResult {
    /// When it was made.
    pub fn at(&self) -> UnixTime {
        self.at
    }

    /// The worst tier of all findings.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Everything there is to say, the gravest first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Name and version of the policy.
    pub fn policy(&self) -> Option<(&str, u64)> {
        self.policy.as_ref().map(|(name, version)| (name.as_str(), *version))
    }

    /// Until when an affirming result carries trust.
    pub fn valid_until(&self) -> UnixTime {
        self.at.plus(self.evidence_age_max_seconds)
    }

    /// How trust comes back after a bad result.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The TPM's reset and restart counters, where the quote verified.
    pub fn counters(&self) -> Option<BootCounters> {
        self.counters
    }

    /// How many IMA entries of this boot are judged and good without a gap: where the next appraisal may start.
    pub fn good_ima_entries(&self) -> u64 {
        self.good_ima_entries
    }

    /// The result in AR4SI's terms.
    pub fn vector(&self) -> &TrustVector {
        &self.vector
    }

    /// What the policy leaves open, by choice or by oversight: a good result says nothing of it. Empty where no claims were
    /// judged by a policy.
    pub fn open_rows(&self) -> &[Covered] {
        &self.open
    }

    /// Adds what somebody else noted and no finding says yet. Notes can only make a result worse.
    #[must_use]
    pub fn with_notes(mut self, policy: Option<&CompiledPolicy>, notes: &[Failure]) -> Self {
        undecided::add(policy, notes, &mut self.findings);
        if self.tier != Tier::None {
            let worst = self.findings.iter().map(|finding| finding.tier).max().unwrap_or_default();
            self.tier = self.tier.max(worst);
        }
        self.findings = Finding::of_a_result(self.findings);
        self
    }

    /// The gravest finding in a sentence, or what is good.
    pub fn reason(&self) -> &str {
        match self.findings.first() {
            Some(finding) if self.tier != Tier::Affirming => &finding.message,
            _ => "the evidence is what the policy wants",
        }
    }
}

/// Judges verified claims. Without a policy nothing is judged, and the tier is `none`.
///
/// `endorsement` is the EK of the device's TPM and who vouches for it; the caller that enrolled the device keeps the
/// certificate and verifies it again.
pub fn appraise(
    claims: &Claims,
    policy: Option<&CompiledPolicy>,
    endorsement: Option<&Endorsement>,
    at: UnixTime,
) -> AttestationResult {
    let Some(policy) = policy else { return unjudged(claims, at) };
    let mut findings = Vec::new();
    endorsement::judge(policy, endorsement, Some(claims), at, &mut findings);
    clock::judge(policy, claims, &mut findings);
    banks::judge(policy, claims, &mut findings);
    findings.append(&mut judge_boots(policy, claims));
    findings.extend(policy.tee.as_ref().map(|_| tee::not_shown(policy.citation())));
    let good_ima_entries = files::judge(policy, claims, &mut findings);
    // What a rule objects to may be an entry, which has to be there again for it to object again.
    #[cfg(feature = "rego")]
    let good_ima_entries = match rego::judge(policy, claims, endorsement, &mut findings) {
        rego::Verdict::Agreed => good_ima_entries,
        rego::Verdict::Objected => claims.ima().map_or(0, |ima| ima.first_index().min(good_ima_entries)),
    };
    let good_ima_entries = match undecided::add(Some(policy), claims.notes(), &mut findings) {
        undecided::Weight::Little => good_ima_entries,
        // Nothing of the list counts before it is decided, so all of it has to be there again.
        undecided::Weight::List => claims.ima().map_or(0, |ima| ima.first_index().min(good_ima_entries)),
    };
    // The gravest first; within a tier, the order of the sections.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.tier));
    let judged = Judged::of(policy.coverage(), claims, endorsement);
    AttestationResult {
        at,
        tier: findings.first().map_or(Tier::Affirming, |finding| finding.tier.max(Tier::Affirming)),
        policy: Some((policy.name().to_owned(), policy.version())),
        evidence_age_max_seconds: policy.evidence_age_max_seconds(),
        recovery: policy.recovery(),
        counters: Some(claims.clock().counters()),
        good_ima_entries,
        vector: TrustVector::of_claims(judged, &findings),
        open: policy.coverage().open().copied().collect(),
        findings: Finding::of_a_result(findings),
    }
}

impl Judged {
    /// What a rule of the policy judged of what was attested: neither a rule without evidence affirms anything, nor evidence
    /// without a rule.
    fn of(coverage: &Coverage, claims: &Claims, endorsement: Option<&Endorsement>) -> Self {
        let is_closed = |rows: &[Row]| rows.iter().all(|row| coverage.cover(*row) > Cover::Open);
        let boot = is_closed(&[Row::BootLoader, Row::Kernel]);
        let files = is_closed(&[Row::Files]) && is_shown::<AttestedFiles<'_>>(claims);
        Judged {
            executables: match (boot, files) {
                (true, true) => Executables::BootAndFiles,
                (true, false) => Executables::Boot,
                (false, _) => Executables::None,
            },
            configuration: is_closed(&[Row::Keys, Row::CommandLine]),
            hardware: is_closed(&[Row::Endorsement])
                && endorsement.is_some_and(|endorsement| endorsement.certificate().is_some()),
        }
    }
}

/// Judges the boot by each that the policy accepts, as a whole. What counts is the first that accepts it, or else the
/// one that it comes nearest to.
fn judge_boots(policy: &CompiledPolicy, claims: &Claims) -> Vec<Finding> {
    let mut nearest: Option<Vec<Finding>> = None;
    for reference in &policy.boots {
        let mut findings = Vec::new();
        judge_log(reference, claims, &mut findings);
        banks::judge_set(reference, claims, &mut findings);
        pcr::judge(reference, claims, &mut findings);
        boot::judge(reference, claims, &mut findings);
        let objections = objections(&findings);
        if nearest.as_deref().is_none_or(|nearest| objections < self::objections(nearest)) {
            nearest = Some(findings);
        }
        if objections == (0, 0) {
            break;
        }
    }
    nearest.unwrap_or_default()
}

/// A log that is there has to show a boot. One that is not there is told with the rest of the boot.
fn judge_log(reference: &BootReference, claims: &Claims, findings: &mut Vec<Finding>) {
    let is_asked = reference.boot.event_log == Demand::Required;
    if let Some(boot) = claims.boot() {
        let _: Option<AttestedBoot<'_>> =
            witness_if(is_asked, boot.as_ref(), findings, || boot::empty_log(reference.citation()));
    }
}

/// How much speaks against a boot: findings that refuse it, then those that warn.
fn objections(findings: &[Finding]) -> (usize, usize) {
    let of = |tier| findings.iter().filter(|finding| finding.tier == tier).count();
    (of(Tier::Contraindicated), of(Tier::Warning))
}

fn unjudged(claims: &Claims, at: UnixTime) -> AttestationResult {
    let finding = Finding {
        accept: None,
        check: Check::PolicyPresent,
        tier: Tier::None,
        claim: "policy".to_owned(),
        expected: "a policy".to_owned(),
        found: "none".to_owned(),
        message: "No policy is set, so nothing was judged and nothing is granted: make one from good evidence with \
                  `assay policy learn CASE_DIR -o FILE` and set it with `assay policy set FILE`."
            .to_owned(),
    };
    let undecided = claims.ima().and_then(files::undecided);
    AttestationResult {
        at,
        tier: Tier::None,
        findings: Finding::of_a_result(std::iter::once(finding).chain(undecided).collect()),
        policy: None,
        evidence_age_max_seconds: 0,
        recovery: Recovery::Automatic,
        counters: Some(claims.clock().counters()),
        good_ima_entries: 0,
        vector: TrustVector::default(),
        open: Vec::new(),
    }
}

/// The result for a device whose endorsement no longer holds, such as when its maker took it back: it does not wait
/// for the device to show anything. `None`: the policy has nothing against the endorsement.
pub fn reappraise_endorsement(
    policy: &CompiledPolicy,
    endorsement: &Endorsement,
    at: UnixTime,
) -> Option<AttestationResult> {
    let mut findings = Vec::new();
    endorsement::judge(policy, Some(endorsement), None, at, &mut findings);
    findings.retain(|finding| finding.tier == Tier::Contraindicated);
    let judged = Judged { hardware: true, ..Judged::default() };
    (!findings.is_empty()).then(|| AttestationResult {
        at,
        tier: Tier::Contraindicated,
        policy: Some((policy.name().to_owned(), policy.version())),
        evidence_age_max_seconds: 0,
        recovery: policy.recovery(),
        counters: None,
        good_ima_entries: 0,
        vector: TrustVector::of_claims(judged, &findings),
        open: Vec::new(),
        findings: Finding::of_a_result(findings),
    })
}

/// The result for evidence that does not verify. Nothing in it is believed, whatever the policy says; the policy
/// only names how trust comes back.
pub fn refuse(failures: &[Failure], policy: Option<&CompiledPolicy>, at: UnixTime) -> AttestationResult {
    AttestationResult {
        at,
        tier: Tier::Contraindicated,
        findings: Finding::of_a_result(
            failures.iter().map(|failure| Finding::from_failure(failure, Tier::Contraindicated)).collect(),
        ),
        policy: policy.map(|policy| (policy.name().to_owned(), policy.version())),
        evidence_age_max_seconds: 0,
        recovery: policy.map_or(Recovery::Automatic, CompiledPolicy::recovery),
        counters: None,
        good_ima_entries: 0,
        vector: TrustVector::of_failures(),
        open: Vec::new(),
    }
}
