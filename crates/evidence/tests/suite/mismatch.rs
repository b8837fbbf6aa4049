//! A log that is not the PCRs': what may explain it is told apart, and every one is refused.

use assay_evidence::boot_log::parse;
use assay_evidence::verify::{Baseline, Expectation, Verification};
use assay_evidence::{Check, Mismatch};
use assay_testkit::machine::ImaEntry;
use assay_testkit::pcrs::{Measurement, Pcrs};
use assay_testkit::{Bank, SoftwareDevice, System, tamper};

use crate::banks::{Told, checks, device, quoted_as};

fn check(device: &mut SoftwareDevice, log: &[u8], check: Check, expected: Mismatch) {
    let verification: Verification =
        quoted_as(device, &[Bank::Sha256], Some(log), false, &Expectation::default());
    assert!(verification.claims.is_none());
    let causes = verification.failures.iter().filter(|failure| failure.check == check);
    let causes: Vec<_> = causes.map(|failure| failure.mismatch).collect();
    assert!(!causes.is_empty() && causes.iter().all(|cause| *cause == Some(expected)), "{causes:?}");
}

/// The log without its last events.
fn without_last(log: &[u8], events: usize) -> Vec<u8> {
    let parsed = parse(log).unwrap();
    let cut = parsed.events().iter().rev().take(events).map(|event| FRAME_BYTES + event.data().len());
    log.get(..log.len() - cut.sum::<usize>()).unwrap().to_vec()
}

#[test]
fn a_log_whose_end_is_missing() {
    let mut device = device();
    let log = device.boot_log.clone();
    for events in 1..12 {
        let cut = without_last(&log, events);
        check(&mut device, &cut, Check::EventLogReplay, Mismatch::EndMissing);
    }
}

#[test]
fn a_log_of_another_boot() {
    // The TPM was reset and nothing was measured since.
    let mut asleep = device();
    let log = asleep.boot_log.clone();
    asleep.pcrs = Pcrs::new(&[Bank::Sha256]);
    check(&mut asleep, &log, Check::EventLogReplay, Mismatch::OtherBoot);
    // The boot loader started another kernel, which woke up the one that has the log.
    let mut hibernated = device();
    hibernated.boot(&System { kernel: "6.12.10-amd64".into(), ..System::default() });
    check(&mut hibernated, &log, Check::EventLogReplay, Mismatch::OtherBoot);
}

#[test]
fn a_copy_that_was_cut_short() {
    let mut device = device();
    let mut log = device.boot_log.clone();
    tamper::truncate(&mut log, 5);
    check(&mut device, &log, Check::EventLogParse, Mismatch::CopyCutShort);
    let other = b"no log at all, and of no length that would make it one".to_vec();
    check(&mut device, &other, Check::EventLogParse, Mismatch::Contradiction);
}

#[test]
fn nothing_harmless_explains_it() {
    let mut device = device();
    let log = device.boot_log.clone();
    for event in 0..parse(&log).unwrap().events().len() - 1 {
        let mut altered = log.clone();
        tamper::alter_event_digest(&mut altered, event);
        check(&mut device, &altered, Check::EventLogReplay, Mismatch::Contradiction);
    }
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 7, b"not in the log"));
    check(&mut device, &log, Check::EventLogReplay, Mismatch::Contradiction);
}

/// What is said of a list that is not the PCRs', and by which checks it is refused.
fn check_list(
    device: &mut SoftwareDevice,
    (list, from): (&[u8], u64),
    baseline: Option<&Baseline>,
    expected: &[(Check, Option<Mismatch>)],
) {
    let log = device.boot_log.clone();
    let told = Told { boot_log: Some(&log), measure_log: None, ima: Some(list), from };
    let expectation = Expectation { baseline, ..Expectation::default() };
    let verification = told.by(device, &[Bank::Sha256], &expectation);
    let found = verification.failures.iter().map(|failure| (failure.check, failure.mismatch));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

fn list_of(device: &SoftwareDevice) -> Vec<u8> {
    device.ima.binary_from(0).to_vec()
}

const CONTRADICTION: Option<Mismatch> = Some(Mismatch::Contradiction);

#[test]
fn a_list_ahead_of_the_quote_is_no_mismatch() {
    let mut device = device();
    let mut list = list_of(&device);
    list.extend(ImaEntry::file("/opt/later", b"later").binary());
    check_list(&mut device, (&list, 0), None, &[]);
}

#[test]
fn a_list_whose_end_or_start_is_missing() {
    let mut device = device();
    let list = list_of(&device);
    let entries = tamper::ima_entries(&list);
    let end = [(Check::ImaReplay, Some(Mismatch::EndMissing))];
    for entry in entries.iter().skip(1) {
        check_list(&mut device, (&list[..entry.start], 0), None, &end);
    }
    let start = [(Check::ImaReplay, Some(Mismatch::StartMissing))];
    for entry in entries.iter().skip(1) {
        check_list(&mut device, (&list[entry.start..], 0), None, &start);
    }
}

#[test]
fn a_list_that_was_cut_short() {
    let mut device = device();
    let list = list_of(&device);
    let cut = [(Check::ImaParse, Some(Mismatch::CopyCutShort))];
    for bytes in 1..40 {
        check_list(&mut device, (&list[..list.len() - bytes], 0), None, &cut);
    }
}

#[test]
fn a_list_of_another_boot() {
    let mut device = device();
    let list = list_of(&device);
    device.boot(&System { kernel: "6.12.10-amd64".into(), ..System::default() });
    let other = [(Check::ImaReplay, Some(Mismatch::OtherBoot))];
    check_list(&mut device, (&list, 0), None, &other);
}

#[test]
fn a_list_of_which_an_entry_was_altered() {
    let mut device = device();
    let list = list_of(&device);
    let altered = [(Check::ImaTemplateDigest, None), (Check::ImaReplay, CONTRADICTION)];
    for entry in tamper::ima_entries(&list) {
        let mut list = list.clone();
        tamper::flip_bit(&mut list, (entry.end - 8) * 8);
        check_list(&mut device, (&list, 0), None, &altered);
    }
}

/// What the TPM attested of this boot before tells an exchanged entry from an end that is missing.
#[test]
fn a_list_that_begins_otherwise_than_it_did() {
    let mut device = device();
    let list = list_of(&device);
    let verified = quoted_as(&mut device, &[Bank::Sha256], None, true, &Expectation::default());
    let baseline = verified.claims.unwrap().baseline(u64::MAX);
    device.measure(ImaEntry::file("/opt/evil", b"evil"));
    let replay = |cause| [(Check::ImaReplay, Some(cause))];
    check_list(&mut device, (&list, 0), Some(&baseline), &replay(Mismatch::EndMissing));
    let first = tamper::ima_entries(&list)[1].clone();
    let exchanged =
        [&list[..first.start], &list[first.end..], &ImaEntry::file("/opt/a", b"a").binary()].concat();
    check_list(&mut device, (&exchanged, 0), Some(&baseline), &replay(Mismatch::Contradiction));
    check_list(&mut device, (&exchanged, 0), None, &replay(Mismatch::EndMissing));
}

/// Without a boot log nobody can say what the PCRs were when the kernel hashed them.
#[test]
fn a_boot_aggregate_of_other_values_is_undone_by_the_boot_log() {
    let mut device = device();
    let log = device.boot_log.clone();
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"os-separator"));
    let without = quoted_as(&mut device, &[Bank::Sha256], None, true, &Expectation::default());
    let causes: Vec<_> = without.failures.iter().map(|failure| (failure.check, failure.mismatch)).collect();
    assert_eq!(causes, [(Check::BootAggregate, Some(Mismatch::EndMissing))]);
    let with = quoted_as(&mut device, &[Bank::Sha256], Some(&log), true, &Expectation::default());
    assert_eq!(checks(&with.failures), []);
}

/// PCR, type, count, algorithm, SHA-256 digest, size of the data.
const FRAME_BYTES: usize = 4 + 4 + 4 + 2 + 32 + 4;
