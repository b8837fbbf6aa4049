//! Rules about the boot of which each refuses what no other would: with one of them gone, these boots would pass.

use assay_evidence::verify::Claims;
use assay_testkit::redteam::{BootEvent, BootPath, Deviation, Installation, Scene, Step, Words};
use assay_trust::{CompiledPolicy, Policy, Tier, learn};

use super::fleet::{FLEET, GoodMachine};

fn machine() -> &'static Installation {
    let is_wanted = |machine: &&GoodMachine| {
        let good = &machine.installation;
        good.path == BootPath::Grub212 && good.secure_boot && good.is_stub_measuring
    };
    &FLEET.machines.iter().find(is_wanted).unwrap().installation
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
