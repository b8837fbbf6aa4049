//! What devices measure besides programs: the policy that IMA follows, and what they write anew all the time.

use assay_evidence::verify::{Baseline, Claims};
use assay_evidence::{Check, HashAlgorithm};
use assay_testkit::machine::ImaEntry;
use assay_testkit::{SoftwareDevice, System};
use assay_trust::policy::{MadeOnDevice, ViolationWeight};
use assay_trust::{CompiledPolicy, Policy, Tier, appraise, learn};

use crate::AT;
use crate::change::{device, proven};

const KERNEL_POLICY: &str = "/etc/ima/ima-policy";

fn learned(claims: &Claims) -> Policy {
    let mut policy = learn("edge", &[], &[claims]).unwrap();
    policy.endorsement.required = assay_trust::policy::EndorsementKind::DangerousNone;
    policy
}

/// What is found of a check, by its claims.
fn found(policy: &Policy, claims: &Claims, check: Check) -> Vec<String> {
    let result = appraise(claims, Some(&CompiledPolicy::new(policy.clone()).unwrap()), None, AT);
    let bad = result.findings().iter().filter(|one| one.check == check && one.tier == Tier::Contraindicated);
    bad.map(|one| one.claim.clone()).collect()
}

fn judged(claims: &Claims) -> Baseline {
    claims.baseline(claims.ima().unwrap().attested_total())
}

fn loads(device: &mut SoftwareDevice, text: &[u8]) {
    device.measure(ImaEntry::file(KERNEL_POLICY, text));
}

#[test]
fn a_policy_of_ima_that_was_measured_counts_for_the_boot_and_no_longer() {
    let mut device = device();
    loads(&mut device, b"good");
    let first = proven(&mut device, None);
    let policy = learned(&first);
    let ima = policy.ima.as_ref().unwrap();
    let digest = HashAlgorithm::Sha256.hash(&[b"good"]);
    assert_eq!((&ima.kernel_policies, ima.violations), (&Some(vec![digest]), Some(ViolationWeight::ByPath)));
    assert!(!ima.allow.contains_key(KERNEL_POLICY), "it is no file of the list");
    let missing = |claims: &Claims| found(&policy, claims, Check::ImaKernelPolicy);
    assert!(missing(&first).is_empty());
    // What is sent later has it no more, and it is remembered with what was judged.
    device.run_program("/usr/bin/bash", b"/usr/bin/bash of the release");
    let baseline = judged(&first);
    let second = proven(&mut device, Some(&baseline));
    assert_eq!(second.ima().unwrap().kernel_policies().as_ref(), [digest]);
    assert!(missing(&second).is_empty());
    assert!(missing(&proven(&mut device, Some(&judged(&second)))).is_empty());
    // Of entries that were not judged good nothing is remembered.
    assert!(first.baseline(1).ima_entries() == 1);
    // Another that is loaded later is refused, though the first is still there.
    loads(&mut device, b"evil");
    let replaced = proven(&mut device, Some(&judged(&second)));
    assert_eq!(missing(&replaced), [KERNEL_POLICY]);
    // The next boot has to show it again.
    device.boot(&System::default());
    assert_eq!(missing(&proven(&mut device, None)), ["policy of IMA"]);
}

#[test]
fn what_never_repeats_is_not_learned() {
    let state = ["/var/lib/systemd/random-seed", "/var/log/journal/0123/system.journal", "/var/log/wtmp"];
    let mut device = device();
    for path in state {
        device.run_program(path, b"once");
    }
    device.run_program("/etc/assay/agent.toml", b"once");
    device.run_program("/opt/tool", b"tool");
    let policy = learned(&proven(&mut device, None));
    let ima = policy.ima.as_ref().unwrap();
    assert_eq!(ima.made_on_device, [MadeOnDevice::SystemState, MadeOnDevice::AgentState]);
    assert!(ima.allow.contains_key("/opt/tool") && state.iter().all(|path| !ima.allow.contains_key(*path)));
    for path in state {
        device.run_program(path, b"and again");
    }
    let refused = |device: &mut SoftwareDevice| found(&policy, &proven(device, None), Check::ImaPolicy);
    assert_eq!(refused(&mut device), Vec::<String>::new());
    // Beside it, everything is judged as before.
    device.run_program("/var/log/journal/0123/implant", b"evil");
    assert_eq!(refused(&mut device), ["/var/log/journal/0123/implant"]);
}
