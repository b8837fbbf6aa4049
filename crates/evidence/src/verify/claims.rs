//! Claims: what verified evidence says, and what the verifier remembers of it.
//!
//! Proof values: their fields are private and only [`verify`](super::verify) makes them.

use std::sync::Arc;

use super::boot::Boot;
use crate::boot_log::BootClaims;
use crate::check::Failure;
use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::ima::{Entry, Extension, List, MEASURED_KEYS_MAX, MeasuredKey, Replay};
use crate::tpm::attest::ClockInfo;
use crate::tpm::name::Name;
use crate::tpm::pcr::PcrValues;
use crate::tpm::public_area::PublicArea;
use crate::tpm::public_key::SignatureAlgorithm;
use crate::tpm::quote::VerifiedQuote;

/// The facts of evidence in which every check held.
#[derive(Clone, Debug)]
pub struct Claims {
    ak: PublicArea,
    clock: ClockInfo,
    firmware_version: u64,
    algorithm: SignatureAlgorithm,
    pcrs: PcrValues,
    boot: Option<Arc<BootClaims>>,
    boot_log_missing: bool,
    ima: Option<ImaClaims>,
    notes: Arc<[Failure]>,
}

impl Claims {
    /// `None` without a quote.
    pub(super) fn new(
        ak: PublicArea,
        quotes: &[VerifiedQuote],
        boot: Boot,
        ima: Option<ImaClaims>,
        notes: &[Failure],
    ) -> Option<Self> {
        let first = quotes.first()?;
        // Where quotes differ, as they may in PCR 10, the first is the evidence.
        let mut pcrs = first.pcrs().clone();
        for quote in quotes {
            pcrs.fill_from(quote.pcrs());
        }
        Some(Claims {
            ak,
            clock: first.clock_info(),
            firmware_version: first.firmware_version(),
            algorithm: first.algorithm(),
            pcrs,
            boot: boot.claims,
            boot_log_missing: boot.log_missing,
            ima,
            notes: notes.into(),
        })
    }

    /// The attestation key that signed. Whose it is, credential activation said.
    pub fn ak(&self) -> &PublicArea {
        &self.ak
    }

    /// Its Name.
    pub fn ak_name(&self) -> Name {
        self.ak.name()
    }

    /// The TPM's clock and counters.
    pub fn clock(&self) -> ClockInfo {
        self.clock
    }

    /// The TPM's firmware version, as its vendor counts.
    pub fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// How the quote was signed.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// The quoted PCR values of every quote by the AK, the first quote's where they differ.
    pub fn pcrs(&self) -> &PcrValues {
        &self.pcrs
    }

    /// A PCR's value when the boot was over: what the log explains of it, or else what was quoted. Known extensions of
    /// user space after that, such as systemd's phases in PCR 11, are not in it.
    pub fn boot_pcr(&self, bank: HashAlgorithm, index: PcrIndex) -> Option<&Digest> {
        let quoted = self.pcrs.get(bank, index)?;
        Some(self.boot.as_ref().and_then(|boot| boot.replayed().get(bank, index)).unwrap_or(quoted))
    }

    /// Whether nothing better than SHA-1 was quoted.
    pub fn is_sha1_only(&self) -> bool {
        self.pcrs.banks().all(|bank| bank == HashAlgorithm::Sha1)
    }

    /// What the boot log says, of this evidence or of the baseline.
    pub fn boot(&self) -> Option<&Arc<BootClaims>> {
        self.boot.as_ref()
    }

    /// Whether firmware extended PCRs and no log says with what.
    pub fn boot_log_missing(&self) -> bool {
        self.boot_log_missing
    }

    /// What the IMA list says, as far as the quote attests it.
    pub fn ima(&self) -> Option<&ImaClaims> {
        self.ima.as_ref()
    }

    /// What verification could not decide, or found odd though it proves nothing false. It goes with the claims, so that
    /// nobody who judges them can leave it out.
    pub fn notes(&self) -> &[Failure] {
        &self.notes
    }

    /// What to remember for the next verification, with the first `judged_entries` of the IMA list (counted from
    /// boot) found good. The list is asked for again from there.
    pub fn baseline(&self, judged_entries: u64) -> Baseline {
        Baseline {
            reset_count: self.clock.reset_count,
            restart_count: self.clock.restart_count,
            boot: self.boot.clone(),
            ima: self.ima.as_ref().map(|ima| ima.replay_at(judged_entries)),
            keys: self.ima.as_ref().map(|ima| ima.keys_at(judged_entries)).unwrap_or_default(),
        }
    }
}

/// The attested part of an IMA list, new since the baseline.
#[derive(Clone, Debug)]
pub struct ImaClaims {
    list: List,
    start: Replay,
    end: Replay,
    attested: usize,
    /// Keys measured before the first entry.
    known_keys: Arc<[MeasuredKey]>,
}

impl ImaClaims {
    pub(super) fn new(
        list: List,
        start: Replay,
        end: Replay,
        attested: usize,
        known_keys: Arc<[MeasuredKey]>,
    ) -> Self {
        ImaClaims { list, start, end, attested, known_keys }
    }

    /// The attested entries, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + '_ {
        self.list.range(0..self.attested)
    }

    /// Entries since boot that come before the first of [`ImaClaims::entries`], judged earlier.
    pub fn first_index(&self) -> u64 {
        self.start.entries()
    }

    /// Entries since boot that the quote attests.
    pub fn attested_total(&self) -> u64 {
        self.end.entries()
    }

    /// Entries past the quoted prefix, of which nothing is known yet.
    pub fn undecided(&self) -> usize {
        self.list.len().saturating_sub(self.attested)
    }

    /// Keys that were measured in this boot before the first of [`ImaClaims::entries`].
    pub fn known_keys(&self) -> &[MeasuredKey] {
        &self.known_keys
    }

    /// How the kernel extends a quoted bank; `None` for one that was not quoted.
    pub fn extension(&self, bank: HashAlgorithm) -> Option<Extension> {
        self.end.chains().iter().find(|chain| chain.value.algorithm() == bank).map(|chain| chain.extension)
    }

    /// How many of the attested entries come before the one at `judged`, counted from boot.
    fn new_until(&self, judged: u64) -> usize {
        let new = judged.saturating_sub(self.start.entries());
        usize::try_from(new).unwrap_or(usize::MAX).min(self.attested)
    }

    /// The keys measured in the first `judged` entries since boot.
    fn keys_at(&self, judged: u64) -> Arc<[MeasuredKey]> {
        let entries = self.list.range(0..self.new_until(judged));
        let mut new = entries.filter_map(|entry| entry.measured_key()).peekable();
        if new.peek().is_none() {
            return Arc::clone(&self.known_keys);
        }
        self.known_keys.iter().cloned().chain(new).take(MEASURED_KEYS_MAX).collect()
    }

    /// The running values after `judged` entries since boot.
    fn replay_at(&self, judged: u64) -> Replay {
        if judged >= self.end.entries() {
            return self.end.clone();
        }
        let mut replay = self.start.clone();
        for entry in self.list.range(0..self.new_until(judged)) {
            // The stated template digests were checked when the prefix was found.
            let _ = replay.extend(&entry);
        }
        // Only the ways of extending that arrived at the quoted values are the kernel's.
        let arrived = |bank, extension| self.extension(bank) == Some(extension);
        let chains = replay.chains().iter().filter(|chain| arrived(chain.value.algorithm(), chain.extension));
        Replay::resume(replay.entries(), chains.copied().collect())
    }
}

/// What the verifier remembers of a boot: enough to judge only what is new.
///
/// Made by [`Claims::baseline`]. It holds for one boot: a changed reset counter ends it.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    reset_count: u32,
    restart_count: u32,
    boot: Option<Arc<BootClaims>>,
    ima: Option<Replay>,
    keys: Arc<[MeasuredKey]>,
}

impl Baseline {
    /// The boot it belongs to.
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }

    /// Restarts and resumes of that boot when it was made.
    pub fn restart_count(&self) -> u32 {
        self.restart_count
    }

    /// Entries of the IMA list that were found good: the next list may start there.
    pub fn ima_entries(&self) -> u64 {
        self.ima.as_ref().map_or(0, Replay::entries)
    }

    /// Whether the boot log need not be sent again.
    pub fn has_boot_log(&self) -> bool {
        self.boot.is_some()
    }

    /// What the boot log said.
    pub fn boot_claims(&self) -> Option<&Arc<BootClaims>> {
        self.boot.as_ref()
    }

    /// Keys measured before the next list's first entry.
    pub(super) fn keys(&self) -> Arc<[MeasuredKey]> {
        Arc::clone(&self.keys)
    }

    pub(super) fn ima_replay(&self) -> Option<&Replay> {
        self.ima.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ima::{attested_prefix, parse_binary};

    #[test]
    fn keys_are_remembered_with_the_entries_that_were_judged() {
        let bytes = include_bytes!("../../../../vectors/ima/ima-sigv2/binary_runtime_measurements");
        let list = parse_binary(bytes).unwrap();
        let start = Replay::new(&[HashAlgorithm::Sha256]);
        let all = list.iter().fold(start.clone(), |mut replay, entry| {
            assert!(replay.extend(&entry));
            replay
        });
        let value = all.chains().first().unwrap().value;
        let prefix = attested_prefix(&list, &start, &[value]).0.unwrap();
        let claims = ImaClaims::new(list, start, prefix.replay, prefix.entries, Arc::default());
        let known = |judged| claims.keys_at(judged).len();
        assert_eq!([known(0), known(2), known(3), known(7), known(99)], [0, 0, 1, 1, 1]);
        // The next list starts behind the key's entry, and still knows it.
        let nothing = parse_binary(&[]).unwrap();
        let next = ImaClaims::new(nothing, claims.end.clone(), claims.end.clone(), 0, claims.keys_at(7));
        assert_eq!((next.known_keys().len(), next.keys_at(7).len()), (1, 1));
    }
}
