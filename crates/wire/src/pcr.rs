//! PCR values and selections between messages and domain types.

use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use thiserror::Error;

use crate::edge;

/// Reads the PCR values of a quote.
pub fn values_from_wire(values: &[edge::PcrValue]) -> Result<PcrValues, PcrError> {
    if values.len() > PCR_VALUES_MAX {
        return Err(PcrError::TooMany { count: values.len() });
    }
    let mut read = PcrValues::new();
    for value in values {
        let bank = bank(&value.bank)?;
        let index = index(value.index)?;
        let digest = Digest::new(bank, &value.digest).ok_or(PcrError::Length {
            bank,
            index,
            length: value.digest.len(),
        })?;
        if read.insert(index, digest).is_some() {
            return Err(PcrError::Twice { bank, index });
        }
    }
    Ok(read)
}

/// Writes the PCR values of a quote.
pub fn values_to_wire(values: &PcrValues) -> Vec<edge::PcrValue> {
    values
        .iter()
        .map(|(bank, index, digest)| edge::PcrValue {
            bank: bank.name().to_owned(),
            index: u32::from(index.get()),
            digest: digest.as_bytes().to_vec().into(),
        })
        .collect()
}

/// Reads the selection a challenge asks for, in its order.
pub fn selection_from_wire(
    selection: &[edge::PcrSelection],
) -> Result<Vec<(HashAlgorithm, Vec<PcrIndex>)>, PcrError> {
    if selection.len() > HashAlgorithm::ALL.len() {
        return Err(PcrError::TooMany { count: selection.len() });
    }
    selection
        .iter()
        .map(|one| {
            if one.pcrs.len() > usize::from(PcrIndex::COUNT) {
                return Err(PcrError::TooMany { count: one.pcrs.len() });
            }
            let pcrs = one.pcrs.iter().map(|pcr| index(*pcr)).collect::<Result<_, _>>()?;
            Ok((bank(&one.bank)?, pcrs))
        })
        .collect()
}

/// Writes a selection.
pub fn selection_to_wire(selection: &[(HashAlgorithm, Vec<PcrIndex>)]) -> Vec<edge::PcrSelection> {
    selection
        .iter()
        .map(|(bank, pcrs)| edge::PcrSelection {
            bank: bank.name().to_owned(),
            pcrs: pcrs.iter().map(|pcr| u32::from(pcr.get())).collect(),
        })
        .collect()
}

/// A PCR list that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PcrError {
    /// More than a TPM has.
    #[error("{count} PCR values or selections in one message")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A bank we do not know; the name is bounded for the message.
    #[error("unknown PCR bank; known are sha1, sha256, sha384, sha512")]
    Bank,
    /// An index past 23.
    #[error("PCR {index} does not exist")]
    Index {
        /// The index.
        index: u32,
    },
    /// A digest that is not of its bank.
    #[error("PCR {index} of bank {bank} has {length} bytes")]
    Length {
        /// The bank.
        bank: HashAlgorithm,
        /// The index.
        index: PcrIndex,
        /// Bytes sent.
        length: usize,
    },
    /// A PCR sent twice.
    #[error("PCR {index} of bank {bank} is there twice")]
    Twice {
        /// The bank.
        bank: HashAlgorithm,
        /// The index.
        index: PcrIndex,
    },
}

fn bank(name: &str) -> Result<HashAlgorithm, PcrError> {
    HashAlgorithm::from_name(name).ok_or(PcrError::Bank)
}

fn index(index: u32) -> Result<PcrIndex, PcrError> {
    PcrIndex::new(index).ok_or(PcrError::Index { index })
}

/// Four banks of 24 PCRs.
const PCR_VALUES_MAX: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bank: &str, index: u32, length: usize) -> edge::PcrValue {
        edge::PcrValue { bank: bank.into(), index, digest: vec![7; length].into() }
    }

    #[test]
    fn values_survive_the_wire() {
        let sent = [value("sha1", 0, 20), value("sha256", 23, 32)];
        assert_eq!(values_to_wire(&values_from_wire(&sent).unwrap()), sent);
    }

    #[test]
    fn each_lie_has_its_name() {
        let refused = |values: &[edge::PcrValue]| values_from_wire(values).unwrap_err();
        assert_eq!(refused(&[value("md5", 0, 16)]), PcrError::Bank);
        assert_eq!(refused(&[value("sha256", 24, 32)]), PcrError::Index { index: 24 });
        assert!(matches!(refused(&[value("sha256", 1, 31)]), PcrError::Length { length: 31, .. }));
        assert!(matches!(refused(&vec![value("sha1", 1, 20); 2]), PcrError::Twice { .. }));
        assert_eq!(refused(&vec![value("sha1", 1, 20); 97]), PcrError::TooMany { count: 97 });
    }
}
