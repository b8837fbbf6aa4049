//! Evidence of a TEE: which kinds there may be, what runs in them, and how their platforms stand.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Join, Presence, Section};
use crate::policy::choice::{Demanded, Ranked, Strictness};
use crate::policy::list::{Lists, join_option, sorted, texts};
use crate::policy::remark::Notes;
use crate::policy::{Field, PcrSection, PolicyError, Weight};

/// What a good confidential guest or enclave shows. A policy with this section demands one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeeSection {
    /// The kinds that are accepted.
    pub kinds: Vec<TeeKind>,
    /// What may have been loaded before it ran, in hex: MEASUREMENT of SNP, MRTD of TDX, MRENCLAVE of SGX, a realm's initial
    /// measurement. Empty: anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<String>,
    /// Who may have signed it, in hex: the ID key's digest of SNP, MRSIGNER of SGX. Empty: anybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// What HOST_DATA of SNP, MRCONFIGID of TDX and a realm's personalization may be, in hex. Empty: anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_data: Vec<String>,
    /// Accepts a guest or enclave whose memory the host may read and change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dangerous_debug: bool,
    /// What a platform weighs that misses an update.
    #[serde(default)]
    pub outdated: Weight,
    /// What a platform weighs on which software has to mitigate something, or that may be set up in a way that is open to something.
    #[serde(default)]
    pub hardening: Weight,
    /// What a guest weighs that may be moved to another platform.
    #[serde(default)]
    pub migration: Weight,
    /// What a TDX guest weighs into which the host may inject exceptions (SEPT_VE_DISABLE is off).
    #[serde(default)]
    pub sept_ve: Weight,
    /// What it weighs that a maker's revocation list is not at hand, or past its time.
    #[serde(default)]
    pub stale_crl: Weight,
    /// The lowest privilege of SNP that may have asked: 0 is the highest privilege, 3 the lowest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vmpl_max: u8,
    /// The lowest versions of firmware that a platform may go back to (COMMITTED_TCB), for each of AMD's products.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snp_minimum: BTreeMap<SnpProduct, SnpMinimum>,
}

/// A kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TeeKind {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// Intel SGX.
    Sgx,
    /// Arm CCA.
    Cca,
    /// A confidential GPU or switch of NVIDIA's.
    Nvidia,
}

/// A line of AMD's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnpProduct {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

/// The lowest versions of a platform's firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpMinimum {
    /// The FMC's, of Turin.
    pub fmc: u8,
    /// The boot loader's.
    pub bootloader: u8,
    /// That of the security processor's operating system.
    pub tee: u8,
    /// That of the SNP firmware.
    pub snp: u8,
    /// The microcode's.
    pub microcode: u8,
}

impl TeeKind {
    /// Every kind.
    pub const ALL: [TeeKind; 5] =
        [TeeKind::SevSnp, TeeKind::Tdx, TeeKind::Sgx, TeeKind::Cca, TeeKind::Nvidia];

    /// As policies write it.
    pub fn name(self) -> &'static str {
        match self {
            TeeKind::SevSnp => "sev-snp",
            TeeKind::Tdx => "tdx",
            TeeKind::Sgx => "sgx",
            TeeKind::Cca => "cca",
            TeeKind::Nvidia => "nvidia",
        }
    }
}

impl std::fmt::Display for TeeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl SnpProduct {
    /// As policies write it.
    pub fn name(self) -> &'static str {
        match self {
            SnpProduct::Milan => "milan",
            SnpProduct::Genoa => "genoa",
            SnpProduct::Turin => "turin",
        }
    }
}

impl SnpMinimum {
    /// The parts by name.
    pub(crate) fn parts(self) -> [(&'static str, u8); 5] {
        let SnpMinimum { fmc, bootloader, tee, snp, microcode } = self;
        [("fmc", fmc), ("bootloader", bootloader), ("tee", tee), ("snp", snp), ("microcode", microcode)]
    }

    /// The higher of each.
    fn raise(&mut self, other: SnpMinimum) {
        let SnpMinimum { fmc, bootloader, tee, snp, microcode } = self;
        for (mine, other) in [
            (fmc, other.fmc),
            (bootloader, other.bootloader),
            (tee, other.tee),
            (snp, other.snp),
            (microcode, other.microcode),
        ] {
            *mine = other.max(*mine);
        }
    }
}

impl TeeSection {
    /// What is asked where no policy asks: that nothing is known against the evidence. What may be meant so is said.
    pub fn without_policy() -> Self {
        TeeSection {
            kinds: TeeKind::ALL.to_vec(),
            measurements: Vec::new(),
            signers: Vec::new(),
            host_data: Vec::new(),
            dangerous_debug: false,
            outdated: Weight::Refuse,
            hardening: Weight::Report,
            migration: Weight::Report,
            sept_ve: Weight::Report,
            stale_crl: Weight::Report,
            vmpl_max: VMPL_LOWEST,
            snp_minimum: BTreeMap::new(),
        }
    }
}

impl Section for Option<TeeSection> {
    fn key(&self) -> &'static str {
        "tee"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let Some(section) = self else { return };
        let TeeSection { kinds, measurements, signers, host_data, vmpl_max, .. } = section;
        if kinds.is_empty() {
            errors.push(PolicyError::EmptyList { field: "tee.kinds".to_owned() });
        }
        let lengths: [(&str, &[String], &[usize]); 3] = [
            ("tee.measurements", measurements, &[32, 48, 64]),
            ("tee.signers", signers, &[32, 48]),
            ("tee.host_data", host_data, &[32, 48, 64]),
        ];
        for (field, list, lengths) in lengths {
            for (index, value) in list.iter().enumerate() {
                let bytes = data_encoding::HEXLOWER.decode(value.as_bytes());
                if !bytes.is_ok_and(|bytes| lengths.contains(&bytes.len())) {
                    errors.push(PolicyError::NotHex { field: format!("{field}[{index}]") });
                }
            }
        }
        if *vmpl_max > VMPL_LOWEST {
            errors.push(PolicyError::Vmpl { value: *vmpl_max });
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let Some(section) = self else { return };
        let TeeSection {
            kinds,
            measurements,
            signers,
            host_data,
            dangerous_debug,
            outdated,
            hardening: _,
            migration: _,
            sept_ve: _,
            stale_crl,
            vmpl_max: _,
            snp_minimum,
        } = section;
        notes.repeated(Field::of(["tee", "kinds"]), kinds);
        notes.repeated(Field::of(["tee", "measurements"]), measurements);
        notes.repeated(Field::of(["tee", "signers"]), signers);
        notes.repeated(Field::of(["tee", "host_data"]), host_data);
        if *dangerous_debug {
            notes.warn(
                Field::of(["tee", "dangerous_debug"]),
                "whoever runs the host may read and change what runs inside: leave it out but for trials",
            );
        }
        if measurements.is_empty() && signers.is_empty() {
            notes.warn(
                Field::of(["tee", "measurements"]),
                "any guest or enclave of a genuine platform is accepted, whatever it runs: list what you built",
            );
        }
        if *outdated != Weight::Refuse {
            notes.warn(Field::of(["tee", "outdated"]), "a platform with known holes is accepted");
        }
        if *stale_crl != Weight::Refuse {
            notes.warn(
                Field::of(["tee", "stale_crl"]),
                "a platform that its maker took back may pass: use \"refuse\"",
            );
        }
        if kinds.contains(&TeeKind::SevSnp) && snp_minimum.is_empty() {
            notes.warn(
                Field::of(["tee", "snp_minimum"]),
                "AMD publishes no levels, so that any firmware that ever was is accepted: say the lowest for each product",
            );
        }
    }

    fn measures(&self) -> bool {
        self.as_ref().is_some_and(|section| !section.measurements.is_empty() || !section.signers.is_empty())
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let Some(section) = self else { return Vec::new() };
        let TeeSection {
            kinds: _,
            measurements: _,
            signers: _,
            host_data: _,
            dangerous_debug,
            outdated,
            hardening,
            migration,
            sept_ve,
            stale_crl,
            vmpl_max,
            snp_minimum,
        } = section;
        let mut demands = vec![
            Demanded {
                field: Field::of(["tee", "dangerous_debug"]),
                word: dangerous_debug.to_string(),
                strictness: Strictness::Rank(u64::from(!dangerous_debug)),
            },
            Demanded::ranked(["tee", "outdated"], *outdated),
            Demanded::ranked(["tee", "hardening"], *hardening),
            Demanded::ranked(["tee", "migration"], *migration),
            Demanded::ranked(["tee", "sept_ve"], *sept_ve),
            Demanded::ranked(["tee", "stale_crl"], *stale_crl),
            Demanded {
                field: Field::of(["tee", "vmpl_max"]),
                word: vmpl_max.to_string(),
                strictness: Strictness::Rank(u64::from(VMPL_LOWEST.saturating_sub(*vmpl_max))),
            },
        ];
        for (product, minimum) in snp_minimum {
            for (part, least) in minimum.parts() {
                let field = Field::of(["tee", "snp_minimum", product.name(), part]);
                demands.push(Demanded::least(field, least, u64::from(least)));
            }
        }
        demands
    }

    fn lists(&self) -> Lists {
        let mut lists = Lists::default();
        let restricts = |values: &[String]| (!values.is_empty()).then(|| texts(values));
        let kinds = self.as_ref().map(|section| texts(&section.kinds));
        lists.restricts(Field::of(["tee", "kinds"]), kinds);
        let of = |values: fn(&TeeSection) -> &[String]| -> Option<BTreeSet<String>> {
            self.as_ref().and_then(|section| restricts(values(section)))
        };
        lists.restricts(Field::of(["tee", "measurements"]), of(|section| &section.measurements));
        lists.restricts(Field::of(["tee", "signers"]), of(|section| &section.signers));
        lists.restricts(Field::of(["tee", "host_data"]), of(|section| &section.host_data));
        // Once one product has a line, a product without one is refused: a line more lets a product in.
        let products =
            self.as_ref().map(|section| &section.snp_minimum).filter(|minimum| !minimum.is_empty());
        let products =
            products.map(|minimum| minimum.keys().map(|product| product.name().to_owned()).collect());
        lists.restricts(Field::of(["tee", "snp_minimum"]), products);
        lists
    }

    fn presence(&self) -> Option<Presence> {
        let words = if self.is_some() { "a TEE is demanded" } else { "no TEE is demanded" };
        Some(Presence { is_there: self.is_some(), words: words.to_owned() })
    }
}

impl Join for Option<TeeSection> {
    fn join(&mut self, other: &Self) {
        join_option(self, other, |mine, other| {
            let TeeSection {
                kinds,
                measurements,
                signers,
                host_data,
                dangerous_debug,
                outdated,
                hardening,
                migration,
                sept_ve,
                stale_crl,
                vmpl_max,
                snp_minimum,
            } = mine;
            for (mine, other) in [
                (measurements, &other.measurements),
                (signers, &other.signers),
                (host_data, &other.host_data),
            ] {
                // Where only one of them has a list, that list holds for both.
                mine.extend_from_slice(other);
            }
            kinds.extend_from_slice(&other.kinds);
            *dangerous_debug &= other.dangerous_debug;
            *vmpl_max = other.vmpl_max.min(*vmpl_max);
            outdated.tighten(other.outdated);
            hardening.tighten(other.hardening);
            migration.tighten(other.migration);
            sept_ve.tighten(other.sept_ve);
            stale_crl.tighten(other.stale_crl);
            for (product, minimum) in &other.snp_minimum {
                snp_minimum.entry(*product).or_default().raise(*minimum);
            }
        });
    }

    fn sort(&mut self) {
        let Some(section) = self else { return };
        sorted(&mut section.kinds);
        sorted(&mut section.measurements);
        sorted(&mut section.signers);
        sorted(&mut section.host_data);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(value: &u8) -> bool {
    *value == 0
}

/// VMPL 3 is the lowest there is.
const VMPL_LOWEST: u8 = 3;

#[cfg(test)]
mod tests {
    use crate::policy::{Effect, Policy, diff};

    #[test]
    fn a_product_that_gets_a_line_is_let_in() {
        let milan = "[tee.snp_minimum.milan]\nsnp = 8\n";
        let both = "[tee.snp_minimum.milan]\nsnp = 8\n[tee.snp_minimum.turin]\nsnp = 1\n";
        let check = |from: &str, to: &str, expected: &[(Effect, &str)]| {
            let policy = |minimum: &str| {
                let head = "name = \"guests\"\nversion = 1\n[tee]\nkinds = [\"sev-snp\"]";
                let measurement = "9f".repeat(48);
                Policy::from_toml(&format!("{head}\nmeasurements = [\"{measurement}\"]\n{minimum}")).unwrap()
            };
            let changes = diff(&policy(from), &policy(to));
            let of_products = changes.iter().filter(|change| change.field.to_string() == "tee.snp_minimum");
            let found: Vec<(Effect, &str)> =
                of_products.map(|change| (change.effect, change.value.as_str())).collect();
            assert_eq!(found, expected, "{from:?} to {to:?}");
        };
        check(milan, both, &[(Effect::Allowed, "turin")]);
        check(both, milan, &[(Effect::Refused, "turin")]);
        check("", milan, &[(Effect::Stricter, "anything → only milan")]);
        check(milan, "", &[(Effect::Looser, "only milan → anything")]);
        check(milan, milan, &[]);
    }
}
