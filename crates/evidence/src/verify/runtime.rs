//! What extended PCRs once the boot log had ended, as far as anybody tells it: words of systemd that everybody knows, its
//! measurement log, and the IMA list where the kernel was told to measure into other PCRs than its own.
//!
//! Each counts where it leads from the log's value exactly to the quoted one. Then it also shows that the log has
//! everything before it: nobody can find another beginning with the same end.

use super::Report;
use crate::boot_log::{separated, stages};
use crate::check::Check;
use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::ima::{List, QuotedPcr, Replay, reached_pcrs};
use crate::measure_log::{self, MeasureLog};
use crate::tpm::pcr::{PcrSet, PcrValues};

/// Everything that is told of the time after the boot log.
pub(super) struct Runtime<'a> {
    measured: MeasureLog,
    list: Option<&'a List>,
    /// The running values before the list's first entry, where it goes on from an earlier one.
    known: Option<&'a Replay>,
    /// What was explained before, in the same boot.
    explained: Option<&'a PcrValues>,
}

/// What a PCR went through after the boot log had ended.
pub(super) struct Course {
    /// Its values, the log's first and the quoted one last.
    pub(super) values: Vec<Digest>,
    /// Whether it takes the measurement log to tell.
    pub(super) is_logged: bool,
}

impl<'a> Runtime<'a> {
    /// Reads the measurement log. One that cannot be read explains nothing, and that is noted.
    pub(super) fn new(
        measured: Option<&[u8]>,
        list: Option<&'a List>,
        known: Option<&'a Replay>,
        explained: Option<&'a PcrValues>,
        report: &mut Report,
    ) -> Self {
        let measured = measured.map(measure_log::parse).transpose();
        let measured = measured.unwrap_or_else(|error| {
            let expected = "records of systemd's measurement log";
            report.note(Check::MeasureLogParse, "measurement log", expected, error.to_string());
            None
        });
        Runtime { measured: measured.unwrap_or_default(), list, known, explained }
    }

    /// The way of a PCR from `logged` to `quoted`, if all of it is told. What the IMA list tells is [`Runtime::reached`].
    pub(super) fn course(&self, index: PcrIndex, logged: &Digest, quoted: &Digest) -> Option<Course> {
        if let Some(values) = stages(index, logged, quoted) {
            return Some(Course { values, is_logged: false });
        }
        self.logged_course(index, logged, quoted).map(|values| Course { values, is_logged: true })
    }

    /// The same by the measurement log, of now or of before, and then by words that everybody knows.
    fn logged_course(&self, index: PcrIndex, logged: &Digest, quoted: &Digest) -> Option<Vec<Digest>> {
        let values = self.measured.course(index, *logged);
        if let Some(end) = values.iter().position(|value| value == quoted) {
            return Some(values.into_iter().take(end + 1).collect());
        }
        let before = self.explained?.get(quoted.algorithm(), index)?;
        let since = if before == quoted { vec![*quoted] } else { stages(index, before, quoted)? };
        Some([logged].into_iter().chain(&since).copied().collect())
    }

    /// The PCRs that the list was measured into, or an earlier part of it.
    pub(super) fn list_pcrs(&self) -> PcrSet {
        let of_list = self.list.into_iter().flat_map(|list| list.pcrs().iter());
        let before = self.known.into_iter().flat_map(Replay::chains).map(|chain| chain.pcr);
        of_list.chain(before).chain([PcrIndex::IMA]).collect()
    }

    /// The PCRs other than its own, of these quoted ones, to which the IMA list leads.
    pub(super) fn reached(&self, quoted: &PcrValues, logged: &PcrValues) -> PcrSet {
        let mut others: Vec<QuotedPcr> = self.quoted(quoted);
        others.retain(|(index, _)| *index != PcrIndex::IMA);
        let Some(list) = self.list.filter(|_| !others.is_empty()) else { return PcrSet::default() };
        let start = self.start(quoted, logged).only(|chain| chain.pcr != PcrIndex::IMA);
        reached_pcrs(list, &start, &others)
    }

    /// The quoted values of the list's PCRs.
    pub(super) fn quoted(&self, quoted: &PcrValues) -> Vec<QuotedPcr> {
        let pcrs = self.list_pcrs();
        let of_list = quoted.iter().filter(|(_, index, _)| pcrs.contains(*index));
        of_list.map(|(_, index, value)| (index, *value)).collect()
    }

    /// The values that the list's PCRs may have had before its first entry. For a PCR that something else extends as well,
    /// there is more than one, and the one that leads to the quoted value is right.
    pub(super) fn start(&self, quoted: &PcrValues, logged: &PcrValues) -> Replay {
        let is_ours = |index: PcrIndex| index == PcrIndex::IMA;
        let own_banks = quoted.iter().filter(|(_, index, _)| is_ours(*index)).map(|(bank, ..)| bank);
        let own_banks: Vec<HashAlgorithm> = own_banks.collect();
        let mut start = self.known.map_or_else(|| Replay::new(&own_banks), Clone::clone);
        for (index, value) in self.quoted(quoted).into_iter().filter(|(index, _)| !is_ours(*index)) {
            let bank = value.algorithm();
            let is_known =
                start.chains().iter().any(|chain| (chain.pcr, chain.value.algorithm()) == (index, bank));
            if !is_known {
                let logged = logged.get(bank, index).copied().unwrap_or(bank.zero());
                self.beginnings(index, logged).into_iter().for_each(|value| start.begin(index, value));
            }
        }
        start
    }

    /// Whether nothing is in a PCR that nobody tells.
    pub(super) fn tells_all(&self, index: PcrIndex, logged: &PcrValues, quoted: &PcrValues) -> bool {
        let mut of_pcr =
            quoted.iter().filter(|(_, of, _)| *of == index).map(|(_, _, value)| value).peekable();
        of_pcr.peek().is_some()
            && of_pcr.all(|value| {
                let bank = value.algorithm();
                let logged = logged.get(bank, index).copied().unwrap_or(bank.zero());
                logged == *value || self.course(index, &logged, value).is_some()
            })
    }

    /// The log's value; with all that user space's log adds; with user space's separator.
    fn beginnings(&self, index: PcrIndex, logged: Digest) -> Vec<Digest> {
        let measured = self.measured.course(index, logged).last().copied();
        let before = self.explained.and_then(|values| values.get(logged.algorithm(), index)).copied();
        let mut values = vec![logged];
        for value in [measured, before, separated(index, &logged)].into_iter().flatten() {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    }
}
