//! What a policy says of single PCRs and of what runs before others.

use assay_evidence::{Digest, HashAlgorithm};

use super::{Cover, Row};
use crate::policy::{Boot, Demand, Policy, Sequence, Slot};

/// A policy with one of the boots that it accepts.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) policy: &'a Policy,
    pub(super) boot: Boot<'a>,
}

impl View<'_> {
    pub(super) fn is_closed(self, row: Row) -> bool {
        self.covered(row).cover > Cover::Open
    }

    /// How far the policy says of a whole PCR what it may hold. SHA-1 pins nothing.
    pub(super) fn pcr(self, index: u8) -> Cover {
        let pinned = self.boot.pcr.iter().any(|(bank, pinned, values)| {
            bank != HashAlgorithm::Sha1 && pinned.get() == index && !values.is_empty()
        });
        // Elsewhere, what may stand in a place that is left open nothing judges.
        let is_judged = JUDGED_PCRS.contains(&index) || self.is_pinned_by_events(index);
        match (pinned, self.sequences(index)) {
            (true, _) => Cover::Pinned,
            (false, Some(_)) if is_judged => Cover::Ruled,
            (false, _) => Cover::Open,
        }
    }

    /// Whether the bank shows what the firmware's code is: whoever measures into it what is measured there is no other.
    pub(super) fn is_firmware_known(self, bank: HashAlgorithm) -> bool {
        let is_pinned = |index: u8| {
            let mut pins = self.boot.pcr.iter();
            pins.any(|(of, pinned, values)| of == bank && pinned.get() == index && !values.is_empty())
        };
        let by_events = |index: u8| {
            let mut slots = self.sequences(index).unwrap_or_default().iter().flat_map(|one| &one.0);
            self.is_pinned_by_events(index)
                && slots.all(|slot| matches!(slot, Slot::Digest(digest) if digest.algorithm() == bank))
        };
        [0, 2].into_iter().all(|index| is_pinned(index) || by_events(index))
    }

    /// The sequences of events that a PCR may hold, where the policy lists any.
    pub(super) fn sequences(&self, index: u8) -> Option<&[Sequence]> {
        let listed = self.boot.boot.sequence.iter().find(|(pcr, _)| pcr.0.get() == index);
        listed.map(|(_, sequences)| sequences.as_slice()).filter(|sequences| !sequences.is_empty())
    }

    /// The least of several PCRs.
    pub(super) fn pcrs(self, indexes: &[u8]) -> Cover {
        indexes.iter().map(|index| self.pcr(*index)).min().unwrap_or(Cover::Open)
    }

    /// Whether Secure Boot was on wherever this boot is accepted.
    pub(super) fn is_secure_boot_known(self) -> bool {
        self.boot.boot.secure_boot == Demand::Required
            || self.boot.boot.signers.is_some()
            || self.pcr(7) > Cover::Open
    }

    pub(super) fn lists_revocations(self) -> bool {
        !self.boot.boot.dbx_contains.is_empty() || !self.boot.boot.dbx_also_contains.is_empty()
    }

    /// A PCR that is extended after the firmware has handed over, by whatever was started: what was started has to be
    /// known.
    pub(super) fn is_anchored(self) -> bool {
        self.is_closed(Row::BootLoader) && self.is_closed(Row::Kernel)
    }

    /// The same of a PCR in which something has to have been measured for it to say anything.
    pub(super) fn measured(self, index: u8) -> Cover {
        let is_empty = self
            .boot
            .pcr
            .iter()
            .any(|(_, pinned, values)| pinned.get() == index && values.iter().any(Digest::is_zero));
        let sequences = self.sequences(index).unwrap_or_default();
        let is_empty = is_empty || sequences.iter().any(|sequence| sequence.0.is_empty());
        if is_empty { Cover::Open } else { self.pcr(index) }
    }

    /// Whether no event of a PCR's sequences is left open.
    pub(super) fn is_pinned_by_events(self, index: u8) -> bool {
        self.sequences(index).is_some_and(|sequences| sequences.iter().all(Sequence::is_pinned))
    }

    /// Whether a boot loader measures the files that it reads, each of them known.
    pub(super) fn reads_files(self) -> bool {
        let sequences = self.sequences(9).unwrap_or_default();
        !sequences.is_empty() && sequences.iter().all(|sequence| sequence.0.contains(&Slot::File))
    }

    /// Whether GRUB can have loaded no module but those of its own image: Secure Boot has it refuse them, PCR 9 shows them,
    /// and without a command in PCR 8 it did not run.
    pub(super) fn are_modules_known(self) -> bool {
        let boot = self.boot.boot;
        let has_no_commands = |sequences: &[Sequence]| sequences.iter().all(|sequence| sequence.0.is_empty());
        boot.secure_boot == Demand::Required
            || boot.signers.is_some()
            || self.pcr(9) > Cover::Open
            || self.sequences(8).is_some_and(has_no_commands)
    }

    /// Whether the sequences of PCR 4 leave open what was started last, and nothing before it.
    pub(super) fn leaves_open_kernels_alone(self) -> bool {
        let is_open = |slot: &Slot| matches!(slot, Slot::Any(_));
        self.sequences(4).unwrap_or_default().iter().all(|sequence| {
            let mut rest = sequence.0.iter().skip_while(|slot| !is_open(slot));
            let first = rest.clone().next();
            rest.all(|slot| Some(slot) == first)
        })
    }
}

/// Where a rule judges what stands in a place that is left open: see `appraisal/boot/openings.rs`.
const JUDGED_PCRS: [u8; 4] = [4, 7, 9, 11];
