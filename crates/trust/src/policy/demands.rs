//! A policy taken apart, for comparing and merging: what it demands, each with how strict it is, and the lists of
//! what it accepts.

use std::collections::{BTreeMap, BTreeSet};

use super::{BootSection, Demand, EndorsementKind, Field, FirmwareVersion, Policy, Recovery, Weight};

/// A demand of a policy.
pub(super) struct Demanded {
    pub(super) field: Field,
    /// As the policy writes it.
    pub(super) word: String,
    /// More is stricter.
    pub(super) strictness: u64,
}

/// What a list of a policy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Each item lets more in.
    Accepts,
    /// Each item has to be there.
    Demands,
}

/// A list of a policy.
pub(super) struct List {
    pub(super) role: Role,
    /// Absent: anything is accepted.
    pub(super) items: Option<BTreeSet<String>>,
}

/// How strict a choice is.
pub(super) trait Strictness {
    /// More is stricter.
    fn strictness(&self) -> u64;
}

impl Strictness for Demand {
    fn strictness(&self) -> u64 {
        u64::from(*self == Demand::Required)
    }
}

impl Strictness for Weight {
    fn strictness(&self) -> u64 {
        match self {
            Weight::Ignore => 0,
            Weight::Report => 1,
            Weight::Refuse => 2,
        }
    }
}

impl Strictness for Recovery {
    fn strictness(&self) -> u64 {
        u64::from(*self == Recovery::Approve)
    }
}

impl Strictness for EndorsementKind {
    fn strictness(&self) -> u64 {
        match self {
            EndorsementKind::DangerousNone => 0,
            EndorsementKind::Either => 1,
            // Neither is stricter than the other; that one takes the other's place has to be said all the same.
            EndorsementKind::Allowlist => 2,
            EndorsementKind::Certificate => 3,
            EndorsementKind::Both => 4,
        }
    }
}

/// Every demand, in the order of the policy; of manufacturers, what holds for each of these. Those of `[ima]` only where
/// it is there.
pub(super) fn demands<'a>(
    policy: &Policy,
    manufacturers: impl IntoIterator<Item = &'a String>,
) -> Vec<Demanded> {
    let age = policy.freshness.evidence_age_max_seconds;
    let dbx = policy.boot.dbx_entries_min.unwrap_or(0);
    let mut demands = vec![
        Demanded {
            field: Field::of(["freshness", "evidence_age_max_seconds"]),
            word: age.to_string(),
            strictness: u64::MAX - age,
        },
        choice(["recovery", "mode"], policy.recovery.mode),
        choice(["clock", "unsafe_clock"], policy.clock.unsafe_clock),
        choice(["endorsement", "required"], policy.endorsement.required),
        choice(["endorsement", "stale_crl"], policy.endorsement.stale_crl),
        choice(["endorsement", "idevid"], policy.endorsement.idevid),
        choice(["boot", "event_log"], policy.boot.event_log),
        choice(["boot", "secure_boot"], policy.boot.secure_boot),
        Demanded {
            field: Field::of(["boot", "dbx_entries_min"]),
            word: dbx.to_string(),
            strictness: dbx.into(),
        },
    ];
    for name in manufacturers {
        let rule = policy.endorsement.rule(Some(name));
        let field = |key| Field::of(["endorsement", "vendor", name, key]);
        let required = rule.required.unwrap_or_default();
        demands.push(Demanded {
            field: field("required"),
            word: word(required),
            strictness: required.strictness(),
        });
        let least = rule.firmware_version_min.unwrap_or(FirmwareVersion(0));
        demands.push(Demanded {
            field: field("firmware_version_min"),
            word: least.to_string(),
            strictness: least.0,
        });
    }
    if let Some(ima) = &policy.ima {
        demands.push(choice(["ima", "list"], ima.list));
        demands.push(choice(["ima", "violations"], ima.violations));
        demands.push(Demanded {
            field: Field::of(["ima", "weakest_digest"]),
            word: ima.weakest_digest.0.to_string(),
            strictness: ima.weakest_digest.0.len() as u64,
        });
    }
    demands
}

fn choice(field: [&str; 2], value: impl Strictness + serde::Serialize) -> Demanded {
    Demanded { field: Field::of(field), strictness: value.strictness(), word: word(value) }
}

/// A choice as the policy writes it.
fn word(value: impl serde::Serialize) -> String {
    let word = serde_json::to_value(&value).ok();
    word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// Every list, but for the files and keys of `[ima]` where that is absent.
pub(super) fn lists(policy: &Policy) -> BTreeMap<Field, List> {
    let mut lists = BTreeMap::new();
    let mut accepts = |field: Field, items: Option<BTreeSet<String>>| {
        lists.insert(field, List { role: Role::Accepts, items });
    };
    for (bank, index, values) in policy.pcr.iter() {
        let values = values.iter().map(|value| value.to_hex()).collect();
        accepts(Field::of(["pcr", bank.name(), &index.to_string()]), Some(values));
    }
    let boot = &policy.boot;
    accepts(Field::of(["boot", "kernel_command_lines"]), command_lines(boot));
    accepts(Field::of(["boot", "applications"]), boot.applications.as_ref().map(texts));
    accepts(Field::of(["boot", "kernels"]), boot.kernels.as_ref().map(texts));
    accepts(Field::of(["boot", "signers"]), boot.signers.as_ref().map(texts));
    accepts(Field::of(["boot", "firmware_versions"]), boot.firmware_versions.as_ref().map(texts));
    let manufacturers = &policy.endorsement.manufacturers;
    accepts(
        Field::of(["endorsement", "manufacturers"]),
        Some(manufacturers).filter(|list| !list.is_empty()).map(texts),
    );
    accepts(Field::of(["endorsement", "ek_sha256"]), Some(texts(&policy.endorsement.ek_sha256)));
    let regions = policy.location.as_ref().map(|location| {
        let countries = location.allow_countries.iter().map(ToString::to_string);
        let subdivisions = location.allow_subdivisions.iter().map(ToString::to_string);
        let cities = location.allow_cities.iter().map(ToString::to_string);
        countries.chain(subdivisions).chain(cities).collect()
    });
    accepts(Field::of(["location"]), regions);
    if let Some(ima) = &policy.ima {
        accepts(Field::of(["ima", "exclude"]), Some(texts(&ima.exclude)));
        accepts(Field::of(["ima", "signing_keys"]), Some(texts(&ima.signing_keys)));
        for (keyring, digests) in &ima.keyrings {
            accepts(Field::of(["ima", "keyrings", keyring]), Some(texts(digests)));
        }
        for (path, digests) in &ima.allow {
            accepts(Field::of(["ima", "allow", path]), Some(texts(digests)));
        }
    }
    let contains = List { role: Role::Demands, items: Some(texts(&boot.dbx_contains)) };
    lists.insert(Field::of(["boot", "dbx_contains"]), contains);
    let modules = policy.rego.as_ref().map(|rego| texts(&rego.modules)).unwrap_or_default();
    lists.insert(Field::of(["rego", "modules"]), List { role: Role::Demands, items: Some(modules) });
    lists
}

/// Lines and patterns of lines are one list: the one that a line has to be in.
fn command_lines(boot: &BootSection) -> Option<BTreeSet<String>> {
    let lines = boot.kernel_command_lines.as_ref().map(texts);
    let patterns = Some(texts(&boot.kernel_command_line_patterns)).filter(|patterns| !patterns.is_empty());
    match (lines, patterns) {
        (Some(lines), Some(patterns)) => Some(&lines | &patterns),
        (lines, patterns) => lines.or(patterns),
    }
}

/// What a list says that is not there: a PCR that is not pinned may be anything, a file that is not listed nothing.
pub(super) fn absent(field: &Field) -> Option<BTreeSet<String>> {
    if field.starts_with("pcr") { None } else { Some(BTreeSet::new()) }
}

fn texts<'a, T: ToString + 'a>(list: impl IntoIterator<Item = &'a T>) -> BTreeSet<String> {
    list.into_iter().map(ToString::to_string).collect()
}
