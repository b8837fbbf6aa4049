//! What systemd adds to PCRs after the boot log has ended, and of which everybody knows the digest.
//!
//! `os-separator` (systemd 261 and later, after systemd-stub) closes the PCRs that firmware and boot loaders extended;
//! the names of phases follow each other in PCR 11 while the system starts, stops and starts again without the kernel.

use std::iter::successors;

use crate::{Digest, PcrIndex};

/// The values that a PCR went through from `logged`, where the log leaves it, to `quoted`, both among them; `None` where
/// anything else was extended.
///
/// Such an end shows that the log has everything before it, as a log does that replays exactly: nobody can find
/// another beginning that hashes to the same value.
pub(crate) fn stages(index: PcrIndex, logged: &Digest, quoted: &Digest) -> Option<Vec<Digest>> {
    match index.get() {
        PHASES_PCR => is_reached_by_phases(logged, quoted).then(|| vec![*logged, *quoted]),
        pcr if SEPARATED_PCRS.contains(&pcr) => {
            let separator = logged.algorithm().hash(&[OS_SEPARATOR.as_bytes()]);
            let next = |value: &Digest| Some(value.extend(separator.as_bytes()));
            let values: Vec<Digest> = successors(Some(*logged), next).take(STARTS_MAX + 1).collect();
            let end = values.iter().position(|value| value == quoted)?;
            Some(values.into_iter().take(end + 1).collect())
        }
        _ => None,
    }
}

/// The value of a PCR that user space closes, once it has; `None` for others.
pub(crate) fn separated(index: PcrIndex, logged: &Digest) -> Option<Digest> {
    let separator = || logged.algorithm().hash(&[OS_SEPARATOR.as_bytes()]);
    SEPARATED_PCRS.contains(&index.get()).then(|| logged.extend(separator().as_bytes()))
}

/// Whether `quoted` is `logged` and then the names of phases in their order, each at most once, and after that all of
/// them but those of the initrd for each further start of user space.
fn is_reached_by_phases(logged: &Digest, quoted: &Digest) -> bool {
    let hash = |word: &str| logged.algorithm().hash(&[word.as_bytes()]);
    let mut values = vec![*logged];
    for phase in PHASES.map(hash) {
        let after: Vec<Digest> = values.iter().map(|value| value.extend(phase.as_bytes())).collect();
        values.extend(after);
    }
    // Nearly every machine started user space once, so that the long way is gone only where that is not it.
    if values.contains(quoted) {
        return true;
    }
    let again = PHASES_OF_A_START.map(hash);
    values.iter().any(|value| {
        // A start follows the end of the one before.
        let starts = again.iter().cycle().take(again.len() * STARTS_MAX).scan(*value, |value, phase| {
            *value = value.extend(phase.as_bytes());
            Some(*value)
        });
        starts.into_iter().any(|value| value == *quoted)
    })
}

/// systemd-pcrosseparator.service(8): what firmware, boot loaders and systemd-stub extend, but for GRUB's PCR 8.
const SEPARATED_PCRS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14];
const OS_SEPARATOR: &str = "os-separator";
/// Where systemd-pcrphase extends.
const PHASES_PCR: u8 = 11;
/// systemd-pcrphase.service(8). Machines without an initrd lack the first two. Every choice of them is 64 values.
const PHASES: [&str; 6] = ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"];
/// What of these a start of user space alone goes through (systemd-soft-reboot.service(8)).
const PHASES_OF_A_START: [&str; 4] = ["sysinit", "ready", "shutdown", "final"];
/// Starts of user space, or of another kernel by kexec, on one boot of the firmware that are told apart from inventions.
const STARTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlgorithm;

    fn extended(value: &Digest, word: &str) -> Digest {
        value.extend(value.algorithm().hash(&[word.as_bytes()]).as_bytes())
    }

    fn check(index: u32, words: &[&str], expected: Option<usize>) {
        let start = HashAlgorithm::Sha256.hash(&[b"the log's value"]);
        let quoted = words.iter().fold(start, |value, word| extended(&value, word));
        let found = stages(PcrIndex::new(index).unwrap(), &start, &quoted).map(|values| values.len());
        assert_eq!(found, expected, "PCR {index} {words:?}");
    }

    #[test]
    fn phases_count_in_their_order_alone() {
        let reached = Some(2);
        check(11, &[], reached);
        check(11, &["enter-initrd", "leave-initrd", "sysinit", "ready"], reached);
        check(11, &["sysinit", "ready", "shutdown", "final"], reached);
        check(11, &["sysinit", "ready", "shutdown", "final", "sysinit", "ready"], reached);
        check(11, &["ready", "sysinit", "ready"], reached);
        check(11, &["ready", "ready"], None);
        check(11, &["ready", "enter-initrd"], None);
        check(11, &["enter-initrd", "another"], None);
        check(11, &["os-separator"], None);
    }

    #[test]
    fn the_separator_of_user_space_counts_where_it_belongs() {
        check(4, &[], Some(1));
        check(4, &["os-separator"], Some(2));
        check(9, &["os-separator", "os-separator"], Some(3));
        check(4, &["os-separator", "another"], None);
        check(4, &["another", "os-separator"], None);
        check(8, &["os-separator"], None);
        check(15, &["os-separator"], None);
    }
}
