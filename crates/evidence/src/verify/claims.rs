//! Claims: what verified evidence says, and what the verifier remembers of it.
//!
//! Proof values: their fields are private and only [`verify`](super::verify) makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::boot::Boot;
use super::ima::Attested;
use crate::boot_log::BootClaims;
use crate::check::Failure;
use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::ima::{Entry, Extension, KERNEL_POLICIES_MAX, List, MEASURED_KEYS_MAX, MeasuredKey, Replay};
use crate::tpm::attest::ClockInfo;
use crate::tpm::banks::ActiveBanks;
use crate::tpm::name::Name;
use crate::tpm::pcr::{PcrSet, PcrValues};
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
    banks: Option<ActiveBanks>,
    boot: Option<Arc<BootClaims>>,
    boot_log_missing: bool,
    explained: PcrValues,
    ima: Option<ImaClaims>,
    notes: Arc<[Failure]>,
}

impl Claims {
    /// `None` without a quote.
    pub(super) fn new(
        ak: PublicArea,
        quotes: &[VerifiedQuote],
        banks: Option<ActiveBanks>,
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
            banks,
            boot_log_missing: boot.log_missing,
            explained: boot.explained().clone(),
            boot: boot.claims,
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

    /// The PCR banks that the TPM has active, where it said so.
    pub fn banks(&self) -> Option<&ActiveBanks> {
        self.banks.as_ref()
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
            banks: self.banks.clone(),
            boot: self.boot.clone(),
            explained: self.explained.clone(),
            ima: self.ima.as_ref().map(|ima| ima.replay_at(judged_entries)),
            measured: Measured {
                keys: self.ima.as_ref().map(|ima| ima.keys_at(judged_entries)).unwrap_or_default(),
                policies: self.ima.as_ref().map(|ima| ima.policies_at(judged_entries)).unwrap_or_default(),
            },
        }
    }
}

/// The attested part of an IMA list, new since the baseline.
#[derive(Clone, Debug)]
pub struct ImaClaims {
    list: List,
    start: Replay,
    end: Replay,
    covered: usize,
    attesting: PcrSet,
    explained: PcrSet,
    /// What was measured before the first entry.
    known: Measured,
}

/// What of entries that were judged earlier in a boot matters for those that follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    keys: Arc<[MeasuredKey]>,
    /// The digests of policies of IMA.
    policies: Arc<[Digest]>,
}

impl ImaClaims {
    pub(super) fn new(list: List, attested: Attested, known: Measured) -> Self {
        let Attested { start, end, entries, attesting, explained } = attested;
        ImaClaims { list, start, end, covered: entries, attesting, explained, known }
    }

    /// The attested entries, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + '_ {
        self.list.range(0..self.covered).filter(|entry| self.attesting.contains(entry.pcr()))
    }

    /// The entries among these that nothing attests, since the quote does not have their PCR or it holds something else as
    /// well: how many there are of each PCR.
    pub fn unattested(&self) -> BTreeMap<PcrIndex, usize> {
        let mut of_pcr = BTreeMap::new();
        if self.list.pcrs().iter().all(|pcr| self.attesting.contains(pcr)) {
            return of_pcr;
        }
        for entry in self.list.iter().filter(|entry| !self.attesting.contains(entry.pcr())) {
            *of_pcr.entry(entry.pcr()).or_default() += 1;
        }
        of_pcr
    }

    /// Where the first entry is that nothing attests, counted from boot.
    pub fn first_unattested(&self) -> Option<u64> {
        let mut entries = (self.start.entries()..).zip(self.list.range(0..self.covered));
        entries.find(|(_, entry)| !self.attesting.contains(entry.pcr())).map(|(number, _)| number)
    }

    /// Whether a quoted PCR holds nothing but what the logs tell, so that no entry was kept from the list.
    pub fn explains(&self, pcr: PcrIndex) -> bool {
        self.explained.contains(pcr)
    }

    /// Entries since boot that come before the first of [`ImaClaims::entries`], judged earlier.
    pub fn first_index(&self) -> u64 {
        self.start.entries()
    }

    /// Entries since boot that the quote covers.
    pub fn attested_total(&self) -> u64 {
        self.end.entries()
    }

    /// Entries past the quoted prefix, of which nothing is known yet.
    pub fn undecided(&self) -> usize {
        self.list.len().saturating_sub(self.covered)
    }

    /// Keys that were measured in this boot before the first of [`ImaClaims::entries`].
    pub fn known_keys(&self) -> &[MeasuredKey] {
        &self.known.keys
    }

    /// The digests of the policies of IMA that were measured in this boot, each once: see [`Entry::kernel_policy`].
    pub fn kernel_policies(&self) -> Arc<[Digest]> {
        self.policies_at(u64::MAX)
    }

    /// How the kernel extends a quoted bank, the weakest way of those PCRs; `None` for one that was not quoted.
    pub fn extension(&self, bank: HashAlgorithm) -> Option<Extension> {
        let of_pcr = |pcr: PcrIndex| {
            let mut chains = self.end.chains().iter().filter(|chain| chain.pcr == pcr);
            chains.find(|chain| chain.value.algorithm() == bank).map(|chain| chain.extension)
        };
        let ways: Option<Vec<Extension>> = self.attesting.iter().map(of_pcr).collect();
        ways?.into_iter().max_by_key(|way| *way == Extension::Sha1Padded)
    }

    /// How many of the covered entries come before the one at `judged`, counted from boot.
    fn new_until(&self, judged: u64) -> usize {
        let new = judged.saturating_sub(self.start.entries());
        usize::try_from(new).unwrap_or(usize::MAX).min(self.covered)
    }

    /// The keys measured in the first `judged` entries since boot.
    fn keys_at(&self, judged: u64) -> Arc<[MeasuredKey]> {
        let entries = self.list.range(0..self.new_until(judged));
        let attested = entries.filter(|entry| self.attesting.contains(entry.pcr()));
        let mut new = attested.filter_map(|entry| entry.measured_key()).peekable();
        if new.peek().is_none() {
            return Arc::clone(&self.known.keys);
        }
        self.known.keys.iter().cloned().chain(new).take(MEASURED_KEYS_MAX).collect()
    }

    /// The policies measured in the first `judged` entries since boot.
    fn policies_at(&self, judged: u64) -> Arc<[Digest]> {
        let entries = self.list.range(0..self.new_until(judged));
        let attested = entries.filter(|entry| self.attesting.contains(entry.pcr()));
        let mut policies = self.known.policies.to_vec();
        for digest in attested.filter_map(|entry| entry.kernel_policy()) {
            if policies.len() < KERNEL_POLICIES_MAX && !policies.contains(&digest) {
                policies.push(digest);
            }
        }
        policies.into()
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
        replay
    }
}

/// What the verifier remembers of a boot: enough to judge only what is new.
///
/// Made by [`Claims::baseline`]. It holds for one boot: a changed reset counter ends it.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    reset_count: u32,
    restart_count: u32,
    banks: Option<ActiveBanks>,
    boot: Option<Arc<BootClaims>>,
    explained: PcrValues,
    ima: Option<Replay>,
    measured: Measured,
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

    /// The PCR banks that the TPM has active in this boot, where it said so.
    pub fn banks(&self) -> Option<&ActiveBanks> {
        self.banks.as_ref()
    }

    /// Whether the boot log need not be sent again.
    pub fn has_boot_log(&self) -> bool {
        self.boot.is_some()
    }

    /// What the boot log said.
    pub fn boot_claims(&self) -> Option<&Arc<BootClaims>> {
        self.boot.as_ref()
    }

    /// Quoted values that the measurement log explained: it need not be sent again for them.
    pub(super) fn explained(&self) -> &PcrValues {
        &self.explained
    }

    /// What was measured before the next list's first entry.
    pub(super) fn measured(&self) -> Measured {
        self.measured.clone()
    }

    pub(super) fn ima_replay(&self) -> Option<&Replay> {
        self.ima.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ima::{Prefix, attested_prefix, parse_binary};

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
        let prefix = attested_prefix(&list, &start, &[(PcrIndex::IMA, value)]).0.unwrap();
        let attested = |prefix: &Prefix| Attested {
            start: prefix.start.clone(),
            end: prefix.replay.clone(),
            entries: prefix.entries,
            attesting: [PcrIndex::IMA].into_iter().collect(),
            explained: PcrSet::default(),
        };
        let claims = ImaClaims::new(list, attested(&prefix), Measured::default());
        let known = |judged| claims.keys_at(judged).len();
        assert_eq!([known(0), known(2), known(3), known(7), known(99)], [0, 0, 1, 1, 1]);
        // The next list starts behind the key's entry, and still knows it.
        let nothing = parse_binary(&[]).unwrap();
        let at_end = Prefix { entries: 0, start: prefix.replay.clone(), replay: prefix.replay };
        let known = Measured { keys: claims.keys_at(7), policies: claims.policies_at(7) };
        let next = ImaClaims::new(nothing, attested(&at_end), known);
        assert_eq!((next.known_keys().len(), next.keys_at(7).len()), (1, 1));
    }
}
