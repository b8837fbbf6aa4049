//! Appraisal from outside, over evidence of a real boot: the cases under `vectors/tpm`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alternatives;
mod banks;
mod change;
mod demands;
mod diff;
mod emptied;
mod endorsement;
mod measured;
mod reading;
mod redteam;
mod weak_policies;

use std::path::PathBuf;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor, verify_ek_certificate};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Baseline, Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_evidence::{Check, HashAlgorithm, PcrIndex};
use assay_trust::policy::EndorsementKind;
use assay_trust::vector::TrustVector;
use assay_trust::{AttestationResult, CompiledPolicy, Policy, Tier, appraise, learn, refuse};

const AT: UnixTime = UnixTime(1_800_000_000);

fn file(case: &str, name: &str) -> Vec<u8> {
    let vectors = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/tpm");
    std::fs::read(vectors.join(case).join(name)).unwrap()
}

/// Claims of a case; on a baseline, only what is new since.
fn claims_from(case: &str, baseline: Option<&Baseline>) -> Claims {
    let nonce = data_encoding::HEXLOWER.decode(file(case, "quote.nonce").trim_ascii()).unwrap();
    let (message, signature) = (file(case, "quote.msg"), file(case, "quote.sig"));
    let ima = file(case, "binary_runtime_measurements");
    // The grown list is of the same boot.
    let boot_log = file(&case.replace("grown", "rebooted"), "binary_bios_measurements");
    let ak_public = file(case, "ak.tpm2b_public");
    let known = baseline.map_or(0, Baseline::ima_entries);
    let skip = skipped_bytes(&ima, known);
    let evidence = Evidence {
        ak_public: &ak_public,
        quotes: vec![QuoteEvidence {
            label: "quote",
            message: &message,
            signature: &signature,
            pcrs: PcrValues::from_tpm2_tools(&file(case, "quote.pcrs")).unwrap().1,
            nonce: &nonce,
            ak_public: None,
        }],
        boot_log: baseline.is_none().then_some(&boot_log),
        measure_log: None,
        ima_log: Some(ImaLog::Binary(ima.get(skip..).unwrap())),
        ima_from_entry: known,
        banks: None,
    };
    let verification = verify(&evidence, &Expectation { baseline, ..Expectation::default() });
    assert_eq!(verification.failures, []);
    verification.claims.unwrap()
}

fn claims(case: &str) -> Claims {
    claims_from(case, None)
}

/// Bytes of the first `entries` entries: PCR, digest, name length, name, data length, data.
fn skipped_bytes(list: &[u8], entries: u64) -> usize {
    let length = |at: usize| u32::from_le_bytes(list.get(at..at + 4).unwrap().try_into().unwrap()) as usize;
    (0..entries).fold(0, |at, _| {
        let name = at + 24;
        let data = name + 4 + length(name);
        data + 4 + length(data)
    })
}

fn endorsement() -> Endorsement {
    let anchors = ["ek-root-ca.pem", "ek-issuing-ca.pem"].map(|name| file("sb-good-1", name));
    let anchors: Vec<TrustAnchor> =
        anchors.iter().flat_map(|pem| TrustAnchor::from_pem_or_der(pem).unwrap()).collect();
    let endorsers = Endorsers::new(anchors, Vec::new());
    verify_ek_certificate(&file("sb-good-1", "ek-cert.der"), &[], &endorsers, AT).unwrap().into()
}

fn learned() -> Policy {
    learn("edge", &[], &[&claims("sb-good-1")]).unwrap()
}

fn appraise_by(policy: Policy, claims: &Claims) -> AttestationResult {
    appraise(claims, Some(&CompiledPolicy::new(policy).unwrap()), Some(&endorsement()), AT)
}

/// Appraises the baseline case by its own policy after a change, and names the checks that refuse it.
fn check(change: impl FnOnce(&mut Policy), expected: &[Check]) -> AttestationResult {
    let mut policy = learned();
    change(&mut policy);
    let result = appraise_by(policy, &claims("sb-good-1"));
    let refused = result.findings().iter().filter(|finding| finding.tier == Tier::Contraindicated);
    let mut refused: Vec<Check> = refused.map(|finding| finding.check).collect();
    refused.dedup();
    assert_eq!(refused, expected, "{:?}", result.findings());
    assert_eq!(result.tier(), if expected.is_empty() { Tier::Affirming } else { Tier::Contraindicated });
    result
}

#[test]
fn what_was_learned_is_affirming() {
    let result = check(|_| {}, &[]);
    assert_eq!(result.policy(), Some(("edge", 1)));
    assert_eq!(result.good_ima_entries(), 109);
    assert_eq!(result.valid_until(), AT.plus(300));
    let rebooted = appraise_by(learned(), &claims("sb-good-2-rebooted"));
    assert_eq!(
        (rebooted.tier(), rebooted.counters().map(|counters| counters.reset_count)),
        (Tier::Affirming, Some(4))
    );
}

#[test]
fn pcr_10_and_boot_aggregate_are_never_learned() {
    let policy = learned();
    assert!(policy.pcr.iter().all(|(_, index, _)| index.get() != 10));
    assert!(!policy.ima.unwrap().allow.contains_key("boot_aggregate"));
}

#[test]
fn each_demand_is_judged() {
    check(
        |policy| policy.allow_pcr(PcrIndex::new(16).unwrap(), HashAlgorithm::Sha256.zero()),
        &[Check::PcrPolicy],
    );
    check(|policy| policy.boot.kernel_command_lines = Some(vec!["/vmlinuz".into()]), &[Check::BootPolicy]);
    check(
        |policy| policy.boot.applications = Some(vec![HashAlgorithm::Sha256.hash(&[b"x"])]),
        &[Check::BootPolicy],
    );
    check(|policy| policy.boot.dbx_entries_min = Some(1), &[]);
    check(|policy| policy.boot.dbx_entries_min = Some(2), &[Check::BootPolicy]);
    check(
        |policy| policy.boot.dbx_contains = vec![HashAlgorithm::Sha256.hash(&[b"x"])],
        &[Check::BootPolicy],
    );
    check(|policy| policy.endorsement.manufacturers = vec!["id:00001014".into()], &[]);
    check(
        |policy| policy.endorsement.manufacturers = vec!["id:494E5443".into()],
        &[Check::EndorsementPolicy],
    );
}

/// What is asked of a device comes from its policy: SHA-256 always, each strong bank in which it knows more than firmware, and
/// what it pins of the others.
#[test]
fn a_quote_covers_what_the_policy_pins() {
    let asked = |bank: HashAlgorithm, index: u32| {
        let mut policy = learned();
        policy.allow_pcr(PcrIndex::new(index).unwrap(), bank.hash(&[b"x"]));
        let policy = CompiledPolicy::new(policy).unwrap();
        let of = |bank| policy.selection().iter().filter(|(of, _)| *of == bank).count();
        HashAlgorithm::ALL.map(of)
    };
    assert_eq!(asked(HashAlgorithm::Sha256, 8), [0, 24, 0, 0]);
    assert_eq!(asked(HashAlgorithm::Sha1, 8), [1, 24, 0, 0]);
    assert_eq!(asked(HashAlgorithm::Sha384, 4), [0, 24, 1, 0]);
    assert_eq!(asked(HashAlgorithm::Sha384, 8), [0, 24, 24, 0]);
}

#[test]
fn every_started_image_can_be_listed() {
    let claims = claims("sb-good-1");
    let images = &claims.boot().unwrap().facts().boot_applications;
    let digests: Vec<_> = images.iter().map(|image| image.digest).collect();
    check(|policy| policy.boot.applications = Some(digests.clone()), &[]);
    check(
        |policy| policy.boot.applications = Some(digests.into_iter().skip(1).collect()),
        &[Check::BootPolicy],
    );
}

#[test]
fn a_tpm_without_endorsement_is_refused_unless_the_policy_says_dangerous() {
    let claims = claims("sb-good-1");
    let tier =
        |policy: Policy| appraise(&claims, Some(&CompiledPolicy::new(policy).unwrap()), None, AT).tier();
    assert_eq!(tier(learned()), Tier::Contraindicated);
    let mut policy = learned();
    policy.endorsement.required = EndorsementKind::DangerousNone;
    assert_eq!(tier(policy), Tier::Affirming);
}

#[test]
fn without_a_policy_nothing_is_judged() {
    let result = appraise(&claims("sb-good-1"), None, Some(&endorsement()), AT);
    assert_eq!((result.tier(), result.good_ima_entries()), (Tier::None, 0));
    assert_eq!(result.vector(), &TrustVector::default());
}

#[test]
fn an_excluded_tree_is_not_judged() {
    let mut policy = learned();
    let without = |policy: &mut Policy| {
        policy.ima.as_mut().unwrap().allow.retain(|path, _| !path.starts_with("/usr/bin/"))
    };
    without(&mut policy);
    assert_eq!(appraise_by(policy.clone(), &claims("sb-good-1")).tier(), Tier::Contraindicated);
    policy.ima.as_mut().unwrap().exclude = vec!["/usr/bin/".parse().unwrap()];
    assert_eq!(appraise_by(policy, &claims("sb-good-1")).tier(), Tier::Affirming);
}

#[test]
fn the_new_file_is_named_and_the_progress_kept() {
    let result = appraise_by(learned(), &claims("sb-good-2-grown"));
    let [finding] = result.findings() else { panic!("{:?}", result.findings()) };
    assert_eq!((finding.check, finding.claim.as_str()), (Check::ImaPolicy, "/usr/local/bin/report-tool"));
    assert!(finding.message.contains("policy edge v1"), "{}", finding.message);
    assert!(finding.message.contains("assay device approve"), "{}", finding.message);
    assert_eq!(result.good_ima_entries(), 109);
    assert_eq!(result.reason(), finding.message);
}

#[test]
fn approving_what_was_reported_is_enough() {
    let result = appraise_by(learned(), &claims("sb-good-2-grown"));
    let mut policy = learned();
    for finding in result.findings() {
        let (path, digest) = Policy::reported_file(&finding.claim, &finding.found).unwrap();
        policy.allow_file(&path, digest);
    }
    assert_eq!(appraise_by(policy, &claims("sb-good-2-grown")).tier(), Tier::Affirming);
}

#[test]
fn what_was_judged_is_not_judged_again() {
    let first = claims("sb-good-2-rebooted");
    let result = appraise_by(learned(), &first);
    let baseline = first.baseline(result.good_ima_entries());
    let grown = claims_from("sb-good-2-grown", Some(&baseline));
    assert_eq!(grown.ima().unwrap().entries().count(), 1);
    let result = appraise_by(learned(), &grown);
    assert_eq!((result.tier(), result.good_ima_entries()), (Tier::Contraindicated, 109));
    // The bad entry is seen again as long as it stands.
    let again = claims_from("sb-good-2-grown", Some(&grown.baseline(result.good_ima_entries())));
    assert_eq!(appraise_by(learned(), &again).tier(), Tier::Contraindicated);
}

#[test]
fn each_case_that_was_learned_from_is_affirming() {
    let cases = ["sb-good-1", "sb-good-2-rebooted", "sb-good-2-grown"];
    let all = cases.map(claims);
    let policy = learn("edge", &[], &all.each_ref()).unwrap();
    // They booted alike, so that one boot is accepted.
    assert_eq!(policy.alternative, []);
    for case in cases {
        assert_eq!(appraise_by(policy.clone(), &claims(case)).tier(), Tier::Affirming, "{case}");
    }
}

#[test]
fn refused_evidence_is_believed_in_nothing() {
    let failure = assay_evidence::Failure::new(Check::QuoteNonce, "quote", "aa", "bb");
    let result = refuse(&[failure], None, AT);
    assert_eq!(
        (result.tier(), result.good_ima_entries(), result.counters().map(|counters| counters.reset_count)),
        (Tier::Contraindicated, 0, None)
    );
    assert!(result.vector().executables.tier() == Tier::Contraindicated);
    assert!(result.reason().contains("another challenge"), "{}", result.reason());
}

#[test]
fn a_policy_of_a_hundred_thousand_files_is_read_and_looked_up() {
    let mut policy = learned();
    for number in 0..100_000_u32 {
        let digest = HashAlgorithm::Sha256.hash(&[&number.to_be_bytes()]);
        policy.allow_file(format!("/usr/share/app/{number}").as_bytes(), digest);
    }
    let read = Policy::from_toml(&policy.to_toml()).unwrap();
    assert_eq!(read, policy);
    assert_eq!(appraise_by(read, &claims("sb-good-1")).tier(), Tier::Affirming);
}

#[cfg(feature = "rego")]
#[test]
fn rules_see_what_the_evidence_shows() {
    let rule = |body: &str| {
        let module = format!("package assay\ndeny contains \"objection\" if {{ {body} }}\n");
        move |policy: &mut Policy| {
            policy.rego = Some(assay_trust::policy::RegoSection { modules: vec![module] })
        }
    };
    let objected =
        check(rule("some entry in input.ima.new; entry.path == \"boot_aggregate\""), &[Check::RegoPolicy]);
    let finding = objected.findings().first().unwrap();
    assert_eq!(finding.message, "objection (policy edge v1, rego.modules[0] deny)");
    // The entry has to be shown again.
    assert_eq!(objected.good_ima_entries(), 0);
    for good in [
        "not regular_boot\n}\nregular_boot if {\n input.boot.secure_boot.enabled; count(input.boot.applications) > 1; input.clock.reset_count > 0",
        "not input.endorsement.certificate.manufacturer == \"id:00001014\"",
        "not count(input.pcrs.sha256[\"7\"]) == 64",
        "not input.ima.total == 109",
    ] {
        assert_eq!(check(rule(good), &[]).good_ima_entries(), 109);
    }
}
