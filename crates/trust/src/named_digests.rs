//! Digests by the name that the kernel logs, as a policy lists them: packed, since policies list files by the hundred
//! thousand and are held as long as they are in force.
//!
//! A map of owned names and lists takes five times as much, in as many small pieces as it has files. Here it is one run of
//! records, and a table of where they begin.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use assay_evidence::read::Reader;
use assay_evidence::{Digest, HashAlgorithm};

use crate::path;
use crate::policy::PolicyError;

/// Lists of digests by name. A name that the policy writes in two ways has both lists.
#[derive(Debug)]
pub(crate) struct NamedDigests {
    /// Records, one after the other: how long the name is and what follows it, the name, and of each digest its
    /// TPM_ALG_ID and its bytes.
    records: Box<[u8]>,
    /// Where records begin, each at or behind the place that its name hashes to ([`place`]); a power of two of them, at
    /// least half of them [`FREE`].
    table: Box<[u32]>,
}

impl NamedDigests {
    /// Packs the lists of a policy, which come by their names as text.
    pub(crate) fn pack(lists: &BTreeMap<String, Vec<Digest>>) -> Result<Self, PolicyError> {
        let mut records = Vec::with_capacity(lists.iter().map(|(text, digests)| bytes(text, digests)).sum());
        let mut table = vec![FREE; lists.len().saturating_mul(2).next_power_of_two()];
        for (text, digests) in lists {
            let Some(name) = path::from_text(text) else {
                return Err(PolicyError::Path { path: text.clone() });
            };
            let name = path::as_logged(&name);
            let start = number(records.len());
            if let Some(free) = probe(&table, &name).find(|place| table.get(*place) == Some(&FREE))
                && let Some(free) = table.get_mut(free)
            {
                *free = start;
            }
            write(&mut records, &name, digests);
        }
        records.shrink_to_fit();
        Ok(NamedDigests { records: records.into_boxed_slice(), table: table.into_boxed_slice() })
    }

    /// Whether no name has a list.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The digests of a name; none where it is not listed.
    pub(crate) fn of(&self, name: &[u8]) -> impl Iterator<Item = Digest> {
        probe(&self.table, name)
            .map_while(|place| self.table.get(place).copied().filter(|start| *start != FREE))
            .filter_map(|start| self.record(start))
            .filter(move |(of, _)| *of == name)
            .flat_map(|(_, digests)| Digests(Reader::new(digests)))
    }

    /// A name and its packed digests.
    fn record(&self, start: u32) -> Option<(&[u8], &[u8])> {
        let mut reader = Reader::new(self.records.get(usize::try_from(start).ok()?..)?);
        let (name, digests) = (reader.u32_le().ok()?, reader.u32_le().ok()?);
        let name = reader.bytes(usize::try_from(name).ok()?).ok()?;
        Some((name, reader.bytes(usize::try_from(digests).ok()?).ok()?))
    }
}

/// The places at which a name may be found, the likeliest first.
fn probe(table: &[u32], name: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let last = table.len().saturating_sub(1);
    // What names collide is up to whoever writes the policy, so that nothing is gained by a key.
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    // The lowest bits are as good as any.
    let first = usize::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or_default();
    (0..=last).map(move |step| first.wrapping_add(step) & last)
}

fn write(records: &mut Vec<u8>, name: &[u8], digests: &[Digest]) {
    let packed: usize = digests.iter().map(|digest| ALGORITHM_BYTES + digest.as_bytes().len()).sum();
    records.extend(number(name.len()).to_le_bytes());
    records.extend(number(packed).to_le_bytes());
    records.extend_from_slice(name);
    for digest in digests {
        records.extend(digest.algorithm().tpm_id().to_le_bytes());
        records.extend_from_slice(digest.as_bytes());
    }
}

/// What a record takes, or a little more where its name is escaped.
fn bytes(text: &str, digests: &[Digest]) -> usize {
    let digests: usize = digests.iter().map(|digest| ALGORITHM_BYTES + digest.as_bytes().len()).sum();
    2 * size_of::<u32>() + text.len() + digests
}

/// A policy has less than [`POLICY_BYTES_MAX`](crate::policy::POLICY_BYTES_MAX) bytes of text, and its records have fewer.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(FREE)
}

struct Digests<'a>(Reader<'a>);

impl Iterator for Digests<'_> {
    type Item = Digest;

    fn next(&mut self) -> Option<Digest> {
        let algorithm = HashAlgorithm::from_tpm_id(self.0.u16_le().ok()?)?;
        Digest::new(algorithm, self.0.bytes(algorithm.len()).ok()?)
    }
}

/// No record begins there.
const FREE: u32 = u32::MAX;
const ALGORITHM_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        let algorithm = HashAlgorithm::ALL[usize::from(number) % HashAlgorithm::ALL.len()];
        algorithm.hash(&[&[number]])
    }

    #[test]
    fn a_name_written_in_two_ways_has_both_lists() {
        let lists = [("/a b", 1), ("/a_b", 2), ("/a\\x5fb", 3), ("/b", 4)];
        let lists = lists.map(|(text, number)| (text.to_owned(), vec![digest(number)]));
        let packed = NamedDigests::pack(&lists.into_iter().collect()).unwrap();
        let mut found: Vec<Digest> = packed.of(b"/a_b").collect();
        found.sort_unstable();
        let mut expected = [1, 2, 3].map(digest);
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!((packed.of(b"/b").count(), packed.of(b"/a b").count(), packed.of(b"").count()), (1, 0, 0));
        assert!(NamedDigests::pack(&[("/a\\".to_owned(), vec![])].into_iter().collect()).is_err());
        let none = NamedDigests::pack(&BTreeMap::new()).unwrap();
        assert!(none.is_empty() && none.of(b"/b").next().is_none());
    }

    proptest! {
        #[test]
        fn what_was_listed_is_found_and_nothing_else(
            lists in proptest::collection::btree_map("[a-c/]{0,4}", proptest::collection::vec(any::<u8>(), 0..4), 0..80),
            others in proptest::collection::vec("[a-d/]{0,4}", 0..20),
        ) {
            let lists: BTreeMap<String, Vec<Digest>> =
                lists.into_iter().map(|(name, of)| (name, of.into_iter().map(digest).collect())).collect();
            let packed = NamedDigests::pack(&lists).unwrap();
            for name in lists.keys().chain(&others) {
                let expected = lists.get(name).cloned().unwrap_or_default();
                prop_assert_eq!(packed.of(name.as_bytes()).collect::<Vec<_>>(), expected);
            }
        }
    }
}
