//! Policies for properties: small ones, out of few values, so that any two have something in common.

use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    Alternative, Bank, Demand, EkSha256, EndorsementKind, EndorsementSection, FirmwareVersion, ImaPcr,
    ImaSection, LocationSection, Policy, Recovery, VendorRule, ViolationWeight, Weight,
};
use crate::place::{Area, Assurance, Uncertain};

fn digests() -> impl Strategy<Value = Digest> {
    (0u8..4).prop_map(|byte| HashAlgorithm::Sha256.hash(&[&[byte]]))
}

fn demands() -> impl Strategy<Value = Demand> {
    prop_oneof![Just(Demand::Required), Just(Demand::Optional)]
}

fn weights() -> impl Strategy<Value = Weight> {
    prop_oneof![Just(Weight::Refuse), Just(Weight::Report), Just(Weight::Ignore)]
}

fn endorsement_kinds() -> impl Strategy<Value = EndorsementKind> {
    use EndorsementKind::{Allowlist, Both, Certificate, DangerousNone, Either};
    proptest::sample::select(vec![Allowlist, Both, Certificate, DangerousNone, Either])
}

fn endorsements() -> impl Strategy<Value = EndorsementSection> {
    let eks = vec(prop_oneof![Just("11"), Just("22"), Just("33")], 1..3);
    let manufacturers = vec(prop_oneof![Just("id:494E5443"), Just("id:49465800")], 0..2);
    let rule = (endorsement_kinds(), proptest::option::of(1u64..3)).prop_map(|(kind, least)| VendorRule {
        required: Some(kind),
        firmware_version_min: least.map(FirmwareVersion),
    });
    let vendor = proptest::collection::btree_map("id:4946580[0-2]", rule, 0..2);
    let lists = (vec(prop_oneof![Just("CN=A"), Just("*")], 0..2), 0u64..3);
    (endorsement_kinds(), manufacturers, eks, weights(), demands(), vendor, lists).prop_map(
        |(required, manufacturers, eks, stale_crl, idevid, vendor, (crl_required, crl_grace_seconds))| {
            EndorsementSection {
                required,
                manufacturers: manufacturers.into_iter().map(str::to_owned).collect(),
                ek_sha256: eks.into_iter().map(ek).collect(),
                stale_crl,
                crl_required: crl_required.into_iter().map(str::to_owned).collect(),
                crl_grace_seconds,
                idevid,
                vendor,
            }
        },
    )
}

fn ek(byte: &str) -> EkSha256 {
    serde_json::from_value(byte.repeat(32).into()).unwrap()
}

/// In a box, as what strategies are made of lies on the stack.
fn files() -> BoxedStrategy<ImaSection> {
    let banks = prop_oneof![Just(HashAlgorithm::Sha1), Just(HashAlgorithm::Sha256)].prop_map(Bank);
    let patterns = vec(prop_oneof![Just("/var/log/"), Just("/run/*")], 0..2);
    let allow = proptest::collection::btree_map("/[a-c]", vec(digests(), 1..3), 0..3);
    let keyrings = proptest::collection::btree_map("\\.(ima|fs)", vec(digests(), 1..3), 0..2);
    let keys = vec(prop_oneof![Just("key 1".to_owned()), Just("key 2".to_owned())], 0..2);
    let pcrs = vec((8u32..12).prop_map(|index| ImaPcr::new(PcrIndex::new(index).unwrap()).unwrap()), 1..3);
    (demands(), pcrs, violations(), (banks, policies_of_ima()), patterns, allow, keyrings, keys)
        .prop_map(
            |(
                list,
                pcrs,
                violations,
                (weakest_digest, kernel_policies),
                exclude,
                allow,
                keyrings,
                signing_keys,
            )| ImaSection {
                list,
                pcrs,
                violations: Some(violations),
                kernel_policies,
                weakest_digest,
                exclude: exclude.into_iter().map(|text| text.parse().unwrap()).collect(),
                made_on_device: Vec::new(),
                signing_keys,
                keyrings,
                allow,
            },
        )
        .boxed()
}

fn policies_of_ima() -> impl Strategy<Value = Option<Vec<Digest>>> {
    proptest::option::of(vec(digests(), 1..3))
}

fn violations() -> impl Strategy<Value = ViolationWeight> {
    use ViolationWeight::{ByPath, Ignore, Refuse, Report};
    prop_oneof![Just(Refuse), Just(ByPath), Just(Report), Just(Ignore)]
}

/// A build without Rego has no usable policy with it.
fn rego() -> impl Strategy<Value = Option<Vec<&'static str>>> {
    const A: &str = "package assay\ndeny contains \"a\" if not input.clock.safe\n";
    const B: &str = "package assay\n# \"\"\"\nwarn contains \"b\" if input.boot == null\n";
    let some = proptest::option::weighted(0.3, prop_oneof![Just(vec![A]), Just(vec![B]), Just(vec![A, B])]);
    some.prop_map(|modules| modules.filter(|_| cfg!(feature = "rego")))
}

/// Regions, areas, or both.
fn locations() -> impl Strategy<Value = LocationSection> {
    let countries = vec(prop_oneof![Just("DE"), Just("FR")], 0..3);
    let denied = vec(prop_oneof![Just("US"), Just("FR")], 0..2);
    let assurance = proptest::option::of(prop_oneof![Just(Assurance::Stated), Just(Assurance::Sensed)]);
    let uncertain = prop_oneof![Just(Uncertain::Refuse), Just(Uncertain::Accept)];
    let demands = (assurance, proptest::option::of(1u32..3), proptest::option::of(1u64..3), uncertain);
    (countries, denied, vec(areas(), 0..3), vec(areas(), 0..2), demands).prop_map(
        |(countries, denied, allow_areas, deny_areas, demands)| {
            let codes = |texts: Vec<&str>| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
            let mut section = LocationSection {
                allow_countries: codes(countries),
                deny_countries: codes(denied),
                allow_areas,
                deny_areas,
                ..LocationSection::default()
            };
            if !section.allow_areas.is_empty() || !section.deny_areas.is_empty() {
                (section.assurance, section.accuracy_max_m, section.fix_age_max_seconds, section.uncertain) =
                    demands;
            } else if section.deny_countries.is_empty() {
                section.allow_countries.push("DE".parse().unwrap());
            }
            section
        },
    )
}

fn areas() -> impl Strategy<Value = Area> {
    const CIRCLE: &str = "circle = { latitude = 52.52, longitude = 13.405, radius_m = 500 }";
    const NIGHTS: &str = "hours = [{ days = ['mon'], from = '22:00', to = '06:00' }]";
    const SQUARE: &str =
        "geometry = { type = 'Polygon', coordinates = [[[1, 2], [3, 2.5], [3, 4], [1, 2]]] }";
    let shape =
        prop_oneof![Just(CIRCLE.to_owned()), Just(SQUARE.to_owned()), Just(format!("{CIRCLE}\n{NIGHTS}"))];
    ("[ab]", shape).prop_map(|(name, shape)| toml::from_str(&format!("name = '{name}'\n{shape}")).unwrap())
}

/// Usable policies: each pins at least one PCR, and some accept a second boot.
pub(crate) fn policies() -> impl Strategy<Value = Policy> {
    let second = proptest::option::weighted(0.3, policies_of_one_boot());
    (policies_of_one_boot(), second).prop_map(|(mut policy, second)| {
        policy.alternative =
            second.map(|Policy { pcr, boot, .. }| Alternative { pcr, boot }).into_iter().collect();
        policy
    })
}

fn policies_of_one_boot() -> impl Strategy<Value = Policy> {
    let heading = (
        "[a-c]",
        1u64..4,
        (1u64..4, 1u64..4, proptest::option::of(1u64..4)),
        any::<bool>(),
        endorsements(),
        weights(),
    );
    let pcrs = vec((0u32..3, digests()), 1..4);
    let lines = proptest::option::of(vec("/k[ab]", 1..3));
    // Boxed, as the strategies of three policies are on one stack.
    let location = proptest::option::of(locations()).boxed();
    let patterns = vec(prop_oneof![Just("/k* ro"), Just("/k? rw")], 0..2);
    let images = proptest::option::of(vec(digests(), 1..3));
    let kernels = proptest::option::of(vec(digests(), 1..3));
    let signers = proptest::option::of(vec(digests(), 1..3));
    let firmware = proptest::option::of(vec("v[12]", 1..3));
    let started = (patterns, images, kernels, signers, firmware);
    let boot = (demands(), demands(), lines, vec(digests(), 0..3), proptest::option::of(0u32..3), started);
    (heading, pcrs, boot, location, proptest::option::of(files()), rego()).prop_map(
        |(
            (name, version, (age, unanswered, offline), approve, endorsement, clock),
            pcrs,
            boot,
            location,
            ima,
            rego,
        )| {
            let mut policy = Policy::new(name);
            policy.version = version;
            policy.freshness.evidence_age_max_seconds = age;
            policy.freshness.unanswered_max_seconds = unanswered;
            policy.freshness.offline_max_seconds = offline;
            policy.recovery.mode = if approve { Recovery::Approve } else { Recovery::Automatic };
            policy.endorsement = endorsement;
            policy.clock.unsafe_clock = clock;
            for (index, value) in pcrs {
                policy.allow_pcr(PcrIndex::new(index).unwrap(), value);
            }
            let (event_log, secure_boot, lines, dbx, dbx_entries_min, started) = boot;
            policy.boot.event_log = event_log;
            policy.boot.secure_boot = secure_boot;
            policy.boot.kernel_command_lines = lines;
            policy.boot.dbx_contains = dbx;
            policy.boot.dbx_entries_min = dbx_entries_min;
            let (patterns, images, kernels, signers, firmware) = started;
            policy.boot.kernel_command_line_patterns =
                patterns.into_iter().map(|text| text.parse().unwrap()).collect();
            policy.boot.kernels = kernels.filter(|_| images.is_some());
            policy.boot.applications = images;
            policy.boot.signers = signers;
            policy.boot.firmware_versions = firmware;
            policy.location = location;
            policy.ima = ima;
            policy.rego = rego.map(|modules| super::RegoSection {
                modules: modules.into_iter().map(str::to_owned).collect(),
            });
            policy
        },
    )
}
