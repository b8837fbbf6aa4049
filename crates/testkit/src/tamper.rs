//! Alters bytes the way an attacker would: bits, lengths, order. Knows just enough of the formats to find a place.

use std::ops::Range;

/// Inverts one bit, counted from the first byte's lowest; does nothing past the end.
pub fn flip_bit(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Cuts bytes off the end.
pub fn truncate(bytes: &mut Vec<u8>, cut: usize) {
    bytes.truncate(bytes.len().saturating_sub(cut));
}

/// Swaps two ranges, the first before the second.
pub fn swap_ranges(bytes: &mut Vec<u8>, first: &Range<usize>, second: &Range<usize>) {
    let parts =
        [0..first.start, second.clone(), first.end..second.start, first.clone(), second.end..bytes.len()];
    *bytes = parts.iter().flat_map(|part| bytes.get(part.clone()).unwrap_or_default().to_vec()).collect();
}

/// Changes the last byte of an event's data in a boot log with one SHA-256 bank.
pub fn alter_event_data(log: &mut [u8], event: usize) {
    if let Some(place) = events(log).get(event) {
        flip_bit(log, (place.end - 1) * 8);
    }
}

/// Changes an event's digest.
pub fn alter_event_digest(log: &mut [u8], event: usize) {
    if let Some(place) = events(log).get(event) {
        flip_bit(log, (place.start + EVENT_DIGEST_AT) * 8);
    }
}

/// Moves an event to the end of the log.
pub fn move_event_last(log: &mut Vec<u8>, event: usize) {
    if let Some(place) = events(log).get(event) {
        let moved: Vec<u8> = log.drain(place.clone()).collect();
        log.extend(moved);
    }
}

/// Says that an event extended another PCR.
pub fn move_to_pcr(log: &mut [u8], event: usize, pcr: u32) {
    let Some(place) = events(log).get(event).cloned() else { return };
    if let Some(word) = log.get_mut(place.start..place.start + 4) {
        word.copy_from_slice(&pcr.to_le_bytes());
    }
}

/// Says that an event's data is four gigabytes long.
pub fn enlarge_event(log: &mut [u8], event: usize) {
    let Some(place) = events(log).get(event).cloned() else { return };
    let size = place.start + EVENT_SIZE_AT;
    if let Some(size) = log.get_mut(size..size + 4) {
        size.copy_from_slice(&u32::MAX.to_le_bytes());
    }
}

/// Adds an event that extends nothing to a boot log with one SHA-256 bank: it says another thing, and replays as before.
pub fn append_remark(log: &mut Vec<u8>, remark: &[u8]) {
    let size = u32::try_from(remark.len()).unwrap_or_default();
    for word in [0, EVENT_NO_ACTION, 1] {
        log.extend(word.to_le_bytes());
    }
    log.extend(TPM_ALG_SHA256.to_le_bytes());
    log.extend([0; 32]);
    log.extend(size.to_le_bytes());
    log.extend(remark);
}

/// Where the events after the first are, in a boot log with one SHA-256 bank.
fn events(log: &[u8]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut start = 32 + word(log, 28).unwrap_or(0);
    while let Some(size) = word(log, start + EVENT_SIZE_AT) {
        let end = start + EVENT_SIZE_AT + 4 + size;
        places.push(start..end);
        start = end;
    }
    places
}

/// Where the entries of a binary IMA list are.
pub fn ima_entries(list: &[u8]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut start = 0;
    while let Some(name) = word(list, start + IMA_NAME_SIZE_AT) {
        let data_size = start + IMA_NAME_SIZE_AT + 4 + name;
        let Some(data) = word(list, data_size) else { break };
        let end = data_size + 4 + data;
        places.push(start..end);
        start = end;
    }
    places
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

const EVENT_NO_ACTION: u32 = 3;
const TPM_ALG_SHA256: u16 = 0x000b;
/// PCR, type, count, algorithm; then a SHA-256 digest; then the size of the data.
const EVENT_DIGEST_AT: usize = 4 + 4 + 4 + 2;
const EVENT_SIZE_AT: usize = EVENT_DIGEST_AT + 32;
/// PCR and template digest come before the length of the template's name.
const IMA_NAME_SIZE_AT: usize = 4 + 20;
