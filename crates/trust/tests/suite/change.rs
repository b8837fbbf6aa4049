//! What changed between two boots of a machine whose every part can be changed.

use assay_evidence::digest::{Digest, HashAlgorithm, PcrIndex};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Baseline, Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_testkit::edge::protocol::{Challenge, PcrSelection};
use assay_testkit::machine::{BootLog, EventType, ImaEntry, ImaList};
use assay_testkit::pcrs::{Measurement, Pcrs};
use assay_testkit::{Bank, EkMaker, SoftwareDevice, System};
use assay_trust::change::{Cause, Change, describe};

use crate::claims;

pub fn device() -> SoftwareDevice {
    SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap()
}

/// What the device proves of itself, on a baseline only what is new.
pub fn proven(device: &mut SoftwareDevice, baseline: Option<&Baseline>) -> Claims {
    let challenge = Challenge {
        nonce: vec![7; 32],
        expires_in_seconds: 30,
        selection: vec![PcrSelection { bank: "sha256".into(), pcrs: (0..17).collect() }],
        boot_log_wanted: true,
        ima_from_entry: baseline.map_or(0, Baseline::ima_entries),
        ..Challenge::default()
    };
    let told = device.evidence(&challenge).unwrap();
    let quote = told.quote.unwrap();
    let values = quote.pcrs.iter().map(|pcr| {
        (PcrIndex::new(pcr.index).unwrap(), Digest::new(HashAlgorithm::Sha256, &pcr.digest).unwrap())
    });
    let evidence = Evidence {
        ak_public: &device.ak.public_area(),
        quotes: vec![QuoteEvidence {
            label: "quote",
            message: &quote.message,
            signature: &quote.signature,
            pcrs: values.collect::<PcrValues>(),
            nonce: &challenge.nonce,
            ak_public: None,
        }],
        boot_log: told.boot_log.as_deref(),
        measure_log: told.measure_log.as_deref(),
        ima_log: Some(ImaLog::Binary(&told.ima_log)),
        ima_from_entry: challenge.ima_from_entry,
        banks: None,
    };
    let verification = verify(&evidence, &Expectation { baseline, ..Expectation::default() });
    assert_eq!(verification.failures, []);
    verification.claims.unwrap()
}

/// What changes when the machine boots again as another system.
fn rebooted(change: impl FnOnce(&mut System)) -> Vec<Change> {
    let mut device = device();
    let before = proven(&mut device, None);
    let mut system = System::default();
    change(&mut system);
    device.boot(&system);
    describe(&before, &proven(&mut device, None))
}

/// Causes and their PCRs, but for the boot itself.
fn causes(changes: &[Change]) -> Vec<(&'static str, Vec<u8>)> {
    let told = changes.iter().filter(|change| change.cause != Cause::Boot);
    told.map(|change| (change.cause.name(), change.pcrs.iter().map(|pcr| pcr.get()).collect())).collect()
}

/// Checks the one cause of a change to the system, besides the boot, and answers its sentence.
fn check(change: impl FnOnce(&mut System), cause: &'static str, pcrs: &[u8]) -> String {
    let changes = rebooted(change);
    // What boots otherwise has another boot_aggregate, so that PCR 10 differs too.
    let told: Vec<_> = causes(&changes).into_iter().filter(|(cause, _)| *cause != "ima-order").collect();
    assert_eq!(told, [(cause, pcrs.to_vec())], "{changes:#?}");
    changes.into_iter().find(|change| change.cause.name() == cause).unwrap().message
}

fn has(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
}

#[test]
fn the_same_boot_again_is_only_a_boot() {
    let changes = rebooted(|_| {});
    let [boot] = changes.as_slice() else { panic!("{changes:#?}") };
    assert_eq!(
        (boot.cause, boot.before.as_deref(), boot.after.as_deref()),
        (Cause::Boot, Some("1"), Some("2"))
    );
    has(&boot.message, &["was reset 1 time since"]);
    let mut device = device();
    let before = proven(&mut device, None);
    assert_eq!(describe(&before, &proven(&mut device, None)), []);
}

#[test]
fn each_part_of_a_machine_is_told_as_itself() {
    let message = check(|system| system.kernel = "6.12.10-amd64".into(), "kernel", &[4, 8, 9]);
    has(&message, &["PCR 4, 8 and 9 changed because the kernel went from 6.12.9-amd64 to 6.12.10-amd64."]);
    let message = check(|system| system.command_line += " audit=1", "kernel-command-line", &[8]);
    has(&message, &["PCR 8 changed because the kernel command line has the new words `audit=1`."]);
    let message = check(|system| system.boot_loader = "GRUB 2.14".into(), "boot-loader", &[4]);
    has(&message, &["grubx64.efi"]);
    let message = check(|system| system.firmware = "Example Firmware 2026.11".into(), "firmware", &[0]);
    has(&message, &["from Example Firmware 2026.05 to Example Firmware 2026.11 (events 1, 2 and 3)"]);
    let revoke = |system: &mut System| system.revoked.push("another hole".into());
    has(&check(revoke, "dbx", &[7]), &["grew by 1 entry (1 to 2)"]);
    let restore = |system: &mut System| system.revoked = vec!["another hole".into()];
    has(&check(restore, "dbx", &[7]), &["lost 1 entry and got 1", "may start again what was revoked"]);
    let message = check(|system| system.mok_list = b"another key".to_vec(), "mok-lists", &[14]);
    has(&message, &["PCR 14", "`MokList` measured to another digest"]);
}

#[test]
fn two_changes_at_once_are_two() {
    let changes = rebooted(|system| {
        system.kernel = "6.12.10-amd64".into();
        system.command_line = system.command_line.replace("quiet", "debug");
    });
    let told: Vec<_> = causes(&changes).into_iter().filter(|(cause, _)| *cause != "ima-order").collect();
    assert_eq!(told, [("kernel", vec![4, 8, 9]), ("kernel-command-line", vec![8])]);
    let message = &changes.iter().find(|change| change.cause == Cause::KernelCommandLine).unwrap().message;
    has(message, &["has `debug` instead of `quiet`"]);
}

#[test]
fn secure_boot_off_is_said_before_what_comes_of_it() {
    let changes = rebooted(|system| system.secure_boot = false);
    let told: Vec<_> = causes(&changes).into_iter().filter(|(cause, _)| *cause != "ima-order").collect();
    assert_eq!(told, [("secure-boot", vec![7]), ("sbat-level", vec![7]), ("authorities", vec![7])]);
    let off = changes.iter().find(|change| change.cause == Cause::SecureBoot).unwrap();
    assert_eq!((off.before.as_deref(), off.after.as_deref()), (Some("on"), Some("off")));
    has(&off.message, &["turn it on in the firmware set-up"]);
}

#[test]
fn what_no_event_tells_is_unexplained() {
    let mut device = device();
    let before = proven(&mut device, None);
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 16, b"somebody"));
    // systemd may extend PCR 15 once the log has ended, and so may root.
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 15, b"somebody"));
    let changes = describe(&before, &proven(&mut device, None));
    assert_eq!(causes(&changes), [("unexplained", vec![15]), ("unexplained", vec![16])]);
    has(&changes[0].message, &["something extended it that the boot log does not tell"]);
    has(&changes[1].message, &["PCR 16 (debugging) changed", "no event of the boot log is about it"]);
}

#[test]
fn files_are_new_changed_or_violated() {
    let mut device = device();
    let before = proven(&mut device, None);
    for number in 0..40 {
        device.run_program(&format!("/opt/tool{number}"), b"tool");
    }
    device.run_program("/usr/bin/bash", b"another shell");
    let violation = ImaEntry::violation("/var/log/wtmp");
    device.pcrs.extend(&violation.measurement(&[Bank::Sha256]));
    device.ima.push(violation);
    let check = |changes: Vec<Change>| {
        assert_eq!(
            causes(&changes),
            [("new-files", vec![10]), ("changed-files", vec![10]), ("violations", vec![10])]
        );
        let [new, changed, violations] = changes.as_slice() else { panic!("{changes:#?}") };
        assert_eq!((new.count, new.items.len()), (40, assay_trust::change::ITEMS_MAX));
        has(&new.message, &["40 files", "`/opt/tool0`", "and 36 more"]);
        assert_eq!(changed.items, ["/usr/bin/bash"]);
        assert_eq!(violations.items, ["/var/log/wtmp"]);
    };
    check(describe(&before, &proven(&mut device, None)));
    // What was judged before need not be sent again.
    let judged = before.baseline(before.ima().unwrap().attested_total());
    check(describe(&before, &proven(&mut device, Some(&judged))));
}

#[test]
fn of_a_list_without_its_beginning_no_file_is_called_new() {
    let mut device = device();
    let first = proven(&mut device, None);
    let judged = first.baseline(first.ima().unwrap().attested_total());
    let suffix = proven(&mut device, Some(&judged));
    device.boot(&System::default());
    let changes = describe(&suffix, &proven(&mut device, None));
    assert_eq!(causes(&changes), [("ima-list", vec![])]);
}

#[test]
fn another_key_and_older_evidence_are_named() {
    let mut device = device();
    let before = proven(&mut device, None);
    device.boot(&System::default());
    let after = proven(&mut device, None);
    let [back] = describe(&after, &before).try_into().unwrap();
    has(&back.message, &["went back, from 2 to 1"]);
    let mut other = self::device();
    let changes = describe(&before, &proven(&mut other, None));
    assert_eq!(causes(&changes), [("attestation-key", vec![])]);
}

#[test]
fn a_recorded_machine_that_booted_again_measured_in_another_order() {
    let rebooted = describe(&claims("sb-good-1"), &claims("sb-good-2-rebooted"));
    assert_eq!(causes(&rebooted), [("ima-order", vec![10])]);
    let grown = describe(&claims("sb-good-1"), &claims("sb-good-2-grown"));
    assert_eq!(causes(&grown), [("new-files", vec![10])]);
    assert_eq!(grown.last().unwrap().items, ["/usr/local/bin/report-tool"]);
}

#[test]
fn changes_are_data() {
    let changes = rebooted(|system| system.kernel = "6.12.10-amd64".into());
    let json =
        serde_json::to_value(changes.iter().find(|change| change.cause == Cause::Kernel).unwrap()).unwrap();
    assert_eq!(json["cause"], "kernel");
    assert_eq!(json["pcrs"], serde_json::json!([4, 8, 9]));
    assert_eq!((&json["before"], &json["after"]), (&"6.12.9-amd64".into(), &"6.12.10-amd64".into()));
}

/// The log of a machine that starts a unified kernel image with these sections and this command line.
fn unified(sections: &[(&str, &str)], line: &str) -> BootLog {
    let wide =
        |text: &str| -> Vec<u8> { text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect() };
    let path = wide("\\EFI\\Linux\\edge.efi");
    let size = u16::try_from(path.len() + 4).unwrap();
    let node = [&[4, 4], size.to_le_bytes().as_slice(), &path, &[0x7f, 0xff, 4, 0]].concat();
    let loaded = [&[0; 24], (node.len() as u64).to_le_bytes().as_slice(), &node].concat();
    let mut log = BootLog::new(&[Bank::Sha256]);
    (0..8).for_each(|pcr| log.event(pcr, EventType::Separator, &[0; 4]));
    log.event_measuring(4, EventType::BootServicesApplication, &loaded, format!("{sections:?}").as_bytes());
    for (name, content) in sections {
        log.event(11, EventType::Ipl, &[name.as_bytes(), &[0]].concat());
        log.event_measuring(11, EventType::Ipl, name.as_bytes(), content.as_bytes());
    }
    log.event(12, EventType::Ipl, &wide(line));
    log
}

#[test]
fn a_unified_kernel_is_told_by_its_sections() {
    let mut device = device();
    let mut boot = |log: BootLog| {
        device.pcrs = Pcrs::new(&[Bank::Sha256]);
        log.measurements().iter().for_each(|measurement| device.pcrs.extend(measurement));
        device.boot_log = log.bytes().to_vec();
        device.ima = ImaList::default();
        proven(&mut device, None)
    };
    let before = boot(unified(&[(".linux", "6.12.9"), (".initrd", "one")], "root=/dev/vda2 ro"));
    let after = boot(unified(&[(".linux", "6.12.10"), (".initrd", "one")], "root=/dev/vda2 ro debug"));
    let changes = describe(&before, &after);
    assert_eq!(causes(&changes), [("unified-kernel", vec![4, 11]), ("kernel-command-line", vec![12])]);
    has(&changes[0].message, &["PCR 4 and 11 changed because the unified kernel image did, in `.linux`."]);
    has(&changes[1].message, &["has the new words `debug`"]);
}
