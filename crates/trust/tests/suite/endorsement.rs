//! Who vouches for the TPM: each rule of a policy on each side of it.

use assay_evidence::Check;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::revocation::RevocationList;
use assay_testkit::software_device::{EkKind, EkMaker, EndorsementKey};
use assay_trust::{AttestationResult, CompiledPolicy, Policy, Tier, admit, appraise, reappraise_endorsement};

use crate::{AT, claims, learned};

/// A TPM of a maker that is trusted, and its operator.
struct Stage {
    maker: EkMaker,
    ek: EndorsementKey,
    lists: Vec<Vec<u8>>,
}

impl Stage {
    fn new() -> Stage {
        let ek = EndorsementKey::generate(EkKind::P256).unwrap();
        Stage { maker: EkMaker::new().unwrap(), ek, lists: Vec::new() }
    }

    fn with_list(list: impl FnOnce(&EkMaker, &EndorsementKey) -> Vec<u8>) -> Stage {
        let mut stage = Stage::new();
        stage.lists.push(list(&stage.maker, &stage.ek));
        stage
    }

    fn certified(&self) -> Endorsement {
        self.endorsement(&self.maker.certify(&self.ek).unwrap())
    }

    fn uncertified(&self) -> Endorsement {
        self.endorsement(&[])
    }

    fn endorsement(&self, certificate: &[u8]) -> Endorsement {
        let ek = PublicArea::parse_tpm2b(self.ek.public_area()).unwrap();
        let anchors = TrustAnchor::from_pem_or_der(self.maker.root_ca()).unwrap();
        let lists = self.lists.iter().flat_map(|list| RevocationList::from_pem_or_der(list).unwrap());
        let endorsers = Endorsers::new(anchors, lists.collect());
        Endorsement::verify(&ek, certificate, &[self.maker.issuing_ca()], &endorsers, AT)
    }
}

/// A policy with this `[endorsement]`; `EK` stands for the hash of this one's key.
fn policy(section: &str, endorsement: &Endorsement) -> CompiledPolicy {
    let section = section.replace("[EK]", &format!("[\"{}\"]", endorsement.ek_sha256().to_hex()));
    let text = learned().to_toml().replace("[endorsement]\n", "[was-endorsement]\n");
    let mut table: toml::Table = text.parse().unwrap();
    table.remove("was-endorsement");
    table.insert("endorsement".to_owned(), toml::Value::Table(section.parse().unwrap()));
    CompiledPolicy::new(Policy::from_toml(&table.to_string()).unwrap()).unwrap()
}

fn result(section: &str, endorsement: &Endorsement) -> AttestationResult {
    appraise(&claims("sb-good-1"), Some(&policy(section, endorsement)), Some(endorsement), AT)
}

/// Checks and claims of everything that refuses.
fn refused(result: &AttestationResult) -> Vec<(Check, String)> {
    let refused = result.findings().iter().filter(|finding| finding.tier == Tier::Contraindicated);
    refused.map(|finding| (finding.check, finding.claim.clone())).collect()
}

fn check(section: &str, endorsement: &Endorsement, expected: &[(Check, &str)]) {
    let result = result(section, endorsement);
    let expected: Vec<_> = expected.iter().map(|(check, claim)| (*check, (*claim).to_owned())).collect();
    assert_eq!(refused(&result), expected, "{section}: {:?}", result.findings());
    // What needs no evidence says the same without it.
    let without = reappraise_endorsement(&policy(section, endorsement), endorsement, AT);
    assert_eq!(without.map(|result| refused(&result)).unwrap_or_default(), expected, "{section}");
}

const NONE: (Check, &str) = (Check::EndorsementPolicy, "EK certificate");
const NOT_LISTED: (Check, &str) = (Check::EndorsementPolicy, "EK");

#[test]
fn what_is_required_is_looked_for() {
    let (known, other) = (Stage::new(), "1".repeat(64));
    let not_listed = |required: &str| format!("required = \"{required}\"\nek_sha256 = [\"{other}\"]");
    let listed = |required: &str| format!("required = \"{required}\"\nek_sha256 = [EK]");
    let (certified, uncertified) = (known.certified(), known.uncertified());

    check("", &certified, &[]);
    check("", &uncertified, &[NONE]);
    check(&listed("certificate"), &uncertified, &[NONE]);
    check(&listed("allowlist"), &certified, &[]);
    check(&listed("allowlist"), &uncertified, &[]);
    check(&not_listed("allowlist"), &certified, &[NOT_LISTED]);
    check(&listed("both"), &certified, &[]);
    check(&listed("both"), &uncertified, &[NONE]);
    check(&not_listed("both"), &certified, &[NOT_LISTED]);
    check(&not_listed("both"), &uncertified, &[NONE, NOT_LISTED]);
    check(&listed("either"), &uncertified, &[]);
    check(&not_listed("either"), &certified, &[]);
    check(&not_listed("either"), &uncertified, &[NONE]);
    check("required = \"dangerous_none\"", &uncertified, &[]);
    // What would help is said.
    let refusal = result(&not_listed("allowlist"), &certified);
    let message = &refusal.findings()[0].message;
    assert!(message.contains(&format!("add \"{}\"", certified.ek_sha256().to_hex())), "{message}");
}

#[test]
fn nothing_known_of_the_ek_is_no_endorsement() {
    let policy = |section| policy(section, &Stage::new().certified());
    for section in
        ["", "required = \"allowlist\"\nek_sha256 = [EK]", "required = \"either\"\nek_sha256 = [EK]"]
    {
        let result = appraise(&claims("sb-good-1"), Some(&policy(section)), None, AT);
        assert_eq!(result.tier(), Tier::Contraindicated, "{section}");
    }
}

#[test]
fn a_revoked_certificate_is_not_made_good_by_a_list() {
    let stage = Stage::with_list(|maker, ek| maker.revoke(&[&ek.certificate_serial()]).unwrap());
    let endorsement = stage.certified();
    let revoked = result("", &endorsement);
    assert_eq!(revoked.findings()[0].check, Check::EkRevoked);
    assert!(revoked.findings()[0].message.contains("keyCompromise"), "{:?}", revoked.findings());
    assert_eq!(revoked.vector().hardware.tier(), Tier::Contraindicated);
    let listed = result("required = \"either\"\nek_sha256 = [EK]", &endorsement);
    assert_eq!(listed.findings()[0].check, Check::EkRevoked);
    // Whoever asks for the list alone does not ask the maker.
    check("required = \"allowlist\"\nek_sha256 = [EK]", &endorsement, &[]);
}

#[test]
fn an_old_revocation_list_is_weighed() {
    let stage = Stage::with_list(|maker, _| maker.stale_revocation_list(&[&[7]]).unwrap());
    let endorsement = stage.certified();
    let claim = "revocation list of CN=Example TPM EK CA";
    check("stale_crl = \"refuse\"", &endorsement, &[(Check::EndorsementPolicy, claim)]);
    check("stale_crl = \"ignore\"", &endorsement, &[]);
    let reported = result("", &endorsement);
    let finding = &reported.findings()[0];
    assert_eq!((finding.tier, finding.claim.as_str()), (Tier::Affirming, claim));
    assert!(finding.message.contains("ek_crls"), "{finding:?}");
    assert!(
        result("stale_crl = \"ignore\"", &endorsement).findings().iter().all(|other| other.claim != claim)
    );
}

#[test]
fn finding_14_a_required_list_refuses_once_it_is_missing_bad_or_past_its_grace() {
    const CA: &str = "CN=Example TPM EK CA";
    let named = |more: &str| format!("crl_required = [\"{CA}\"]\n{more}");
    let claim = format!("revocation list of {CA}");
    let refused = [(Check::EndorsementPolicy, claim.as_str())];
    let without = Stage::new().certified();
    check(&named(""), &without, &refused);
    check("crl_required = [\"CN=Another\"]", &without, &[]);
    let current = Stage::with_list(|maker, _| maker.revoke(&[&[7]]).unwrap()).certified();
    check(&named(""), &current, &[]);
    // Every authority: the root has no list either.
    let root = "revocation list of CN=Example TPM Root CA";
    check("crl_required = [\"*\"]", &current, &[(Check::EndorsementPolicy, root)]);
    let forged = Stage::with_list(|maker, _| {
        let mut list = maker.revoke(&[&[0x55; 16]]).unwrap();
        let at = list.windows(16).position(|window| window == [0x55; 16]).unwrap();
        list[at] = 0x56;
        list
    });
    check(&named(""), &forged.certified(), &refused);
    check("", &forged.certified(), &[]);

    // It ended at the start of 2021. Within the grace it is said, however little such lists weigh.
    let stale = Stage::with_list(|maker, _| maker.stale_revocation_list(&[&[7]]).unwrap()).certified();
    check(&named("stale_crl = \"ignore\""), &stale, &refused);
    let ended = UnixTime::from_rfc3339("2021-01-01T00:00:00Z").unwrap();
    for (grace, at, tier) in
        [(60, 60, Tier::Affirming), (60, 61, Tier::Contraindicated), (0, 1, Tier::Contraindicated)]
    {
        let section = named(&format!("stale_crl = \"ignore\"\ncrl_grace_seconds = {grace}"));
        let result = reappraise_endorsement(&policy(&section, &stale), &stale, ended.plus(at));
        let found = result.map_or(Tier::Affirming, |result| result.tier());
        assert_eq!(found, tier, "{grace} {at}");
    }
    let within = named("stale_crl = \"ignore\"\ncrl_grace_seconds = 31536000");
    let said = appraise(&claims("sb-good-1"), Some(&policy(&within, &stale)), Some(&stale), ended.plus(1));
    let finding = said.findings().iter().find(|finding| finding.claim == claim).unwrap();
    assert_eq!(finding.tier, Tier::Affirming);
    assert!(finding.message.contains("from 2022-01-01T00:00:00Z on"), "{finding:?}");
}

#[test]
fn a_manufacturer_may_have_rules_of_its_own() {
    let stage = Stage::new();
    let certified = stage.certified();
    let vendor = |name: &str, rule: &str| format!("[vendor.\"{name}\"]\n{rule}");
    check(&vendor("id:00001014", "required = \"both\""), &certified, &[NOT_LISTED]);
    check(&vendor("id:49465800", "required = \"both\""), &certified, &[]);
    // Its name without a certificate is nobody's word.
    check(&vendor("id:00001014", "required = \"dangerous_none\""), &stage.uncertified(), &[NONE]);
}

#[test]
fn old_firmware_is_refused() {
    let endorsement = Stage::new().certified();
    let found = claims("sb-good-1").firmware_version();
    let refused_by = |least: u64| {
        let rule = format!("[vendor.\"id:00001014\"]\nfirmware_version_min = \"{least:#018x}\"");
        refused(&result(&rule, &endorsement))
    };
    assert_eq!(refused_by(found), []);
    let expected = [(Check::EndorsementPolicy, "TPM firmware version".to_owned())];
    assert_eq!(refused_by(found + 1), expected);
}

#[test]
fn enrollment_needs_a_certificate_or_a_policy_that_lists_the_ek() {
    let stage = Stage::new();
    let (certified, uncertified) = (stage.certified(), stage.uncertified());
    let admitted =
        |section: &str, endorsement: &Endorsement| admit(Some(&policy(section, endorsement)), endorsement);
    admit(None, &certified).unwrap();
    admitted("required = \"allowlist\"\nek_sha256 = [EK]", &uncertified).unwrap();
    admitted("required = \"either\"\nek_sha256 = [EK]", &uncertified).unwrap();
    let stranger = format!("required = \"either\"\nek_sha256 = [\"{}\"]", "1".repeat(64));
    let both = "required = \"both\"\nek_sha256 = [EK]";
    for section in ["", "required = \"dangerous_none\"", both, &stranger] {
        let failures = admitted(section, &uncertified).unwrap_err();
        let checks: Vec<Check> = failures.iter().map(|failure| failure.check).collect();
        assert_eq!(checks, [Check::EkChain, Check::EndorsementPolicy], "{section}");
        assert!(failures[1].claim.contains(&uncertified.ek_sha256().to_hex()));
    }
    admit(None, &uncertified).unwrap_err();
    let revoked = Stage::with_list(|maker, ek| maker.revoke(&[&ek.certificate_serial()]).unwrap());
    let section = "required = \"either\"\nek_sha256 = [EK]";
    assert_eq!(admitted(section, &revoked.certified()).unwrap_err()[0].check, Check::EkRevoked);
}
