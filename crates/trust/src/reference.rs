//! Reference values: a policy made ready for fast look-ups, shared by every device that it judges.

use std::collections::BTreeSet;

use assay_evidence::ima::{self, FileSignature, MeasuredKey, SignatureFault, SigningKey, SigningKeys};
use assay_evidence::tpm::pcr::PcrSet;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

use crate::named_digests::NamedDigests;
use crate::pattern::Pattern;
use crate::place::Fence;
use crate::policy::{
    Acceptable, Alternative, Bank, BootRule, BootSection, ClockSection, Coverage, Demand, EndorsementKind,
    EndorsementSection, ImaSection, LocationSection, MadeOnDevice, PcrSection, Policy, PolicyError, Recovery,
    TeeSection, ViolationWeight,
};
use crate::signature_memory::SignatureMemory;

/// A policy that passed its lint, with its file list packed. Share it by `Arc`.
#[derive(Debug)]
pub struct CompiledPolicy {
    name: String,
    version: u64,
    citation: String,
    digest: Digest,
    evidence_age_max_seconds: u64,
    unanswered_max_seconds: u64,
    offline_max_seconds: u64,
    restart_offline_max_seconds: Option<u64>,
    recovery: Recovery,
    location: Option<Fence>,
    coverage: Coverage,
    selection: Vec<(HashAlgorithm, PcrIndex)>,
    pub(crate) boots: Vec<BootReference>,
    pub(crate) ima: Option<FileReference>,
    pub(crate) endorsement: EndorsementSection,
    pub(crate) clock: ClockSection,
    pub(crate) tee: Option<TeeSection>,
    #[cfg(feature = "rego")]
    pub(crate) rego: Option<Vec<crate::rego::Module>>,
}

/// One boot that a policy accepts, as a whole.
#[derive(Debug)]
pub(crate) struct BootReference {
    citation: String,
    number: usize,
    pub(crate) pcr: PcrSection,
    pub(crate) boot: BootSection,
}

/// What a policy says of measured files.
#[derive(Debug)]
pub(crate) struct FileReference {
    pub(crate) list: Demand,
    /// The PCRs that files may be measured into.
    pub(crate) pcrs: PcrSet,
    /// Whether any file is accepted.
    pub(crate) lists_files: bool,
    pub(crate) violations: ViolationWeight,
    /// The policies of IMA that the kernel may follow; `None`: any.
    pub(crate) kernel_policies: Option<Vec<Digest>>,
    pub(crate) weakest_digest: Bank,
    exclude: Vec<Pattern>,
    made_on_device: Vec<MadeOnDevice>,
    signing_keys: SigningKeys,
    verified: SignatureMemory,
    keyrings: NamedDigests,
    allow: NamedDigests,
}

impl CompiledPolicy {
    /// Makes the policy ready; one that could not do its work is refused.
    pub fn new(policy: Policy) -> Result<Self, PolicyError> {
        if let Some(error) = policy.lint().into_iter().next() {
            return Err(error);
        }
        #[cfg(feature = "rego")]
        let rego = policy.rego.as_ref().map(|rego| rego.compile().collect::<Result<_, _>>()).transpose()?;
        let citation = policy.citation();
        let own = BootReference {
            citation: citation.clone(),
            number: 0,
            pcr: policy.pcr.clone(),
            boot: policy.boot.clone(),
        };
        let alternatives =
            policy.alternative.iter().enumerate().map(|(number, Alternative { pcr, boot })| {
                let number = number + 1;
                let citation = format!("{citation} (alternative {number})");
                BootReference { citation, number, pcr: pcr.clone(), boot: boot.clone() }
            });
        let boots: Vec<BootReference> = std::iter::once(own).chain(alternatives).collect();
        Ok(CompiledPolicy {
            selection: selection(&boots),
            boots,
            citation: policy.citation(),
            digest: policy.digest(),
            coverage: Coverage::of(&policy),
            name: policy.name,
            version: policy.version,
            evidence_age_max_seconds: policy.freshness.evidence_age_max_seconds,
            unanswered_max_seconds: policy.freshness.unanswered_max_seconds,
            offline_max_seconds: policy.freshness.offline_seconds(),
            restart_offline_max_seconds: policy.freshness.restart_offline_max_seconds,
            recovery: policy.recovery.mode,
            location: policy.location.as_ref().map(LocationSection::fence),
            ima: policy.ima.map(FileReference::new).transpose()?,
            endorsement: policy.endorsement,
            clock: policy.clock,
            tee: policy.tee,
            #[cfg(feature = "rego")]
            rego,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// `name v7`, as findings cite it.
    pub fn citation(&self) -> &str {
        &self.citation
    }

    /// Whether somebody has to vouch for the TPM.
    pub fn demands_endorsement(&self) -> bool {
        self.endorsement.required != EndorsementKind::DangerousNone
            || !self.endorsement.manufacturers.is_empty()
    }

    /// The PCRs that a quote for it has to cover: all of SHA-256 and of each other bank by which it knows more than
    /// firmware, and what it pins of the rest.
    pub fn selection(&self) -> &[(HashAlgorithm, PcrIndex)] {
        &self.selection
    }

    /// Whether any boot is refused for what was measured.
    pub(crate) fn judges_boots(&self) -> bool {
        let nothing = BootSection {
            event_log: Demand::Optional,
            secure_boot: Demand::Optional,
            ..BootSection::default()
        };
        self.boots.iter().any(|boot| !boot.pcr.is_empty() || boot.boot != nothing)
    }

    /// Identifies its exact meaning.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it covers of a device, and what not.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Seconds for which an affirming result carries trust.
    pub fn evidence_age_max_seconds(&self) -> u64 {
        self.evidence_age_max_seconds
    }

    /// Seconds for which it does once the device, attached, did not answer for itself.
    pub fn unanswered_max_seconds(&self) -> u64 {
        self.unanswered_max_seconds
    }

    /// Seconds for which it does once the device is offline.
    pub fn offline_max_seconds(&self) -> u64 {
        self.offline_max_seconds
    }

    /// Seconds for which an agent that starts again without a server serves what it was granted before; `None`: it does not.
    pub fn restart_offline_max_seconds(&self) -> Option<u64> {
        self.restart_offline_max_seconds
    }

    /// How trust comes back.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Where telemetry may come from; `None`: anywhere.
    pub fn location(&self) -> Option<&Fence> {
        self.location.as_ref()
    }
}

fn selection(boots: &[BootReference]) -> Vec<(HashAlgorithm, PcrIndex)> {
    let pinned: BTreeSet<(HashAlgorithm, PcrIndex)> =
        boots.iter().flat_map(|boot| boot.pcr.iter()).map(|(bank, index, _)| (bank, index)).collect();
    // SHA-1 vouches for nothing by itself, so that what is not pinned in it is of no use.
    let whole = pinned.iter().filter(|(bank, index)| *bank != HashAlgorithm::Sha1 && !index.is_of_firmware());
    let whole: BTreeSet<HashAlgorithm> =
        whole.map(|(bank, _)| *bank).chain([HashAlgorithm::Sha256]).collect();
    let indexes = || (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new);
    let of_whole = whole.into_iter().flat_map(|bank| indexes().map(move |index| (bank, index)));
    of_whole.chain(pinned).collect::<BTreeSet<_>>().into_iter().collect()
}

impl BootReference {
    /// The policy, and where it accepts more than one boot, which one this is.
    pub(crate) fn citation(&self) -> &str {
        &self.citation
    }

    /// Which of the boots that the policy accepts; 0: what `pcr` and `boot` say.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What an operator can accept of a boot that was held against this one.
    pub(crate) fn acceptable(&self, rule: BootRule) -> Option<Acceptable> {
        rule.offered().map(|rule| Acceptable { boot: self.number, rule })
    }
}

impl FileReference {
    pub(crate) fn new(section: ImaSection) -> Result<Self, PolicyError> {
        let keys = section.signing_keys.iter().enumerate().map(|(index, pem)| {
            SigningKey::from_certificate_or_spki(pem.as_bytes())
                .map_err(|_| PolicyError::SigningKey { index })
        });
        Ok(FileReference {
            list: section.list,
            pcrs: section.pcrs.iter().map(|pcr| pcr.index()).collect(),
            lists_files: !section.allow.is_empty()
                || !section.signing_keys.is_empty()
                || !section.keyrings.is_empty()
                || !section.exclude.is_empty()
                || !section.made_on_device.is_empty(),
            violations: section.violations.unwrap_or_default(),
            kernel_policies: section.kernel_policies,
            weakest_digest: section.weakest_digest,
            exclude: section.exclude,
            made_on_device: section.made_on_device,
            signing_keys: keys.collect::<Result<_, _>>()?,
            verified: SignatureMemory::default(),
            keyrings: NamedDigests::pack(&section.keyrings)?,
            allow: NamedDigests::pack(&section.allow)?,
        })
    }

    /// The digests that a file may have; none where the path is not listed.
    pub(crate) fn digests_of(&self, path: &[u8]) -> impl Iterator<Item = Digest> {
        self.allow.of(path)
    }

    /// Whether a file is not judged, whatever is in it.
    pub(crate) fn excludes(&self, path: &[u8]) -> bool {
        let is_listed = |path: &[u8]| self.allow.of(path).next().is_some();
        self.exclude.iter().any(|pattern| pattern.matches(path))
            || self.made_on_device.iter().any(|kind| kind.covers(path, is_listed))
    }

    /// Whether this is a policy of IMA that the kernel may follow, by a digest that counts.
    pub(crate) fn accepts_kernel_policy(&self, digest: &Digest) -> bool {
        let listed = self.kernel_policies.iter().flatten();
        digest.algorithm() >= self.weakest_digest.0 && listed.into_iter().any(|known| known == digest)
    }

    /// Whether the policy has this key for the keyring that it was put on.
    fn accepts(&self, key: &MeasuredKey) -> bool {
        let strong = |digest: &Digest| digest.algorithm() >= self.weakest_digest.0;
        let mut digests = self.keyrings.of(key.keyring()).filter(strong);
        digests.any(|digest| key.digest(digest.algorithm()) == digest)
    }
}

/// Whose file signatures count at one point of a list: the policy's keys, and those measured so far.
#[derive(Debug)]
pub(crate) struct Signers<'a> {
    reference: &'a FileReference,
    measured: SigningKeys,
}

impl<'a> Signers<'a> {
    /// Before the first entry of a list, with what was measured earlier in the boot.
    pub(crate) fn new(reference: &'a FileReference, known: &[MeasuredKey]) -> Self {
        let accepted = known.iter().filter(|key| reference.accepts(key));
        let measured = accepted.filter_map(MeasuredKey::signing_key).collect();
        Signers { reference, measured }
    }

    /// Takes notice of the next entry: whether it is a key of the policy, which counts from here on.
    pub(crate) fn learn(&mut self, entry: &ima::Entry<'_>) -> bool {
        if self.reference.keyrings.is_empty() {
            return false;
        }
        let key = entry.measured_key().filter(|key| self.reference.accepts(key));
        let key = key.and_then(|key| key.signing_key());
        key.map(|key| self.measured.add(key)).is_some()
    }

    /// Whether the file's signature counts, or why not.
    pub(crate) fn judge(&self, entry: &ima::Entry<'_>) -> Result<(), SignatureFault> {
        let verifies = |key: &SigningKey, signature: &FileSignature<'_>, digest: &Digest| {
            self.reference.verified.verify(key, signature, digest)
        };
        let Err(fault) = self.reference.signing_keys.signer_by(entry, verifies) else { return Ok(()) };
        match (fault, self.measured.signer_by(entry, verifies)) {
            (_, Ok(_)) => Ok(()),
            // Of two answers the one by a key that is known says more.
            (SignatureFault::UnknownKey(_), Err(fault)) | (fault, Err(_)) => Err(fault),
        }
    }
}
