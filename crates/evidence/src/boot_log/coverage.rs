//! What an event's digest says about its data.
//!
//! A log that replays has the digests that were extended, in their order, and nothing more: event
//! types and data are still whatever the sender wrote. Data is believed only where it hashes to the
//! digest. For some types the specification (or GRUB) says that it must; there a difference is a lie.

use super::{BootLog, Event, EventType, position};
use crate::{Check, Digest, Failure, HashAlgorithm};

/// How far an event's digest covers its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage<'a> {
    /// These bytes, all or part of the data, hash to the digest.
    Covered(&'a [u8]),
    /// The digest is of something else (an image, a file, a table); the data is a remark.
    Elsewhere,
    /// The data of this type must hash to the digest and does not.
    Broken,
}

impl<'a> Event<'a> {
    /// What the digest of `bank` covers. `Elsewhere` if the event has none.
    pub fn coverage(&self, bank: HashAlgorithm) -> Coverage<'a> {
        let (Some(digest), Some(pcr)) = (self.digest(bank), self.extends()) else {
            return Coverage::Elsewhere;
        };
        let data = self.data;
        let covers = |bytes: &[u8]| bank.hash(&[bytes]) == digest;
        let covers_all = || self.is_hash_of_data(bank, &digest);
        let must = |is_covered: bool, bytes: &'a [u8]| match is_covered {
            true => Coverage::Covered(bytes),
            false => Coverage::Broken,
        };
        match self.event_type {
            EventType::ACTION
            | EventType::EFI_ACTION
            | EventType::S_CRTM_VERSION
            | EventType::OMIT_BOOT_DEVICE_EVENTS
            | EventType::EFI_GPT_EVENT
            | EventType::EFI_VARIABLE_DRIVER_CONFIG => must(covers_all(), data),
            // shim before 15 logs one byte more than it hashes.
            EventType::EFI_VARIABLE_AUTHORITY if !covers_all() => {
                let hashed = data.split_last().map_or(data, |(_, head)| head);
                must(covers(hashed), hashed)
            }
            // Some firmware logs it in a slot of fixed size, of which it hashed the beginning.
            EventType::SEPARATOR if !covers_all() => match data.get(..SEPARATOR_BYTES) {
                Some(beginning) if covers(beginning) => Coverage::Covered(beginning),
                // The separator of an error has the digest of the number 1 and any data.
                _ => must(covers(SEPARATOR_ERROR), SEPARATOR_ERROR),
            },
            EventType::IPL if pcr.get() == GRUB_COMMAND_PCR => match grub_text(data) {
                Some(text) => must(covers(text), text),
                None if covers_all() => Coverage::Covered(data),
                None => Coverage::Elsewhere,
            },
            _ if covers_all() => Coverage::Covered(data),
            _ => Coverage::Elsewhere,
        }
    }

    fn is_hash_of_data(&self, bank: HashAlgorithm, digest: &Digest) -> bool {
        let hashes = || bank.hash(&[self.data]) == *digest;
        self.is_hash_of_data.get(position(bank)).is_some_and(|known| *known.get_or_init(hashes))
    }

    /// Whether its data may be nothing but what its digests are of: only such an event can be broken.
    fn must_be_covered(&self) -> bool {
        matches!(
            self.event_type,
            EventType::ACTION
                | EventType::EFI_ACTION
                | EventType::S_CRTM_VERSION
                | EventType::OMIT_BOOT_DEVICE_EVENTS
                | EventType::EFI_GPT_EVENT
                | EventType::EFI_VARIABLE_DRIVER_CONFIG
                | EventType::EFI_VARIABLE_AUTHORITY
                | EventType::SEPARATOR
                | EventType::IPL
        )
    }
}

/// The events whose data must hash to their digest and does not, in any bank.
pub fn data_digest_failures(log: &BootLog<'_>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for event in log.events().iter().filter(|event| event.must_be_covered()) {
        let broken = |bank: &&HashAlgorithm| event.coverage(**bank) == Coverage::Broken;
        let Some(bank) = log.banks().iter().find(broken) else { continue };
        let stated = event.digest(*bank).as_ref().map(Digest::to_string).unwrap_or_default();
        failures.push(Failure::new(
            Check::EventDataDigest,
            format!("event {} ({})", event.number(), event.event_type()),
            format!("data that hashes to {stated}"),
            bank.hash(&[event.data()]).to_string(),
        ));
        if failures.len() >= FAILURES_MAX {
            break;
        }
    }
    failures
}

/// Events whose data is hashed in one bank and something else in another. Whoever measures hashes the same thing for each bank,
/// so one of the two was extended later, into a bank that was left empty.
pub fn bank_contradictions(log: &BootLog<'_>) -> Vec<Failure> {
    let Some((first, others)) = log.banks().split_first() else { return Vec::new() };
    let mut failures = Vec::new();
    for event in log.events().iter().filter(|event| !others.is_empty() && event.extends().is_some()) {
        let is_of_data = |bank: HashAlgorithm| {
            event.digest(bank).is_some_and(|digest| event.is_hash_of_data(bank, &digest))
        };
        let expected = is_of_data(*first);
        let Some(bank) = others.iter().find(|bank| is_of_data(**bank) != expected) else { continue };
        let said =
            |is_of_data: bool| if is_of_data { "the hash of its data" } else { "that of something else" };
        failures.push(Failure::new(
            Check::EventDataDigest,
            format!("event {} ({}) in bank {bank}", event.number(), event.event_type()),
            format!("{}, as in bank {first}", said(expected)),
            said(!expected).to_owned(),
        ));
        if failures.len() >= FAILURES_MAX {
            break;
        }
    }
    failures
}

/// What GRUB hashed: the text after its prefix, without the NUL at the end.
pub(super) fn grub_text(data: &[u8]) -> Option<&[u8]> {
    let text = data.strip_prefix(GRUB_COMMAND).or_else(|| data.strip_prefix(KERNEL_COMMAND_LINE))?;
    Some(text.strip_suffix(&[0]).unwrap_or(text))
}

/// GRUB's prefix of a command it ran. A remark: the digest does not cover it.
pub(super) const GRUB_COMMAND: &[u8] = b"grub_cmd: ";
/// GRUB's prefix of the command line it gave the kernel. A remark as well.
pub(super) const KERNEL_COMMAND_LINE: &[u8] = b"kernel_cmdline: ";
/// Where GRUB measures commands and command lines.
pub(super) const GRUB_COMMAND_PCR: u8 = 8;
/// What a separator measures, whatever it says.
const SEPARATOR_BYTES: usize = 4;
/// EV_SEPARATOR after an error in the firmware.
pub(super) const SEPARATOR_ERROR: &[u8] = &[1, 0, 0, 0];
/// Broken events that are reported of one log; one is enough to refuse it.
const FAILURES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_log::parse;

    /// What can be broken is looked at: no type has to be covered in one place and not in the other.
    #[test]
    fn every_event_that_can_be_broken_is_checked() {
        let types = (0..0x20).chain(0x8000_0000..0x8000_0020).chain(0x8000_00e0..0x8000_0100);
        for (event_type, pcr) in types.flat_map(|event_type| [(event_type, 4), (event_type, 8)]) {
            let mut log = vec![pcr, 0, 0, 0];
            log.extend(u32::to_le_bytes(event_type));
            log.extend([0x5a; 20]);
            log.extend([GRUB_COMMAND.len().try_into().unwrap(), 0, 0, 0]);
            log.extend(GRUB_COMMAND);
            let log = parse(&log).unwrap();
            let event = log.events().first().unwrap();
            let is_broken = event.coverage(HashAlgorithm::Sha1) == Coverage::Broken;
            assert!(!is_broken || event.must_be_covered(), "{}", event.event_type());
            assert_eq!(data_digest_failures(&log).len(), usize::from(is_broken), "{}", event.event_type());
        }
    }
}
