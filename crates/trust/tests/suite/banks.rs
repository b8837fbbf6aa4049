//! The TPM's banks: none may be empty, unknown, or other than a good device has.

use assay_evidence::Check;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Claims, Evidence, Expectation, QuoteEvidence, verify};
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use assay_testkit::edge::protocol::{Challenge, PcrSelection};
use assay_testkit::pcrs::Pcrs;
use assay_testkit::software_device::{Quoting, Stating};
use assay_testkit::{Bank, EkMaker, SoftwareDevice, System};
use assay_trust::policy::{Bank as Named, EndorsementKind};
use assay_trust::{CompiledPolicy, Policy, Tier, appraise, learn};

use crate::AT;

const NONCE: &[u8] = &[7; 32];

/// A machine whose firmware measures into some of its banks, and whose TPM names further ones that nobody can replay.
fn machine(active: &[Bank], measured: &[Bank], unknown: &[u16], is_stated: bool) -> Claims {
    let mut device = SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap();
    let log = System::default().boot_log(measured);
    device.pcrs = Pcrs::new(active);
    log.measurements().iter().for_each(|measurement| device.pcrs.extend(measurement));
    let selection =
        active.iter().map(|bank| PcrSelection { bank: bank.name().into(), pcrs: (0..16).collect() });
    let challenge =
        Challenge { nonce: NONCE.to_vec(), selection: selection.collect(), ..Challenge::default() };
    let quote = Quoting::honest(&mut device, &challenge).sign(&device.ak).unwrap();
    let mut stating = Stating::honest(active, &device.ak, device.clock, NONCE);
    stating.told.extend(unknown);
    stating.audited.extend(unknown);
    let stated = stating.sign(&device.ak).unwrap();
    let value = |value: &assay_testkit::edge::protocol::PcrValue| {
        let bank = HashAlgorithm::from_name(&value.bank).unwrap();
        (PcrIndex::new(value.index).unwrap(), Digest::new(bank, &value.digest).unwrap())
    };
    let evidence = Evidence {
        ak_public: &device.ak.public_area(),
        quotes: vec![QuoteEvidence {
            label: "quote",
            message: &quote.message,
            signature: &quote.signature,
            pcrs: quote.pcrs.iter().map(value).collect::<PcrValues>(),
            nonce: NONCE,
            ak_public: None,
        }],
        boot_log: Some(log.bytes()),
        measure_log: None,
        ima_log: None,
        ima_from_entry: 0,
        banks: is_stated.then_some(BankStatement {
            capability: &stated.capability,
            message: &stated.message,
            signature: &stated.signature,
            nonce: NONCE,
        }),
    };
    let verification = verify(&evidence, &Expectation::default());
    verification.claims.unwrap_or_else(|| panic!("{:?}", verification.failures))
}

fn good(active: &[Bank]) -> Claims {
    machine(active, active, &[], true)
}

fn learned(claims: &Claims) -> Policy {
    let mut policy = learn("edge", &[], &[claims]).unwrap();
    policy.endorsement.required = EndorsementKind::DangerousNone;
    policy
}

fn check(policy: Policy, claims: &Claims, expected: &str) {
    let result = appraise(claims, Some(&CompiledPolicy::new(policy).unwrap()), None, AT);
    let refused = result.findings().iter().find(|finding| finding.tier == Tier::Contraindicated);
    let said =
        refused.filter(|finding| finding.check == Check::PcrBanks).map(|finding| finding.message.as_str());
    assert_eq!(said.is_some(), !expected.is_empty(), "{:?}", result.findings());
    assert!(said.unwrap_or_default().contains(expected), "{said:?}");
    assert_eq!(result.tier() == Tier::Affirming, expected.is_empty(), "{:?}", result.findings());
}

const TWO: [Bank; 2] = [Bank::Sha1, Bank::Sha256];

#[test]
fn the_banks_are_those_of_a_good_device() {
    let one = learned(&good(&[Bank::Sha256]));
    assert_eq!(one.boot.banks, Some(vec![Named(HashAlgorithm::Sha256)]));
    check(one.clone(), &good(&[Bank::Sha256]), "");
    check(one.clone(), &good(&TWO), "sha1, sha256 active");
    check(one, &machine(&[Bank::Sha256], &[Bank::Sha256], &[], false), "is not there");
    let two = learned(&good(&TWO));
    check(two.clone(), &good(&TWO), "");
    check(two, &good(&[Bank::Sha256]), "sha256 active");
}

/// What the firmware is, is pinned in each bank: one that measures into one of them only is another firmware.
#[test]
fn firmware_is_learned_in_each_bank() {
    let policy = learned(&good(&TWO));
    let pinned = |bank| policy.pcr.iter().filter(|(of, ..)| *of == bank).count();
    assert_eq!(pinned(HashAlgorithm::Sha1), 8);
    let rows = CompiledPolicy::new(policy).unwrap();
    let cover = rows.coverage().cover(assay_trust::policy::Row::PcrBanks);
    assert_eq!(cover, assay_trust::policy::Cover::Pinned);
}

#[test]
fn a_bank_that_firmware_leaves_empty_is_refused_whatever_the_policy_lists() {
    let mut policy = learned(&good(&[Bank::Sha256]));
    policy.boot.banks = None;
    for is_stated in [true, false] {
        check(policy.clone(), &machine(&[Bank::Sha256], &[Bank::Sha256], &[], is_stated), "");
        check(policy.clone(), &machine(&TWO, &[Bank::Sha256], &[], is_stated), "bank sha1 is active");
    }
}

#[test]
fn a_bank_that_nobody_can_replay_is_refused() {
    let sm3 = machine(&[Bank::Sha256], &[Bank::Sha256], &[0x12], true);
    let mut policy = learned(&good(&[Bank::Sha256]));
    check(policy.clone(), &sm3, "0x0012");
    policy.boot.banks = None;
    check(policy.clone(), &sm3, "0x0012");
    assert_eq!(learned(&sm3).boot.banks, None, "nothing is learned of it");
    // A policy that asks nothing of the boot says it and goes on.
    policy.pcr = Default::default();
    policy.boot = Policy::new("x").boot;
    policy.boot.event_log = assay_trust::policy::Demand::Optional;
    policy.boot.secure_boot = assay_trust::policy::Demand::Optional;
    policy.allow_file(b"/bin/a", HashAlgorithm::Sha256.hash(&[b"a"]));
    let result = appraise(&sm3, Some(&CompiledPolicy::new(policy).unwrap()), None, AT);
    let told = result.findings().iter().find(|finding| finding.check == Check::PcrBanks).unwrap();
    assert_eq!(told.tier, Tier::Warning);
}
