//! The boot log of a confidential virtual machine (ACPI table CCEL), whose firmware measures without a TPM.
//!
//! The events are those of a boot log, but where a boot log has the PCR they have a measurement register: 0 for what
//! was measured before the machine started (TDX's MRTD), 1 to 4 for RTMR 0 to 3. The UEFI specification (38.4.1) maps
//! PCRs 1 and 7 to register 1, 2 to 6 to register 2 and 8 to 15 to register 3, so that [`facts`](super::facts), which
//! go by PCR, do not apply. As with any log, nothing in it is known before it replays to attested registers.

use std::collections::BTreeMap;

use super::{BootLog, BootLogError, Event, parse};
use crate::{Digest, HashAlgorithm};

/// A parsed log: views into its bytes.
#[derive(Clone, Debug)]
pub struct CcLog<'a>(BootLog<'a>);

/// A run-time measurement register, RTMR 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rtmr(u8);

impl Rtmr {
    /// Its number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// Parses what the kernel shows as the table's data: a log, and the rest of its memory area, filled with one byte.
pub fn parse_cc(bytes: &[u8]) -> Result<CcLog<'_>, BootLogError> {
    parse::parse_area(bytes).map(CcLog)
}

impl<'a> CcLog<'a> {
    /// The events that extend a register, with the register.
    pub fn events(&self) -> impl Iterator<Item = (Rtmr, &Event<'a>)> {
        self.0.events().iter().filter_map(|event| {
            let index = event.extends()?.get();
            Some((Rtmr(index.checked_sub(1)?), event))
        })
    }

    /// The values that the log makes of the registers it extends, all of SHA-384 and zero at the start.
    pub fn replay(&self) -> BTreeMap<Rtmr, Digest> {
        let mut values = BTreeMap::new();
        for (register, event) in self.events() {
            let Some(digest) = event.digest(HashAlgorithm::Sha384) else { continue };
            let value = values.entry(register).or_insert(HashAlgorithm::Sha384.zero());
            *value = value.extend(digest.as_bytes());
        }
        values
    }
}
