//! What verification can leave undecided, by the check that it is a note of: one place for words and weight.

use assay_evidence::Check;

/// How a note of a check is put, and what weighs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Undecided {
    /// Whether the IMA list is of this boot and machine.
    BootAggregate,
    /// Who vouches for the EK.
    Endorsement,
    /// What a PCR holds that the boot log does not explain.
    Pcr,
    /// Which of two forms of one list is right.
    Forms,
    /// Whether the quote is of now: nobody chose the nonce that it answers.
    Nonce,
    /// What was booted: no log says so.
    BootLog,
    /// What systemd says that it measured.
    MeasureLog,
    /// Entries of the IMA list that no quoted PCR attests.
    Entries,
    /// Whether PCRs are what they seem: SHA-1 alone was quoted.
    WeakBank,
    /// Something about a TEE, which its section weighs.
    Tee,
    /// Nothing: no note is of this check.
    Nothing,
}

impl Undecided {
    /// Each that there can be a note of.
    #[cfg(test)]
    pub(crate) fn all() -> std::collections::BTreeSet<Self> {
        Check::ALL
            .iter()
            .map(|check| Undecided::of(*check))
            .filter(|one| *one != Undecided::Nothing)
            .collect()
    }

    /// Of a new check it has to be decided here what its notes would be.
    pub(crate) fn of(check: Check) -> Self {
        match check {
            Check::BootAggregate => Undecided::BootAggregate,
            Check::EkChain => Undecided::Endorsement,
            Check::EventLogReplay => Undecided::Pcr,
            Check::ImaForms => Undecided::Forms,
            Check::QuoteNonce => Undecided::Nonce,
            Check::EventLogPresent => Undecided::BootLog,
            Check::MeasureLogParse => Undecided::MeasureLog,
            Check::ImaPcr => Undecided::Entries,
            Check::AlgorithmPolicy => Undecided::WeakBank,
            Check::TeeChip | Check::TeeRevoked => Undecided::Tee,
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
            | Check::QuoteSelection
            | Check::QuotePcrDigest
            | Check::PcrBanks
            | Check::ResetCounter
            | Check::RestartCounter
            | Check::EventLogParse
            | Check::EventDataDigest
            | Check::ImaParse
            | Check::ImaTemplateDigest
            | Check::ImaReplay
            | Check::ImaPolicy
            | Check::ImaKernelPolicy
            | Check::ImaViolation
            | Check::ImaUndecided
            | Check::BootPolicy
            | Check::PcrPolicy
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
            | Check::TeeReportSignature
            | Check::TeeCollateral
            | Check::TeeProduct
            | Check::TeeTcb
            | Check::TeeReportData
            | Check::TeeLog
            | Check::TeeBinding
            | Check::TeePolicy => Undecided::Nothing,
        }
    }
}
