//! Writes a boot log in the crypto-agile form of the TCG PC Client Platform Firmware Profile.

use crate::Bank;
use crate::pcrs::Measurement;

/// A boot log under construction, with the PCR extensions it stands for.
#[derive(Clone, Debug)]
pub struct BootLog {
    banks: Vec<Bank>,
    bytes: Vec<u8>,
    measurements: Vec<Measurement>,
}

/// Event types, by their TCG numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventType {
    /// Not extended: tells about the log itself.
    NoAction = 0x0000_0003,
    /// Ends the pre-boot part of a PCR.
    Separator = 0x0000_0004,
    /// The version of the code that starts the chain of trust.
    CrtmVersion = 0x0000_0008,
    /// A tagged event, such as the kernel's own.
    EventTag = 0x0000_0006,
    /// Something known by its hash alone.
    CompactHash = 0x0000_000c,
    /// What boot loaders say and load.
    Ipl = 0x0000_000d,
    /// A variable that configures the firmware, as it was read.
    VariableDriverConfig = 0x8000_0001,
    /// A boot option, as it was read.
    VariableBoot = 0x8000_0002,
    /// A program the firmware loaded.
    BootServicesApplication = 0x8000_0003,
    /// A driver the firmware loaded, from an option ROM.
    BootServicesDriver = 0x8000_0004,
    /// The partition table.
    Gpt = 0x8000_0006,
    /// The firmware did something.
    Action = 0x8000_0007,
    /// A part of the firmware.
    FirmwareBlob = 0x8000_0008,
    /// Tables that the firmware hands to the system.
    HandoffTables = 0x8000_0009,
    /// The entry of a variable that allowed a program.
    VariableAuthority = 0x8000_00e0,
}

impl BootLog {
    /// An empty log for these banks: it holds only the Spec ID event.
    pub fn new(banks: &[Bank]) -> BootLog {
        let mut log = BootLog { banks: banks.to_vec(), bytes: Vec::new(), measurements: Vec::new() };
        let spec_id = spec_id_event(banks);
        // The first event has the form of TPM 1.2, so that old readers can step over it.
        log.word(0);
        log.word(EventType::NoAction as u32);
        log.bytes.extend_from_slice(&[0; 20]);
        log.word(spec_id.len() as u32);
        log.bytes.extend_from_slice(&spec_id);
        log
    }

    /// The log's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was extended, in order.
    pub fn measurements(&self) -> &[Measurement] {
        &self.measurements
    }

    /// Adds an event whose digest is the hash of its data.
    pub fn event(&mut self, pcr: u32, event_type: EventType, data: &[u8]) {
        self.event_measuring(pcr, event_type, data, data);
    }

    /// Adds an event whose digest is the hash of something that the data only describes.
    pub fn event_measuring(&mut self, pcr: u32, event_type: EventType, data: &[u8], measured: &[u8]) {
        let measurement = Measurement::of(&self.banks, pcr, measured);
        self.word(pcr);
        self.word(event_type as u32);
        self.word(measurement.digests.len() as u32);
        for (bank, digest) in &measurement.digests {
            self.bytes.extend_from_slice(&bank.id().to_le_bytes());
            self.bytes.extend_from_slice(digest);
        }
        self.word(data.len() as u32);
        self.bytes.extend_from_slice(data);
        self.measurements.push(measurement);
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
}

/// TCG_EfiSpecIDEvent: which digests each event carries, and how long they are.
pub(crate) fn spec_id_event(banks: &[Bank]) -> Vec<u8> {
    let mut event = b"Spec ID Event03\0".to_vec();
    event.extend_from_slice(&[0; 4]);
    // Specification 2.0, errata 0, pointers of 64 bits.
    event.extend_from_slice(&[0, 2, 0, 2]);
    event.extend_from_slice(&(banks.len() as u32).to_le_bytes());
    for bank in banks {
        event.extend_from_slice(&bank.id().to_le_bytes());
        event.extend_from_slice(&(bank.size() as u16).to_le_bytes());
    }
    event.push(0);
    event
}
