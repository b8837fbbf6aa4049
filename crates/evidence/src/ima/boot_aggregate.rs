//! `boot_aggregate`: the first entry that a kernel makes, which ties its list to the boot PCRs.

use super::Entry;
use crate::tpm::pcr::PcrValues;
use crate::{Digest, HashAlgorithm, PcrIndex};

/// The name of the entry.
pub const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

impl Entry<'_> {
    /// Whether this is an entry over the boot PCRs. Of a violation nothing that it says is vouched for, its name neither.
    pub fn is_boot_aggregate(&self) -> bool {
        !self.is_violation() && self.path() == BOOT_AGGREGATE && self.buffer().is_empty()
    }
}

/// The `boot_aggregate` of these PCR values in `bank`; `None` where one of them is missing.
///
/// The kernel hashes PCRs 0 to 9, but for SHA-1 only 0 to 7 (ima_calc_boot_aggregate_tfm).
pub fn expected_boot_aggregate(bank: HashAlgorithm, values: &PcrValues) -> Option<Digest> {
    let last = if bank == HashAlgorithm::Sha1 { 7 } else { 9 };
    let value = |index| values.get(bank, PcrIndex::new(index)?).map(Digest::as_bytes);
    let values: Option<Vec<&[u8]>> = (0..=last).map(value).collect();
    Some(bank.hash(&values?))
}
