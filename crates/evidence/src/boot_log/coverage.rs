//! What an event's digest says about its data.
//!
//! A log that replays has the digests that were extended, in their order, and nothing more: event
//! types and data are still whatever the sender wrote. Data is believed only where it hashes to the
//! digest. For some types the specification (or GRUB) says that it must; there a difference is a lie.

use super::{BootLog, Event, EventType};
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
        let must = |bytes: &'a [u8]| if covers(bytes) { Coverage::Covered(bytes) } else { Coverage::Broken };
        match self.event_type {
            EventType::ACTION
            | EventType::EFI_ACTION
            | EventType::S_CRTM_VERSION
            | EventType::OMIT_BOOT_DEVICE_EVENTS
            | EventType::EFI_GPT_EVENT
            | EventType::EFI_VARIABLE_DRIVER_CONFIG => must(data),
            EventType::EFI_VARIABLE_AUTHORITY if covers(data) => Coverage::Covered(data),
            // shim before 15 logs one byte more than it hashes.
            EventType::EFI_VARIABLE_AUTHORITY => must(data.split_last().map_or(data, |(_, head)| head)),
            EventType::SEPARATOR if covers(data) => Coverage::Covered(data),
            // Some firmware logs it in a slot of fixed size, of which it hashed the beginning.
            EventType::SEPARATOR if data.get(..SEPARATOR_BYTES).is_some_and(covers) => {
                Coverage::Covered(data.get(..SEPARATOR_BYTES).unwrap_or(data))
            }
            // The separator of an error has the digest of the number 1 and any data.
            EventType::SEPARATOR => match must(SEPARATOR_ERROR) {
                Coverage::Covered(_) => Coverage::Covered(SEPARATOR_ERROR),
                other => other,
            },
            EventType::IPL if pcr.get() == GRUB_COMMAND_PCR => match grub_text(data) {
                Some(text) => must(text),
                None if covers(data) => Coverage::Covered(data),
                None => Coverage::Elsewhere,
            },
            _ if covers(data) => Coverage::Covered(data),
            _ => Coverage::Elsewhere,
        }
    }
}

/// The events whose data must hash to their digest and does not, in any bank.
pub fn data_digest_failures(log: &BootLog<'_>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for event in log.events() {
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
