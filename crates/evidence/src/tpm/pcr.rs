//! PCR values and selections: what a quote covers, and the values it is said to cover.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::read::{Reader, Truncated};

/// PCR values by bank and index. Believed by nobody until a quote's digest covers them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<(HashAlgorithm, PcrIndex), Digest>);

impl PcrValues {
    /// No values.
    pub const fn new() -> Self {
        PcrValues(BTreeMap::new())
    }

    /// Sets the value of a PCR in the digest's own bank; returns what was there before.
    pub fn insert(&mut self, index: PcrIndex, value: Digest) -> Option<Digest> {
        self.0.insert((value.algorithm(), index), value)
    }

    /// Takes over each value of `others` for a PCR that has none here.
    pub fn fill_from(&mut self, others: &PcrValues) {
        for (key, value) in &others.0 {
            self.0.entry(*key).or_insert(*value);
        }
    }

    /// The value of a PCR in a bank.
    pub fn get(&self, bank: HashAlgorithm, index: PcrIndex) -> Option<&Digest> {
        self.0.get(&(bank, index))
    }

    /// Every value, by bank, then by index.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex, &Digest)> {
        self.0.iter().map(|((bank, index), value)| (*bank, *index, value))
    }

    /// The banks with at least one value.
    pub fn banks(&self) -> impl Iterator<Item = HashAlgorithm> + '_ {
        HashAlgorithm::ALL.into_iter().filter(|bank| self.0.keys().any(|(of, _)| of == bank))
    }

    /// Which PCRs these are.
    pub fn selection(&self) -> PcrSelection {
        let of_bank =
            |bank| self.0.keys().filter(move |(of, _)| *of == bank).map(|(_, index)| *index).collect();
        self.banks().map(|bank| (bank, of_bank(bank))).collect()
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values there are, over all banks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads a `.pcrs` file as `tpm2_quote` and `tpm2_pcrread` write it in the "serialized" form.
    pub fn from_tpm2_tools(bytes: &[u8]) -> Result<(PcrSelection, PcrValues), PcrFileError> {
        // The file is the tool's memory on a little-endian machine: a TPML_PCR_SELECTION with all its sixteen
        // slots, a count, and that many TPML_DIGEST with all their eight slots of 64 bytes.
        let mut reader = Reader::new(bytes);
        let selection = tool_selection(&mut reader)?;
        let values = tool_values(&mut reader, &selection)?;
        if !reader.is_empty() {
            return Err(PcrFileError::Surplus);
        }
        Ok((selection, values))
    }
}

impl FromIterator<(PcrIndex, Digest)> for PcrValues {
    fn from_iter<I: IntoIterator<Item = (PcrIndex, Digest)>>(values: I) -> Self {
        PcrValues(values.into_iter().map(|(index, value)| ((value.algorithm(), index), value)).collect())
    }
}

/// The PCRs of one bank, a set that fits a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcrSet(u32);

impl PcrSet {
    /// Whether the PCR is in the set.
    pub fn contains(self, index: PcrIndex) -> bool {
        self.0 & Self::bit(index) != 0
    }

    /// The PCRs, ascending: the order in which a quote hashes them.
    pub fn iter(self) -> impl Iterator<Item = PcrIndex> {
        (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new).filter(move |index| self.contains(*index))
    }

    /// Whether there is no PCR in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a PCR.
    pub fn insert(&mut self, index: PcrIndex) {
        self.0 |= Self::bit(index);
    }

    fn bit(index: PcrIndex) -> u32 {
        1 << u32::from(index.get())
    }

    /// TPMS_PCR_SELECTION.pcrSelect: bit n of byte m is PCR 8m + n. `None` if a PCR does not exist.
    fn from_select(select: &[u8]) -> Option<Self> {
        let mut mask = 0u32;
        for (position, byte) in select.iter().enumerate() {
            let shift = u32::try_from(position).ok()?.checked_mul(8)?;
            mask |= u32::from(*byte).checked_shl(shift).filter(|_| shift < u32::BITS)?;
        }
        (mask >> PcrIndex::COUNT == 0).then_some(PcrSet(mask))
    }
}

impl Extend<PcrIndex> for PcrSet {
    fn extend<I: IntoIterator<Item = PcrIndex>>(&mut self, indexes: I) {
        indexes.into_iter().for_each(|index| self.insert(index));
    }
}

impl FromIterator<PcrIndex> for PcrSet {
    fn from_iter<I: IntoIterator<Item = PcrIndex>>(indexes: I) -> Self {
        PcrSet(indexes.into_iter().fold(0, |mask, index| mask | Self::bit(index)))
    }
}

/// Which PCRs of which banks, in the order the TPM hashes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrSelection(Vec<(HashAlgorithm, PcrSet)>);

impl PcrSelection {
    /// Reads a TPML_PCR_SELECTION (TPM 2.0 Part 2, 10.9.7).
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, SelectionError> {
        let count = reader.u32_be()?;
        if count > BANKS_MAX {
            return Err(SelectionError::Banks(count));
        }
        let mut banks = Vec::new();
        for _ in 0..count {
            let id = reader.u16_be()?;
            let size = reader.u8()?;
            let select = reader.bytes(usize::from(size))?;
            banks.extend(bank_selection(id, select)?);
        }
        Ok(PcrSelection(banks))
    }

    /// Whether a PCR of a bank is selected.
    pub fn contains(&self, bank: HashAlgorithm, index: PcrIndex) -> bool {
        self.0.iter().any(|(of, set)| *of == bank && set.contains(index))
    }

    /// The banks with their PCRs, as the TPM lists them.
    pub fn banks(&self) -> impl Iterator<Item = (HashAlgorithm, PcrSet)> + '_ {
        self.0.iter().copied()
    }

    /// Every selected PCR in the order the TPM hashes them.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex)> + '_ {
        self.banks().flat_map(|(bank, set)| set.iter().map(move |index| (bank, index)))
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, set)| set.is_empty())
    }
}

impl FromIterator<(HashAlgorithm, PcrSet)> for PcrSelection {
    fn from_iter<I: IntoIterator<Item = (HashAlgorithm, PcrSet)>>(banks: I) -> Self {
        PcrSelection(banks.into_iter().collect())
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (bank, set)) in self.banks().enumerate() {
            write!(f, "{}{bank}:", if position == 0 { "" } else { "+" })?;
            for (position, index) in set.iter().enumerate() {
                write!(f, "{}{index}", if position == 0 { "" } else { "," })?;
            }
        }
        Ok(())
    }
}

/// A PCR selection that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SelectionError {
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// More banks than a TPM has.
    #[error("{0} PCR banks selected, at most {BANKS_MAX} exist")]
    Banks(u32),
    /// PCRs of a bank whose algorithm we do not know are selected.
    #[error("PCRs of an unknown bank selected: algorithm {0:#06x}")]
    UnknownBank(u16),
    /// A PCR past the last is selected.
    #[error("PCR selection names a PCR of {} or more", PcrIndex::COUNT)]
    Index,
}

/// A `.pcrs` file that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PcrFileError {
    /// The file ends too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Its selection is not one.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A count in it is larger than the format allows.
    #[error("{count} {what}, at most {max} fit")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are said to be.
        count: u32,
        /// How many there may be.
        max: u32,
    },
    /// A value does not have its bank's size.
    #[error("{bank} PCR {index} has {size} bytes")]
    DigestSize {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        index: PcrIndex,
        /// The size found.
        size: u16,
    },
    /// A selected PCR has no value.
    #[error("{bank} PCR {index} is selected and has no value")]
    Missing {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        index: PcrIndex,
    },
    /// There are values or bytes that the selection does not name.
    #[error("there is more than the selection names")]
    Surplus,
}

fn tool_selection(reader: &mut Reader<'_>) -> Result<PcrSelection, PcrFileError> {
    let count = reader.u32_le()?;
    if count > BANKS_MAX {
        return Err(SelectionError::Banks(count).into());
    }
    let mut banks = Vec::new();
    for slot in 0..BANKS_MAX {
        let id = reader.u16_le()?;
        let size = reader.u8()?;
        let select = reader.bytes(TOOL_SELECT_BYTES)?;
        // The structure is padded to its two-byte alignment.
        reader.u8()?;
        if slot < count {
            let select = select.get(..usize::from(size)).ok_or(SelectionError::Index)?;
            banks.extend(bank_selection(id, select)?);
        }
    }
    Ok(PcrSelection(banks))
}

fn tool_values(reader: &mut Reader<'_>, selection: &PcrSelection) -> Result<PcrValues, PcrFileError> {
    let lists = reader.u32_le()?;
    if lists > TOOL_LISTS_MAX {
        return Err(PcrFileError::Count { what: "digest lists", count: lists, max: TOOL_LISTS_MAX });
    }
    let mut wanted = selection.iter();
    let mut values = PcrValues::new();
    for _ in 0..lists {
        let count = reader.u32_le()?;
        if count > TOOL_DIGESTS {
            return Err(PcrFileError::Count { what: "digests", count, max: TOOL_DIGESTS });
        }
        for slot in 0..TOOL_DIGESTS {
            let size = reader.u16_le()?;
            let buffer = reader.bytes(TOOL_DIGEST_BYTES)?;
            if slot >= count {
                continue;
            }
            let (bank, index) = wanted.next().ok_or(PcrFileError::Surplus)?;
            let value = buffer
                .get(..usize::from(size))
                .and_then(|digest| Digest::new(bank, digest))
                .ok_or(PcrFileError::DigestSize { bank, index, size })?;
            values.insert(index, value);
        }
    }
    match wanted.next() {
        Some((bank, index)) => Err(PcrFileError::Missing { bank, index }),
        None => Ok(values),
    }
}

/// An unknown bank is harmless as long as none of its PCRs is selected.
fn bank_selection(id: u16, select: &[u8]) -> Result<Option<(HashAlgorithm, PcrSet)>, SelectionError> {
    let set = PcrSet::from_select(select).ok_or(SelectionError::Index)?;
    match HashAlgorithm::from_tpm_id(id) {
        Some(bank) => Ok(Some((bank, set))),
        None if set.is_empty() => Ok(None),
        None => Err(SelectionError::UnknownBank(id)),
    }
}

/// TPM 2.0 Part 2, HASH_COUNT: the slots of a TPML_PCR_SELECTION in the tools' headers.
pub const BANKS_MAX: u32 = 16;
/// Every PCR of every bank, eight in a list.
const TOOL_LISTS_MAX: u32 = BANKS_MAX * 3;
/// Slots of a TPML_DIGEST.
const TOOL_DIGESTS: u32 = 8;
/// Room for a digest in a TPM2B_DIGEST of the tools.
const TOOL_DIGEST_BYTES: usize = 64;
/// TPM2_PCR_SELECT_MAX of the tools' headers.
const TOOL_SELECT_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<PcrSelection, SelectionError> {
        PcrSelection::parse(&mut Reader::new(bytes))
    }

    fn index(index: u32) -> PcrIndex {
        PcrIndex::new(index).unwrap()
    }

    #[test]
    fn selection_is_read_in_the_tpms_order() {
        let selection = parse(&[0, 0, 0, 2, 0, 0x0c, 3, 1, 4, 0, 0, 0x0b, 2, 0x80, 0]).unwrap();
        assert_eq!(selection.to_string(), "sha384:0,10+sha256:7");
        assert!(selection.contains(HashAlgorithm::Sha384, index(10)));
        assert!(!selection.contains(HashAlgorithm::Sha256, index(10)));
        assert_eq!(selection.iter().count(), 3);
    }

    #[test]
    fn an_unknown_bank_matters_only_if_selected() {
        assert!(parse(&[0, 0, 0, 1, 0, 0x12, 3, 0, 0, 0]).unwrap().is_empty());
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0x12, 3, 1, 0, 0]), Err(SelectionError::UnknownBank(0x12)));
    }

    #[test]
    fn refuses_what_no_tpm_has() {
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0x0b, 4, 0, 0, 0, 1]), Err(SelectionError::Index));
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0x0b, 6, 0, 0, 0, 0, 0, 1]), Err(SelectionError::Index));
        assert_eq!(parse(&[0xff; 4]), Err(SelectionError::Banks(u32::MAX)));
    }

    /// A file with `count` values of `size` bytes for the PCRs of a SHA-256 selection.
    fn file(select: [u8; 3], count: u32, size: u16) -> Vec<u8> {
        let mut bytes = 1u32.to_le_bytes().to_vec();
        bytes.extend([0x0b, 0, 3]);
        bytes.extend(select);
        bytes.resize(4 + 16 * 8, 0);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        for slot in 0..8 {
            bytes.extend(size.to_le_bytes());
            bytes.extend([slot; 64]);
        }
        bytes
    }

    #[test]
    fn tool_files_give_each_selected_pcr_its_value() {
        let (selection, values) = PcrValues::from_tpm2_tools(&file([0x81, 0, 0], 2, 32)).unwrap();
        assert_eq!(selection.to_string(), "sha256:0,7");
        assert_eq!(values.len(), 2);
        let second = values.get(HashAlgorithm::Sha256, index(7)).unwrap();
        assert_eq!(second.as_bytes(), [1; 32]);
    }

    #[test]
    fn tool_files_that_do_not_add_up_are_refused() {
        let sha256 = HashAlgorithm::Sha256;
        let error = |bytes: &[u8]| PcrValues::from_tpm2_tools(bytes).unwrap_err();
        let missing = PcrFileError::Missing { bank: sha256, index: index(7) };
        assert_eq!(error(&file([0x81, 0, 0], 1, 32)), missing);
        assert_eq!(error(&file([0x01, 0, 0], 2, 32)), PcrFileError::Surplus);
        let size = PcrFileError::DigestSize { bank: sha256, index: index(0), size: 20 };
        assert_eq!(error(&file([0x01, 0, 0], 1, 20)), size);
        assert!(matches!(error(&file([0x01, 0, 0], u32::MAX, 32)), PcrFileError::Count { .. }));
        assert_eq!(error(&[file([1, 0, 0], 1, 32), vec![0]].concat()), PcrFileError::Surplus);
    }
}
