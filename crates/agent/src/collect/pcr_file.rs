//! The `.pcrs` file of tpm2-tools ("serialized"): its C structures as they lie in memory, little endian.

use assay_evidence::tpm::pcr::{PcrSelection, PcrValues};

/// Writes a TPML_PCR_SELECTION with all its slots, then a counted array of TPML_DIGEST with all theirs.
pub(super) fn serialize(selection: &PcrSelection, values: &PcrValues) -> Vec<u8> {
    let mut file = Vec::new();
    let banks: Vec<_> = selection.banks().collect();
    file.extend_from_slice(&length(banks.len()));
    for (bank, set) in &banks {
        let mut bits = [0u8; 4];
        for index in set.iter() {
            if let Some(byte) = bits.get_mut(usize::from(index.get() / 8)) {
                *byte |= 1 << (index.get() % 8);
            }
        }
        file.extend_from_slice(&bank.tpm_id().to_le_bytes());
        file.push(SELECT_BYTES);
        file.extend_from_slice(&bits);
        file.push(0);
    }
    file.resize(size_of::<u32>() + SELECTION_SLOTS * SELECTION_BYTES, 0);

    let digests: Vec<&[u8]> =
        selection.iter().filter_map(|(bank, index)| Some(values.get(bank, index)?.as_bytes())).collect();
    let lists = digests.chunks(DIGEST_SLOTS);
    file.extend_from_slice(&length(lists.len()));
    for list in lists {
        let end = file.len() + size_of::<u32>() + DIGEST_SLOTS * DIGEST_BYTES;
        file.extend_from_slice(&length(list.len()));
        for digest in list {
            let next = file.len() + DIGEST_BYTES;
            file.extend_from_slice(&u16::try_from(digest.len()).unwrap_or(0).to_le_bytes());
            file.extend_from_slice(digest);
            file.resize(next, 0);
        }
        file.resize(end, 0);
    }
    file
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

/// TPML_PCR_SELECTION.pcrSelections.
const SELECTION_SLOTS: usize = 16;
/// TPMS_PCR_SELECTION: hash, sizeofSelect, four bytes, one of padding.
const SELECTION_BYTES: usize = 8;
/// 24 PCRs.
const SELECT_BYTES: u8 = 3;
/// TPML_DIGEST.digests.
const DIGEST_SLOTS: usize = 8;
/// TPM2B_DIGEST: a size and the largest digest.
const DIGEST_BYTES: usize = 66;

#[cfg(test)]
mod tests {
    use assay_evidence::digest::{Digest, HashAlgorithm, PcrIndex};

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (bank, pcrs) in
            [(HashAlgorithm::Sha256, 0..16), (HashAlgorithm::Sha1, 3..4), (HashAlgorithm::Sha512, 0..24)]
        {
            let set = pcrs.clone().filter_map(PcrIndex::new).collect();
            let selection: PcrSelection = [(bank, set)].into_iter().collect();
            let values: PcrValues = pcrs
                .map(|index| {
                    (PcrIndex::new(index).unwrap(), Digest::filled(bank, u8::try_from(index).unwrap()))
                })
                .collect();
            let file = serialize(&selection, &values);
            let (read_selection, read_values) = PcrValues::from_tpm2_tools(&file).unwrap();
            assert_eq!((read_selection, read_values), (selection, values));
        }
    }

    #[test]
    fn the_size_is_that_of_tpm2_tools() {
        let set = (0..16).filter_map(PcrIndex::new).collect();
        let selection: PcrSelection = [(HashAlgorithm::Sha256, set)].into_iter().collect();
        let values = (0..16).map(|i| (PcrIndex::new(i).unwrap(), HashAlgorithm::Sha256.zero())).collect();
        assert_eq!(serialize(&selection, &values).len(), 1200);
    }
}
