//! Each kind of thing that a demand can be met by, and what shows it.

use assay_evidence::boot_log::{
    BootClaims, BootFacts, EventSummary, Image, SecureBootVariables, load_options,
};
use assay_evidence::tpm::banks::ActiveBanks;
use assay_evidence::tpm::ek_certificate::EkCertificate;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::idevid::DeviceIdentity;
use assay_evidence::verify::{Claims, ImaClaims};
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

use super::{Asked, Attested};
use crate::policy::{EndorsementKind, EndorsementSection};
use crate::reference::FileReference;

/// A list of which PCR 10 attests a file. boot_aggregate alone is none: the kernel writes it before it measures anything.
pub(in crate::appraisal) struct AttestedFiles<'c>(pub(in crate::appraisal) Sealed<&'c ImaClaims>);

/// A list, if of no file: what meets a policy that accepts none. boot_aggregate shows that the kernel keeps it.
pub(in crate::appraisal) struct AttestedList<'c>(pub(in crate::appraisal) Sealed<&'c ImaClaims>);

/// A policy of IMA that is listed, measured in this boot.
pub(in crate::appraisal) struct MeasuredKernelPolicy<'c>(
    #[expect(dead_code, reason = "that it is there is what counts")] Sealed<&'c ImaClaims>,
);

/// A boot log with something that the firmware measured.
pub(in crate::appraisal) struct AttestedBoot<'c>(
    #[expect(dead_code, reason = "that it is there is what counts")] Sealed<&'c BootClaims>,
);

/// The firmware's version, as it measured it before it was done.
pub(in crate::appraisal) struct AttestedVersion<'c>(pub(in crate::appraisal) Sealed<&'c str>);

/// PCR 7 with the whole of Secure Boot's configuration.
pub(in crate::appraisal) struct SecureBootShown<'c>(
    pub(in crate::appraisal) Sealed<(&'c BootFacts, &'c SecureBootVariables)>,
);

/// Images that were started: at least one.
pub(in crate::appraisal) struct StartedImages<'c>(
    pub(in crate::appraisal) Sealed<(&'c BootFacts, &'c [Image])>,
);

/// Images that Secure Boot, which was on, trusted by somebody.
pub(in crate::appraisal) struct TrustedImages<'c>(pub(in crate::appraisal) Sealed<&'c BootFacts>);

/// Command lines that kernels were given: at least one.
pub(in crate::appraisal) struct KernelLines<'c>(pub(in crate::appraisal) Sealed<Vec<&'c str>>);

/// A PCR that was quoted and that the log explains, with its events from the first to the last.
pub(in crate::appraisal) struct MeasuredPcr<'c>(pub(in crate::appraisal) Sealed<Measured<'c>>);

/// A PCR's quoted value, as the boot left it.
pub(in crate::appraisal) struct QuotedPcr<'c>(pub(in crate::appraisal) Sealed<&'c Digest>);

/// The TPM's own word on which of its banks are active, where each of them can be judged.
pub(in crate::appraisal) struct ShownBanks<'c>(pub(in crate::appraisal) Sealed<&'c ActiveBanks>);

/// An EK of which enough vouches for a policy.
pub(in crate::appraisal) struct VouchedKey<'c>(
    #[expect(dead_code, reason = "that it is there is what counts")] Sealed<&'c Endorsement>,
);

/// An EK with its maker's certificate.
pub(in crate::appraisal) struct CertifiedKey<'c>(pub(in crate::appraisal) Sealed<&'c EkCertificate>);

/// A device with its maker's identity.
pub(in crate::appraisal) struct IdentifiedDevice<'c>(pub(in crate::appraisal) Sealed<&'c DeviceIdentity>);

/// That each rule of one's own was asked, of at least one, and gave an answer.
#[cfg(feature = "rego")]
pub(in crate::appraisal) struct AnsweredRules(Sealed<()>);

/// A value that can be made in this file alone, and looked at anywhere.
pub(in crate::appraisal) struct Sealed<T>(T);

impl<T> std::ops::Deref for Sealed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'c> Attested for AttestedFiles<'c> {
    type By = &'c Claims;

    fn attested(claims: &'c Claims, _: &Asked) -> Option<Self> {
        claims.ima().filter(|ima| ima.attested_total() > BOOT_AGGREGATES).map(Sealed).map(AttestedFiles)
    }
}

impl<'c> Attested for AttestedList<'c> {
    type By = &'c Claims;

    fn attested(claims: &'c Claims, _: &Asked) -> Option<Self> {
        claims.ima().filter(|ima| ima.attested_total() >= BOOT_AGGREGATES).map(Sealed).map(AttestedList)
    }
}

impl<'c> Attested for MeasuredKernelPolicy<'c> {
    type By = (&'c FileReference, &'c ImaClaims);

    fn attested((reference, ima): Self::By, _: &Asked) -> Option<Self> {
        let measured = ima.kernel_policies();
        let is_listed = measured.iter().any(|digest| reference.accepts_kernel_policy(digest));
        is_listed.then_some(MeasuredKernelPolicy(Sealed(ima)))
    }
}

impl<'c> Attested for AttestedBoot<'c> {
    type By = &'c BootClaims;

    fn attested(boot: &'c BootClaims, _: &Asked) -> Option<Self> {
        let is_of_firmware = |event: &EventSummary| event.pcr.get() <= FIRMWARE_PCR_LAST;
        boot.events().iter().any(is_of_firmware).then_some(AttestedBoot(Sealed(boot)))
    }
}

impl<'c> Attested for AttestedVersion<'c> {
    type By = Option<&'c BootFacts>;

    fn attested(facts: Option<&'c BootFacts>, _: &Asked) -> Option<Self> {
        facts?.firmware_version.as_deref().map(Sealed).map(AttestedVersion)
    }
}

impl<'c> Attested for SecureBootShown<'c> {
    type By = Option<&'c BootFacts>;

    fn attested(facts: Option<&'c BootFacts>, _: &Asked) -> Option<Self> {
        let facts = facts?;
        facts.secure_boot.as_ref().map(|variables| SecureBootShown(Sealed((facts, variables))))
    }
}

impl<'c> Attested for StartedImages<'c> {
    type By = Option<&'c BootFacts>;

    fn attested(facts: Option<&'c BootFacts>, _: &Asked) -> Option<Self> {
        let facts = facts?;
        let images = facts.boot_applications.as_slice();
        (!images.is_empty()).then_some(StartedImages(Sealed((facts, images))))
    }
}

impl<'c> Attested for TrustedImages<'c> {
    type By = Option<&'c BootFacts>;

    /// What only says how shim checks vouches for no image.
    fn attested(facts: Option<&'c BootFacts>, _: &Asked) -> Option<Self> {
        let is_on =
            |facts: &&BootFacts| facts.secure_boot.as_ref().is_some_and(|variables| variables.is_enabled);
        let has_signer = |facts: &&BootFacts| facts.authorities.iter().any(|one| !one.is_setting());
        facts.filter(is_on).filter(has_signer).map(Sealed).map(TrustedImages)
    }
}

impl<'c> Attested for KernelLines<'c> {
    type By = Option<&'c BootFacts>;

    fn attested(facts: Option<&'c BootFacts>, _: &Asked) -> Option<Self> {
        facts?.kernel_lines().filter(|lines| !lines.is_empty()).map(Sealed).map(KernelLines)
    }
}

/// The events of one PCR.
pub(in crate::appraisal) struct Measured<'c> {
    pub(in crate::appraisal) index: PcrIndex,
    pub(in crate::appraisal) facts: &'c BootFacts,
    pub(in crate::appraisal) events: Vec<&'c EventSummary>,
}

impl Measured<'_> {
    pub(in crate::appraisal) fn digests(&self) -> Vec<Digest> {
        self.events.iter().map(|event| event.digest).collect()
    }

    /// What the stub of a kernel measures that was given the line that the log tells.
    pub(in crate::appraisal) fn kernel_lines(&self) -> Vec<Digest> {
        let lines = self.facts.kernel_lines().unwrap_or_default();
        lines.iter().flat_map(|line| load_options(self.facts.bank, line)).collect()
    }
}

impl<'c> Attested for MeasuredPcr<'c> {
    type By = (&'c Claims, PcrIndex);

    fn attested((claims, index): Self::By, _: &Asked) -> Option<Self> {
        let boot = claims.boot()?;
        let facts = boot.facts();
        claims.pcrs().get(facts.bank, index)?;
        if facts.unexplained_pcrs.contains(&index) {
            return None;
        }
        let events = boot.events().iter().filter(|event| event.pcr == index).collect();
        Some(MeasuredPcr(Sealed(Measured { index, facts, events })))
    }
}

impl<'c> Attested for QuotedPcr<'c> {
    type By = (&'c Claims, HashAlgorithm, PcrIndex);

    fn attested((claims, bank, index): Self::By, _: &Asked) -> Option<Self> {
        claims.boot_pcr(bank, index).map(Sealed).map(QuotedPcr)
    }
}

impl<'c> Attested for ShownBanks<'c> {
    type By = &'c Claims;

    fn attested(claims: &'c Claims, _: &Asked) -> Option<Self> {
        claims.banks().filter(|banks| banks.unknown().is_empty()).map(Sealed).map(ShownBanks)
    }
}

impl<'c> Attested for VouchedKey<'c> {
    type By = (Option<&'c Endorsement>, EndorsementKind, &'c EndorsementSection);

    fn attested((endorsement, required, section): Self::By, _: &Asked) -> Option<Self> {
        let vouches = |endorsement: &&Endorsement| {
            let is_certified = endorsement.certificate().is_some();
            required.is_met(is_certified, section.lists(endorsement.ek_sha256()), endorsement.is_revoked())
        };
        endorsement.filter(vouches).map(Sealed).map(VouchedKey)
    }
}

impl<'c> Attested for CertifiedKey<'c> {
    type By = Option<&'c Endorsement>;

    fn attested(endorsement: Option<&'c Endorsement>, _: &Asked) -> Option<Self> {
        endorsement?.certificate().map(Sealed).map(CertifiedKey)
    }
}

impl<'c> Attested for IdentifiedDevice<'c> {
    type By = Option<&'c Endorsement>;

    fn attested(endorsement: Option<&'c Endorsement>, _: &Asked) -> Option<Self> {
        endorsement?.identity().map(Sealed).map(IdentifiedDevice)
    }
}

#[cfg(feature = "rego")]
impl Attested for AnsweredRules {
    /// Of each rule that was asked, whether it gave an answer.
    type By = Vec<bool>;

    fn attested(answered: Vec<bool>, _: &Asked) -> Option<Self> {
        (!answered.is_empty() && answered.into_iter().all(|answered| answered))
            .then_some(AnsweredRules(Sealed(())))
    }
}

/// The first entry of a list.
const BOOT_AGGREGATES: u64 = 1;
/// TCG PC Client Platform Firmware Profile, 2.3.4: 0 to 7 are the firmware's.
const FIRMWARE_PCR_LAST: u8 = 7;
