//! Boots that differ in one thing alone become one that accepts either: nothing is mixed by it.
//!
//! Half of one boot with half of another would be a third that nobody has seen. But where everything else is the same, two
//! values of one thing are two boots and no more. The firmware's settings (PCRs 1, 3, 5 and 6) count as one such thing:
//! they differ from device to device, in partitions and boot options, and start nothing that other PCRs do not show.

use std::collections::BTreeMap;

use assay_evidence::PcrIndex;

use crate::policy::{Alternative, Pcr, join_events};

/// The fewest boots that accept what these do; of one thing each can differ from the next.
pub(super) fn joined(mut boots: Vec<Alternative>) -> Vec<Alternative> {
    loop {
        let before = boots.len();
        for thing in Thing::all(&boots) {
            boots = thing.join(boots);
        }
        if boots.len() == before {
            return boots;
        }
    }
}

/// Something of a boot that has one value in each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Settings,
    /// What a PCR holds, by value or event by event.
    Pcr(PcrIndex),
    Line,
    FirmwareVersion,
}

impl Thing {
    fn all(boots: &[Alternative]) -> Vec<Thing> {
        let values = boots.iter().flat_map(|boot| boot.pcr.iter().map(|(_, index, _)| Thing::Pcr(index)));
        let sequences = boots.iter().flat_map(|boot| boot.boot.sequence.keys().map(|pcr| Thing::Pcr(pcr.0)));
        let mut things: Vec<Thing> = [Thing::Settings, Thing::Line, Thing::FirmwareVersion]
            .into_iter()
            .chain(values)
            .chain(sequences)
            .collect();
        things.sort_unstable();
        things.dedup();
        things
    }

    /// Joins the boots that are the same in all but this.
    fn join(self, boots: Vec<Alternative>) -> Vec<Alternative> {
        let mut groups: BTreeMap<String, Alternative> = BTreeMap::new();
        for mut boot in boots {
            let mut rest = boot.clone();
            let taken = self.take(&mut rest);
            let mut events = BTreeMap::new();
            std::mem::swap(&mut events, &mut rest.boot.events);
            // Where one of them says nothing of it, it accepts anything.
            let is_said = taken != Alternative::default();
            let key = serde_json::to_string(&(is_said, &rest)).expect("every key of a policy is text");
            match groups.get_mut(&key) {
                Some(group) => {
                    self.add(group, &taken);
                    join_events(&mut group.boot.events, &events);
                }
                None => {
                    boot.boot.events = events;
                    groups.insert(key, boot);
                }
            }
        }
        groups.into_values().collect()
    }

    /// Takes it out of a boot.
    fn take(self, boot: &mut Alternative) -> Alternative {
        let mut taken = Alternative::default();
        match self {
            Thing::Settings => {
                for index in SETTINGS_PCRS.into_iter().filter_map(PcrIndex::new) {
                    taken.pcr.allow_all(&boot.pcr.take(index));
                }
            }
            Thing::Pcr(index) => {
                taken.pcr = boot.pcr.take(index);
                let sequences = boot.boot.sequence.remove(&Pcr(index));
                taken.boot.sequence.extend(sequences.map(|sequences| (Pcr(index), sequences)));
            }
            Thing::Line => {
                taken.boot.kernel_command_lines = boot.boot.kernel_command_lines.take();
                taken.boot.kernel_command_line_patterns =
                    std::mem::take(&mut boot.boot.kernel_command_line_patterns);
            }
            Thing::FirmwareVersion => taken.boot.firmware_versions = boot.boot.firmware_versions.take(),
        }
        taken
    }

    /// Accepts what was taken as well.
    fn add(self, group: &mut Alternative, taken: &Alternative) {
        group.pcr.allow_all(&taken.pcr);
        for (pcr, sequences) in &taken.boot.sequence {
            add_new(group.boot.sequence.entry(*pcr).or_default(), sequences);
        }
        let (boot, other) = (&mut group.boot, &taken.boot);
        for (mine, theirs) in [
            (&mut boot.kernel_command_lines, &other.kernel_command_lines),
            (&mut boot.firmware_versions, &other.firmware_versions),
        ] {
            if let Some(theirs) = theirs {
                add_new(mine.get_or_insert_default(), theirs);
            }
        }
        add_new(&mut boot.kernel_command_line_patterns, &other.kernel_command_line_patterns);
    }
}

fn add_new<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// TCG PC Client Platform Firmware Profile, 3.3.4: configuration of the platform, of option ROMs, of the boot and the disk, and
/// what the maker likes.
const SETTINGS_PCRS: [u32; 4] = [1, 3, 5, 6];

#[cfg(test)]
mod tests {
    use super::*;
    use assay_evidence::{Digest, HashAlgorithm};

    fn value(name: char) -> Digest {
        HashAlgorithm::Sha256.hash(&[name.to_string().as_bytes()])
    }

    /// A boot by its values of PCRs 1, 4, 5 and 8, a letter each.
    fn boot(values: &str) -> Alternative {
        let mut boot = Alternative::default();
        for (index, name) in [1, 4, 5, 8].into_iter().zip(values.chars()) {
            boot.pcr.allow(PcrIndex::new(index).unwrap(), value(name));
        }
        boot
    }

    fn check(boots: &[&str], expected: usize) {
        let joined = joined(boots.iter().map(|values| boot(values)).collect());
        assert_eq!(joined.len(), expected, "{boots:?}");
        // What was seen is accepted still.
        for seen in boots.iter().map(|values| boot(values)) {
            let accepts = |one: &Alternative| {
                seen.pcr.iter().all(|(_, index, values)| {
                    one.pcr
                        .iter()
                        .any(|(_, of, known)| of == index && values.iter().all(|value| known.contains(value)))
                })
            };
            assert!(joined.iter().any(accepts), "{boots:?}");
        }
    }

    #[test]
    fn boots_are_joined_where_nothing_is_mixed() {
        check(&["aaaa", "aaaa"], 1);
        check(&["aaaa", "abaa"], 1);
        check(&["aaaa", "abab"], 2);
        check(&["aaaa", "abaa", "abab"], 2);
        // Each with each was seen.
        check(&["aaaa", "abaa", "aaab", "abab"], 1);
        // Settings differ from device to device, several at once.
        check(&["aaaa", "baba", "caca"], 1);
        check(&["aaaa", "bbba"], 2);
    }

    #[test]
    fn what_says_nothing_is_not_joined_with_what_does() {
        let mut silent = boot("aaaa");
        silent.pcr.take(PcrIndex::new(8).unwrap());
        assert_eq!(joined(vec![boot("aaaa"), silent]).len(), 2);
    }
}
