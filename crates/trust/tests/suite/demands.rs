//! Demands are met by something attested: by nothing else, however much was sent.

use std::collections::BTreeMap;

use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_evidence::{Check, Failure, HashAlgorithm, PcrIndex};
use assay_trust::policy::{BootSection, Demand, EndorsementKind, ImaSection, Pcr, Sequence};
use assay_trust::{AttestationResult, CompiledPolicy, Finding, Policy, Tier, appraise, learn, refuse};

use crate::{AT, appraise_by, claims, file, learned};

/// Evidence of a machine on which IMA started before the TPM's driver: a list, and PCR 10 as it was at power-on.
fn before_the_tpm(list: &[u8]) -> Claims {
    let case = "ima-before-tpm";
    let nonce = data_encoding::HEXLOWER.decode(file(case, "quote.nonce").trim_ascii()).unwrap();
    let (message, signature, ak_public) =
        (file(case, "quote.msg"), file(case, "quote.sig"), file(case, "ak.tpm2b_public"));
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
        boot_log: None,
        measure_log: None,
        ima_log: Some(ImaLog::Binary(list)),
        ima_from_entry: 0,
        banks: None,
    };
    let verification = verify(&evidence, &Expectation::default());
    assert_eq!(verification.failures, []);
    verification.claims.unwrap()
}

/// Judges files alone.
fn by_files(list: Demand, claims: &Claims) -> AttestationResult {
    let mut policy = Policy::new("rpi");
    policy.endorsement.required = EndorsementKind::DangerousNone;
    (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Optional, Demand::Optional);
    policy.ima = Some(ImaSection { list, allow: learned().ima.unwrap().allow, ..ImaSection::default() });
    appraise(claims, Some(&CompiledPolicy::new(policy).unwrap()), None, AT)
}

#[test]
fn a_list_of_which_pcr_10_attests_nothing_is_no_list() {
    let list = file("ima-before-tpm", "binary_runtime_measurements");
    for list in [list.as_slice(), &[]] {
        let result = by_files(Demand::Required, &before_the_tpm(list));
        assert_eq!(result.tier(), Tier::Contraindicated);
        assert!(
            list.is_empty() || result.findings()[0].message.contains("PCR 10"),
            "{:?}",
            result.findings()
        );
        assert_eq!(
            (result.good_ima_entries(), result.vector().executables.tier()),
            (0, Tier::Contraindicated)
        );
    }
    assert_eq!(by_files(Demand::Optional, &before_the_tpm(&list)).tier(), Tier::Affirming);
}

/// A list is demanded of which each file is good: none is there.
#[test]
fn a_list_of_any_files_is_a_list_still() {
    let claims = before_the_tpm(&[]);
    let by = |list: Demand| {
        let mut policy = Policy::new("any");
        policy.endorsement.required = EndorsementKind::DangerousNone;
        (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Optional, Demand::Optional);
        policy.pcr = learn("values", &[], &[&claims]).unwrap().pcr;
        policy.ima = Some(ImaSection { list, ..ImaSection::default() });
        appraise(&claims, Some(&CompiledPolicy::new(policy).unwrap()), None, AT)
    };
    assert_eq!(by(Demand::Optional).tier(), Tier::Affirming, "{:?}", by(Demand::Optional).findings());
    let result = by(Demand::Required);
    let [finding] = result.findings() else { panic!("{:?}", result.findings()) };
    assert_eq!((finding.tier, finding.claim.as_str()), (Tier::Contraindicated, "IMA list"));
}

/// Whoever lists makers wants one to be shown, whatever else may be missing.
#[test]
fn no_maker_at_all_is_none_of_the_listed() {
    let mut policy = learned();
    policy.endorsement.required = EndorsementKind::DangerousNone;
    policy.endorsement.manufacturers = vec!["id:494E5443".into()];
    let result = appraise(&claims("sb-good-1"), Some(&CompiledPolicy::new(policy).unwrap()), None, AT);
    assert_eq!(result.tier(), Tier::Contraindicated, "{:?}", result.findings());
    assert_eq!(result.findings()[0].check, Check::EndorsementPolicy);
}

/// Nothing of the boot is attested, and each rule about it says so.
#[test]
fn each_rule_about_a_boot_misses_what_is_not_there() {
    let claims = before_the_tpm(&file("ima-before-tpm", "binary_runtime_measurements"));
    let digest = || vec![HashAlgorithm::Sha256.hash(&[b"anything"])];
    let check = |change: &dyn Fn(&mut BootSection), claim: &str| {
        let mut policy = Policy::new("rules");
        policy.endorsement.required = EndorsementKind::DangerousNone;
        policy.ima = learned().ima;
        (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Optional, Demand::Optional);
        change(&mut policy.boot);
        let result = appraise(&claims, Some(&CompiledPolicy::new(policy).unwrap()), None, AT);
        let mut of_boot = result.findings().iter().filter(|finding| finding.check == Check::BootPolicy);
        assert!(
            of_boot.any(|finding| finding.claim == claim && finding.tier == Tier::Contraindicated),
            "{claim}"
        );
    };
    check(&|boot| boot.secure_boot = Demand::Required, "Secure Boot");
    check(&|boot| boot.kernel_command_lines = Some(vec!["/k ro".into()]), "kernel command line");
    check(&|boot| boot.kernel_version_min = Some("6.1".into()), "kernel");
    check(&|boot| boot.applications = Some(digest()), "boot image");
    check(&|boot| boot.signers = Some(digest()), "signer");
    check(&|boot| boot.firmware_versions = Some(vec!["1".into()]), "firmware");
    check(&|boot| boot.dbx_contains = digest(), "dbx");
    check(&|boot| boot.dbx_entries_min = Some(1), "dbx");
    let nothing = BTreeMap::from([(Pcr(PcrIndex::new(8).unwrap()), vec![Sequence::default()])]);
    check(&|boot| boot.sequence = nothing.clone(), "PCR 8 events");
}

#[test]
fn the_vector_affirms_what_a_rule_judged() {
    let vector = |policy: Policy| {
        let result = appraise_by(policy, &claims("sb-good-1"));
        assert_eq!(result.tier(), Tier::Affirming, "{:?}", result.findings());
        let vector = *result.vector();
        [vector.executables, vector.configuration, vector.hardware].map(|claim| claim.value())
    };
    assert_eq!(vector(learned()), [2, 2, 2]);
    assert_eq!(vector(Policy { ima: None, ..learned() }), [3, 2, 2]);
    // Files by a kernel that may be any.
    let files = Policy { ima: learned().ima, ..Policy::new("files") };
    assert_eq!(vector(files), [0, 0, 2]);
}

#[test]
fn what_a_policy_leaves_open_comes_with_the_result() {
    let open = |policy: Policy| {
        let result = appraise_by(policy, &claims("sb-good-1"));
        result.open_rows().iter().map(|covered| covered.row.name()).collect::<Vec<_>>()
    };
    assert!(open(learned()).contains(&"place"));
    let files = Policy { ima: learned().ima, ..Policy::new("files") };
    assert!(open(files).contains(&"files"));
}

#[test]
fn findings_show_nothing_that_hides() {
    let failure = Failure::new(Check::ImaReplay, "a\u{202e}b", "c\u{1b}[2J", "d\ne");
    let result = refuse(&[failure], None, AT);
    let Finding { claim, expected, found, message, .. } = &result.findings()[0];
    assert_eq!([claim.as_str(), expected, found], ["a\\u{202e}b", "c\\u{1b}[2J", "d\\ne"]);
    assert!(!message.contains(['\u{202e}', '\u{1b}', '\n']), "{message}");
}
