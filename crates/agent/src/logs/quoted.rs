//! What PCR 10 was when it was quoted, on a machine that goes on measuring.
//!
//! The TPM signs a digest over the values and does not say them, and reading them takes another command. Whatever the kernel
//! measured in between is in its list, so that an earlier end of the list leads to what was quoted. Nobody believes that
//! for our saying so: the verifier hashes the values again.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use assay_evidence::ima::{Extension, Replay};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::tpm::quote::Quoted;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

use super::{ImaSource, LogError};

/// The values that `quoted` is over, where they were `read` afterwards and the list of `source` tells what PCR 10 was
/// before; `None` where it does not lead there.
pub fn quoted_values(
    source: &ImaSource,
    quoted: &Quoted,
    read: &PcrValues,
) -> Result<Option<PcrValues>, LogError> {
    let banks: Vec<HashAlgorithm> =
        read.iter().filter(|(_, index, _)| *index == PcrIndex::IMA).map(|(bank, ..)| bank).collect();
    if banks.is_empty() {
        return Ok(None);
    }
    let mut replay = Replay::new(&banks);
    let mut ends: VecDeque<Vec<(Extension, Digest)>> = VecDeque::from([values(&replay)]);
    source.each_entry(|entry| {
        // Whether the list says the truth of itself is the verifier's to find out.
        let _ = replay.extend(entry);
        if ends.len() >= ENDS_MAX {
            ends.pop_front();
        }
        ends.push_back(values(&replay));
        // What comes after what was read comes after the quote, and the list may grow faster than it is read.
        match banks.iter().all(|bank| is_at(&replay, read, *bank)) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    let with = |end: &[(Extension, Digest)], extension: Extension| {
        let mut earlier = read.clone();
        for bank in &banks {
            // SHA-1 is extended in one way.
            let fits = |(of, value): &&(Extension, Digest)| {
                value.algorithm() == *bank && (*of == extension || *bank == HashAlgorithm::Sha1)
            };
            earlier.insert(PcrIndex::IMA, end.iter().find(fits)?.1);
        }
        quoted.is_over(&earlier).then_some(earlier)
    };
    // The quote was a moment ago.
    let found = ends.iter().rev().find_map(|end| {
        [Extension::Native, Extension::Sha1Padded].into_iter().find_map(|extension| with(end, extension))
    });
    Ok(found)
}

/// Whether the replay has arrived at the value that was read.
fn is_at(replay: &Replay, read: &PcrValues, bank: HashAlgorithm) -> bool {
    read.get(bank, PcrIndex::IMA).is_some_and(|value| replay.matches(&(PcrIndex::IMA, *value)).is_some())
}

fn values(replay: &Replay) -> Vec<(Extension, Digest)> {
    replay.chains().iter().map(|chain| (chain.extension, chain.value)).collect()
}

/// Entries that may have come between the quote and the reading of the PCRs. A TPM takes as many extensions in some seconds
/// at best.
const ENDS_MAX: usize = 4096;
