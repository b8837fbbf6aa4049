//! Who vouches for the TPM: its maker by a certificate, the operator by a list of endorsement keys, or both.

use std::collections::BTreeMap;
use std::fmt;

use assay_evidence::{Digest, HashAlgorithm};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Demand, Weight};

/// Who vouches for the TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementSection {
    /// What has to vouch for the EK.
    #[serde(default)]
    pub required: EndorsementKind,
    /// TPM manufacturers that are accepted, as the EK certificate names them (`id:00001014`); empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manufacturers: Vec<String>,
    /// The EKs that the operator vouches for, by SHA-256 of their SubjectPublicKeyInfo: what device ids end in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ek_sha256: Vec<EkSha256>,
    /// What a revocation list weighs that is past its next update, or that its authority did not sign.
    #[serde(default = "report")]
    pub stale_crl: Weight,
    /// Whether the device must have shown an IDevID and an IAK when it enrolled.
    #[serde(default = "optional")]
    pub idevid: Demand,
    /// What holds for the TPMs of one manufacturer, by the name in a certificate that verified.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vendor: BTreeMap<String, VendorRule>,
}

/// What can vouch for an EK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndorsementKind {
    /// An EK certificate that chains to a trust anchor.
    #[default]
    Certificate,
    /// That the EK is listed.
    Allowlist,
    /// A certificate, and that the EK is listed.
    Both,
    /// One of the two.
    Either,
    /// Nothing: any TPM will do, and with it any software TPM.
    #[serde(rename = "dangerous_none")]
    DangerousNone,
}

/// What holds for the TPMs of one manufacturer; what is left out, the section says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorRule {
    /// What has to vouch for the EK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<EndorsementKind>,
    /// The lowest firmware version that is accepted, as the TPM states it in its quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_version_min: Option<FirmwareVersion>,
}

/// SHA-256 of an EK's SubjectPublicKeyInfo, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EkSha256(Digest);

/// TPMS_ATTEST.firmwareVersion: the vendor's number, as 16 hex digits after `0x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion(pub u64);

impl Default for EndorsementSection {
    fn default() -> Self {
        EndorsementSection {
            required: EndorsementKind::default(),
            manufacturers: Vec::new(),
            ek_sha256: Vec::new(),
            stale_crl: report(),
            idevid: optional(),
            vendor: BTreeMap::new(),
        }
    }
}

impl EndorsementSection {
    /// What holds for a TPM of this manufacturer; `None`: no certificate says whose it is.
    pub(crate) fn rule(&self, manufacturer: Option<&str>) -> VendorRule {
        let named =
            |(name, _): &(&String, _)| manufacturer.is_some_and(|found| name.eq_ignore_ascii_case(found));
        let rule = self.vendor.iter().find(named).map(|(_, rule)| rule.clone()).unwrap_or_default();
        VendorRule { required: Some(rule.required.unwrap_or(self.required)), ..rule }
    }

    /// Whether the operator vouches for this EK.
    pub(crate) fn lists(&self, ek_sha256: Digest) -> bool {
        self.ek_sha256.contains(&EkSha256(ek_sha256))
    }

    /// Whether any rule asks whether the EK is listed.
    pub(super) fn uses_list(&self) -> bool {
        let kinds = self.vendor.values().filter_map(|rule| rule.required);
        kinds.chain([self.required]).any(EndorsementKind::asks_list)
    }
}

impl EkSha256 {
    /// A hash that was computed; `None` for one of another algorithm.
    pub fn new(sha256: Digest) -> Option<Self> {
        (sha256.algorithm() == HashAlgorithm::Sha256).then_some(EkSha256(sha256))
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        Digest::from_text(&format!("sha256:{}", text.to_ascii_lowercase())).map(EkSha256)
    }
}

impl EndorsementKind {
    /// Reads the word that policies write.
    pub fn parse(word: &str) -> Option<Self> {
        serde_json::from_value(word.into()).ok()
    }

    /// Whether an EK without a certificate could do.
    pub(crate) fn accepts_list_alone(self) -> bool {
        matches!(self, EndorsementKind::Allowlist | EndorsementKind::Either)
    }

    /// Whether a list of EKs matters.
    pub(super) fn asks_list(self) -> bool {
        matches!(self, EndorsementKind::Allowlist | EndorsementKind::Both | EndorsementKind::Either)
    }

    /// The demand that meets both.
    pub(super) fn and(self, other: EndorsementKind) -> EndorsementKind {
        use EndorsementKind::{Allowlist, Both, Certificate, DangerousNone, Either};
        match (self, other) {
            (DangerousNone, kind) | (kind, DangerousNone) | (Either, kind) | (kind, Either) => kind,
            (Certificate, Certificate) => Certificate,
            (Allowlist, Allowlist) => Allowlist,
            (Both, _) | (_, Both) | (Certificate, Allowlist) | (Allowlist, Certificate) => Both,
        }
    }
}

/// A list that is past its time says what it said; that a maker's newer one is late must not take a fleet down. It is
/// said with every result, and a stricter policy may refuse.
fn report() -> Weight {
    Weight::Report
}

/// Most devices in the field have neither.
fn optional() -> Demand {
    Demand::Optional
}

impl fmt::Display for EkSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl Serialize for EkSha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EkSha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        EkSha256::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is no EK's hash: write the 64 hex digits that the device's id ends in"
            ))
        })
    }
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl Serialize for FirmwareVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FirmwareVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| {
            digits.len() == FIRMWARE_VERSION_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).map(FirmwareVersion).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is no TPM firmware version: write 0x and 16 hex digits, as the findings do"
            ))
        })
    }
}

/// A version with fewer would be read as a much lower one than was meant.
const FIRMWARE_VERSION_DIGITS: usize = 16;
