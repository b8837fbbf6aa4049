//! What systemd adds to PCR 11 while it starts and stops: the name of each phase, after the log has ended.

use crate::Digest;

/// Whether `quoted` is `replayed` and then the names of phases in their order, each at most once.
///
/// Such an end shows that the log has everything before it, as a log does that replays exactly: nobody can find
/// another beginning that hashes to the same value.
pub(crate) fn reached_by_phases(replayed: &Digest, quoted: &Digest) -> bool {
    let mut values = vec![*replayed];
    for phase in PHASES {
        let measured = replayed.algorithm().hash(&[phase.as_bytes()]);
        let extended: Vec<Digest> = values.iter().map(|value| value.extend(measured.as_bytes())).collect();
        values.extend(extended);
    }
    values.contains(quoted)
}

/// systemd-pcrphase.service(8). Machines without an initrd lack the first two. Every choice of them is 64 values.
const PHASES: [&str; 6] = ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlgorithm;

    #[test]
    fn phases_count_in_their_order_alone() {
        let start = HashAlgorithm::Sha256.hash(&[b"the log's value"]);
        let check = |names: &[&str], expected: bool| {
            let quoted = names.iter().fold(start, |value, name| {
                value.extend(HashAlgorithm::Sha256.hash(&[name.as_bytes()]).as_bytes())
            });
            assert_eq!(reached_by_phases(&start, &quoted), expected, "{names:?}");
        };
        check(&[], true);
        check(&["enter-initrd", "leave-initrd", "sysinit", "ready"], true);
        check(&["sysinit", "ready", "shutdown", "final"], true);
        check(&["ready", "sysinit"], false);
        check(&["ready", "ready"], false);
        check(&["enter-initrd", "another"], false);
    }
}
