//! Files that are signed, by keys of the policy and by keys that were measured.

use assay_evidence::ima::{List, learned_keys, parse_binary};
use assay_testkit::machine::ImaEntry;
use assay_testkit::redteam::Random;
use assay_testkit::tamper;

use super::*;
use crate::Policy;
use crate::policy::ImaSection;

/// fs-verity digests and signatures of version 3, with their key measured onto `.ima` as entry 2.
fn list() -> List {
    let bytes = include_bytes!("../../../../../vectors/ima/ima-sigv2/binary_runtime_measurements");
    parse_binary(bytes).unwrap()
}

/// Judges entries from `from` on, and looks at the indexes of those that are refused.
fn check(change: impl FnOnce(&mut ImaSection), from: usize, expected: &[usize]) -> Vec<Finding> {
    let (refused, findings) = judged(&list(), change, from);
    assert_eq!(refused, expected, "{findings:?}");
    findings
}

fn judged(list: &List, change: impl FnOnce(&mut ImaSection), from: usize) -> (Vec<usize>, Vec<Finding>) {
    let mut section = ImaSection::default();
    change(&mut section);
    let mut policy = Policy::new("edge");
    policy.ima = Some(section);
    let policy = CompiledPolicy::new(policy).unwrap();
    let keys = learned_keys(list).into_iter().filter(|(index, _)| *index < from);
    let keys: Vec<_> = keys.map(|(_, key)| key).collect();
    let reference = policy.ima.as_ref().unwrap();
    let mut findings = Vec::new();
    let mut report = Report::new(&policy, reference, Signers::new(reference, &keys), &mut findings);
    let refused: Vec<usize> = list
        .iter()
        .enumerate()
        .skip(from)
        .filter(|(_, entry)| report.judge(entry) == Standing::Refused)
        .map(|(index, _)| index)
        .collect();
    report.finish();
    (refused, findings)
}

fn key(algorithm: HashAlgorithm) -> Digest {
    learned_keys(&list()).first().unwrap().1.digest(algorithm)
}

fn keyring(name: &str, digest: Digest) -> impl FnOnce(&mut ImaSection) {
    let name = name.to_owned();
    move |section| drop(section.keyrings.insert(name, vec![digest]))
}

#[test]
fn a_measured_key_counts_from_its_own_entry_on() {
    let findings = check(keyring(".ima", key(HashAlgorithm::Sha256)), 0, &[1, 6]);
    let early = findings.iter().find(|finding| finding.claim == "/opt/early").unwrap();
    assert!(early.message.contains("not among the accepted keys"), "{}", early.message);
    check(keyring(".ima", key(HashAlgorithm::Sha512)), 0, &[1, 6]);
    // What was measured before the baseline is still known.
    check(keyring(".ima", key(HashAlgorithm::Sha256)), 3, &[6]);
    check(keyring(".ima", key(HashAlgorithm::Sha256)), 1, &[1, 6]);
}

#[test]
fn a_key_counts_only_if_the_policy_has_it_for_that_keyring() {
    let all = [1, 2, 3, 4, 5, 6];
    check(keyring(".platform", key(HashAlgorithm::Sha256)), 0, &all);
    check(keyring(".ima", HashAlgorithm::Sha256.hash(&[b"another"])), 0, &all);
    check(keyring(".ima", key(HashAlgorithm::Sha1)), 0, &all);
    check(keyring(".ima", key(HashAlgorithm::Sha256)), 0, &[1, 6]);
}

#[test]
fn a_signature_by_an_unknown_key_says_so() {
    let certificate = include_str!("../../../../../vectors/ima/ima-sig/signing-cert.pem");
    let findings =
        check(|section| section.signing_keys = vec![certificate.to_owned()], 0, &[1, 2, 3, 4, 5, 6]);
    let message = |path: &str| &findings.iter().find(|finding| finding.claim == path).unwrap().message;
    assert!(message("/opt/content-v2").contains("its signature is by key"), "{}", message("/opt/content-v2"));
    assert!(message("/opt/late").contains("an fs-verity digest"), "{}", message("/opt/late"));
    assert!(!message("/opt/unsigned").contains("signature"), "{}", message("/opt/unsigned"));
}

/// Entries of the recorded list, drawn in any order and number: what the key signed counts behind the key's own entry, and
/// nothing else does. A key that differs in a bit, or was measured onto another keyring, vouches for nothing, itself neither.
#[test]
fn no_order_of_a_list_makes_a_signature_count_before_its_key() {
    let bytes = include_bytes!("../../../../../vectors/ima/ima-sigv2/binary_runtime_measurements").to_vec();
    let entries = tamper::ima_entries(&bytes);
    let mut counted = 0;
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let drawn: Vec<usize> = (0..random.below(10)).map(|_| 1 + random.below(entries.len() - 1)).collect();
        let damage = random.below(3);
        let mut is_key_known = false;
        let (mut list, mut expected) = (Vec::new(), Vec::new());
        for (place, number) in drawn.iter().enumerate() {
            let mut entry = bytes.get(entries[*number].clone()).unwrap().to_vec();
            let is_key = *number == KEY;
            match damage {
                1 if is_key => tamper::flip_bit(&mut entry, 8 * (200 + random.below(64))),
                2 if is_key => {
                    let at = entry.windows(5).position(|part| part == b".ima\0").unwrap();
                    entry.get_mut(at..at + 4).unwrap().copy_from_slice(b".lma");
                }
                _ => {}
            }
            is_key_known |= is_key && damage == 0;
            let is_good = is_key_known && (is_key || SIGNED.contains(number));
            counted += usize::from(is_good && !is_key);
            if !is_good {
                expected.push(place);
            }
            list.extend(entry);
        }
        let list = parse_binary(&list).unwrap();
        let (refused, findings) = judged(&list, keyring(".ima", key(HashAlgorithm::Sha256)), 0);
        assert_eq!(refused, expected, "seed {seed}, {drawn:?}, {damage}: {findings:?}");
    }
    assert!(counted > 100, "{counted}");
}

/// The entry that measured the key, and those that it signed.
const KEY: usize = 2;
const SIGNED: [usize; 4] = [1, 3, 4, 5];

/// A list of these entries, by their paths and contents; no content: a violation.
fn listed(entries: &[(&str, Option<&str>)]) -> List {
    let entries = entries.iter().map(|(path, content)| match content {
        Some(content) => ImaEntry::file(path, content.as_bytes()),
        None => ImaEntry::violation(path),
    });
    parse_binary(&entries.flat_map(|entry| entry.binary()).collect::<Vec<u8>>()).unwrap()
}

fn sha256(content: &str) -> Digest {
    HashAlgorithm::Sha256.hash(&[content.as_bytes()])
}

#[test]
fn violations_weigh_by_what_they_touch() {
    let list = listed(&[("/usr/bin/a", None), ("/var/log/b", None), ("/var/lib/c", None)]);
    let check = |violations: Option<ViolationWeight>, refused: &[usize], said: &[(&str, Tier)]| {
        let change = |section: &mut ImaSection| {
            section.allow.insert("/usr/bin/a".to_owned(), vec![sha256("a")]);
            section.exclude.push("/var/log/".parse().unwrap());
            section.violations = violations;
        };
        let (found, findings) = judged(&list, change, 0);
        let tiers: Vec<(&str, Tier)> = findings.iter().map(|one| (one.claim.as_str(), one.tier)).collect();
        assert_eq!((found.as_slice(), tiers.as_slice()), (refused, said), "{violations:?}");
    };
    let (a, b, c) = ("/usr/bin/a", "/var/log/b", "/var/lib/c");
    let (bad, good) = (Tier::Contraindicated, Tier::Affirming);
    check(None, &[0], &[(a, bad), (c, good)]);
    check(Some(ViolationWeight::ByPath), &[0], &[(a, bad), (c, good)]);
    check(Some(ViolationWeight::Refuse), &[0, 1, 2], &[(a, bad), (b, bad), (c, bad)]);
    check(Some(ViolationWeight::Report), &[], &[(a, good), (b, good), (c, good)]);
    check(Some(ViolationWeight::Ignore), &[], &[]);
}

#[test]
fn a_policy_of_ima_is_judged_by_its_own_list() {
    let list = listed(&[("/etc/ima/ima-policy", Some("good")), ("/etc/ima/ima-policy", Some("other"))]);
    let accept = |section: &mut ImaSection| section.kernel_policies = Some(vec![sha256("good")]);
    let (refused, findings) = judged(&list, accept, 0);
    assert_eq!((refused, findings.len()), (vec![1], 1));
    let finding = findings.first().unwrap();
    assert_eq!((finding.check, finding.tier), (Check::ImaKernelPolicy, Tier::Contraindicated));
    // A list of files is no list of policies, and without one it is a file like any other.
    let both = |section: &mut ImaSection| {
        accept(section);
        section.allow.insert("/etc/ima/ima-policy".to_owned(), vec![sha256("other")]);
    };
    assert_eq!(judged(&list, both, 0).0, [1]);
    let unasked = |section: &mut ImaSection| {
        section.allow.insert("/usr/bin/a".to_owned(), vec![sha256("a")]);
    };
    let (refused, findings) = judged(&list, unasked, 0);
    assert_eq!(refused, [0, 1]);
    assert!(findings.iter().all(|finding| finding.check == Check::ImaPolicy));
    // A digest that does not count accepts nothing.
    let weak = |section: &mut ImaSection| {
        accept(section);
        section.weakest_digest = crate::policy::Bank(HashAlgorithm::Sha384);
    };
    assert_eq!(judged(&list, weak, 0).0, [0, 1]);
}
