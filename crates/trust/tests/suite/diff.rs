//! `diff` is judged by behaviour: where it says that nothing is let in, no evidence is accepted that was not.

use std::sync::LazyLock;

use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, HashAlgorithm};
use assay_trust::policy::{
    Alternative, Bank, BootSection, Demand, Effect, EkSha256, EndorsementKind, FirmwareVersion, PcrSection,
    VendorRule, ViolationWeight, Weight, diff,
};
use assay_trust::{CompiledPolicy, Policy, Tier, appraise};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{AT, claims, endorsement, learned};

/// One choice for each of a policy's rules; 0 is the one that accepts the first case.
type Genes = Vec<u8>;

/// What the policies are about: the cases of one machine, with and without who vouches for it.
struct Evidence {
    claims: Vec<Claims>,
    endorsements: Vec<Option<Endorsement>>,
    learned: Policy,
    images: Vec<Digest>,
    signers: Vec<Digest>,
    firmware: String,
}

static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
    let claims = ["sb-good-1", "sb-good-2-rebooted", "sb-good-2-grown"].map(claims);
    let facts = claims[0].boot().unwrap().facts();
    let mut images: Vec<Digest> = facts.boot_applications.iter().map(|image| image.digest).collect();
    images.dedup();
    let rules = assay_trust::learn_rules("edge", &[], &[&claims[0]]).unwrap();
    Evidence {
        images,
        signers: rules.boot.signers.unwrap(),
        firmware: facts.firmware_version.clone().unwrap(),
        learned: learned(),
        endorsements: vec![Some(endorsement()), None],
        claims: claims.into(),
    }
});

fn another() -> Digest {
    HashAlgorithm::Sha256.hash(&[b"another"])
}

/// Takes the choices one after the other.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        let gene = self.0.next().copied().unwrap_or_default();
        choices[usize::from(gene) % choices.len()].clone()
    }
}

fn pcrs(choices: &mut Choices<'_>) -> PcrSection {
    let mut section = PcrSection::default();
    for (_, index, values) in EVIDENCE.learned.pcr.iter() {
        let values =
            choices.of(&[values.to_vec(), Vec::new(), vec![another()], [values, &[another()]].concat()]);
        values.into_iter().for_each(|value| section.allow(index, value));
    }
    section
}

fn boot(choices: &mut Choices<'_>) -> BootSection {
    let line = EVIDENCE.learned.boot.kernel_command_lines.clone().unwrap();
    let starred = line[0].replacen("6.1.0-55", "*", 1);
    let pattern: assay_trust::pattern::LinePattern = starred.parse().unwrap();
    let (images, kernel) = (&EVIDENCE.images, EVIDENCE.images.last().copied().unwrap());
    let loaders: Vec<Digest> = images.iter().copied().filter(|image| *image != kernel).collect();
    let applications = choices.of(&[None, Some(images.clone()), Some(loaders), Some(vec![another()])]);
    let kernels =
        choices.of(&[None, Some(vec![kernel]), Some(vec![another()]), Some(vec![kernel, another()])]);
    BootSection {
        event_log: choices.of(&[Demand::Required, Demand::Optional]),
        secure_boot: choices.of(&[Demand::Required, Demand::Optional]),
        kernel_command_lines: choices.of(&[
            Some(line),
            None,
            Some(vec![starred]),
            Some(vec!["/other".to_owned()]),
        ]),
        kernel_command_line_patterns: choices.of(&[
            Vec::new(),
            vec![pattern],
            vec!["/other*".parse().unwrap()],
        ]),
        kernels: kernels.filter(|_| applications.is_some()),
        applications,
        signers: choices.of(&[None, Some(EVIDENCE.signers.clone()), Some(vec![another()])]),
        firmware_versions: choices.of(&[
            None,
            Some(vec![EVIDENCE.firmware.clone()]),
            Some(vec!["other".to_owned()]),
        ]),
        dbx_contains: choices.of(&[Vec::new(), vec![another()]]),
        dbx_entries_min: choices.of(&[None, Some(1), Some(9)]),
        ..BootSection::default()
    }
}

fn endorse(policy: &mut Policy, choices: &mut Choices<'_>) {
    use EndorsementKind::{Allowlist, Both, Certificate, DangerousNone, Either};
    let device = EVIDENCE.endorsements[0].as_ref().unwrap();
    let (mine, other) = (EkSha256::new(device.ek_sha256()).unwrap(), EkSha256::new(another()).unwrap());
    let maker = device.certificate().unwrap().manufacturer().unwrap().to_owned();
    let section = &mut policy.endorsement;
    section.required = choices.of(&[Certificate, Allowlist, Both, Either, DangerousNone]);
    section.ek_sha256 = choices.of(&[vec![mine], vec![other], vec![mine, other]]);
    section.manufacturers = choices.of(&[Vec::new(), vec![maker.clone()], vec!["id:00000000".to_owned()]]);
    section.idevid = choices.of(&[Demand::Optional, Demand::Required]);
    let rules = [None, Some((Allowlist, 0)), Some((Certificate, u64::MAX)), Some((DangerousNone, 0))];
    if let Some((required, least)) = choices.of(&rules) {
        let rule =
            VendorRule { required: Some(required), firmware_version_min: Some(FirmwareVersion(least)) };
        section.vendor.insert(choices.of(&[maker.to_lowercase().replace("ID:", "id:"), maker]), rule);
    }
}

fn judge_files(policy: &mut Policy, choices: &mut Choices<'_>) {
    let mut ima = EVIDENCE.learned.ima.clone().unwrap();
    ima.list = choices.of(&[Demand::Required, Demand::Optional]);
    ima.violations = choices.of(&[
        ViolationWeight::Refuse,
        ViolationWeight::ByPath,
        ViolationWeight::Report,
        ViolationWeight::Ignore,
    ]
    .map(Some));
    ima.kernel_policies = choices.of(&[None, Some(vec![another()])]);
    ima.weakest_digest =
        choices.of(&[HashAlgorithm::Sha256, HashAlgorithm::Sha1, HashAlgorithm::Sha384].map(Bank));
    ima.exclude =
        choices.of(&[Vec::new(), vec!["/usr/**".parse().unwrap()], vec!["/**a**".parse().unwrap()]]);
    let first = ima.allow.keys().next().unwrap().clone();
    let escaped = format!("\\x2f{}", first.trim_start_matches('/'));
    let digests = ima.allow.get(&first).unwrap().clone();
    match choices.of(&["", "missing", "other", "both", "twice"]) {
        "missing" => drop(ima.allow.remove(&first)),
        "other" => drop(ima.allow.insert(first, vec![another()])),
        "both" => drop(ima.allow.insert(first, [digests, vec![another()]].concat())),
        // The same file in two spellings.
        "twice" => drop(ima.allow.insert(escaped, vec![another()])),
        _ => {}
    }
    policy.ima = choices.of(&[true, false]).then_some(ima);
}

/// `None` for choices that make no usable policy.
fn policy(genes: &Genes) -> Option<Policy> {
    let mut choices = Choices(genes.iter());
    let mut policy = Policy::new("edge");
    policy.clock.unsafe_clock = choices.of(&[Weight::Report, Weight::Refuse, Weight::Ignore]);
    endorse(&mut policy, &mut choices);
    judge_files(&mut policy, &mut choices);
    policy.pcr = pcrs(&mut choices);
    policy.boot = boot(&mut choices);
    if choices.of(&[false, true]) {
        policy.alternative = vec![Alternative { pcr: pcrs(&mut choices), boot: boot(&mut choices) }];
    }
    policy.lint().is_empty().then_some(policy)
}

fn is_accepted(policy: &CompiledPolicy, claims: &Claims, endorsement: Option<&Endorsement>) -> bool {
    appraise(claims, Some(policy), endorsement, AT).tier() == Tier::Affirming
}

/// Mostly what accepts, so that it is the few other choices that decide.
fn genes() -> impl Strategy<Value = Genes> {
    vec(prop_oneof![6 => Just(0_u8), 1 => any::<u8>()], GENES)
}

/// A policy's genes, and those of one that differs in a few of them.
fn pairs() -> impl Strategy<Value = (Genes, Genes)> {
    (genes(), vec((0..GENES, prop_oneof![Just(0_u8), any::<u8>()]), 1..4)).prop_map(|(from, changes)| {
        let mut to = from.clone();
        changes.into_iter().for_each(|(place, gene)| to[place] = gene);
        (from, to)
    })
}

const GENES: usize = 70;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_diff_calls_the_same_or_stricter_accepts_no_more((from, to) in pairs()) {
        let (Some(from), Some(to)) = (policy(&from), policy(&to)) else { return Ok(()) };
        let changes = diff(&from, &to);
        if changes.iter().any(|change| matches!(change.effect, Effect::Allowed | Effect::Looser)) {
            return Ok(());
        }
        let [old, new] = [from, to].map(|policy| CompiledPolicy::new(policy).unwrap());
        for (claims, endorsement) in EVIDENCE.claims.iter().flat_map(|claims| {
            EVIDENCE.endorsements.iter().map(move |endorsement| (claims, endorsement.as_ref()))
        }) {
            let is_new = is_accepted(&new, claims, endorsement) && !is_accepted(&old, claims, endorsement);
            prop_assert!(!is_new, "{changes:?}");
        }
    }
}

/// The property would hold of policies that accept nothing.
#[test]
fn the_choices_that_come_first_accept() {
    let policy = CompiledPolicy::new(policy(&vec![0; GENES]).unwrap()).unwrap();
    assert!(is_accepted(&policy, &EVIDENCE.claims[0], EVIDENCE.endorsements[0].as_ref()));
    assert!(!is_accepted(&policy, &EVIDENCE.claims[0], None));
}
