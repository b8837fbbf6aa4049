//! PCRs that systemd extends after the log has ended: honest machines are accepted, and nobody can hide there.

use assay_evidence::boot_log::{BootClaims, EventType};
use assay_evidence::verify::{Baseline, Expectation, Verification};
use assay_evidence::{Check, HashAlgorithm, PcrIndex};
use assay_testkit::machine::measure_record;
use assay_testkit::pcrs::Measurement;
use assay_testkit::{Bank, SoftwareDevice};

use crate::banks::{Told, checks, device};

/// A device whose boot log goes on with what a test measures.
pub struct Booted {
    device: SoftwareDevice,
    log: Vec<u8>,
    measured: Vec<u8>,
}

impl Booted {
    pub fn new() -> Self {
        let device = device();
        Booted { log: device.boot_log.clone(), measured: Vec::new(), device }
    }

    /// Measures `measured` and logs it as an event with `data`.
    pub fn measure(&mut self, pcr: u32, event_type: EventType, data: &[u8], measured: &[u8]) {
        self.extend(pcr, measured);
        self.write(pcr, event_type, data, &Bank::Sha256.hash(measured));
    }

    /// Writes an event that nobody need have measured.
    pub fn write(&mut self, pcr: u32, event_type: EventType, data: &[u8], digest: &[u8]) {
        for word in [pcr, event_type.0, 1] {
            self.log.extend(word.to_le_bytes());
        }
        self.log.extend([0x0b, 0]);
        self.log.extend(digest);
        self.log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        self.log.extend(data);
    }

    /// Extends a PCR and logs nothing.
    pub fn extend(&mut self, pcr: u32, data: &[u8]) {
        self.device.pcrs.extend(&Measurement::of(&[Bank::Sha256], pcr, data));
    }

    /// Extends a PCR as systemd does, and logs it as systemd does.
    fn say(&mut self, pcr: u32, kind: &str, words: &str) {
        self.extend(pcr, words.as_bytes());
        self.measured.extend(measure_record(&[Bank::Sha1, Bank::Sha256], pcr, kind, words));
    }

    pub fn verify(&mut self) -> Verification {
        self.verify_as(true, &Expectation::default())
    }

    fn verify_again(&mut self, baseline: &Baseline) -> Verification {
        self.verify_as(false, &Expectation { baseline: Some(baseline), ..Expectation::default() })
    }

    /// With its logs, or as one that the verifier knows.
    fn verify_as(&mut self, with_logs: bool, expectation: &Expectation<'_>) -> Verification {
        let measured = Some(self.measured.as_slice()).filter(|log| with_logs && !log.is_empty());
        let boot_log = with_logs.then_some(self.log.as_slice());
        let told = Told { boot_log, measure_log: measured, ima: None, from: 0 };
        told.by(&mut self.device, &[Bank::Sha256], expectation)
    }
}

pub fn boot(verification: &Verification) -> &BootClaims {
    assert_eq!(verification.failures, []);
    verification.claims.as_ref().unwrap().boot().unwrap()
}

pub fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn pcr(index: u32) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

/// Measurements of a unified kernel image, as far as these tests need them.
fn unified() -> Booted {
    let mut booted = Booted::new();
    section(&mut booted, ".linux", b"the kernel");
    section(&mut booted, ".cmdline", b"root=/dev/vda ro");
    let line = wide("quiet");
    booted.measure(12, EventType::IPL, &line, &line);
    booted.measure(13, EventType::IPL, &wide("System extension initrd"), b"a cpio archive");
    booted
}

/// systemd-stub measures a section's name and its content, and logs the name for both.
fn section(booted: &mut Booted, name: &str, content: &[u8]) {
    booted.measure(11, EventType::IPL, &wide(name), &[name.as_bytes(), b"\0"].concat());
    booted.measure(11, EventType::IPL, &wide(name), content);
}

/// The sections that are believed, with the contents of which a test knows the digest.
fn sections(boot: &BootClaims) -> Vec<(&str, bool)> {
    let contents = [b"the kernel".as_slice(), b"root=/dev/vda ro", b".initrd\0"];
    let digests = contents.map(|content| HashAlgorithm::Sha256.hash(&[content]));
    boot.facts().unified_kernel.iter().map(|found| (found.name, digests.contains(&found.digest))).collect()
}

#[test]
fn the_sections_of_a_unified_kernel_image_are_facts() {
    let mut booted = unified();
    let both = [(".linux", true), (".cmdline", true)];
    assert_eq!(sections(boot(&booted.verify())), both);
    let facts = boot(&booted.verify()).facts().clone();
    assert_eq!((facts.credentials().count(), facts.system_extensions().count()), (0, 1));
    booted.measure(12, EventType::IPL, &wide("Credentials initrd"), b"a cpio archive");
    assert_eq!(boot(&booted.verify()).facts().credentials().count(), 1);
    // What follows and is no section ends them, whatever it is called.
    booted.measure(11, EventType::IPL, &wide(".osrel"), b"something else");
    section(&mut booted, ".initrd", b"appended by root");
    assert_eq!(sections(boot(&booted.verify())), both);
    booted.extend(11, b"unknown");
    assert_eq!(sections(boot(&booted.verify())), []);
}

#[test]
fn sections_are_known_by_what_was_measured() {
    let mut booted = Booted::new();
    // The log calls them as it likes, and one's content looks like another's name.
    booted.measure(11, EventType::IPL, &wide(".initrd"), b".linux\0");
    booted.measure(11, EventType::EVENT_TAG, b"", b".initrd\0");
    booted.measure(11, EventType::IPL, &wide(".linux"), b".cmdline\0");
    booted.measure(11, EventType::IPL, &wide(".linux"), b"another command line");
    booted.measure(11, EventType::IPL, &wide(".uname"), b".uname\0");
    assert_eq!(sections(boot(&booted.verify())), [(".linux", true), (".cmdline", false)]);
}

/// What the claims hold of one PCR: events, lines, loaded items, replayed values.
fn held(boot: &BootClaims, index: u32) -> usize {
    let index = pcr(index);
    boot.events().iter().filter(|event| event.pcr == index).count()
        + boot.facts().loaded.iter().filter(|item| item.pcr == index).count()
        + boot.replayed().iter().filter(|(_, replayed, _)| *replayed == index).count()
}

#[test]
fn a_log_that_replays_is_believed() {
    let verification = unified().verify();
    assert_eq!(verification.notes, []);
    let boot = boot(&verification);
    assert_eq!(boot.facts().unexplained_pcrs, []);
    assert_eq!(boot.facts().loader_texts.last().unwrap().text, "quiet");
    assert!([11, 12, 13].iter().all(|index| held(boot, *index) > 0));
}

#[test]
fn boot_phases_leave_pcr_11_believed() {
    let mut booted = unified();
    for phase in ["enter-initrd", "leave-initrd", "sysinit", "ready"] {
        booted.extend(11, phase.as_bytes());
        let verification = booted.verify();
        assert_eq!(verification.notes, [], "{phase}");
        assert!(held(boot(&verification), 11) > 0);
    }
    // A log that lies about the beginning gains nothing by them.
    let mut lying = booted;
    lying.write(11, EventType::IPL, &wide(".cmdline"), &[7; 32]);
    let verification = lying.verify();
    assert_eq!(checks(&verification.notes), [Check::EventLogReplay]);
    assert_eq!(held(boot(&verification), 11), 0);
}

#[test]
fn what_systemd_extends_is_no_refusal_and_no_fact() {
    for index in [11, 12, 13, 15] {
        let mut booted = unified();
        booted.measure(15, EventType::IPL, b"machine-id", b"machine-id:1");
        booted.extend(index, b"by user space");
        let verification = booted.verify();
        assert_eq!(checks(&verification.notes), [Check::EventLogReplay]);
        let boot = boot(&verification);
        assert_eq!(boot.facts().unexplained_pcrs, [pcr(index)]);
        for other in [11, 12, 13, 15] {
            assert_eq!(held(boot, other) == 0, other == index, "PCR {other}");
        }
        let has_line = boot.facts().loader_texts.iter().any(|text| text.text == "quiet");
        assert_eq!(has_line, index != 12);
    }
}

/// Root booted with a command line of its own, and sends a log with the one that is wanted.
#[test]
fn nobody_hides_a_command_line_behind_an_extension() {
    let mut booted = Booted::new();
    let (real, wanted) = (wide("init=/bin/sh"), wide("quiet"));
    booted.extend(12, &real);
    booted.write(12, EventType::IPL, &wanted, &Bank::Sha256.hash(&wanted));
    let lines = |verification: &Verification| -> Vec<String> {
        boot(verification).facts().loader_texts.iter().map(|text| text.text.clone()).collect()
    };
    let verification = booted.verify();
    assert!(!lines(&verification).contains(&"quiet".to_owned()));
    assert_eq!(boot(&verification).facts().unexplained_pcrs, [pcr(12)]);
    // Nor by cutting its events out: the facts say that something is there.
    let mut silent = Booted::new();
    silent.extend(12, &real);
    let verification = silent.verify();
    assert_eq!(boot(&verification).facts().unexplained_pcrs, [pcr(12)]);
    assert_eq!(checks(&verification.notes), [Check::EventLogReplay]);
}

#[test]
fn the_separator_of_user_space_leaves_the_log_believed() {
    let mut booted = unified();
    booted.measure(14, EventType::IPL, b"MokList\0", b"a list");
    let before = boot(&booted.verify()).clone();
    for index in (0..8).chain([9, 12, 13, 14]) {
        booted.extend(index, b"os-separator");
    }
    let verification = booted.verify();
    assert_eq!(verification.notes, []);
    assert_eq!(boot(&verification), &before);
    // Where it does not belong, or with anything else, it is unknown.
    for (index, word) in [(8, "os-separator"), (4, "another")] {
        let mut other = Booted { device: device(), log: booted.log.clone(), measured: Vec::new() };
        other.device.pcrs.clone_from(&booted.device.pcrs);
        other.extend(index, word.as_bytes());
        assert_eq!(checks(&other.verify().failures), [Check::EventLogReplay], "PCR {index}");
    }
}

#[test]
fn every_other_pcr_is_strict() {
    for index in (0..9).chain([14]) {
        let mut booted = unified();
        booted.measure(14, EventType::IPL, b"MokList\0", b"a list");
        assert_eq!(booted.verify().failures, []);
        let before = held(boot(&booted.verify()), index);
        booted.extend(index, b"not in the log");
        let verification = booted.verify();
        if before > 0 {
            assert_eq!(checks(&verification.failures), [Check::EventLogReplay], "PCR {index}");
        } else {
            // Where the log never was, it says that it does not know.
            assert!(index > 7 && boot(&verification).facts().unexplained_pcrs == [pcr(index)], "PCR {index}");
        }
    }
}

#[test]
fn a_remembered_log_is_compared_each_time() {
    let mut booted = unified();
    let first = booted.verify().claims.unwrap().baseline(0);
    booted.extend(11, b"enter-initrd");
    let again = booted.verify_again(&first);
    assert!(held(boot(&again), 11) > 0);
    booted.extend(12, b"a credential");
    let later = booted.verify_again(&again.claims.unwrap().baseline(0));
    assert_eq!(
        (held(boot(&later), 12), boot(&later).facts().unexplained_pcrs.as_slice()),
        (0, &[pcr(12)][..])
    );
    assert_eq!(checks(&later.notes), [Check::EventLogReplay]);
    // It is not believed again, whatever comes.
    let last = booted.verify_again(&later.claims.unwrap().baseline(0));
    assert_eq!(held(boot(&last), 12), 0);
    booted.extend(7, b"not in the log");
    assert_eq!(
        checks(&booted.verify_again(&last.claims.unwrap().baseline(0)).failures),
        [Check::EventLogReplay]
    );
}

/// What current systemd says of a machine on its way up; the kinds are its own words.
const SAID: [(u32, &str, &str); 9] = [
    (11, "phase", "enter-initrd"),
    (9, "nvpcr-init", "nvpcr-init:hardware:0x1d10200:sha256:de3857f637c61e82"),
    (9, "nvpcr-separator", "nvpcr-separator"),
    (12, "os-separator", "os-separator"),
    (11, "phase", "leave-initrd"),
    (15, "volume-key", "cryptsetup:root:1e023a55"),
    (15, "machine-id", "machine-id:4691595be6a345f1833cc75fab63e475"),
    (15, "filesystem", "file-system:/:ext4:61b9::root:4f68bce3:"),
    (11, "phase", "a phase of the administrator's own"),
];

#[test]
fn what_user_space_logs_is_replayed_after_the_boot_log() {
    let mut booted = unified();
    let line = wide("quiet");
    booted.measure(9, EventType::EVENT_TAG, &line, &line);
    let before = boot(&booted.verify()).clone();
    for (index, kind, words) in SAID {
        booted.say(index, kind, words);
        let verification = booted.verify();
        assert_eq!(verification.notes, [], "{words}");
        assert_eq!(boot(&verification), &before, "{words}");
    }
    // It is ahead of the quote where something was measured between the two.
    booted.measured.extend(measure_record(&[Bank::Sha256], 15, "filesystem", "file-system:/var"));
    assert_eq!(booted.verify().notes, []);
}

#[test]
fn without_that_log_the_pcrs_lose_what_they_said_and_nothing_else_does() {
    let mut booted = unified();
    for (index, kind, words) in SAID {
        booted.say(index, kind, words);
    }
    booted.measured.clear();
    let verification = booted.verify();
    let told = boot(&verification);
    // PCR 12 has a word that everybody knows, and 9 no event of this log to lose.
    assert_eq!(told.facts().unexplained_pcrs, [9, 11, 15].map(pcr));
    assert!([7, 12, 13].iter().all(|index| held(told, *index) > 0));
}

/// systemd measures into PCR 9 on machines that its stub started alone.
#[test]
fn pcr_9_is_strict_where_no_stub_was_measured() {
    let strict = |with_stub: bool| {
        let mut booted = if with_stub { unified() } else { Booted::new() };
        booted.measure(9, EventType::IPL, b"/vmlinuz", b"a kernel");
        booted.extend(9, b"nvpcr-init:hardware");
        checks(&booted.verify().failures)
    };
    assert_eq!((strict(false), strict(true)), (vec![Check::EventLogReplay], Vec::new()));
}

#[test]
fn a_measurement_log_that_lies_explains_nothing() {
    let mut booted = unified();
    booted.say(12, "phase", "one");
    // A word left out, one too many in between, one exchanged, and bytes that are no log.
    let whole = booted.measured.clone();
    booted.say(12, "phase", "two");
    let two = booted.measured.split_off(whole.len());
    let other = measure_record(&[Bank::Sha256], 12, "phase", "other");
    let without_bank = measure_record(&[Bank::Sha1], 12, "phase", "one");
    for lie in [
        two.clone(),
        whole.clone(),
        [&whole[..], &other, &two].concat(),
        [&other[..], &two].concat(),
        [&without_bank[..], &two].concat(),
        [&whole[..], &two[1..]].concat(),
    ] {
        booted.measured = lie;
        let verification = booted.verify();
        assert_eq!(boot(&verification).facts().unexplained_pcrs, [pcr(12)]);
        assert!(checks(&verification.notes).contains(&Check::EventLogReplay));
    }
    booted.measured = [whole, two].concat();
    assert_eq!(booted.verify().notes, []);
}

#[test]
fn a_measurement_log_that_was_seen_is_not_asked_for_again() {
    let mut booted = unified();
    booted.say(15, "machine-id", "machine-id:1");
    booted.say(11, "phase", "a phase of one's own");
    let first = booted.verify().claims.unwrap().baseline(0);
    let again = booted.verify_again(&first);
    assert_eq!(
        (again.notes.as_slice(), boot(&again).facts().unexplained_pcrs.as_slice()),
        (&[][..], &[][..])
    );
    // A known word may follow, an unknown one may not.
    booted.extend(11, b"ready");
    let again = booted.verify_again(&again.claims.unwrap().baseline(0));
    assert_eq!(boot(&again).facts().unexplained_pcrs, []);
    booted.extend(15, b"file-system:/var");
    let again = booted.verify_again(&again.claims.unwrap().baseline(0));
    assert_eq!(boot(&again).facts().unexplained_pcrs, [pcr(15)]);
}

/// After a soft reboot user space goes through its phases again, and the log of the first start is still there.
#[test]
fn phases_come_again_after_a_soft_reboot() {
    let mut booted = unified();
    for _ in 0..3 {
        for phase in ["sysinit", "ready", "shutdown", "final"] {
            booted.extend(11, phase.as_bytes());
        }
    }
    booted.extend(11, b"sysinit");
    assert_eq!(booted.verify().notes, []);
}
