//! Replay: the PCR values that a log's digests make, in every bank it has.

use super::facts::extends;
use super::{BootLog, Event, EventType};
use crate::tpm::pcr::PcrValues;
use crate::{Digest, HashAlgorithm, PcrIndex};

/// The values of the PCRs that the log extends, per bank. PCRs it does not touch are not in it.
pub fn replay(log: &BootLog<'_>) -> PcrValues {
    let locality = startup_locality(log);
    let of_bank = |bank: &HashAlgorithm| {
        let mut values = [None; PcrIndex::COUNT as usize];
        for (_, pcr, digest) in extends(log, *bank) {
            if let Some(value) = values.get_mut(usize::from(pcr.get())) {
                let before = value.or_else(|| start(pcr, *bank, locality));
                *value = before.map(|before| before.extend(digest.as_bytes()));
            }
        }
        values
    };
    let values = log.banks().iter().flat_map(|bank| (0..).zip(of_bank(bank)));
    values.filter_map(|(index, value)| Some((PcrIndex::new(index)?, value?))).collect()
}

/// The values that a PCR goes through as the log is replayed, from its start on.
pub(crate) fn course(log: &BootLog<'_>, bank: HashAlgorithm, index: PcrIndex) -> Vec<Digest> {
    let mut values: Vec<Digest> = start(index, bank, startup_locality(log)).into_iter().collect();
    let of_pcr = log.events().iter().filter(|event| event.extends() == Some(index));
    for digest in of_pcr.filter_map(|event| event.digest(bank)) {
        values.extend(values.last().map(|value| value.extend(digest.as_bytes())));
    }
    values
}

/// PCR 0 starts with the locality of TPM2_Startup in its last byte, or with 4 where an H-CRTM measured first; every
/// other PCR that firmware extends with zeros (TPM 2.0 Part 1, "Initializing PCR"; Part 3, TPM2_Startup).
fn start(pcr: PcrIndex, bank: HashAlgorithm, locality: u8) -> Option<Digest> {
    let mut bytes = bank.zero().as_bytes().to_vec();
    if pcr.get() == 0 {
        *bytes.last_mut()? = locality;
    }
    Digest::new(bank, &bytes)
}

/// The locality that a StartupLocality event states before anything extends PCR 0, but 4 where that is done by an
/// H-CRTM. It needs no trust: with a wrong one PCR 0 does not replay.
fn startup_locality(log: &BootLog<'_>) -> u8 {
    let is_pcr_0 = |event: &&Event<'_>| event.extends().is_some_and(|pcr| pcr.get() == 0);
    let first = log.events().iter().find(is_pcr_0);
    if first.is_some_and(|event| event.event_type() == EventType::EFI_HCRTM_EVENT) {
        return LOCALITY_OF_HCRTM;
    }
    let first = first.map_or(usize::MAX, Event::number);
    log.events()
        .iter()
        .take_while(|event| event.number() < first)
        .filter(|event| event.event_type() == EventType::NO_ACTION)
        // Some firmware logs it in a slot of fixed size: what follows the locality is filling.
        .find_map(|event| event.data().strip_prefix(STARTUP_LOCALITY)?.first().copied())
        .unwrap_or(0)
}

/// TCG_EfiStartupLocalityEvent: this and one byte.
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";
/// Platform Firmware Profile, 10.4.5.3: an H-CRTM measures before TPM2_Startup, at locality 4.
const LOCALITY_OF_HCRTM: u8 = 4;
