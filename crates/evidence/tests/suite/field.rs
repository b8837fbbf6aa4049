//! Further machines of the kinds that public reports tell of: what is judged is the kind, not the case that was told.

use assay_evidence::boot_log::{EventType, parse, replay};
use assay_evidence::verify::{Expectation, Verification};
use assay_evidence::{Check, Digest, HashAlgorithm, PcrIndex};
use assay_testkit::machine::ImaEntry;
use assay_testkit::pcrs::Measurement;
use assay_testkit::{Bank, SoftwareDevice};

use crate::banks::{checks, device, quoted_as};
use crate::boot_log::{Plain, log_of, measured, put_together, take_apart};

fn verify(device: &mut SoftwareDevice) -> Verification {
    let log = device.boot_log.clone();
    quoted_as(device, &[Bank::Sha256], Some(&log), true, &Expectation::default())
}

/// User space starts: it ends these PCRs, each so many times.
fn ends(device: &mut SoftwareDevice, pcrs: impl IntoIterator<Item = u32>, times: usize) {
    for pcr in pcrs {
        (0..times).for_each(|_| device.pcrs.extend(&Measurement::of(&[Bank::Sha256], pcr, b"os-separator")));
    }
}

/// A kernel that another started begins with the PCRs as it finds them.
fn kexec(device: &mut SoftwareDevice) {
    device.measure(ImaEntry::boot_aggregate(&device.pcrs));
    device.measure(ImaEntry::file("/usr/bin/after", &[u8::try_from(device.ima.entries().len()).unwrap()]));
}

/// Which PCRs are ended depends on what started the machine, and each start of user space ends them again.
#[test]
fn user_space_ends_any_of_its_pcrs_any_number_of_times() {
    for (pcrs, times) in [
        (vec![0, 1, 2, 3, 4, 5, 6, 7], 1),
        (vec![9, 12, 13, 14], 1),
        (vec![7], 1),
        (vec![4, 9], 3),
        ((0..8).chain([9, 12, 13, 14]).collect(), 2),
    ] {
        let mut device = device();
        ends(&mut device, pcrs.iter().copied(), times);
        let verification = verify(&mut device);
        assert_eq!(
            (checks(&verification.failures), checks(&verification.notes)),
            (vec![], vec![]),
            "{pcrs:?}"
        );
        let facts = verification.claims.as_ref().unwrap().boot().unwrap().facts().clone();
        assert_eq!(facts.unexplained_pcrs, [], "{pcrs:?}");
        // One word more in any of them, and it is the log of something else, or PCR of which nothing is known.
        let pcr = pcrs[0];
        device.pcrs.extend(&Measurement::of(&[Bank::Sha256], pcr, b"os-separator-2"));
        let verification = verify(&mut device);
        let found = [checks(&verification.failures), checks(&verification.notes)].concat();
        assert!(found.contains(&Check::EventLogReplay), "{pcrs:?}: {found:?}");
    }
}

fn with_events(first: &[Plain]) -> Option<Digest> {
    let mut events = take_apart(&log_of("direct-kernel"));
    events.splice(1..1, first.iter().cloned());
    let bytes = put_together(&events);
    replay(&parse(&bytes).unwrap()).get(HashAlgorithm::Sha256, PcrIndex::new(0).unwrap()).copied()
}

/// PCR 0 of that log, begun with a locality and extended with these first.
fn begun_at(locality: u8, first: &[&Plain]) -> Option<Digest> {
    let bank = HashAlgorithm::Sha256;
    let mut start = [0; 32];
    start[31] = locality;
    let events = take_apart(&log_of("direct-kernel"));
    let extending = |event: &&Plain| event.pcr == 0 && event.event_type != EventType::NO_ACTION.0;
    let all = first.iter().copied().chain(events.iter().filter(extending));
    Some(all.fold(Digest::new(bank, &start).unwrap(), |value, event| {
        let digest = event.digests.iter().find(|digest| digest.algorithm() == bank).unwrap();
        value.extend(digest.as_bytes())
    }))
}

fn locality(of: u8, filling: &[u8]) -> Plain {
    let mut event = measured(0, EventType::NO_ACTION, &[b"StartupLocality\0", &[of][..], filling].concat());
    event.digests.iter_mut().for_each(|digest| *digest = digest.algorithm().zero());
    event
}

#[test]
fn localities_stand_in_slots_of_any_length() {
    for of in [0, 1, 3, 4] {
        for length in [0, 1, 3, 15, 47, 239, 4000] {
            for filler in [0, 0xff, 0x20] {
                let event = locality(of, &vec![filler; length]);
                assert_eq!(with_events(&[event]), begun_at(of, &[]), "{of} and {length} of {filler:#04x}");
            }
        }
    }
}

/// An H-CRTM measures at locality 4, whatever is said of the locality of the start that follows it.
#[test]
fn an_h_crtm_begins_at_4_whatever_else_is_stated() {
    let hcrtm = measured(0, EventType::EFI_HCRTM_EVENT, b"HCRTM");
    let remark = |data: &[u8]| {
        let mut event = measured(0, EventType::NO_ACTION, data);
        event.digests.iter_mut().for_each(|digest| *digest = digest.algorithm().zero());
        event
    };
    for before in [
        vec![],
        vec![locality(3, &[])],
        vec![locality(4, &[0; 15])],
        vec![locality(0, &[])],
        vec![remark(b"H-CRTM CompMeas\0abc")],
        vec![remark(b"SP800-155 Event\0\0\0\0\0"), locality(3, &[0; 7])],
    ] {
        let events = [before.as_slice(), std::slice::from_ref(&hcrtm)].concat();
        assert_eq!(with_events(&events), begun_at(4, &[&hcrtm]));
    }
    // One that something else stands before began nothing.
    let code = measured(0, EventType::POST_CODE, b"code");
    assert_eq!(with_events(&[locality(3, &[]), code.clone(), hcrtm.clone()]), begun_at(3, &[&code, &hcrtm]));
}

/// Each kernel hashes the PCRs as they are when it starts, and user space goes on extending them in between.
#[test]
fn kexec_any_number_of_times() {
    let all: Vec<u32> = (0..8).chain([9]).collect();
    for between in [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1], [2, 0, 1]] {
        let mut device = device();
        for times in between {
            ends(&mut device, all.iter().copied(), times);
            kexec(&mut device);
        }
        ends(&mut device, all.iter().copied(), 1);
        let verification = verify(&mut device);
        assert_eq!(checks(&verification.failures), [], "{between:?}: {:?}", verification.failures);
    }
    // One of them over other PCRs is refused as that, be it the second or the last.
    for wrong in 0..3 {
        let mut device = device();
        for number in 0..3 {
            let mut other = device.pcrs.clone();
            if number == wrong {
                other.extend(&Measurement::of(&[Bank::Sha256], 4, b"another boot loader"));
            }
            device.measure(ImaEntry::boot_aggregate(&other));
        }
        assert_eq!(checks(&verify(&mut device).failures), [Check::BootAggregate], "{wrong}");
    }
}

/// Where the kernel's policy says `pcr=`, entries of a kernel that was started by kexec are in that PCR as well.
#[test]
fn other_pcrs_hold_a_list_across_kexec() {
    for index in [11, 12, 14] {
        let mut device = device();
        device.measure(ImaEntry::file("/opt/before", b"before").into_pcr(index));
        kexec(&mut device);
        device.measure(ImaEntry::file("/opt/after", b"after").into_pcr(index));
        let verification = verify(&mut device);
        assert_eq!(checks(&verification.failures), [], "PCR {index}");
        let ima = verification.claims.as_ref().unwrap().ima().unwrap();
        let attested = ima.entries().filter(|entry| u32::from(entry.pcr().get()) == index).count();
        assert_eq!((attested, ima.unattested().len()), (2, 0), "PCR {index}");
    }
}
