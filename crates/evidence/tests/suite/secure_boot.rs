//! PCR 7 by content: whatever the log calls its events, and wherever they stand.

use assay_evidence::HashAlgorithm;
use assay_evidence::boot_log::{BootFacts, EventType, facts, parse};

use crate::boot_log::{Plain, log_of, measured, put_together, take_apart};

fn facts_of(events: &[Plain]) -> BootFacts {
    facts(&parse(&put_together(events)).unwrap(), HashAlgorithm::Sha256)
}

/// The recorded boot with `event` before the separator of PCR 7, behind it, and first of all.
fn everywhere(event: &Plain) -> [Vec<Plain>; 3] {
    let events = take_apart(&log_of("secure-boot"));
    let of_pcr7 = |events: &[Plain], kind: EventType| {
        events.iter().position(|event| event.pcr == 7 && event.event_type == kind.0).unwrap()
    };
    let separator = of_pcr7(&events, EventType::SEPARATOR);
    let first = of_pcr7(&events, EventType::EFI_VARIABLE_DRIVER_CONFIG);
    [first, separator, separator + 1].map(|place| {
        let mut events = events.clone();
        events.insert(place, event.clone());
        events
    })
}

#[test]
fn what_firmware_says_is_heard_in_every_place() {
    for text in [&b"DMA Protection Disabled"[..], b"DMA Protection Disabled\0", b"UEFI Debug Mode"] {
        for kind in [EventType::EFI_ACTION, EventType::ACTION, EventType::EVENT_TAG, EventType::POST_CODE] {
            for events in everywhere(&measured(7, kind, text)) {
                let facts = facts_of(&events);
                let said: Vec<&str> =
                    facts.statements.iter().map(|statement| statement.text.as_str()).collect();
                assert_eq!(said, [String::from_utf8_lossy(text).trim_end_matches('\0')]);
                assert!(facts.secure_boot.unwrap().is_enabled, "Secure Boot is read all the same");
                assert_eq!(facts.unexplained_in_pcr7, [0; 0]);
            }
        }
    }
}

/// Where the words are hidden the event is still there.
#[test]
fn what_cannot_be_read_is_not_passed_over() {
    let mut hidden = measured(7, EventType::EVENT_TAG, b"DMA Protection Disabled");
    hidden.data = b"nothing".to_vec();
    let [first, before, after] = everywhere(&hidden).map(|events| facts_of(&events));
    assert!(first.secure_boot.is_none() && before.secure_boot.is_none());
    assert_eq!([first, before, after].map(|facts| facts.unexplained_in_pcr7.len()), [1; 3]);
}

#[test]
fn an_authority_counts_wherever_it_was_measured_and_whatever_it_is_called() {
    let good = take_apart(&log_of("secure-boot"));
    let of_db = good.iter().find(|event| event.event_type == EventType::EFI_VARIABLE_AUTHORITY.0).unwrap();
    for kind in [EventType::EFI_VARIABLE_AUTHORITY, EventType::EFI_VARIABLE_DRIVER_CONFIG, EventType::IPL] {
        let event = Plain { event_type: kind.0, ..of_db.clone() };
        for events in everywhere(&event).into_iter().skip(1) {
            let facts = facts_of(&events);
            assert_eq!(facts.authorities.len(), 4, "{kind}");
            assert!(facts.secure_boot.is_some(), "{kind}");
        }
    }
}

#[test]
fn configuration_that_is_measured_again_is_told() {
    let good = take_apart(&log_of("secure-boot"));
    for name in ["SecureBoot", "PK", "KEK", "db", "dbx"] {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let named = |event: &&Plain| {
            event.event_type == EventType::EFI_VARIABLE_DRIVER_CONFIG.0
                && event.data.get(32..32 + wide.len()) == Some(wide.as_slice())
                && event.data.get(16) == u8::try_from(name.len()).ok().as_ref()
        };
        let again = good.iter().find(named).unwrap();
        let [_, before, after] = everywhere(again).map(|events| facts_of(&events));
        assert_eq!((before.remeasured, before.secure_boot), (vec![name.to_owned()], None));
        assert_eq!(after.remeasured, [name]);
    }
}

#[test]
fn shim_says_that_its_checks_are_off() {
    let variable = |name: &str, data: &[u8]| {
        let good = take_apart(&log_of("secure-boot"));
        let sbat: Vec<u8> = "SbatLevel".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let of_shim = good.iter().find(|event| event.data.windows(sbat.len()).any(|part| part == sbat));
        let vendor = of_shim.unwrap().data.get(..16).unwrap().to_vec();
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let lengths = [name.len() as u64, data.len() as u64].map(u64::to_le_bytes).concat();
        [vendor, lengths, wide, data.to_vec()].concat()
    };
    for (data, expected) in [(&[1][..], true), (&[0], false), (&[], true)] {
        for name in ["MokSBState", "MokSBStateRT"] {
            let event = measured(7, EventType::EFI_VARIABLE_AUTHORITY, &variable(name, data));
            let [.., after] = everywhere(&event).map(|events| facts_of(&events));
            assert_eq!(after.is_shim_validation_off, expected, "{name} {data:?}");
        }
    }
}

/// Platform Firmware Profile, 10.4.1: ones end the firmware's part as well as zeros.
#[test]
fn a_separator_of_ones_is_one() {
    let mut events = take_apart(&log_of("secure-boot"));
    for event in events.iter_mut().filter(|event| event.event_type == EventType::SEPARATOR.0) {
        *event = measured(event.pcr, EventType::SEPARATOR, &[0xff; 4]);
    }
    let facts = facts_of(&events);
    assert!(facts.secure_boot.unwrap().is_enabled);
    assert_eq!(facts.authorities.len(), 3);
}
