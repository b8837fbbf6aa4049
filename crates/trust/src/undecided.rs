//! What verification can leave undecided, by the check that it is a note of: one place for words and weight.

use assay_evidence::Check;

/// How a note of a check is put, and what weighs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// Whether the IMA list is of this boot and machine.
    BootAggregate,
    /// Who vouches for the EK.
    Endorsement,
    /// What a PCR holds that the boot log does not explain.
    Pcr,
    /// Which of two forms of one list is right.
    Forms,
    /// Said in the words of the check's failure, and judged by the sections where it matters.
    AsFailure,
}

impl Undecided {
    /// Of a new check it has to be decided here what its notes would be.
    pub(crate) fn of(check: Check) -> Self {
        match check {
            Check::BootAggregate => Undecided::BootAggregate,
            Check::EkChain => Undecided::Endorsement,
            Check::EventLogReplay => Undecided::Pcr,
            Check::ImaForms => Undecided::Forms,
            Check::AkParse
            | Check::AkAttributes
            | Check::AkName
            | Check::AkPublic
            | Check::EkPublic
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
            | Check::IakCertify
            | Check::QuoteParse
            | Check::QuoteMagic
            | Check::QuoteType
            | Check::QuoteSignature
            | Check::QuoteNonce
            | Check::QuoteSelection
            | Check::QuotePcrDigest
            | Check::PcrBanks
            | Check::ResetCounter
            | Check::RestartCounter
            | Check::EventLogPresent
            | Check::EventLogParse
            | Check::MeasureLogParse
            | Check::EventDataDigest
            | Check::ImaParse
            | Check::ImaTemplateDigest
            | Check::ImaReplay
            | Check::ImaPcr
            | Check::ImaPolicy
            | Check::ImaViolation
            | Check::ImaUndecided
            | Check::BootPolicy
            | Check::PcrPolicy
            | Check::AlgorithmPolicy
            | Check::ClockPolicy
            | Check::EndorsementPolicy
            | Check::LocationPolicy
            | Check::RegoPolicy
            | Check::PolicyPresent
            | Check::DeviceKeyCertify
            | Check::DeviceKeyCsr
            | Check::TeeParse
            | Check::TeeEndorsement
            | Check::TeeChain
            | Check::TeeValidity
            | Check::TeeRevoked
            | Check::TeeReportSignature
            | Check::TeeCollateral
            | Check::TeeProduct
            | Check::TeeTcb
            | Check::TeeChip
            | Check::TeeReportData
            | Check::TeeLog
            | Check::TeeBinding
            | Check::TeePolicy => Undecided::AsFailure,
        }
    }
}
