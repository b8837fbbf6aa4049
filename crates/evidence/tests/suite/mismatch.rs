//! A log that is not the PCRs': what may explain it is told apart, and every one is refused.

use assay_evidence::boot_log::parse;
use assay_evidence::verify::{Expectation, Verification};
use assay_evidence::{Check, Mismatch};
use assay_testkit::pcrs::{Measurement, Pcrs};
use assay_testkit::{Bank, SoftwareDevice, System, tamper};

use crate::banks::{device, quoted_as};

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

/// PCR, type, count, algorithm, SHA-256 digest, size of the data.
const FRAME_BYTES: usize = 4 + 4 + 4 + 2 + 32 + 4;
