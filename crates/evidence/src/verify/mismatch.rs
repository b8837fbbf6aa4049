//! Why a boot log and PCRs disagree, as far as the replay shows: what is harmless is not called a lie.

use crate::boot_log::{BootLog, course};
use crate::check::Mismatch;
use crate::digest::{Digest, HashAlgorithm, PcrIndex};

/// A quoted PCR that a log does not replay to.
pub(super) struct Misfit {
    pub(super) bank: HashAlgorithm,
    pub(super) index: PcrIndex,
    pub(super) quoted: Digest,
}

/// What explains all of these. A lie can look like any of it, so that the evidence is refused all the same.
pub(super) fn mismatch(log: &BootLog<'_>, misfits: &[Misfit]) -> Mismatch {
    let course = |misfit: &Misfit| course(log, misfit.bank, misfit.index);
    let holds_less = |misfit: &Misfit| course(misfit).contains(&misfit.quoted);
    let is_closed_later =
        |misfit: &Misfit| course(misfit).last().is_some_and(|end| is_closed_by(end, &misfit.quoted));
    let is_among = |indexes: &[u8]| misfits.iter().any(|misfit| indexes.contains(&misfit.index.get()));
    if misfits.iter().all(holds_less) {
        return Mismatch::OtherBoot;
    }
    // What the log should end with is in the PCRs: some other PCRs may lack events that nobody can guess.
    if misfits.iter().any(is_closed_later) && !misfits.iter().any(holds_less) {
        return Mismatch::EndMissing;
    }
    // The same firmware, set up alike, that started something else.
    let boots = BOOT_PATH_PCRS.iter().filter(|index| is_among(&[**index])).count();
    if boots > 1 && !is_among(&FIRMWARE_PCRS) {
        return Mismatch::OtherBoot;
    }
    Mismatch::Contradiction
}

/// Whether only what every boot ends with was extended from `end` to `quoted`.
fn is_closed_by(end: &Digest, quoted: &Digest) -> bool {
    let algorithm = end.algorithm();
    let mut values = vec![*end];
    for _ in 0..CLOSINGS_MAX {
        let extended = |value: &Digest| {
            let value = *value;
            CLOSINGS.map(|closing| value.extend(algorithm.hash(&[closing]).as_bytes()))
        };
        values = values.iter().flat_map(extended).collect();
        if values.contains(quoted) {
            return true;
        }
    }
    false
}

/// Platform Firmware Profile, 3.3.4 and 10.4.4: separators, and what firmware says while it hands over.
const CLOSINGS: [&[u8]; 5] = [
    &[0; 4],
    &[0xff; 4],
    b"Calling EFI Application from Boot Option",
    b"Exit Boot Services Invocation",
    b"Exit Boot Services Returned with Success",
];
/// Closings of one PCR in a row: both ends of leaving boot services, behind a separator.
const CLOSINGS_MAX: usize = 3;
/// Where boot loaders and kernels are measured, with what they read.
const BOOT_PATH_PCRS: [u8; 3] = [4, 8, 9];
/// Where firmware measures itself and how it is set up.
const FIRMWARE_PCRS: [u8; 4] = [0, 2, 3, 7];
