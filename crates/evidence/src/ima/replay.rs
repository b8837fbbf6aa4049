//! Replay: what PCR 10 becomes, entry by entry, until it is what the TPM quoted.

use super::{Entry, List, SHORT_NAME_BYTES_MAX, Template};
use crate::{Digest, HashAlgorithm};

/// How the kernel extends a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extension {
    /// With the hash of the template data by the bank's own algorithm.
    Native,
    /// With the SHA-1 template digest and zeros: kernels that lacked the bank's algorithm at start.
    Sha1Padded,
}

/// One running value of PCR 10: a bank, extended in one of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chain {
    /// How it is extended.
    pub extension: Extension,
    /// Its value after the entries so far; its algorithm is the bank.
    pub value: Digest,
}

/// The running values of PCR 10 after some number of entries. Plain data: it proves nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Replay {
    entries: u64,
    chains: Vec<Chain>,
}

impl Replay {
    /// A freshly booted machine: every bank zero, and open which way it is extended.
    pub fn new(banks: &[HashAlgorithm]) -> Self {
        let mut chains = Vec::with_capacity(banks.len() * 2);
        for bank in banks {
            chains.push(Chain { extension: Extension::Native, value: bank.zero() });
            if *bank != HashAlgorithm::Sha1 {
                chains.push(Chain { extension: Extension::Sha1Padded, value: bank.zero() });
            }
        }
        Replay { entries: 0, chains }
    }

    /// Goes on from values kept of an earlier replay.
    pub fn resume(entries: u64, chains: Vec<Chain>) -> Self {
        Replay { entries, chains }
    }

    /// Entries replayed since boot.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The running values.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// Extends every chain with `entry`; says whether its stated template digest is the hash of its
    /// template data. What is extended is always computed from the data, never what is stated.
    #[must_use = "a template digest that does not hold is a finding"]
    pub fn extend(&mut self, entry: &Entry<'_>) -> bool {
        self.entries = self.entries.saturating_add(1);
        if entry.is_violation() {
            // The kernel invalidates the PCR: the list has zeros, the TPM got ones.
            for chain in &mut self.chains {
                let ones = Digest::filled(chain.value.algorithm(), 0xff);
                chain.value = chain.value.extend(ones.as_bytes());
            }
            return true;
        }
        let mut legacy = [0; LEGACY_DATA_BYTES];
        let data = hashed_data(entry, &mut legacy);
        let stated = entry.template_hash.hash(&[data]);
        let sha1 = match stated.algorithm() {
            HashAlgorithm::Sha1 => stated,
            _ => HashAlgorithm::Sha1.hash(&[data]),
        };
        for chain in &mut self.chains {
            let bank = chain.value.algorithm();
            let measured = match chain.extension {
                Extension::Native if bank == HashAlgorithm::Sha1 => Some(sha1),
                Extension::Native if bank == stated.algorithm() => Some(stated),
                Extension::Native => Some(bank.hash(&[data])),
                Extension::Sha1Padded => Digest::zero_padded(bank, sha1.as_bytes()),
            };
            if let Some(measured) = measured {
                chain.value = chain.value.extend(measured.as_bytes());
            }
        }
        stated.as_bytes() == entry.template_digest
    }

    /// Which way the bank of `quoted` arrives at that value now, if any does.
    pub fn matches(&self, quoted: &Digest) -> Option<Extension> {
        self.chains.iter().find(|chain| chain.value == *quoted).map(|chain| chain.extension)
    }

    /// The same with the native chains alone.
    fn natively(&self) -> Self {
        let is_native = |chain: &&Chain| chain.extension == Extension::Native;
        Replay { entries: self.entries, chains: self.chains.iter().filter(is_native).copied().collect() }
    }

    /// Forgets the chains of each quoted bank that did not arrive, and banks that were not quoted.
    fn settle(&mut self, quoted: &[Digest]) {
        self.chains.retain(|chain| quoted.contains(&chain.value));
    }
}

/// How much of a list a quote covers.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Entries of the list that are covered: after this many, every quoted value is reached.
    pub entries: usize,
    /// The running values there, with only the chains that arrived.
    pub replay: Replay,
}

/// Replays `list` from `start` until every value of `quoted` (PCR 10 of each quoted bank) is reached.
///
/// The first result is `None` where no prefix, not even the empty one, reaches them. The second lists
/// the entries, by their index in the list, whose template digest does not hold; where the prefix is
/// known, only those inside it, and at most [`BAD_TEMPLATE_DIGESTS_MAX`] of them.
pub fn attested_prefix(list: &List, start: &Replay, quoted: &[Digest]) -> (Option<Prefix>, Vec<usize>) {
    // Nearly every kernel extends natively; the padded chains are run only where that does not arrive.
    match replay_until(list, start.natively(), quoted) {
        (None, _) => replay_until(list, start.clone(), quoted),
        arrived => arrived,
    }
}

fn replay_until(list: &List, mut replay: Replay, quoted: &[Digest]) -> (Option<Prefix>, Vec<usize>) {
    // PCR values never repeat along a chain, so that the first match is the only one.
    let arrived = |replay: &Replay| !quoted.is_empty() && quoted.iter().all(|q| replay.matches(q).is_some());
    let mut bad = Vec::new();
    let mut entries = 0;
    for (index, entry) in list.iter().enumerate() {
        if arrived(&replay) {
            break;
        }
        if !replay.extend(&entry) && bad.len() < BAD_TEMPLATE_DIGESTS_MAX {
            bad.push(index);
        }
        entries = index + 1;
    }
    if !arrived(&replay) {
        return (None, bad);
    }
    replay.settle(quoted);
    (Some(Prefix { entries, replay }), bad)
}

/// What the kernel hashes: the template data, but for the `ima` template, whose name is filled up with
/// zeros to a fixed length (ima_calc_field_array_hash).
fn hashed_data<'a>(entry: &Entry<'a>, legacy: &'a mut [u8; LEGACY_DATA_BYTES]) -> &'a [u8] {
    if entry.template != Template::Ima {
        return entry.data;
    }
    let parts = entry.digest.bytes.iter().chain(entry.path);
    for (to, from) in legacy.iter_mut().zip(parts) {
        *to = *from;
    }
    legacy
}

/// SHA-1 digest, name of at most 255 bytes, NUL.
const LEGACY_DATA_BYTES: usize = 20 + SHORT_NAME_BYTES_MAX + 1;
/// Wrong template digests that are reported of one list; one is enough to refuse it.
pub const BAD_TEMPLATE_DIGESTS_MAX: usize = 16;
