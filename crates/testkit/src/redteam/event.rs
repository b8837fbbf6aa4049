//! Events of a boot log as the attacker holds them: to be taken apart, changed and written again.

use crate::Bank;
use crate::machine::boot_log::{EventType, spec_id_event};
use crate::pcrs::Measurement;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEvent {
    /// The PCR it extends.
    pub pcr: u32,
    /// What the log calls it, by its TCG number.
    pub event_type: u32,
    /// What the log says about it.
    pub data: Vec<u8>,
    /// What was hashed. Whoever made or owns what was measured knows it.
    pub measured: Vec<u8>,
    /// Digests in the log that are not those of `measured`: inventions, for banks that nobody quotes.
    pub invented: Vec<(Bank, Vec<u8>)>,
}

impl BootEvent {
    /// An event whose digest is the hash of its data.
    pub fn new(pcr: u32, event_type: EventType, data: &[u8]) -> BootEvent {
        BootEvent::measuring(pcr, event_type, data, data)
    }

    /// An event whose digest is the hash of something that the data only describes.
    pub fn measuring(pcr: u32, event_type: EventType, data: &[u8], measured: &[u8]) -> BootEvent {
        BootEvent {
            pcr,
            event_type: event_type as u32,
            data: data.to_vec(),
            measured: measured.to_vec(),
            invented: Vec::new(),
        }
    }

    /// Whether it extends nothing.
    pub fn is_remark(&self) -> bool {
        self.event_type == EventType::NoAction as u32
    }

    /// What the TPM is told, in these banks.
    pub fn measurement(&self, banks: &[Bank]) -> Measurement {
        Measurement::of(banks, self.pcr, &self.measured)
    }

    fn digest(&self, bank: Bank) -> Vec<u8> {
        if self.is_remark() {
            return vec![0; bank.size()];
        }
        let invented = self.invented.iter().find(|(of, _)| *of == bank);
        invented.map_or_else(|| bank.hash(&self.measured), |(_, digest)| digest.clone())
    }
}

/// The log's bytes, with digests for these banks (TCG PC Client Platform Firmware Profile, 10.2.2).
pub fn encode(events: &[BootEvent], banks: &[Bank]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let word = |bytes: &mut Vec<u8>, value: usize| {
        bytes.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    };
    let header = spec_id_event(banks);
    word(&mut bytes, 0);
    word(&mut bytes, EventType::NoAction as usize);
    bytes.extend_from_slice(&[0; 20]);
    word(&mut bytes, header.len());
    bytes.extend_from_slice(&header);
    for event in events {
        bytes.extend_from_slice(&event.pcr.to_le_bytes());
        bytes.extend_from_slice(&event.event_type.to_le_bytes());
        word(&mut bytes, banks.len());
        for bank in banks {
            bytes.extend_from_slice(&bank.id().to_le_bytes());
            bytes.extend_from_slice(&event.digest(*bank));
        }
        word(&mut bytes, event.data.len());
        bytes.extend_from_slice(&event.data);
    }
    bytes
}
