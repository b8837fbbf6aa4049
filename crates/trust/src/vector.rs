//! The AR4SI trustworthiness vector: the result in the terms that relying parties of any vendor share.
//!
//! Values and their meaning are those of draft-ietf-rats-ar4si, section 2.3; 0 says nothing, 2 to 31 affirm,
//! 32 to 95 warn, 96 to 127 contraindicate.

use assay_evidence::Check;
use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Tier};

/// One value of the vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustClaim(i8);

impl TrustClaim {
    /// The number.
    pub fn value(self) -> i8 {
        self.0
    }

    /// The tier that the number lies in.
    pub fn tier(self) -> Tier {
        match self.0 {
            2..=31 => Tier::Affirming,
            32..=95 => Tier::Warning,
            96..=127 => Tier::Contraindicated,
            _ => Tier::None,
        }
    }
}

/// The vector: one value for each of AR4SI's eight claims. Of the last four a TPM says nothing that we judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TrustVector {
    /// Which device it is.
    pub instance_identity: TrustClaim,
    /// How it is set up.
    pub configuration: TrustClaim,
    /// What it booted and runs.
    pub executables: TrustClaim,
    /// Whether its TPM is what it should be.
    pub hardware: TrustClaim,
    /// What is in its file systems, read or not.
    pub file_system: TrustClaim,
    /// Whether its memory is hidden from others.
    pub runtime_opaque: TrustClaim,
    /// Whether what it stores is.
    pub storage_opaque: TrustClaim,
    /// Whether the data it was given can be relied on.
    pub sourced_data: TrustClaim,
}

/// What was judged at all; nothing is affirmed of the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judged {
    pub(crate) executables: Executables,
    pub(crate) configuration: bool,
    pub(crate) hardware: bool,
}

/// Which of the programs of a device were judged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Executables {
    /// Not all of what booted.
    #[default]
    None,
    /// What booted.
    Boot,
    /// What booted, and what ran since.
    BootAndFiles,
}

impl TrustVector {
    /// The vector of claims that verified: the identity is that of the AK; of the rest, what was judged and the
    /// findings on it.
    pub(crate) fn of_claims(judged: Judged, findings: &[Finding]) -> Self {
        let affirmed = |judged: bool| if judged { AFFIRMED } else { NOT_JUDGED };
        let mut vector = TrustVector {
            instance_identity: AFFIRMED,
            configuration: affirmed(judged.configuration),
            executables: match judged.executables {
                Executables::BootAndFiles => AFFIRMED,
                Executables::Boot => BOOT_AFFIRMED,
                Executables::None => NOT_JUDGED,
            },
            hardware: affirmed(judged.hardware),
            ..TrustVector::default()
        };
        vector.weigh(findings);
        vector
    }

    /// The vector of a TEE's claims that verified: its hardware is the maker's, and its memory is hidden if the guest or enclave
    /// does not let the host look.
    pub(crate) fn of_tee(measured: bool, hides_memory: bool, findings: &[Finding]) -> Self {
        let affirmed = |judged: bool| if judged { AFFIRMED } else { NOT_JUDGED };
        let mut vector = TrustVector {
            hardware: AFFIRMED,
            executables: affirmed(measured),
            runtime_opaque: affirmed(hides_memory),
            ..TrustVector::default()
        };
        vector.weigh(findings);
        vector
    }

    /// The vector of evidence that did not verify: nothing in it can be believed.
    pub(crate) fn of_failures() -> Self {
        let failed = TrustClaim(CRYPTOGRAPHY_FAILED);
        TrustVector {
            instance_identity: failed,
            configuration: failed,
            executables: failed,
            hardware: failed,
            ..TrustVector::default()
        }
    }

    /// The tier of the worst value.
    pub fn worst(&self) -> Tier {
        let TrustVector {
            instance_identity,
            configuration,
            executables,
            hardware,
            file_system,
            runtime_opaque,
            storage_opaque,
            sourced_data,
        } = self;
        [instance_identity, configuration, executables, hardware, file_system]
            .into_iter()
            .chain([runtime_opaque, storage_opaque, sourced_data])
            .map(|claim| claim.tier())
            .max()
            .unwrap_or_default()
    }

    fn weigh(&mut self, findings: &[Finding]) {
        for finding in findings {
            let value = match finding.tier {
                Tier::None | Tier::Affirming => continue,
                Tier::Warning => WARNED,
                Tier::Contraindicated => CONTRAINDICATED,
            };
            let claim = self.about(finding.check);
            *claim = TrustClaim(claim.0.max(value));
        }
    }

    fn about(&mut self, check: Check) -> &mut TrustClaim {
        match check {
            Check::EkChain
            | Check::EkSignature
            | Check::EkValidity
            | Check::EkRevoked
            | Check::EkEku
            | Check::EkCertificateKey
            | Check::IdevidChain
            | Check::IdevidValidity
            | Check::IdevidRevoked
            | Check::IdevidCertificate
            | Check::IdevidKey
            | Check::EndorsementPolicy
            | Check::ClockPolicy
            | Check::ResetCounter
            | Check::RestartCounter => &mut self.hardware,
            Check::TeeParse
            | Check::TeeEndorsement
            | Check::TeeChain
            | Check::TeeValidity
            | Check::TeeRevoked
            | Check::TeeReportSignature
            | Check::TeeCollateral
            | Check::TeeProduct
            | Check::TeeTcb
            | Check::TeeChip => &mut self.hardware,
            Check::TeeReportData | Check::TeeBinding => &mut self.instance_identity,
            Check::TeeLog => &mut self.executables,
            Check::PcrPolicy
            | Check::ImaPolicy
            | Check::ImaKernelPolicy
            | Check::ImaViolation
            | Check::ImaForms => &mut self.executables,
            // Of a new check it has to be decided here what it is about.
            Check::AkParse
            | Check::AkAttributes
            | Check::AkName
            | Check::AkPublic
            | Check::EkPublic
            | Check::IakCertify
            | Check::QuoteParse
            | Check::QuoteMagic
            | Check::QuoteType
            | Check::QuoteSignature
            | Check::QuoteNonce
            | Check::QuoteSelection
            | Check::QuotePcrDigest
            | Check::EventLogPresent
            | Check::EventLogParse
            | Check::EventLogReplay
            | Check::EventDataDigest
            | Check::MeasureLogParse
            | Check::ImaParse
            | Check::ImaTemplateDigest
            | Check::ImaReplay
            | Check::ImaPcr
            | Check::ImaUndecided
            | Check::BootAggregate
            | Check::BootPolicy
            | Check::AlgorithmPolicy
            | Check::LocationPolicy
            | Check::RegoPolicy
            | Check::PolicyPresent
            | Check::PcrBanks
            | Check::DeviceKeyCertify
            | Check::DeviceKeyCsr
            | Check::TeePolicy => &mut self.configuration,
        }
    }
}

/// Nothing was judged.
const NOT_JUDGED: TrustClaim = TrustClaim(0);
/// Recognised and approved.
const AFFIRMED: TrustClaim = TrustClaim(2);
/// Of executables, those during the boot alone.
const BOOT_AFFIRMED: TrustClaim = TrustClaim(3);
/// Recognised as unsafe, or not recognised.
const WARNED: i8 = 32;
/// Known to be bad by the policy.
const CONTRAINDICATED: i8 = 96;
/// Cryptographic validation of the evidence failed.
const CRYPTOGRAPHY_FAILED: i8 = 99;
