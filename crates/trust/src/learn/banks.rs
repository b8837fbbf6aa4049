//! Learning which PCR banks are active, and what firmware measured into those by which a boot is not judged.

use assay_evidence::tpm::banks::ActiveBanks;
use assay_evidence::verify::Claims;
use assay_evidence::{HashAlgorithm, PcrIndex};

use crate::policy::Bank;

/// The active banks, where the TPM said so. Of one that nobody can replay nothing is learned.
pub(super) fn active(claims: &Claims) -> Option<Vec<Bank>> {
    let banks = claims.banks().filter(|banks| banks.unknown().is_empty())?;
    Some(banks.known().iter().copied().map(Bank).collect())
}

/// The firmware's PCRs in every active bank but one.
pub(super) fn beside(
    claims: &Claims,
    judged: HashAlgorithm,
) -> impl Iterator<Item = (HashAlgorithm, PcrIndex)> {
    let others = claims.banks().map(ActiveBanks::known).unwrap_or_default().iter().copied();
    let others = others.filter(move |bank| *bank != judged);
    others.flat_map(|bank| PcrIndex::of_firmware().map(move |index| (bank, index)))
}
