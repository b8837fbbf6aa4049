//! Replay: what PCRs become, entry by entry, until they are what the TPM quoted.

use super::{Entry, List, SHORT_NAME_BYTES_MAX, Template};
use crate::tpm::pcr::PcrSet;
use crate::{Digest, HashAlgorithm, PcrIndex};

/// How the kernel extends a bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// With the hash of the template data by the bank's own algorithm.
    Native,
    /// With the SHA-1 template digest and zeros: kernels that lacked the bank's algorithm at start.
    Sha1Padded,
}

/// One running value of a PCR: a bank, extended in one of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The PCR.
    pub pcr: PcrIndex,
    /// How it is extended.
    pub extension: Extension,
    /// Its value after the entries so far; its algorithm is the bank.
    pub value: Digest,
}

/// The running values of PCRs after some number of entries. Plain data: it proves nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    entries: u64,
    chains: Vec<Chain>,
}

impl Replay {
    /// A freshly booted machine: PCR 10 of every bank zero, and open which way it is extended.
    pub fn new(banks: &[HashAlgorithm]) -> Self {
        let mut replay = Replay { entries: 0, chains: Vec::with_capacity(banks.len() * 2) };
        banks.iter().for_each(|bank| replay.begin(PcrIndex::IMA, bank.zero()));
        replay
    }

    /// The same with a PCR that has this value, in its bank, before the entries that come now.
    pub fn begin(&mut self, pcr: PcrIndex, value: Digest) {
        self.chains.push(Chain { pcr, extension: Extension::Native, value });
        if value.algorithm() != HashAlgorithm::Sha1 {
            self.chains.push(Chain { pcr, extension: Extension::Sha1Padded, value });
        }
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

    /// Extends every chain of the entry's PCR with it; says whether its stated template digest is the hash of its
    /// template data. What is extended is always computed from the data, never what is stated.
    #[must_use = "a template digest that does not hold is a finding"]
    pub fn extend(&mut self, entry: &Entry<'_>) -> bool {
        self.entries = self.entries.saturating_add(1);
        let of_entry = self.chains.iter_mut().filter(|chain| chain.pcr == entry.pcr);
        if entry.is_violation() {
            // The kernel invalidates the PCR: the list has zeros, the TPM got ones.
            for chain in of_entry {
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
        for chain in of_entry {
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

    /// Which way the PCR arrives at a quoted value now, if any does.
    pub fn matches(&self, quoted: &QuotedPcr) -> Option<Extension> {
        let arrived = self.chains.iter().find(|chain| (chain.pcr, chain.value) == *quoted);
        arrived.map(|chain| chain.extension)
    }

    /// The same with the chains that `keep` says.
    pub(crate) fn only(&self, keep: impl Fn(&Chain) -> bool) -> Self {
        Replay { entries: self.entries, chains: self.chains.iter().filter(|c| keep(c)).copied().collect() }
    }
}

/// A PCR and its value in a quoted bank.
pub type QuotedPcr = (PcrIndex, Digest);

/// How much of a list a quote covers.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Entries of the list that are covered: after this many, every quoted value is reached.
    pub entries: usize,
    /// The running values before the first entry, of the chains that arrived.
    pub start: Replay,
    /// The running values after the last that is covered, of the same chains.
    pub replay: Replay,
}

/// Replays `list` from `start` until every value of `quoted` is reached: the PCRs that the list was measured into, in each
/// quoted bank. Entries for other PCRs are passed over, and nothing is said of them.
///
/// The first result is `None` where no prefix, not even the empty one, reaches them. The second lists
/// the entries, by their index in the list, whose template digest does not hold; where the prefix is
/// known, only those inside it, and at most [`BAD_TEMPLATE_DIGESTS_MAX`] of them.
pub fn attested_prefix(list: &List, start: &Replay, quoted: &[QuotedPcr]) -> (Option<Prefix>, Vec<usize>) {
    // Nearly every kernel extends natively; the padded chains are run only where that does not arrive.
    let natively = start.only(|chain| chain.extension == Extension::Native);
    match replay_until(list, natively, quoted) {
        (None, _) => replay_until(list, start.clone(), quoted),
        arrived => arrived,
    }
}

fn replay_until(list: &List, start: Replay, quoted: &[QuotedPcr]) -> (Option<Prefix>, Vec<usize>) {
    // PCR values never repeat along a chain, so that the first place at which all match is the only one, but for entries of
    // other PCRs that follow it.
    let arrived = |replay: &Replay| !quoted.is_empty() && quoted.iter().all(|q| replay.matches(q).is_some());
    let mut replay = start.clone();
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
    // The chains that did not arrive were guesses.
    let pairs = start.chains.iter().zip(&replay.chains);
    let pairs = pairs.filter(|(_, end)| quoted.contains(&(end.pcr, end.value)));
    let (first, last): (Vec<Chain>, Vec<Chain>) = pairs.unzip();
    let start = Replay { entries: start.entries, chains: first };
    (Some(Prefix { entries, start, replay: Replay { entries: replay.entries, chains: last } }), bad)
}

/// The PCRs of which every quoted value is reached somewhere in the list, each looked at for itself.
pub(crate) fn reached_pcrs(list: &List, start: &Replay, quoted: &[QuotedPcr]) -> PcrSet {
    let mut replay = start.clone();
    let is_reached = |replay: &Replay, pcr: PcrIndex| {
        quoted.iter().filter(|(of, _)| *of == pcr).all(|quoted| replay.matches(quoted).is_some())
    };
    let pcrs: PcrSet = quoted.iter().map(|(pcr, _)| *pcr).collect();
    let mut reached: PcrSet = pcrs.iter().filter(|pcr| is_reached(&replay, *pcr)).collect();
    for entry in list.iter() {
        // Whether its template digest holds is said where the list is judged.
        let _ = replay.extend(&entry);
        if pcrs.contains(entry.pcr) && !reached.contains(entry.pcr) && is_reached(&replay, entry.pcr) {
            reached.insert(entry.pcr);
        }
    }
    reached
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
