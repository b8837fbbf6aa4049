//! Evidence of a TEE against the `tee` section of a policy.
//!
//! What is judged is what the maker's key signed. Memory that is hidden from the host is claimed only here, and only where
//! the guest or enclave does not let the host look.

use assay_evidence::tee::azure::{AzureClaims, AzurePlatform};
use assay_evidence::tee::cca::CcaClaims;
use assay_evidence::tee::dcap::{DcapClaims, Guest, Subject, TcbStatus};
use assay_evidence::tee::nvidia::NvidiaClaims;
use assay_evidence::tee::snp::{SnpClaims, Tcb};
use assay_evidence::{Check, Failure};

use crate::finding::{Finding, Tier};
use crate::policy::{SnpMinimum, SnpProduct, TeeKind, TeeSection, Weight};
use crate::vector::TrustVector;

/// Claims of one kind of TEE.
#[derive(Clone, Debug)]
pub enum TeeClaims {
    /// AMD SEV-SNP.
    Snp(Box<SnpClaims>),
    /// Intel SGX or TDX.
    Dcap(Box<DcapClaims>),
    /// One of the two, with the virtual TPM that it vouches for.
    Azure(Box<AzureClaims>),
    /// Arm CCA.
    Cca(Box<CcaClaims>),
    /// A confidential GPU or switch.
    Nvidia(Box<NvidiaClaims>),
}

/// What appraisal says of evidence of a TEE. Made by [`appraise_tee`] and [`refuse_tee`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct TeeAppraisal {
    tier: Tier,
    findings: Vec<Finding>,
    vector: TrustVector,
}

impl TeeAppraisal {
    /// The worst tier of all findings.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Everything there is to say, the gravest first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The result in AR4SI's terms.
    pub fn vector(&self) -> &TrustVector {
        &self.vector
    }
}

impl TeeClaims {
    /// Which kind it is.
    pub fn kind(&self) -> TeeKind {
        match self {
            TeeClaims::Snp(_) => TeeKind::SevSnp,
            TeeClaims::Dcap(claims) => kind_of(claims),
            TeeClaims::Azure(claims) => match &claims.platform {
                AzurePlatform::Snp(_) => TeeKind::SevSnp,
                AzurePlatform::Tdx(claims) => kind_of(claims),
            },
            TeeClaims::Cca(_) => TeeKind::Cca,
            TeeClaims::Nvidia(_) => TeeKind::Nvidia,
        }
    }
}

fn kind_of(claims: &DcapClaims) -> TeeKind {
    match claims.subject {
        Subject::Sgx { .. } => TeeKind::Sgx,
        Subject::Tdx(_) => TeeKind::Tdx,
    }
}

/// Judges verified claims, with what verification left open.
pub fn appraise_tee(
    claims: &TeeClaims,
    notes: &[Failure],
    section: &TeeSection,
    citation: &str,
) -> TeeAppraisal {
    let mut judge = Judge { section, citation, findings: Vec::new() };
    judge.kind(claims.kind());
    match claims {
        TeeClaims::Snp(claims) => judge.snp(claims),
        TeeClaims::Dcap(claims) => judge.dcap(claims),
        TeeClaims::Azure(claims) => match &claims.platform {
            AzurePlatform::Snp(claims) => judge.snp(claims),
            AzurePlatform::Tdx(claims) => judge.dcap(claims),
        },
        TeeClaims::Cca(claims) => judge.cca(claims),
        TeeClaims::Nvidia(_) => judge.nvidia(),
    }
    judge.notes(notes);
    let findings = Finding::of_a_result(judge.findings);
    let measured = !section.measurements.is_empty();
    TeeAppraisal {
        tier: findings.first().map_or(Tier::Affirming, |finding| finding.tier.max(Tier::Affirming)),
        vector: TrustVector::of_tee(measured, claims.hides_memory(), &findings),
        findings,
    }
}

/// The result for evidence that did not verify.
pub fn refuse_tee(failures: &[Failure]) -> TeeAppraisal {
    let findings = failures.iter().map(|failure| Finding::from_failure(failure, Tier::Contraindicated));
    TeeAppraisal {
        tier: Tier::Contraindicated,
        findings: Finding::of_a_result(findings.collect()),
        vector: TrustVector::of_failures(),
    }
}

/// The finding on a device whose policy demands a TEE: it conveys a TPM's evidence alone.
pub(super) fn not_shown(citation: &str) -> Finding {
    Finding {
        accept: None,
        check: Check::TeePolicy,
        tier: Tier::Contraindicated,
        claim: "TEE".to_owned(),
        expected: "evidence of a TEE".to_owned(),
        found: "none".to_owned(),
        message: format!(
            "Policy {citation} demands evidence of a TEE and the device showed none: run it in a confidential guest, or leave \
             [tee] out of its policy."
        ),
    }
}

struct Judge<'a> {
    section: &'a TeeSection,
    citation: &'a str,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn find(
        &mut self,
        weight: Weight,
        claim: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: &str,
    ) {
        self.find_of(Check::TeePolicy, weight, claim, (expected.into(), found.into()), advice);
    }

    fn find_of(
        &mut self,
        check: Check,
        weight: Weight,
        claim: &str,
        (expected, found): (String, String),
        advice: &str,
    ) {
        let Some(tier) = weight.tier() else { return };
        let citation = self.citation;
        self.findings.push(Finding {
            accept: None,
            check,
            tier,
            message: format!("{claim}: expected {expected}, found {found} ({citation}). {advice}"),
            claim: claim.to_owned(),
            expected,
            found,
        });
    }

    fn kind(&mut self, kind: TeeKind) {
        if !self.section.kinds.contains(&kind) {
            let kinds: Vec<&str> = self.section.kinds.iter().map(|kind| kind.name()).collect();
            let advice = "Add it to tee.kinds where such a platform will do.";
            self.find(Weight::Refuse, "kind of TEE", kinds.join(" or "), kind.name(), advice);
        }
    }

    fn snp(&mut self, claims: &SnpClaims) {
        self.debug(claims.policy.allows_debug());
        self.measured("MEASUREMENT", &self.section.measurements, &claims.measurement);
        self.measured("ID key", &self.section.signers, &claims.id_key_digest);
        self.measured("HOST_DATA", &self.section.host_data, &claims.host_data);
        if claims.policy.allows_migration() {
            let advice = "Start it with a policy that forbids migration agents.";
            self.find(self.section.migration, "guest policy", "no migration", "migration is allowed", advice);
        }
        if claims.vmpl > u32::from(self.section.vmpl_max) {
            let expected = format!("{} or higher in privilege", self.section.vmpl_max);
            let advice = "Have the report asked for by what runs at that level, or raise tee.vmpl_max.";
            self.find(Weight::Refuse, "VMPL", expected, claims.vmpl.to_string(), advice);
        }
        let product = match claims.product {
            assay_evidence::tee::snp::Product::Milan => SnpProduct::Milan,
            assay_evidence::tee::snp::Product::Genoa => SnpProduct::Genoa,
            assay_evidence::tee::snp::Product::Turin => SnpProduct::Turin,
        };
        match self.section.snp_minimum.get(&product) {
            Some(minimum) => self.minimum(claims.tcb.committed, *minimum),
            // A product that nobody thought of has no floor, and is not let through by that.
            None if !self.section.snp_minimum.is_empty() => {
                let expected = format!("tee.snp_minimum.{}", product.name());
                let advice = "Say the lowest versions for this product.";
                self.find(Weight::Refuse, "firmware", expected, "no line for this product", advice);
            }
            None => {}
        }
    }

    fn minimum(&mut self, have: Tcb, minimum: SnpMinimum) {
        for (part, have) in have.parts() {
            let need =
                minimum.parts().into_iter().find(|(name, _)| *name == part).map_or(0, |(_, need)| need);
            if have < need {
                let claim = format!("{part} of COMMITTED_TCB");
                let advice = "Update the platform's firmware, and commit to it.";
                let words = (format!("{need} at least"), have.to_string());
                self.find_of(Check::TeeTcb, self.section.outdated, &claim, words, advice);
            }
        }
    }

    fn dcap(&mut self, claims: &DcapClaims) {
        self.status(claims);
        match &claims.subject {
            Subject::Sgx { mr_enclave, mr_signer, is_debug, .. } => {
                self.debug(*is_debug);
                self.measured("MRENCLAVE", &self.section.measurements, mr_enclave);
                self.measured("MRSIGNER", &self.section.signers, mr_signer);
            }
            Subject::Tdx(guest) => self.tdx(guest),
        }
    }

    fn status(&mut self, claims: &DcapClaims) {
        let (weight, advice) = match claims.tcb_status {
            TcbStatus::UpToDate => return,
            TcbStatus::SwHardeningNeeded
            | TcbStatus::ConfigurationNeeded
            | TcbStatus::ConfigurationAndSwHardeningNeeded => (
                self.section.hardening,
                "Read the advisories; tee.hardening says what such a platform weighs.",
            ),
            TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded => {
                (self.section.outdated, "Update the platform's firmware and microcode.")
            }
            TcbStatus::Revoked => (Weight::Refuse, "Its keys are not trusted any more: take it off."),
        };
        let mut found = claims.tcb_status.to_string();
        for more in claims.tcb_missing.iter().chain(&claims.advisories) {
            found.push_str("; ");
            found.push_str(more);
        }
        self.find_of(Check::TeeTcb, weight, "TCB status", ("UpToDate".to_owned(), found), advice);
    }

    fn tdx(&mut self, guest: &Guest) {
        self.debug(guest.attributes.is_debug());
        self.measured("MRTD", &self.section.measurements, &guest.mr_td);
        self.measured("MRCONFIGID", &self.section.host_data, &guest.mr_config_id);
        let is_bound = guest.mr_service_td.is_some_and(|service| service != [0; 48]);
        if guest.attributes.is_migratable() || is_bound {
            let found = "a service TD may move it";
            self.find(
                self.section.migration,
                "TD attributes",
                "no migration",
                found,
                "Start it without a migration TD.",
            );
        }
        if !guest.attributes.disables_sept_ve() {
            let advice = "Start it with SEPT_VE_DISABLE; tee.sept_ve says what a guest without it weighs.";
            self.find(self.section.sept_ve, "TD attributes", "SEPT_VE_DISABLE", "not set", advice);
        }
        self.unsigned("a TDX guest", "MRTD");
    }

    fn cca(&mut self, claims: &CcaClaims) {
        self.measured("initial measurement", &self.section.measurements, &claims.initial_measurement);
        self.measured("personalization", &self.section.host_data, &claims.personalization);
        self.unsigned("a realm", "initial measurement");
        if !is_secured(claims) {
            let advice =
                "Its maker or its owner can look inside: use a platform that is in its secured state.";
            let found = format!("{:#06x}", claims.lifecycle);
            self.find(Weight::Refuse, "lifecycle", "0x3000 to 0x30ff, secured", found, advice);
        }
    }

    /// NVIDIA's reference values are not read yet, so that nothing can be said of the measurements.
    fn nvidia(&mut self) {
        self.unsigned("a GPU", "measurements");
        if !self.section.measurements.is_empty() {
            let advice = "The measurements of a GPU are not held against reference values: leave nvidia out of tee.kinds here.";
            self.find(Weight::Refuse, "measurements", "one of the policy's", "64 registers", advice);
        }
    }

    /// A policy that lists signers alone asks for something that this kind does not have.
    fn unsigned(&mut self, what: &str, instead: &str) {
        if !self.section.signers.is_empty() && self.section.measurements.is_empty() {
            let advice = format!(
                "{what} has no signer: list its {instead} under tee.measurements, and leave tee.signers to other kinds."
            );
            self.find(Weight::Refuse, "signer", "one of tee.signers", "none", &advice);
        }
    }

    fn debug(&mut self, is_debug: bool) {
        if is_debug && !self.section.dangerous_debug {
            let advice = "Whoever runs the host can read and change it: start it without.";
            self.find(Weight::Refuse, "debug", "off", "on", advice);
        }
    }

    fn measured(&mut self, claim: &str, accepted: &[String], found: &[u8]) {
        let found = data_encoding::HEXLOWER.encode(found);
        if !accepted.is_empty() && !accepted.contains(&found) {
            let expected = format!("one of {} values of the policy", accepted.len());
            let advice = "Something else was loaded, or the policy does not list this build.";
            self.find(Weight::Refuse, claim, expected, found, advice);
        }
    }

    /// What verification left open: lists, and a chip that does not say which it is.
    fn notes(&mut self, notes: &[Failure]) {
        for note in notes {
            let weight =
                if note.check == Check::TeeRevoked { self.section.stale_crl } else { Weight::Report };
            if let Some(tier) = weight.tier() {
                self.findings.push(Finding::from_failure(note, tier));
            }
        }
    }
}

impl TeeClaims {
    fn hides_memory(&self) -> bool {
        let of_dcap = |claims: &DcapClaims| match &claims.subject {
            Subject::Sgx { is_debug, .. } => !is_debug,
            Subject::Tdx(guest) => !guest.attributes.is_debug(),
        };
        match self {
            TeeClaims::Snp(claims) => !claims.policy.allows_debug(),
            TeeClaims::Dcap(claims) => of_dcap(claims),
            TeeClaims::Azure(claims) => match &claims.platform {
                AzurePlatform::Snp(claims) => !claims.policy.allows_debug(),
                AzurePlatform::Tdx(claims) => of_dcap(claims),
            },
            TeeClaims::Cca(claims) => is_secured(claims),
            // Whether its confidential mode is on is not in what it signs.
            TeeClaims::Nvidia(_) => false,
        }
    }
}

/// Arm CCA: the platform's part of a token says where in its life the platform is.
fn is_secured(claims: &CcaClaims) -> bool {
    (0x3000..=0x30ff).contains(&claims.lifecycle)
}
