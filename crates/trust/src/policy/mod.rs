//! The policy: what a good device shows, as typed text. TOML and JSON share this one schema.
//!
//! An unknown word is refused, and what is left out takes the strict choice. Each section is a file of `section/`, with
//! everything that is asked of it; what goes over all sections are folds over these: `lint.rs` finds what is well-formed
//! but useless, `review.rs` reads a policy as a critical colleague would, `diff.rs` and `merge.rs` hold policies against
//! each other, and `coverage.rs` says what a policy covers of a device. `text.rs` reads and writes the whole; `import` reads policies of Keylime; `signed.rs` opens signed ones.

mod acceptable;
mod alternative;
mod choice;
mod coverage;
mod diff;
mod import;
mod kernel_update;
mod keys;
mod lint;
mod list;
mod made_on_device;
mod merge;
mod open_rows;
mod remark;
mod review;
mod revocation;
#[cfg(test)]
pub(crate) mod sample;
mod section;
mod sequence;
mod signed;
mod suspicion;
mod text;
mod unique;

use std::io;

use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use serde::{Deserialize, Serialize};

pub(crate) use acceptable::literal;
pub use acceptable::{Acceptable, AcceptedBoot, BootRule, NotAcceptable};
pub(crate) use alternative::Boot;
pub use alternative::{Alternative, BOOTS_MAX};
pub use choice::{Demand, ViolationWeight, Weight};
pub use coverage::{Cover, Coverage, Covered, Row};
pub use diff::{Change, Effect, diff};
pub use import::{Import, ImportError};
pub use kernel_update::NoBootFiles;
pub use keys::{Bank, ImaPcr, Pcr};
pub use made_on_device::MadeOnDevice;
pub use merge::{Merged, merge};
pub use remark::{Field, Remark, Severity};
pub use review::review;
pub use revocation::{Revocation, RevocationError};
pub use section::boot::BootSection;
pub(crate) use section::boot::join_events;
pub use section::clock::ClockSection;
pub use section::endorsement::{EkSha256, EndorsementKind, EndorsementSection, FirmwareVersion, VendorRule};
pub use section::freshness::FreshnessSection;
pub use section::ima::ImaSection;
pub use section::location::LocationSection;
pub use section::pcr::PcrSection;
pub use section::recovery::{Recovery, RecoverySection};
pub use section::rego::{REGO_MODULE_BYTES_MAX, REGO_MODULES_MAX, RegoSection};
pub use section::tee::{SnpMinimum, SnpProduct, TeeKind, TeeSection};
pub use sequence::{Sequence, Slot, SlotError};
pub use signed::{
    ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, PAYLOAD_TYPE, PolicySigners, SIGNERS_MAX, payload,
};
pub use text::{POLICY_BYTES_MAX, PolicyError, TextError};

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
    pub location: Option<LocationSection>,
    /// PCR values.
    #[serde(default, skip_serializing_if = "PcrSection::is_empty")]
    pub pcr: PcrSection,
    /// What the boot log shows.
    #[serde(default)]
    pub boot: BootSection,
    /// Further boots that are good, each as a whole, instead of what `pcr` and `boot` say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternative: Vec<Alternative>,
    /// The files that may have been measured; absent: files are not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<ImaSection>,
    /// What evidence of a TEE shows; absent: none is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<TeeSection>,
    /// Rules of one's own over all of the above; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rego: Option<RegoSection>,
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
            alternative: Vec::new(),
            ima: None,
            tee: None,
            rego: None,
        }
    }

    /// Accepts one more digest of a file, under the path that the kernel will log.
    pub fn allow_file(&mut self, path: &[u8], digest: Digest) {
        let section = self.ima.get_or_insert_default();
        let path = crate::path::as_logged(path);
        let digests = section.allow.entry(crate::path::to_text(&path).into_owned()).or_default();
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
        let write = |hashed: &mut dyn io::Write| Ok(serde_json::to_writer(hashed, self)?);
        HashAlgorithm::Sha256.hash_of(write).expect("every key of a policy is text, and hashing takes it all")
    }
}
