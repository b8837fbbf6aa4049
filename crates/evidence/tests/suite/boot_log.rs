//! Boot logs from outside: real ones replay, changed ones do not, and no bytes make the parser panic.

use std::collections::BTreeMap;
use std::fs;

use assay_evidence::boot_log::{
    BootLog, BootLogErrorKind, EventType, SignatureKind, data_digest_failures, facts, parse, parse_cc, replay,
};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::{Check, Digest, HashAlgorithm, PcrIndex};
use proptest::prelude::*;

use crate::files::{Expected, recorded, recorded_cases, recorded_pcrs, vector};

const VECTORS: [&str; 4] = ["secure-boot", "dbx-update", "no-secure-boot", "direct-kernel"];

pub(crate) fn log_of(name: &str) -> Vec<u8> {
    vector(&format!("boot_log/{name}/binary_bios_measurements"))
}

fn pcr(index: u32) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

#[test]
fn vectors_replay_to_what_the_tpm_had() {
    for name in VECTORS {
        let bytes = log_of(name);
        let log = parse(&bytes).unwrap();
        let expected = Expected::of(&format!("boot_log/{name}"));
        assert_eq!(log.events().len(), expected.count("events"), "{name}");
        assert_eq!(replay(&log), expected.pcrs(), "{name}");
        assert_eq!(data_digest_failures(&log), [], "{name}");
    }
}

#[test]
fn recorded_cases_replay_to_what_the_tpm_had() {
    for case in recorded_cases("binary_bios_measurements") {
        let bytes = fs::read(case.join("binary_bios_measurements")).unwrap();
        let log = parse(&bytes).unwrap();
        let had = recorded_pcrs(&case);
        for (bank, index, value) in replay(&log).iter() {
            assert_eq!(had.get(bank, index), Some(value), "{case:?} {bank}:{index}");
        }
        assert_eq!(data_digest_failures(&log), [], "{case:?}");
        let yaml = fs::read_to_string(case.join("eventlog.yaml")).unwrap();
        agrees_with_tpm2_eventlog(&log, &yaml);
    }
}

/// tpm2_eventlog's listing, as far as it needs no YAML parser: types and digests in their order.
fn agrees_with_tpm2_eventlog(log: &BootLog<'_>, yaml: &str) {
    let values = |key: &str| -> Vec<String> {
        let value =
            |line: &str| line.trim_start().strip_prefix(key).map(|rest| rest.trim_matches('"').to_owned());
        yaml.lines().filter_map(value).collect()
    };
    let types: Vec<String> = log.events().iter().map(|event| event.event_type().to_string()).collect();
    assert_eq!(values("EventType: "), types);
    let digests = log.events().iter().enumerate().flat_map(|(number, event)| {
        let banks = if number == 0 { &[HashAlgorithm::Sha1] } else { log.banks() };
        banks.iter().filter_map(|bank| event.digest(*bank)).map(|digest| digest.to_hex()).collect::<Vec<_>>()
    });
    assert_eq!(values("Digest: "), digests.collect::<Vec<_>>());
}

#[test]
fn public_logs_replay() {
    let Some(root) = recorded("public") else { return };
    let mut seen = 0;
    for repository in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(repository.unwrap().path()).into_iter().flatten() {
            let path = file.unwrap().path();
            let Some(name) = path.to_str().and_then(|p| p.strip_suffix(".replayed-pcrs.json")) else {
                continue;
            };
            let bytes = fs::read(name).unwrap();
            let log = parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            let banks: BTreeMap<String, BTreeMap<u32, String>> =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let mut expected = PcrValues::new();
            for (bank, values) in banks {
                for (index, hex) in values {
                    expected.insert(pcr(index), Digest::from_text(&format!("{bank}:{hex}")).unwrap());
                }
            }
            assert_eq!(replay(&log), expected, "{name}");
            assert_eq!(data_digest_failures(&log), [], "{name}");
            for bank in log.banks() {
                let facts = facts(&log, *bank);
                let has_pcr_7 = log.events().iter().any(|event| event.extends() == Some(pcr(7)));
                assert_eq!(facts.secure_boot.is_some(), has_pcr_7, "{name}");
                assert_eq!(facts.unexplained_in_pcr7, [0; 0], "{name}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 15);
}

/// A log of Windows without a header event, with the PCRs of its own TPM beside it.
#[test]
fn a_windows_log_replays_to_what_its_tpm_had() {
    let Some(path) = recorded("public/go-attestation/windows_gcp_shielded_vm.json") else { return };
    let dump: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let bytes = |value: &serde_json::Value| {
        data_encoding::BASE64.decode(value.as_str().unwrap_or_default().as_bytes()).unwrap()
    };
    let had: PcrValues = dump["Log"]["PCRs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let index = u32::try_from(entry["Index"].as_u64().unwrap()).unwrap();
            (pcr(index), Digest::new(HashAlgorithm::Sha1, &bytes(&entry["Digest"])).unwrap())
        })
        .collect();
    let raw = bytes(&dump["Log"]["Raw"]);
    let log = parse(&raw).unwrap();
    for (bank, index, value) in replay(&log).iter() {
        assert_eq!(had.get(bank, index), Some(value), "{bank}:{index}");
    }
    assert_eq!(data_digest_failures(&log), []);
    assert!(facts(&log, HashAlgorithm::Sha1).secure_boot.unwrap().is_enabled);
}

#[test]
fn bytes_that_are_no_log_are_refused() {
    let Some(path) = recorded("public/keylime/binary_bios_measurements-bogus") else { return };
    let bytes = fs::read(path).unwrap();
    assert_eq!(parse(&bytes).unwrap_err().kind, BootLogErrorKind::Pcr(1_969_712_994));
}

#[test]
fn facts_of_a_secure_boot() {
    let bytes = log_of("secure-boot");
    let log = parse(&bytes).unwrap();
    let facts = facts(&log, HashAlgorithm::Sha256);
    let variables = facts.secure_boot.unwrap();
    assert!(variables.is_enabled);
    let counts = [&variables.pk, &variables.kek, &variables.db, &variables.dbx].map(Vec::len);
    assert_eq!(counts, [1, 2, 2, 1]);
    let subject = |kind: &SignatureKind| match kind {
        SignatureKind::Certificate { subject, .. } => subject.clone(),
        _ => String::new(),
    };
    assert!(subject(&variables.pk.first().unwrap().kind).contains("Debian UEFI Secure Boot"));
    let authorities: Vec<&str> = facts.authorities.iter().map(|found| found.variable.as_str()).collect();
    assert_eq!(authorities, ["db", "SbatLevel", "MokListRT"]);
    let mok = facts.authorities.last().and_then(|found| found.signature.as_ref()).map(subject).unwrap();
    assert_eq!(mok, "CN=Debian Secure Boot CA");
    assert_eq!(facts.sbat_level.as_deref(), Some("sbat,1,2025021800\nshim,4\ngrub,5\n"));
    let images: Vec<&str> = facts.boot_applications.iter().map(|image| image.remark.as_str()).collect();
    // shim, GRUB, and the kernel twice: GRUB has shim measure it each time it reads it.
    assert_eq!(images.len(), 4, "{images:?}");
    assert!(images.get(1).unwrap().ends_with("\\EFI\\BOOT\\grubx64.efi"), "{images:?}");
    let texts: Vec<&str> = facts.loader_texts.iter().map(|text| text.text.as_str()).collect();
    let line = "/vmlinuz-6.1.0-55-amd64 root=/dev/vda2";
    assert_eq!(texts.iter().filter(|text| text.starts_with(line)).count(), 1);
    assert!(texts.contains(&"set timeout=0"));
    let mok: Vec<&str> = facts.mok.iter().map(|item| item.remark.as_str()).collect();
    assert_eq!(mok, ["MokList", "MokListX", "MokListTrusted"]);
    assert_eq!(facts.firmware.len(), 2);
    assert_eq!(facts.separators.len(), 8);
    assert!(facts.error_separators.is_empty());
}

#[test]
fn facts_follow_a_dbx_update() {
    let (before, after) = (log_of("secure-boot"), log_of("dbx-update"));
    let dbx = |bytes: &[u8]| {
        facts(&parse(bytes).unwrap(), HashAlgorithm::Sha256).secure_boot.map(|found| found.dbx).unwrap()
    };
    let (before, after) = (dbx(&before), dbx(&after));
    assert!(after.len() > before.len());
    assert!(before.iter().all(|old| after.contains(old)));
}

#[test]
fn facts_without_secure_boot() {
    for name in ["no-secure-boot", "direct-kernel"] {
        let bytes = log_of(name);
        let facts = facts(&parse(&bytes).unwrap(), HashAlgorithm::Sha384);
        assert!(!facts.secure_boot.unwrap().is_enabled, "{name}");
    }
}

/// An event taken apart, so that a test can lie about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plain {
    pub(crate) pcr: u32,
    pub(crate) event_type: u32,
    pub(crate) digests: Vec<Digest>,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn take_apart(bytes: &[u8]) -> Vec<Plain> {
    let log = parse(bytes).unwrap();
    let plain = log.events().iter().enumerate().map(|(number, event)| {
        let banks = if number == 0 { &[HashAlgorithm::Sha1] } else { log.banks() };
        Plain {
            pcr: event.pcr().map_or(u32::MAX, |pcr| u32::from(pcr.get())),
            event_type: event.event_type().0,
            digests: banks.iter().filter_map(|bank| event.digest(*bank)).collect(),
            data: event.data().to_vec(),
        }
    });
    plain.collect()
}

pub(crate) fn put_together(events: &[Plain]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, event) in events.iter().enumerate() {
        bytes.extend(event.pcr.to_le_bytes());
        bytes.extend(event.event_type.to_le_bytes());
        if number > 0 {
            bytes.extend(u32::try_from(event.digests.len()).unwrap().to_le_bytes());
        }
        for digest in &event.digests {
            if number > 0 {
                bytes.extend(digest.algorithm().tpm_id().to_le_bytes());
            }
            bytes.extend(digest.as_bytes());
        }
        bytes.extend(u32::try_from(event.data.len()).unwrap().to_le_bytes());
        bytes.extend(&event.data);
    }
    bytes
}

pub(crate) fn measured(pcr: u32, event_type: EventType, data: &[u8]) -> Plain {
    let banks = [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384];
    let digests = banks.iter().map(|bank| bank.hash(&[data])).collect();
    Plain { pcr, event_type: event_type.0, digests, data: data.to_vec() }
}

#[test]
fn parse_then_encode_is_identity() {
    for name in VECTORS {
        let bytes = log_of(name);
        assert_eq!(put_together(&take_apart(&bytes)), bytes, "{name}");
    }
}

#[test]
fn data_that_no_longer_fits_its_digest_is_found_in_each_checked_type() {
    let events = take_apart(&log_of("secure-boot"));
    let mut types = Vec::new();
    for (number, event) in events.iter().enumerate().skip(1) {
        let mut changed = events.clone();
        let Some(last) = changed.get_mut(number).and_then(|event| event.data.iter_mut().rev().nth(1)) else {
            continue;
        };
        *last ^= 1;
        let bytes = put_together(&changed);
        let log = parse(&bytes).unwrap();
        assert_eq!(replay(&log), replay(&parse(&put_together(&events)).unwrap()), "digests are as before");
        for failure in data_digest_failures(&log) {
            assert_eq!(failure.check, Check::EventDataDigest);
            types.push((EventType(event.event_type), event.pcr));
        }
    }
    types.sort_unstable();
    types.dedup();
    let expected = [
        EventType::S_CRTM_VERSION,
        EventType::IPL,
        EventType::EFI_VARIABLE_DRIVER_CONFIG,
        EventType::EFI_ACTION,
        EventType::EFI_VARIABLE_AUTHORITY,
    ];
    for event_type in expected {
        assert!(types.iter().any(|(found, _)| *found == event_type), "{event_type}");
    }
    assert!(types.contains(&(EventType::IPL, 8)) && !types.contains(&(EventType::IPL, 9)));
}

/// Without Secure Boot, root may relabel the truth and append what Secure Boot would have measured.
#[test]
fn secure_boot_is_not_believed_of_relabelled_events() {
    let good = take_apart(&log_of("secure-boot"));
    let mut forged = take_apart(&log_of("no-secure-boot"));
    for event in forged.iter_mut().filter(|event| event.pcr == 7) {
        event.event_type = EventType::EVENT_TAG.0;
        event.data = b"nothing to see".to_vec();
    }
    forged.extend(good.into_iter().filter(|event| event.pcr == 7));
    let bytes = put_together(&forged);
    let log = parse(&bytes).unwrap();
    assert_eq!(data_digest_failures(&log), []);
    let facts = facts(&log, HashAlgorithm::Sha256);
    assert_eq!(facts.secure_boot, None);
    assert!(!facts.unexplained_in_pcr7.is_empty());
}

#[test]
fn secure_boot_is_not_believed_when_appended() {
    let good = take_apart(&log_of("secure-boot"));
    let mut forged = take_apart(&log_of("no-secure-boot"));
    forged.extend(good.into_iter().filter(|event| event.pcr == 7));
    let bytes = put_together(&forged);
    let facts = facts(&parse(&bytes).unwrap(), HashAlgorithm::Sha256);
    assert!(!facts.secure_boot.unwrap().is_enabled);
    assert!(!facts.unexplained_in_pcr7.is_empty());
}

/// Under another label the separator would let authorities pass for configuration, of which nobody asks who they are.
#[test]
fn authorities_are_found_whatever_the_separator_is_called() {
    let mut events = take_apart(&log_of("secure-boot"));
    let authorities =
        |events: &[Plain]| facts(&parse(&put_together(events)).unwrap(), HashAlgorithm::Sha256).authorities;
    let before = authorities(&events);
    assert!(!before.is_empty());
    let is_separator = |event: &&mut Plain| event.pcr == 7 && event.event_type == EventType::SEPARATOR.0;
    for event in events.iter_mut().filter(is_separator) {
        event.event_type = EventType::EFI_ACTION.0;
    }
    events.push(measured(7, EventType::SEPARATOR, &[0; 4]));
    assert_eq!(authorities(&events), before);
}

/// The operating system can extend PCR 0 with the version that the firmware should have had.
#[test]
fn a_firmware_version_is_not_believed_after_the_separator() {
    let version = |events: &[Plain]| {
        facts(&parse(&put_together(events)).unwrap(), HashAlgorithm::Sha256).firmware_version
    };
    let mut events = take_apart(&log_of("secure-boot"));
    assert!(version(&events).is_some());
    for event in events.iter_mut().filter(|event| event.event_type == EventType::S_CRTM_VERSION.0) {
        event.event_type = EventType::EFI_PLATFORM_FIRMWARE_BLOB.0;
    }
    events.push(measured(0, EventType::S_CRTM_VERSION, b"good version"));
    assert_eq!(version(&events), None);
}

#[test]
fn an_image_stays_in_the_list_whatever_it_is_called() {
    let mut events = take_apart(&log_of("secure-boot"));
    let count = |events: &[Plain]| {
        facts(&parse(&put_together(events)).unwrap(), HashAlgorithm::Sha256).boot_applications.len()
    };
    let before = count(&events);
    for event in events.iter_mut().filter(|event| event.pcr == 4) {
        if event.event_type == EventType::EFI_BOOT_SERVICES_APPLICATION.0 {
            event.event_type = EventType::COMPACT_HASH.0;
            event.data = b"harmless".to_vec();
        }
    }
    assert_eq!(count(&events), before);
}

/// The digest of an image is a hash of bytes that whoever made the image knows.
#[test]
fn an_image_stays_in_the_list_when_its_bytes_pass_for_text() {
    let mut events = take_apart(&log_of("direct-kernel"));
    let image = vec![b'x'; 1000];
    for (pcr, event_type) in [(4, EventType::EFI_ACTION), (4, EventType::SEPARATOR), (2, EventType::ACTION)] {
        events.push(measured(pcr, event_type, &image));
    }
    let bytes = put_together(&events);
    let log = parse(&bytes).unwrap();
    assert_eq!(data_digest_failures(&log), []);
    let found = facts(&log, HashAlgorithm::Sha256);
    let digest = HashAlgorithm::Sha256.hash(&[&image]);
    assert_eq!(found.boot_applications.iter().filter(|image| image.digest == digest).count(), 2);
    assert_eq!(found.firmware.iter().filter(|item| item.digest == digest).count(), 1);
}

#[test]
fn no_action_extends_nothing_and_locality_starts_pcr_0() {
    let mut events = take_apart(&log_of("direct-kernel"));
    let before = replay(&parse(&put_together(&events)).unwrap());
    let mut locality = measured(0, EventType::NO_ACTION, b"StartupLocality\0\x03");
    locality.digests.iter_mut().for_each(|digest| *digest = digest.algorithm().zero());
    events.insert(1, locality.clone());
    let with = replay(&parse(&put_together(&events)).unwrap());
    for (bank, index, value) in before.iter() {
        assert_eq!(with.get(bank, index) == Some(value), index != pcr(0), "{bank}:{index}");
    }
    // After PCR 0 was extended, a locality says nothing.
    let mut late = take_apart(&log_of("direct-kernel"));
    late.push(locality);
    assert_eq!(replay(&parse(&put_together(&late)).unwrap()), before);
}

#[test]
fn a_locality_in_a_longer_slot_is_the_same() {
    let start = |data: &[u8]| {
        let mut events = take_apart(&log_of("direct-kernel"));
        events.insert(1, measured(0, EventType::NO_ACTION, data));
        replay(&parse(&put_together(&events)).unwrap())
    };
    let exact = start(b"StartupLocality\0\x03");
    assert_eq!(start(b"StartupLocality\0\x03\0\0\0\0\0\0\0"), exact);
    assert_ne!(start(b"StartupLocality\0\0\x03\0\0\0\0\0\0"), exact);
    assert_ne!(start(b"StartupLocality\0"), exact);
}

#[test]
fn pcr_0_starts_at_4_where_an_h_crtm_measures_first() {
    let mut events = take_apart(&log_of("direct-kernel"));
    let hcrtm = measured(0, EventType::EFI_HCRTM_EVENT, b"HCRTM");
    events.insert(1, hcrtm.clone());
    let found = replay(&parse(&put_together(&events)).unwrap());
    let bank = HashAlgorithm::Sha256;
    let mut start = [0; 32];
    start[31] = 4;
    let of_pcr_0 = events.iter().skip(1).filter(|event| event.pcr == 0);
    let expected = of_pcr_0.fold(Digest::new(bank, &start).unwrap(), |value, event| {
        let digest = event.digests.iter().find(|digest| digest.algorithm() == bank).unwrap();
        value.extend(digest.as_bytes())
    });
    assert_eq!(found.get(bank, pcr(0)), Some(&expected));
    // Later it is an event like any other.
    let mut late = take_apart(&log_of("direct-kernel"));
    let before = replay(&parse(&put_together(&late)).unwrap());
    late.push(hcrtm.clone());
    let found = replay(&parse(&put_together(&late)).unwrap());
    let digest = hcrtm.digests.iter().find(|digest| digest.algorithm() == bank).unwrap();
    let expected = before.get(bank, pcr(0)).unwrap().extend(digest.as_bytes());
    assert_eq!(found.get(bank, pcr(0)), Some(&expected));
}

#[test]
fn a_separator_in_a_longer_slot_is_one() {
    for (value, is_good) in [([0; 4], true), ([0xff; 4], true), ([1, 0, 0, 0], false)] {
        let mut events = take_apart(&log_of("direct-kernel"));
        let mut padded = measured(14, EventType::SEPARATOR, &value);
        padded.data.extend([0; 12]);
        events.push(padded);
        let bytes = put_together(&events);
        let log = parse(&bytes).unwrap();
        assert_eq!(data_digest_failures(&log), []);
        let found = facts(&log, HashAlgorithm::Sha256);
        let list = if is_good { &found.separators } else { &found.error_separators };
        assert!(list.contains(&pcr(14)), "{value:?}");
    }
    let mut events = take_apart(&log_of("direct-kernel"));
    let mut other = measured(14, EventType::SEPARATOR, &[0; 4]);
    other.data = vec![0, 0, 0, 2, 0];
    events.push(other);
    assert_eq!(data_digest_failures(&parse(&put_together(&events)).unwrap()).len(), 1);
}

#[test]
fn an_error_separator_is_told_from_a_good_one() {
    let mut events = take_apart(&log_of("direct-kernel"));
    events.push(measured(6, EventType::SEPARATOR, &[1, 0, 0, 0]));
    let bytes = put_together(&events);
    let found = facts(&parse(&bytes).unwrap(), HashAlgorithm::Sha256);
    assert_eq!(found.error_separators, [pcr(6)]);
}

/// Firmware measures the data of BootOrder alone, and two entries are the four bytes that report an error. Where PCR 1 was ended
/// as it should be, it was the order; anywhere else it was the error, whatever the log calls it.
#[test]
fn a_boot_order_is_no_error_of_the_firmware() {
    let bank = HashAlgorithm::Sha256;
    let order = |pcr, event_type, name: &str, data: &[u8]| {
        let mut event = measured(pcr, event_type, data);
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let vendor =
            [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 3, 0x2b, 0x8c];
        let lengths = [units.len() as u64 / 2, data.len() as u64].map(u64::to_le_bytes).concat();
        event.data = [&vendor, lengths.as_slice(), &units, data].concat();
        event
    };
    let errors = |event: Plain, is_ended: bool| {
        let mut events = take_apart(&log_of("direct-kernel"));
        let ends = |event: &Plain| event.pcr == 1 && event.event_type == EventType::SEPARATOR.0;
        let at = events.iter().position(ends).unwrap();
        events.insert(at, event);
        if !is_ended {
            events.retain(|event| !ends(event));
        }
        let bytes = put_together(&events);
        facts(&parse(&bytes).unwrap(), bank).error_separators
    };
    let (boot, error) = (EventType::EFI_VARIABLE_BOOT, [1, 0, 0, 0]);
    assert_eq!(errors(order(1, boot, "BootOrder", &error), true), []);
    assert_eq!(errors(order(1, EventType::EFI_VARIABLE_BOOT2, "BootOrder", &error), true), []);
    assert_eq!(errors(order(1, boot, "BootOrder", &error), false), [pcr(1)]);
    assert_eq!(errors(order(1, boot, "BootNext", &error), true), [pcr(1)]);
    assert_eq!(errors(order(1, EventType::PLATFORM_CONFIG_FLAGS, "BootOrder", &error), true), [pcr(1)]);
    assert_eq!(errors(order(5, boot, "BootOrder", &error), true), [pcr(5)]);
    assert_eq!(errors(measured(1, EventType::SEPARATOR, &error), true), [pcr(1)]);
    // Recorded: the only update of the firmware among the shared cases changed the order to this.
    let Some(path) = recorded("sb-update-firmware/binary_bios_measurements") else { return };
    let bytes = fs::read(path).unwrap();
    assert_eq!(facts(&parse(&bytes).unwrap(), bank).error_separators, []);
}

fn refused(change: impl FnOnce(&mut Vec<Plain>)) -> BootLogErrorKind {
    let mut events = take_apart(&log_of("direct-kernel"));
    change(&mut events);
    parse(&put_together(&events)).unwrap_err().kind
}

#[test]
fn malformed_logs_are_refused_for_their_reason() {
    let truncated = log_of("direct-kernel");
    let error = parse(truncated.get(..truncated.len() - 1).unwrap()).unwrap_err();
    assert!(matches!(error.kind, BootLogErrorKind::Truncated(_)), "{error}");

    let missing = refused(|events| events.last_mut().unwrap().digests.truncate(2));
    assert_eq!(missing, BootLogErrorKind::DigestCount { found: 2, expected: 3 });
    let twice = refused(|events| {
        let digests = &mut events.last_mut().unwrap().digests;
        let first = *digests.first().unwrap();
        *digests.last_mut().unwrap() = first;
    });
    assert_eq!(twice, BootLogErrorKind::AlgorithmTwice(4));
    let other = refused(|events| {
        let digests = &mut events.last_mut().unwrap().digests;
        *digests.last_mut().unwrap() = HashAlgorithm::Sha512.hash(&[b"x"]);
    });
    assert_eq!(other, BootLogErrorKind::AlgorithmUnknown(13));
    assert_eq!(refused(|events| events.last_mut().unwrap().pcr = 24), BootLogErrorKind::Pcr(24));

    // Number of algorithms, and the first one's size, in the header's data.
    let header = |at: usize, value: u8| {
        refused(|events| *events.first_mut().unwrap().data.get_mut(at).unwrap() = value)
    };
    assert_eq!(header(24, 0), BootLogErrorKind::AlgorithmCount(0));
    assert_eq!(header(24, 200), BootLogErrorKind::AlgorithmCount(200));
    assert_eq!(header(30, 21), BootLogErrorKind::DigestSize { algorithm: 4, size: 21 });
    assert_eq!(header(32, 4), BootLogErrorKind::DigestSize { algorithm: 4, size: 32 });
}

#[test]
fn a_huge_length_costs_nothing() {
    let mut bytes = log_of("direct-kernel");
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(u32::MAX.to_le_bytes());
    let kind = BootLogErrorKind::DigestCount { found: u32::MAX, expected: 3 };
    assert_eq!(parse(&bytes).unwrap_err().kind, kind);

    let mut legacy = vec![0; 28];
    legacy.extend(u32::MAX.to_le_bytes());
    let size = usize::try_from(u32::MAX).unwrap();
    assert_eq!(parse(&legacy).unwrap_err().kind, BootLogErrorKind::EventTooLong(size));
}

#[test]
fn unknown_algorithms_are_skipped_by_their_stated_size() {
    // A header that lists SM3 (0x12, 32 bytes) between SHA-256 and nothing else.
    let mut header = b"Spec ID Event03\0".to_vec();
    header.extend([0, 0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0, 0x12, 0, 32, 0, 0x0b, 0, 32, 0, 0]);
    let mut bytes = Vec::new();
    bytes.extend([0; 4]);
    bytes.extend(3u32.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header);
    bytes.extend(7u32.to_le_bytes());
    bytes.extend(EventType::SEPARATOR.0.to_le_bytes());
    bytes.extend(2u32.to_le_bytes());
    bytes.extend([0x12, 0]);
    bytes.extend([0xab; 32]);
    bytes.extend([0x0b, 0]);
    let separator = HashAlgorithm::Sha256.hash(&[&[0; 4]]);
    bytes.extend(separator.as_bytes());
    bytes.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    let log = parse(&bytes).unwrap();
    assert_eq!(log.banks(), [HashAlgorithm::Sha256]);
    let expected = HashAlgorithm::Sha256.zero().extend(separator.as_bytes());
    assert_eq!(replay(&log).get(HashAlgorithm::Sha256, pcr(7)), Some(&expected));
}

/// A log as a confidential machine's firmware writes it, with SHA-384 alone.
fn cc_log() -> Vec<Plain> {
    let mut header = take_apart(&log_of("direct-kernel")).remove(0);
    let fixed = header.data.get(..24).unwrap();
    header.data = [fixed, &1u32.to_le_bytes(), &0x000cu16.to_le_bytes(), &48u16.to_le_bytes(), &[0]].concat();
    let event = |register, data: &[u8]| {
        let mut event = measured(register, EventType::EFI_ACTION, data);
        event.digests.retain(|digest| digest.algorithm() == HashAlgorithm::Sha384);
        event
    };
    vec![header, event(0, b"before the start"), event(1, b"one"), event(3, b"two"), event(1, b"three")]
}

#[test]
fn a_confidential_machines_log_replays_to_its_registers() {
    let bytes = put_together(&cc_log());
    let hash = |data: &[u8]| HashAlgorithm::Sha384.hash(&[data]);
    let start = HashAlgorithm::Sha384.zero();
    let first = start.extend(hash(b"one").as_bytes()).extend(hash(b"three").as_bytes());
    let expected = [(0, first), (2, start.extend(hash(b"two").as_bytes()))];
    // The rest of the table's memory is filled.
    for fill in [vec![], vec![0; 500], vec![0xff; 500], vec![0xff; 3]] {
        let area = [bytes.as_slice(), &fill].concat();
        let values = parse_cc(&area).unwrap().replay();
        let values: Vec<_> = values.into_iter().map(|(register, value)| (register.get(), value)).collect();
        assert_eq!(values, expected);
    }
    // A boot log proper has no such end, and neither may hide an event behind it.
    assert!(parse(&[bytes.as_slice(), &[0xff; 500]].concat()).is_err());
    assert!(parse_cc(&[bytes.as_slice(), &[0xff; 500], &bytes].concat()).is_err());
    assert!(parse_cc(&[bytes.as_slice(), &[0; 500], &bytes].concat()).is_err());
    let mut beyond = cc_log();
    beyond.get_mut(2).unwrap().pcr = 5;
    let error = parse_cc(&put_together(&beyond)).map(|_| ()).unwrap_err();
    assert_eq!((error.event, error.kind), (2, BootLogErrorKind::Register(5)));
    assert!(error.offset > 0);
}

#[test]
fn systemd_boot_measures_the_command_line() {
    let Some(path) = recorded("public/tpm2-tools/event-sd-boot-fedora37.bin") else { return };
    let bytes = fs::read(path).unwrap();
    let facts = facts(&parse(&bytes).unwrap(), HashAlgorithm::Sha256);
    let line = " console=ttyS0 console=tty0 efi=debug ";
    assert!(facts.loader_texts.iter().all(|found| found.text == line), "{facts:?}");
    assert_eq!((facts.loader_texts.len(), facts.credentials().count()), (2, 0));
    assert_eq!(facts.unified_kernel, []);
}

fn look_at_everything(bytes: &[u8]) {
    if let Ok(log) = parse_cc(bytes) {
        let _ = log.replay();
    }
    if let Ok(log) = parse(bytes) {
        let _ = replay(&log);
        let _ = data_digest_failures(&log);
        for bank in log.banks() {
            let _ = facts(&log, *bank);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        look_at_everything(&bytes);
    }

    #[test]
    fn never_panics_on_changed_logs(
        which in 0..VECTORS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = log_of(VECTORS.get(which).copied().unwrap_or("secure-boot"));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        look_at_everything(&bytes);
        let keep = keep.index(bytes.len());
        look_at_everything(bytes.get(..keep).unwrap_or_default());
    }

    /// Data of covered events is changed in place, so that everything past the digest is reached.
    #[test]
    fn never_panics_on_covered_nonsense(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        pcr in 0u32..15,
        kind in proptest::sample::select(vec![1u32, 4, 5, 6, 8, 13, 0x8000_0001, 0x8000_0002, 0x8000_0003,
            0x8000_0006, 0x8000_0007, 0x8000_0008, 0x8000_000a, 0x8000_00e0]),
    ) {
        let mut events = take_apart(&log_of("direct-kernel"));
        events.insert(1, measured(pcr, EventType(kind), &data));
        look_at_everything(&put_together(&events));
    }
}
