//! The vocabulary of checks, shared by verification and appraisal.
//!
//! A check has one name, the one operators see in findings and tests look for.

use std::fmt;

macro_rules! checks {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// One thing that was checked; `name` is its stable spelling in findings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Check { $($(#[$doc])* $variant,)* }

        impl Check {
            /// Every check, in the order they are made.
            pub const ALL: &'static [Check] = &[$(Check::$variant,)*];

            /// The stable, kebab-case name.
            pub fn name(self) -> &'static str {
                match self { $(Check::$variant => $name,)* }
            }
        }
    };
}

checks! {
    /// The AK public area parses as TPM2B_PUBLIC.
    AkParse => "ak-parse",
    /// The AK is a restricted, fixed, TPM-made signing key of an accepted type and size.
    AkAttributes => "ak-attributes",
    /// The AK's Name is the one stated or bound at enrollment.
    AkName => "ak-name",
    /// The AK public area holds the key stated elsewhere.
    AkPublic => "ak-public",
    /// The EK public area parses and is a restricted decryption key.
    EkPublic => "ek-public",
    /// The EK certificate chains to a trust anchor.
    EkChain => "ek-chain",
    /// The EK certificate and those above it are signed in a way that can be relied on.
    EkSignature => "ek-signature",
    /// Every certificate of the EK chain is valid at the given time.
    EkValidity => "ek-validity",
    /// No certificate of the EK chain is on its issuer's revocation list.
    EkRevoked => "ek-revoked",
    /// The EK certificate is an EK certificate (2.23.133.8.1).
    EkEku => "ek-eku",
    /// The EK certificate certifies the EK that was presented.
    EkCertificateKey => "ek-certificate-key",
    /// IAK and IDevID certificate chain to a trust anchor for device identities.
    IdevidChain => "idevid-chain",
    /// Every certificate of those chains is valid at the given time.
    IdevidValidity => "idevid-validity",
    /// No certificate of those chains is on its issuer's revocation list.
    IdevidRevoked => "idevid-revoked",
    /// The certificates are an IAK's and an IDevID's, of one TPM.
    IdevidCertificate => "idevid-certificate",
    /// IAK and IDevID are TPM-made keys for their use, and those that the certificates certify.
    IdevidKey => "idevid-key",
    /// The IAK certified the AK, for this enrollment.
    IakCertify => "iak-certify",
    /// The quote parses as TPMS_ATTEST with TPMT_SIGNATURE.
    QuoteParse => "quote-parse",
    /// TPMS_ATTEST.magic is TPM_GENERATED_VALUE.
    QuoteMagic => "quote-magic",
    /// TPMS_ATTEST.type is TPM_ST_ATTEST_QUOTE.
    QuoteType => "quote-type",
    /// The signature is the AK's over the received bytes.
    QuoteSignature => "quote-signature",
    /// The quote answers the verifier's nonce.
    QuoteNonce => "quote-nonce",
    /// The quote covers every PCR it has to.
    QuoteSelection => "quote-selection",
    /// The PCR values sent hash to the quoted PCR digest.
    QuotePcrDigest => "quote-pcr-digest",
    /// The TPM's own word on which PCR banks are active is there, and each of them can be judged.
    PcrBanks => "pcr-banks",
    /// The TPM's reset counter did not go back.
    ResetCounter => "reset-counter",
    /// The TPM's restart counter did not go back within a boot.
    RestartCounter => "restart-counter",
    /// A boot log is there if PCRs 0-9 were extended.
    EventLogPresent => "event-log-present",
    /// The boot log parses within its bounds.
    EventLogParse => "event-log-parse",
    /// The boot log replays to the quoted PCRs.
    EventLogReplay => "event-log-replay",
    /// systemd's measurement log parses within its bounds.
    MeasureLogParse => "measure-log-parse",
    /// Where the digest is the hash of the event data, they agree.
    EventDataDigest => "event-data-digest",
    /// The IMA list parses within its bounds.
    ImaParse => "ima-parse",
    /// Each entry's template digest is the hash of its template data.
    ImaTemplateDigest => "ima-template-digest",
    /// A prefix of the IMA list replays to the quoted PCR 10.
    ImaReplay => "ima-replay",
    /// Entries of the IMA list are in PCRs that attest them and that the policy names.
    ImaPcr => "ima-pcr",
    /// `boot_aggregate` is the hash of the boot PCRs.
    BootAggregate => "boot-aggregate",
    /// ASCII and binary IMA list agree.
    ImaForms => "ima-forms",
    /// Every measured file is one the policy allows.
    ImaPolicy => "ima-policy",
    /// The kernel measured, when it was loaded, a policy of IMA that the policy accepts, and no other.
    ImaKernelPolicy => "ima-kernel-policy",
    /// Violations are what the policy accepts.
    ImaViolation => "ima-violation",
    /// Entries past the quoted prefix wait for the next quote.
    ImaUndecided => "ima-undecided",
    /// The boot log shows what the policy demands.
    BootPolicy => "boot-policy",
    /// PCR values are among the policy's.
    PcrPolicy => "pcr-policy",
    /// Hash banks and key types are strong enough.
    AlgorithmPolicy => "algorithm-policy",
    /// The TPM's clock and counters are what the policy demands.
    ClockPolicy => "clock-policy",
    /// The endorsement is what the policy demands.
    EndorsementPolicy => "endorsement-policy",
    /// The stated location is where the policy allows.
    LocationPolicy => "location-policy",
    /// The policy's rules in Rego object to nothing.
    RegoPolicy => "rego-policy",
    /// There is a policy at all.
    PolicyPresent => "policy-present",
    /// A key of the device was certified by the AK as TPM-resident and as what it is for.
    DeviceKeyCertify => "device-key-certify",
    /// The CSR holds the certified device key and proves possession.
    DeviceKeyCsr => "device-key-csr",
    /// Evidence of a TEE parses in all of its bytes.
    TeeParse => "tee-parse",
    /// The certificate that came with it is one of a key that signs such evidence.
    TeeEndorsement => "tee-endorsement",
    /// That certificate chains to a root that counts.
    TeeChain => "tee-chain",
    /// Every certificate of that chain is valid at the given time.
    TeeValidity => "tee-validity",
    /// No certificate of that chain was taken back.
    TeeRevoked => "tee-revoked",
    /// The evidence is signed by the certified key, over the received bytes.
    TeeReportSignature => "tee-report-signature",
    /// What the maker says of the platform is at hand, signed, in force and of this platform.
    TeeCollateral => "tee-collateral",
    /// The processor is of the line that the certificate is for.
    TeeProduct => "tee-product",
    /// The firmware's versions are those that the key was made for.
    TeeTcb => "tee-tcb",
    /// The chip is the one that the certificate is for.
    TeeChip => "tee-chip",
    /// What the guest put into the evidence is what was asked for.
    TeeReportData => "tee-report-data",
    /// The boot log of a guest replays to the registers that its evidence holds.
    TeeLog => "tee-log",
    /// What speaks for another part, such as a virtual TPM's key, is bound to the hardware's evidence.
    TeeBinding => "tee-binding",
    /// The TEE is set up as the policy demands.
    TeePolicy => "tee-policy",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A check that did not hold: which, about what, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The check that failed.
    pub check: Check,
    /// What it is about: a PCR, an event number, an entry's path, a file of a case.
    pub claim: String,
    /// What a good device would have shown.
    pub expected: String,
    /// What was there instead.
    pub found: String,
    /// Of a log that is not the one the PCRs were extended with, or a certificate that is none: what may explain it.
    pub mismatch: Option<Mismatch>,
}

/// What may explain that a log is not the one that PCRs were extended with, or that a certificate is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mismatch {
    /// The log tells of another boot than the PCRs.
    OtherBoot,
    /// The log begins after what was first extended.
    StartMissing,
    /// The PCRs go on where the log ends.
    EndMissing,
    /// The copy ends inside an event, an entry or a certificate.
    CopyCutShort,
    /// The bytes are of another form.
    Unreadable,
    /// Nothing harmless.
    Contradiction,
}

impl Failure {
    /// Makes a failure; the texts are rendered data, not prose.
    pub fn new(
        check: Check,
        claim: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Failure { check, claim: claim.into(), expected: expected.into(), found: found.into(), mismatch: None }
    }

    /// The same with what may explain it.
    #[must_use]
    pub fn explained(mut self, mismatch: Mismatch) -> Self {
        self.mismatch = Some(mismatch);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: expected {}, found {}", self.check, self.claim, self.expected, self.found)
    }
}
