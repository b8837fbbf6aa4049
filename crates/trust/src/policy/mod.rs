//! The policy: what a good device shows, as typed text. TOML and JSON share this one schema.
//!
//! Every section is the type below; an unknown word is refused, and what is left out takes the strict choice.
//! `endorsement.rs` has what is demanded of a TPM's maker; `text.rs` reads and writes the whole, `lint.rs` finds what is well-formed but useless, `pcr.rs` has the PCR values.
//! `review.rs` reads a policy as a critical colleague would; `diff.rs` and `merge.rs` hold policies against each other;
//! `rego.rs` has rules of one's own; `import` reads those of Keylime; `signed.rs` opens signed ones.

mod demands;
mod diff;
mod endorsement;
mod import;
mod keys;
mod lint;
mod merge;
mod pcr;
mod rego;
mod remark;
mod review;
#[cfg(test)]
pub(crate) mod sample;
mod signed;
mod text;
mod unique;

use std::collections::BTreeMap;

use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use serde::{Deserialize, Serialize};

pub use diff::{Change, Effect, diff};
pub use endorsement::{EkSha256, EndorsementKind, EndorsementSection, FirmwareVersion, VendorRule};
pub use import::{Import, ImportError};
pub use keys::{Bank, Pcr};
pub use merge::{Merged, merge};
pub use pcr::PcrSection;
pub use rego::{REGO_MODULE_BYTES_MAX, REGO_MODULES_MAX, RegoSection};
pub use remark::{Field, Remark, Severity};
pub use review::review;
pub use signed::{
    ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, PAYLOAD_TYPE, PolicySigners, SIGNERS_MAX, payload,
};
pub use text::{POLICY_BYTES_MAX, PolicyError, TextError};

use crate::pattern::{LinePattern, Pattern};
use crate::region::RegionList;

/// What a good device shows, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What people call it.
    pub name: String,
    /// Grows with every change.
    pub version: u64,
    /// How old evidence may be.
    #[serde(default)]
    pub freshness: FreshnessSection,
    /// How trust comes back.
    #[serde(default)]
    pub recovery: RecoverySection,
    /// The TPM's clock.
    #[serde(default)]
    pub clock: ClockSection,
    /// Who vouches for the TPM.
    #[serde(default)]
    pub endorsement: EndorsementSection,
    /// Where telemetry may come from; absent: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<RegionList>,
    /// PCR values.
    #[serde(default, skip_serializing_if = "PcrSection::is_empty")]
    pub pcr: PcrSection,
    /// What the boot log shows.
    #[serde(default)]
    pub boot: BootSection,
    /// The files that may have been measured; absent: files are not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaSection>,
    /// Rules of one's own over all of the above; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rego: Option<RegoSection>,
}

/// Whether something must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Without it the device is refused.
    #[default]
    Required,
    /// Its absence is said, and accepted.
    #[serde(alias = "any")]
    Optional,
}

/// What an oddity weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The device is refused.
    #[default]
    Refuse,
    /// It is said, and accepted.
    Report,
    /// It is not even said.
    Ignore,
}

/// What the boot log must show. The log is judged only after it replayed to the quoted PCRs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSection {
    /// Whether there must be a boot log.
    #[serde(default)]
    pub event_log: Demand,
    /// Whether Secure Boot must be on.
    #[serde(default)]
    pub secure_boot: Demand,
    /// The kernel command lines that may be booted; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_command_lines: Option<Vec<String>>,
    /// Patterns of further command lines, for what differs from device to device: see [`LinePattern`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_command_line_patterns: Vec<LinePattern>,
    /// Authenticode digests of the images that may be started (shim, boot loader, kernel); absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applications: Option<Vec<Digest>>,
    /// Authenticode digests of the kernels that may be started beside `applications`, and of which one has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Vec<Digest>>,
    /// What Secure Boot may have trusted images by: SHA-256 of certificates, or digests of images; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers: Option<Vec<Digest>>,
    /// The versions of the firmware, as it measures them; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_versions: Option<Vec<String>>,
    /// Image digests that the firmware's revocation list dbx must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dbx_contains: Vec<Digest>,
    /// The least number of entries in dbx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dbx_entries_min: Option<u32>,
    /// Events known of good boots, per PCR, with their description. They accept and refuse nothing: they let a
    /// finding about a PCR say which event changed it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique::map_of_maps")]
    pub events: BTreeMap<Pcr, BTreeMap<Digest, String>>,
}

/// What may have been measured at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImaSection {
    /// Whether there must be an IMA list.
    #[serde(default)]
    pub list: Demand,
    /// What a violation weighs: a file changed while it was measured, so its content is unknown.
    #[serde(default)]
    pub violations: Weight,
    /// The weakest hash of a file's content that counts.
    #[serde(default)]
    pub weakest_digest: Bank,
    /// Paths that are not judged: trees (`/var/log/`) and patterns (`*`, `**`, `?`), always of the whole path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Pattern>,
    /// Certificates or public keys, in PEM, whose file signatures are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<String>,
    /// Digests of certificates, per keyring, whose file signatures are accepted once the kernel has measured that
    /// it put the certificate on that keyring.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique::map")]
    pub keyrings: BTreeMap<String, Vec<Digest>>,
    /// The files that may have been measured, with their digests.
    #[serde(default, deserialize_with = "unique::map")]
    pub allow: BTreeMap<String, Vec<Digest>>,
}

impl Default for ImaSection {
    fn default() -> Self {
        ImaSection {
            list: Demand::Required,
            violations: Weight::Refuse,
            weakest_digest: Bank::default(),
            exclude: Vec::new(),
            signing_keys: Vec::new(),
            keyrings: BTreeMap::new(),
            allow: BTreeMap::new(),
        }
    }
}

impl ImaSection {
    /// The section but for its list of files, which may be long.
    pub(crate) fn without_files(&self) -> Self {
        ImaSection {
            list: self.list,
            violations: self.violations,
            weakest_digest: self.weakest_digest,
            exclude: self.exclude.clone(),
            signing_keys: self.signing_keys.clone(),
            keyrings: self.keyrings.clone(),
            allow: BTreeMap::new(),
        }
    }
}

/// The TPM's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockSection {
    /// What `safe = 0` weighs: after a power cut the TPM's clock may have gone back until it catches up.
    pub unsafe_clock: Weight,
}

impl Default for ClockSection {
    fn default() -> Self {
        ClockSection { unsafe_clock: Weight::Report }
    }
}

/// How old evidence may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshnessSection {
    /// Seconds for which an affirming result carries trust.
    pub evidence_age_max_seconds: u64,
}

impl Default for FreshnessSection {
    fn default() -> Self {
        FreshnessSection { evidence_age_max_seconds: EVIDENCE_AGE_DEFAULT_SECONDS }
    }
}

/// How a device that was suspect comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverySection {
    /// By itself, or by an operator's word.
    pub mode: Recovery,
}

/// Whether fresh good evidence is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recovery {
    /// Fresh good evidence is enough.
    #[default]
    Automatic,
    /// An operator must approve as well.
    Approve,
}

impl Policy {
    /// A policy that says nothing yet but the strict choices.
    pub fn new(name: impl Into<String>) -> Self {
        Policy {
            name: name.into(),
            version: 1,
            freshness: FreshnessSection::default(),
            recovery: RecoverySection::default(),
            clock: ClockSection::default(),
            endorsement: EndorsementSection::default(),
            location: None,
            pcr: PcrSection::default(),
            boot: BootSection::default(),
            ima: None,
            rego: None,
        }
    }

    /// Accepts one more digest of a file.
    pub fn allow_file(&mut self, path: &[u8], digest: Digest) {
        let section = self.ima.get_or_insert_default();
        let digests = section.allow.entry(crate::path::to_text(path).into_owned()).or_default();
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }

    /// The file of an `ima-policy` finding by its claim and what was found, as [`Policy::allow_file`] takes it; `None`
    /// where they name none.
    pub fn reported_file(claim: &str, found: &str) -> Option<(Vec<u8>, Digest)> {
        let digest = Digest::from_text(found).filter(|digest| digest.algorithm() != HashAlgorithm::Sha1)?;
        Some((crate::path::from_text(claim)?, digest))
    }

    /// Accepts one more value of a PCR.
    pub fn allow_pcr(&mut self, index: PcrIndex, value: Digest) {
        self.pcr.allow(index, value);
    }

    /// `name v7`, as findings cite it.
    pub fn citation(&self) -> String {
        format!("{} v{}", self.name, self.version)
    }

    /// Identifies the policy's exact meaning: SHA-256 of its JSON, whose members are always in the same order.
    pub fn digest(&self) -> Digest {
        HashAlgorithm::Sha256.hash(&[self.to_json().as_bytes()])
    }
}

/// Five missed attestations at one a minute.
const EVIDENCE_AGE_DEFAULT_SECONDS: u64 = 300;
