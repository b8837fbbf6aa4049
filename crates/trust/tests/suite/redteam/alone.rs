//! Rules about the boot of which each refuses what no other would: with one of them gone, these boots would pass.

use std::collections::BTreeMap;

use assay_evidence::PcrIndex;
use assay_evidence::verify::Claims;
use assay_testkit::redteam::{BootEvent, BootPath, Deviation, Installation, Scene, Step, Words};
use assay_trust::policy::{BootSection, Demand, ImaSection, Pcr, Sequence, Slot};
use assay_trust::{CompiledPolicy, Policy, Tier, learn};

use super::fleet::{FLEET, GoodMachine};

fn machine() -> &'static Installation {
    machine_by(BootPath::Grub212)
}

fn machine_by(path: BootPath) -> &'static Installation {
    let is_wanted = |machine: &&GoodMachine| {
        let good = &machine.installation;
        good.path == path && good.secure_boot && good.is_stub_measuring
    };
    &FLEET.machines.iter().find(is_wanted).unwrap().installation
}

/// What a machine shows of which the log has these events, as the TPM has them.
fn shown_of(machine: &Installation, change: impl FnOnce(&mut Vec<BootEvent>)) -> Claims {
    let mut events = machine.boot_events();
    change(&mut events);
    FLEET.claims(&FLEET.submit(Scene::boot(machine, machine, false).with_events(events))).unwrap()
}

/// A policy with these rules about the boot and none else, and nothing about files.
fn boot_policy(change: impl FnOnce(&mut BootSection)) -> CompiledPolicy {
    let mut policy = Policy::new("alone");
    (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Optional, Demand::Optional);
    change(&mut policy.boot);
    CompiledPolicy::new(policy).unwrap()
}

/// What the machine shows on which this is installed, after these steps.
fn shown(real: &Installation, steps: &[Step]) -> Claims {
    // The list is made when all is extended, as by a kernel that the intruder rules.
    let mut scene = Scene::boot(machine(), real, true);
    steps.iter().for_each(|step| step.apply(&mut scene));
    FLEET.claims(&FLEET.submit(scene)).unwrap()
}

/// A policy of files, and of what is put into its boot.
fn policy(change: impl FnOnce(&mut Policy, &Claims)) -> CompiledPolicy {
    let good = shown(machine(), &[]);
    let mut policy = Policy::new("alone");
    policy.ima = learn("values", &[], &[&good]).unwrap().ima;
    change(&mut policy, &good);
    let policy = CompiledPolicy::new(policy).unwrap();
    assert_eq!(FLEET.tier(Some(&good), &policy), Tier::Affirming);
    policy
}

/// Refused by findings about one thing alone, one of which found this.
fn check(policy: &CompiledPolicy, claims: &Claims, claim: &str, found: &str) {
    let result = FLEET.result(claims, policy);
    let refused: Vec<_> =
        result.findings().iter().filter(|finding| finding.tier == Tier::Contraindicated).collect();
    assert!(!refused.is_empty(), "{found} passes");
    for finding in refused {
        assert!(finding.claim.contains(claim) && finding.found.contains(found), "{finding:?}");
    }
}

fn place(is_it: impl Fn(&BootEvent) -> bool) -> usize {
    machine().boot_events().iter().position(is_it).unwrap()
}

fn names(event: &BootEvent, name: &str) -> bool {
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    event.pcr == 7 && event.data.windows(wide.len()).any(|part| part == wide)
}

/// Behind everything else.
const END: usize = usize::MAX;
/// EV_IPL, whose data nothing has to hash.
const ANYTHING: u32 = 0x0d;

#[test]
fn secure_boot_is_on_and_nothing_speaks_against_it() {
    let policy = policy(|_, _| {});
    let mut off = machine().clone();
    Deviation::SecureBootOff.apply(&mut off);
    check(&policy, &shown(&off, &[]), "Secure Boot", "off");
    let mut insecure = machine().clone();
    insecure.mok_insecure = true;
    check(&policy, &shown(&insecure, &[]), "Secure Boot", "switched off in shim");
    let again = Step::AppendGoodEvent { event: place(|event| names(event, "PK")), to: END };
    check(&policy, &shown(machine(), &[again]), "Secure Boot", "changed");
    let authority = place(|event| names(event, "SbatLevel"));
    let unread = Step::Relabel { event: authority, event_type: ANYTHING, words: Words::Nothing };
    check(&policy, &shown(machine(), &[unread]), "Secure Boot", "event ");
    let mut unprotected = machine().clone();
    Deviation::ProtectionOff.apply(&mut unprotected);
    check(&policy, &shown(&unprotected, &[]), "firmware protection", "DMA Protection Disabled");
}

#[test]
fn one_line_is_told_though_each_is_allowed() {
    let mut other = machine().clone();
    other.line.push_str(" quiet");
    let lines =
        |installation: &Installation| format!("/vmlinuz-{} {}", installation.release, installation.line);
    let policy = policy(|policy, _| {
        policy.boot.kernel_command_lines = Some(vec![lines(machine()), lines(&other)]);
    });
    assert_eq!(FLEET.tier(Some(&shown(&other, &[])), &policy), Tier::Affirming);
    let line = place(|event| event.pcr == 8 && event.data.starts_with(b"kernel_cmdline: "));
    let both = shown(&other, &[Step::AppendGoodEvent { event: line, to: END }]);
    check(&policy, &both, "kernel command line", "2");
}

#[test]
fn nothing_is_started_behind_the_kernel_though_each_image_is_listed() {
    let policy = policy(|policy, good| {
        let mut images: Vec<_> =
            good.boot().unwrap().facts().boot_applications.iter().map(|image| image.digest).collect();
        let kernel = images.pop().unwrap();
        images.retain(|image| *image != kernel);
        policy.boot.applications = Some(images);
        policy.boot.kernels = Some(vec![kernel]);
    });
    let shim = Step::AppendGoodEvent {
        event: place(|event| event.pcr == 4 && event.measured == machine().shim),
        to: END,
    };
    check(&policy, &shown(machine(), &[shim]), "shim", "sha");
}

#[test]
fn a_log_without_the_firmware_is_no_boot_log() {
    let good = shown(machine(), &[]);
    let mut policy = Policy::new("alone");
    policy.ima = learn("values", &[], &[&good]).unwrap().ima;
    (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Required, Demand::Optional);
    let policy = CompiledPolicy::new(policy).unwrap();
    assert_eq!(FLEET.tier(Some(&good), &policy), Tier::Affirming);
    let loader = shown_of(machine(), |events| events.retain(|event| event.pcr > 7));
    check(&policy, &loader, "boot log", "none");
}

#[test]
fn the_sections_of_a_kernel_are_those_of_its_sequence() {
    let machine = machine_by(BootPath::UnifiedKernel);
    let good = shown_of(machine, |_| ());
    let sections = PcrIndex::new(11).unwrap();
    let measured = good.boot().unwrap().events().iter().filter(|event| event.pcr == sections);
    let events: Vec<Slot> = measured.map(|event| Slot::Digest(event.digest)).collect();
    assert!(events.len() > 3, "{events:?}");
    let policy =
        boot_policy(|boot| boot.sequence = BTreeMap::from([(Pcr(sections), vec![Sequence(events)])]));
    assert_eq!(FLEET.tier(Some(&good), &policy), Tier::Affirming);
    let mut other = machine.clone();
    other.initrd.push(0);
    check(&policy, &shown_of(&other, |_| ()), "PCR 11 events", "sha");
    let fewer = shown_of(machine, |events| {
        let last = events.iter().rposition(|event| event.pcr == 11 && !event.is_remark()).unwrap();
        events.remove(last);
    });
    check(&policy, &fewer, "PCR 11 events", "");
}

#[test]
fn a_boot_that_nobody_vouched_for_has_no_listed_signer() {
    let good = shown_of(machine(), |_| ());
    let signers = learn("values", &[], &[&good]).unwrap().boot.signers;
    let signers = signers.or_else(|| assay_trust::learn_rules("rules", &[], &[&good]).unwrap().boot.signers);
    let policy = boot_policy(|boot| boot.signers = Some(signers.clone().unwrap()));
    assert_eq!(FLEET.tier(Some(&good), &policy), Tier::Affirming);
    // What is left says how shim checks, and who it trusts nobody says.
    let settings = shown_of(machine(), |events| {
        events.retain(|event| event.event_type != AUTHORITY || names(event, "SbatLevel"));
    });
    assert!(settings.boot().unwrap().facts().authorities.iter().all(|authority| authority.is_setting()));
    check(&policy, &settings, "signer", "");
}

#[test]
fn what_firmware_ends_by_an_error_does_not_count() {
    let policy = policy(|_, _| {});
    let broken = shown_of(machine(), |events| {
        let separator =
            events.iter().position(|event| event.pcr == 5 && event.event_type == SEPARATOR).unwrap();
        (events[separator].data, events[separator].measured) = (vec![1, 0, 0, 0], vec![1, 0, 0, 0]);
    });
    check(&policy, &broken, "firmware", "an error");
}

#[test]
fn a_kernel_that_no_line_is_told_of_has_no_listed_line() {
    let line = format!("/vmlinuz-{} {}", machine().release, machine().line);
    let policy = boot_policy(|boot| boot.kernel_command_lines = Some(vec![line]));
    assert_eq!(FLEET.tier(Some(&shown_of(machine(), |_| ())), &policy), Tier::Affirming);
    let silent = shown_of(machine(), |events| {
        let tells_line = |event: &BootEvent| event.data.windows(8).any(|part| part == b"/vmlinuz");
        events.retain(|event| event.pcr != 8 || !tells_line(event));
    });
    assert_eq!(silent.boot().unwrap().facts().kernel_lines(), Some(vec![]));
    check(&policy, &silent, "kernel command line", "");
}

#[test]
fn a_list_is_at_least_its_first_entry_and_of_files_at_least_one() {
    let good = shown_of(machine(), |_| ());
    let allow = learn("values", &[], &[&good]).unwrap().ima.unwrap().allow;
    let mut idle = machine().clone();
    idle.programs.clear();
    let first_alone = shown_of(&idle, |_| ());
    assert_eq!(first_alone.ima().unwrap().attested_total(), 1);
    let policy = |ima: ImaSection| {
        let mut policy = Policy::new("alone");
        (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Optional, Demand::Required);
        policy.ima = Some(ima);
        CompiledPolicy::new(policy).unwrap()
    };
    let files = policy(ImaSection { list: Demand::Required, allow, ..ImaSection::default() });
    assert_eq!(FLEET.tier(Some(&good), &files), Tier::Affirming);
    check(&files, &first_alone, "IMA list", "");
}

const AUTHORITY: u32 = 0x8000_00e0;
const SEPARATOR: u32 = 4;
