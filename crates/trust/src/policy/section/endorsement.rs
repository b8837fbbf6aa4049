//! Who vouches for the TPM: its maker by a certificate, the operator by a list of endorsement keys, or both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use assay_evidence::{Digest, HashAlgorithm};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Join, Section};
use crate::policy::choice::{Demanded, Ranked, Strictness, word};
use crate::policy::list::{Lists, sorted, texts};
use crate::policy::remark::Notes;
use crate::policy::suspicion;
use crate::policy::{Demand, Field, PcrSection, PolicyError, Weight};

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
    /// Authorities whose revocation list there has to be, by their names as findings and certificates write them; `*` is
    /// every authority above a device's keys. Without a list that such an authority signed its devices are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crl_required: Vec<String>,
    /// Seconds past its next update for which a required list still does.
    #[serde(default = "crl_grace", skip_serializing_if = "is_crl_grace")]
    pub crl_grace_seconds: u64,
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
            crl_required: Vec::new(),
            crl_grace_seconds: CRL_GRACE_SECONDS,
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

    /// Whether there has to be a revocation list of this authority.
    pub(crate) fn requires_list_of(&self, issuer: &str) -> bool {
        self.crl_required.iter().any(|required| required == ANY_AUTHORITY || required == issuer)
    }

    /// Whether the operator vouches for this EK.
    pub(crate) fn lists(&self, ek_sha256: Digest) -> bool {
        self.ek_sha256.contains(&EkSha256(ek_sha256))
    }

    /// Whether any rule asks whether the EK is listed.
    fn uses_list(&self) -> bool {
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
    fn asks_list(self) -> bool {
        matches!(self, EndorsementKind::Allowlist | EndorsementKind::Both | EndorsementKind::Either)
    }

    /// The least strict demand that accepts nothing which either refuses.
    fn and(self, other: EndorsementKind) -> EndorsementKind {
        use EndorsementKind::{Allowlist, Both, Certificate, DangerousNone, Either};
        match (self, other) {
            (DangerousNone, kind) | (kind, DangerousNone) => kind,
            (Either, Either) => Either,
            (Certificate, Certificate | Either) | (Either, Certificate) => Certificate,
            (Allowlist, Allowlist) => Allowlist,
            // A list alone accepts an EK that its maker took back, and one that asks for either does not.
            (Both, _) | (_, Both) | (Certificate | Either, Allowlist) | (Allowlist, Certificate | Either) => {
                Both
            }
        }
    }
}

impl EndorsementKind {
    /// The situations in which this is enough, a bit for each of: certified or not, listed or not, taken back by its
    /// maker or not.
    fn accepted(self) -> u32 {
        let situations = (0..8_u32).filter(|situation| {
            let [certified, listed, revoked] = [1, 2, 4].map(|bit| situation & bit != 0);
            self.is_met(certified, listed, revoked)
        });
        situations.fold(0, |accepted, situation| accepted | 1 << situation)
    }

    /// Whether enough vouches for an EK. One that its maker took back is not made good by being listed as well: who
    /// means that asks for the list alone.
    pub(crate) fn is_met(self, certified: bool, listed: bool, revoked: bool) -> bool {
        match self {
            EndorsementKind::Certificate => certified,
            EndorsementKind::Allowlist => listed,
            EndorsementKind::Both => certified && listed,
            EndorsementKind::Either => certified || listed && !revoked,
            EndorsementKind::DangerousNone => true,
        }
    }

    fn demanded(self, field: Field) -> Demanded {
        Demanded { field, word: word(self), strictness: Strictness::Accepted(self.accepted()) }
    }
}

impl Section for EndorsementSection {
    fn key(&self) -> &'static str {
        "endorsement"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let EndorsementSection {
            required,
            manufacturers: _,
            ek_sha256,
            stale_crl: _,
            crl_required,
            crl_grace_seconds,
            idevid: _,
            vendor,
        } = self;
        if *crl_grace_seconds > CRL_GRACE_MAX_SECONDS {
            errors.push(PolicyError::CrlGrace { seconds: *crl_grace_seconds, max: CRL_GRACE_MAX_SECONDS });
        }
        if crl_required.len() > CRL_REQUIRED_MAX {
            let (field, count) = ("endorsement.crl_required", crl_required.len());
            errors.push(PolicyError::TooMany { field, count, max: CRL_REQUIRED_MAX });
        }
        let only_list = matches!(required, EndorsementKind::Allowlist | EndorsementKind::Both);
        if only_list && ek_sha256.is_empty() {
            errors.push(PolicyError::EmptyList { field: "endorsement.ek_sha256".to_owned() });
        }
        let mut names = BTreeSet::new();
        for (name, VendorRule { required, firmware_version_min }) in vendor {
            let digits = name.strip_prefix("id:").unwrap_or_default();
            let hex = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            // The same name in another case would be a second rule for the same TPMs.
            if !hex || !names.insert(name.to_ascii_uppercase()) {
                errors.push(PolicyError::Vendor { name: name.clone() });
            }
            if required.is_none() && firmware_version_min.is_none() {
                errors.push(PolicyError::EmptyList { field: format!("endorsement.vendor.{name:?}") });
            }
        }
        let (field, count) = ("endorsement.ek_sha256", ek_sha256.len());
        if count > EK_SHA256_MAX {
            errors.push(PolicyError::TooMany { field, count, max: EK_SHA256_MAX });
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let EndorsementSection {
            required,
            manufacturers,
            ek_sha256,
            stale_crl,
            crl_required,
            crl_grace_seconds,
            idevid: _,
            vendor,
        } = self;
        notes.repeated(Field::of(["endorsement", "manufacturers"]), manufacturers);
        notes.repeated(Field::of(["endorsement", "crl_required"]), crl_required);
        if *crl_grace_seconds != CRL_GRACE_SECONDS && crl_required.is_empty() {
            notes.warn(
                Field::of(["endorsement", "crl_grace_seconds"]),
                "nobody's list is required: name authorities in endorsement.crl_required",
            );
        }
        let list = Field::of(["endorsement", "ek_sha256"]);
        notes.repeated(list.clone(), ek_sha256);
        if !ek_sha256.is_empty() && !self.uses_list() {
            notes.warn(
                list,
                "nothing asks for this list: set endorsement.required to \"both\", \"either\" or \"allowlist\"",
            );
        }
        for (index, EkSha256(digest)) in ek_sha256.iter().enumerate() {
            if let Some(why) = suspicion::of_digest(digest) {
                notes.warn(
                    Field::of(["endorsement", "ek_sha256"]).at(index),
                    format!("{} is no endorsement key: {why}", digest.to_hex()),
                );
            }
        }
        review_kind(*required, !vendor.is_empty(), notes);
        if *stale_crl == Weight::Ignore {
            notes.warn(
                Field::of(["endorsement", "stale_crl"]),
                "whoever withholds new revocation lists is not noticed: use \"report\" or \"refuse\"",
            );
        }
        let is_accepted =
            |name: &str| manufacturers.iter().any(|accepted| accepted.eq_ignore_ascii_case(name));
        for name in vendor.keys().filter(|name| !manufacturers.is_empty() && !is_accepted(name)) {
            notes.warn(
                Field::of(["endorsement", "vendor", name]),
                "endorsement.manufacturers does not have this manufacturer, so its TPMs are refused anyway",
            );
        }
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, manufacturers: &[&str]) -> Vec<Demanded> {
        let EndorsementSection {
            required,
            manufacturers: _,
            ek_sha256: _,
            stale_crl,
            crl_required: _,
            crl_grace_seconds: grace,
            idevid,
            vendor: _,
        } = self;
        let mut demands = vec![
            Demanded::least(Field::of(["endorsement", "crl_grace_seconds"]), *grace, u64::MAX - grace),
            required.demanded(Field::of(["endorsement", "required"])),
            Demanded::ranked(["endorsement", "stale_crl"], *stale_crl),
            Demanded::ranked(["endorsement", "idevid"], *idevid),
        ];
        for name in manufacturers {
            let VendorRule { required, firmware_version_min } = self.rule(Some(name));
            let field = |key| Field::of(["endorsement", "vendor", name, key]);
            demands.push(required.unwrap_or_default().demanded(field("required")));
            let least = firmware_version_min.unwrap_or(FirmwareVersion(0));
            demands.push(Demanded::least(field("firmware_version_min"), least, least.0));
        }
        demands
    }

    fn lists(&self) -> Lists {
        let EndorsementSection {
            required: _,
            manufacturers,
            ek_sha256,
            stale_crl: _,
            crl_required,
            crl_grace_seconds: _,
            idevid: _,
            vendor: _,
        } = self;
        let mut lists = Lists::default();
        let named = Some(manufacturers).filter(|list| !list.is_empty()).map(texts);
        lists.restricts(Field::of(["endorsement", "manufacturers"]), named);
        lists.accepts(Field::of(["endorsement", "ek_sha256"]), ek_sha256);
        lists.demands(Field::of(["endorsement", "crl_required"]), crl_required);
        lists
    }
}

/// What has to vouch for the EK, where that lets in more than its writer may have meant.
fn review_kind(required: EndorsementKind, has_vendors: bool, notes: &mut Notes<'_>) {
    let field = Field::of(["endorsement", "required"]);
    match required {
        EndorsementKind::DangerousNone => notes.warn(
            field,
            "nobody vouches for the TPM, so any software TPM passes: require a certificate",
        ),
        kind if kind.accepts_list_alone() && has_vendors => notes.warn(
            field,
            "a listed device that shows no certificate has no manufacturer, so no rule under endorsement.vendor \
             holds for it: use \"both\" or \"certificate\"",
        ),
        _ => {}
    }
}

impl Join for EndorsementSection {
    fn join(&mut self, other: &Self) {
        let names: BTreeSet<String> = self.vendor.keys().chain(other.vendor.keys()).cloned().collect();
        for name in names {
            // Whoever has no rule of its own for a manufacturer demands of it what it demands of all.
            let (mine, theirs) = (self.rule(Some(&name)), other.rule(Some(&name)));
            let said = |section: &EndorsementSection| {
                section.vendor.get(&name).is_some_and(|rule| rule.required.is_some())
            };
            let required = mine.required.zip(theirs.required).map(|(mine, theirs)| mine.and(theirs));
            let rule = VendorRule {
                required: required.filter(|_| said(self) || said(other)),
                firmware_version_min: mine.firmware_version_min.max(theirs.firmware_version_min),
            };
            self.vendor.insert(name, rule);
        }
        let EndorsementSection {
            required,
            manufacturers,
            ek_sha256,
            stale_crl,
            crl_required,
            crl_grace_seconds,
            idevid,
            vendor: _,
        } = self;
        *required = required.and(other.required);
        crl_required.extend_from_slice(&other.crl_required);
        *crl_grace_seconds = (*crl_grace_seconds).min(other.crl_grace_seconds);
        stale_crl.tighten(other.stale_crl);
        idevid.tighten(other.idevid);
        manufacturers.extend_from_slice(&other.manufacturers);
        ek_sha256.extend_from_slice(&other.ek_sha256);
    }

    fn sort(&mut self) {
        let EndorsementSection {
            required: _,
            manufacturers,
            ek_sha256,
            stale_crl: _,
            crl_required,
            crl_grace_seconds: _,
            idevid: _,
            vendor: _,
        } = self;
        sorted(crl_required);
        sorted(manufacturers);
        sorted(ek_sha256);
    }
}

/// A list that is past its time says what it said; that a maker's newer one is late must not take a fleet down. It is
/// said with every result, and a stricter policy may refuse.
fn report() -> Weight {
    Weight::Report
}

fn crl_grace() -> u64 {
    CRL_GRACE_SECONDS
}

fn is_crl_grace(seconds: &u64) -> bool {
    *seconds == CRL_GRACE_SECONDS
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

/// In `crl_required`: whoever it is.
const ANY_AUTHORITY: &str = "*";
/// A list is fetched anew long before; three days outlast a weekend in which nobody looks.
const CRL_GRACE_SECONDS: u64 = 3 * 24 * 3600;
/// A year: longer is no grace but another way not to require a list.
const CRL_GRACE_MAX_SECONDS: u64 = 365 * 24 * 3600;
/// More authorities than all makers of TPMs have.
const CRL_REQUIRED_MAX: usize = 1000;
/// A version with fewer would be read as a much lower one than was meant.
const FIRMWARE_VERSION_DIGITS: usize = 16;
/// As many devices as one server may have attached.
const EK_SHA256_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_demands_together_accept_nothing_that_either_refuses() {
        use EndorsementKind::{Allowlist, Both, Certificate, DangerousNone, Either};
        let kinds = [Allowlist, Both, Certificate, DangerousNone, Either];
        for (one, other) in kinds.into_iter().flat_map(|one| kinds.map(|other| (one, other))) {
            let met = one.and(other);
            assert_eq!(met.accepted() & !(one.accepted() & other.accepted()), 0, "{one:?} {other:?}");
            // The least strict of those that do.
            for kind in
                kinds.into_iter().filter(|kind| kind.accepted() & !(one.accepted() & other.accepted()) == 0)
            {
                assert_eq!(kind.accepted() & !met.accepted(), 0, "{one:?} {other:?}");
            }
        }
    }
}
