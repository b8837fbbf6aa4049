//! IMA lists that were measured into other PCRs than 10, and what is attested of them.

use assay_evidence::verify::{Expectation, Verification};
use assay_evidence::{Check, PcrIndex};
use assay_testkit::machine::ImaEntry;
use assay_testkit::pcrs::Measurement;
use assay_testkit::{Bank, SoftwareDevice};

use crate::banks::{checks, device, quoted_as};

fn pcr(index: u32) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

/// A device of which the kernel measures some files into this PCR, and others into 10 as ever.
fn device_with(index: u32) -> SoftwareDevice {
    let mut device = device();
    for number in 0..4 {
        let file = ImaEntry::file(&format!("/opt/app-{number}"), &[number]);
        device.measure(if number % 2 == 0 { file.into_pcr(index) } else { file });
    }
    device
}

fn verify(device: &mut SoftwareDevice) -> Verification {
    let log = device.boot_log.clone();
    quoted_as(device, &[Bank::Sha256], Some(&log), true, &Expectation::default())
}

/// Entries of which something is attested, entries of which nothing is, and whether the PCR holds nothing untold.
fn check(verification: &Verification, index: u32, expected: (usize, usize, bool)) {
    assert_eq!(verification.failures, [], "PCR {index}");
    let ima = verification.claims.as_ref().unwrap().ima().unwrap();
    let attested = ima.entries().filter(|entry| entry.pcr() == pcr(index)).count();
    let unattested = ima.unattested().get(&pcr(index)).copied().unwrap_or_default();
    assert_eq!((attested, unattested, ima.explains(pcr(index))), expected, "PCR {index}");
}

#[test]
fn entries_are_attested_by_the_pcr_that_they_are_in() {
    for index in [8, 9, 11, 12, 13, 14, 15] {
        let mut device = device_with(index);
        let verification = verify(&mut device);
        check(&verification, index, (2, 0, true));
        assert_eq!(verification.notes, [], "PCR {index}");
        // What the boot log says of that PCR stays believed.
        let boot = verification.claims.as_ref().unwrap().boot().unwrap();
        assert_eq!(boot.facts().unexplained_pcrs, [], "PCR {index}");
    }
}

#[test]
fn a_pcr_that_holds_something_else_attests_nothing() {
    for index in [11, 12, 13, 15] {
        let mut device = device_with(index);
        device.pcrs.extend(&Measurement::of(&[Bank::Sha256], index, b"by another program"));
        let verification = verify(&mut device);
        check(&verification, index, (0, 2, false));
        assert!(checks(&verification.notes).contains(&Check::ImaPcr), "PCR {index}");
        // The rest of the list is none the worse for it, and where it starts is known.
        let ima = verification.claims.as_ref().unwrap().ima().unwrap().clone();
        assert_eq!(ima.entries().filter(|entry| entry.path().starts_with(b"/opt/app-")).count(), 2);
        let first = ima.first_unattested().unwrap();
        assert_eq!(usize::try_from(first).unwrap() + 4, device.ima.entries().len());
    }
}

#[test]
fn nobody_keeps_an_entry_from_the_list_unseen() {
    for index in [12, 15] {
        let mut device = device_with(index);
        device
            .pcrs
            .extend(&ImaEntry::file("/opt/evil", b"evil").into_pcr(index).measurement(&[Bank::Sha256]));
        check(&verify(&mut device), index, (0, 2, false));
        // Nor all of them.
        let mut device = self::device();
        device
            .pcrs
            .extend(&ImaEntry::file("/opt/evil", b"evil").into_pcr(index).measurement(&[Bank::Sha256]));
        check(&verify(&mut device), index, (0, 0, false));
    }
    // One of PCR 10 breaks the replay, whatever else the list has.
    let mut device = device_with(12);
    device.pcrs.extend(&ImaEntry::file("/opt/evil", b"evil").measurement(&[Bank::Sha256]));
    assert_eq!(checks(&verify(&mut device).failures), [Check::ImaReplay]);
}

#[test]
fn where_the_kernel_was_built_for_another_pcr_that_one_alone_attests() {
    let mut device = device();
    device.pcrs.reset(10);
    let entries = device.ima.entries().to_vec();
    device.ima = Default::default();
    for entry in entries {
        device.measure(entry.into_pcr(11));
    }
    let verification = verify(&mut device);
    let count = device.ima.entries().len();
    check(&verification, 11, (count, 0, true));
    // Its boot_aggregate is held against the boot PCRs all the same.
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"os-separator"));
    assert_eq!(verify(&mut device).failures, []);
    let mut other = self::device();
    other.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"before the kernel"));
    other.measure(ImaEntry::boot_aggregate(&other.pcrs).into_pcr(11));
    assert!(checks(&verify(&mut other).failures).contains(&Check::EventLogReplay));
}

#[test]
fn what_extended_the_pcr_before_the_list_is_told_by_its_own_log() {
    let mut device = device();
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 12, b"os-separator"));
    device.measure(ImaEntry::file("/opt/app", b"app").into_pcr(12));
    check(&verify(&mut device), 12, (1, 0, true));
}

#[test]
fn a_list_goes_on_in_every_pcr_where_it_stopped() {
    let mut device = device_with(12);
    let first = verify(&mut device).claims.unwrap();
    let whole = first.ima().unwrap().attested_total();
    for judged in [0, 1, whole - 3, whole - 1, whole] {
        let baseline = first.baseline(judged);
        assert_eq!(baseline.ima_entries(), judged);
        let mut grown = device_with(12);
        for file in [ImaEntry::file("/opt/new", b"new").into_pcr(12), ImaEntry::file("/opt/newer", b"newer")]
        {
            grown.measure(file);
        }
        let expectation = Expectation { baseline: Some(&baseline), ..Expectation::default() };
        let verification = crate::banks::quoted_from(&mut grown, judged, &expectation);
        assert_eq!(verification.failures, [], "from {judged}");
        let ima = verification.claims.as_ref().unwrap().ima().unwrap().clone();
        assert_eq!(ima.entries().count() as u64, whole - judged + 2, "from {judged}");
        assert!(ima.explains(pcr(12)));
        // An entry that is kept from the rest is missed as well.
        grown.pcrs.extend(&ImaEntry::file("/opt/evil", b"evil").into_pcr(12).measurement(&[Bank::Sha256]));
        let verification = crate::banks::quoted_from(&mut grown, judged, &expectation);
        assert!(!verification.claims.unwrap().ima().unwrap().explains(pcr(12)), "from {judged}");
    }
}
