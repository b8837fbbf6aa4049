//! The rules about a boot in one order, so that those which accept the same are equal.

use std::collections::BTreeMap;

use assay_evidence::Digest;

use super::BootSection;
use crate::policy::Pcr;
use crate::policy::list::{sorted, sorted_as_text};

impl BootSection {
    /// The section but for what accepts and refuses nothing.
    pub(in crate::policy) fn without_events(&self) -> Self {
        BootSection { events: BTreeMap::new(), ..self.clone() }
    }

    /// Puts every list in one order.
    pub(in crate::policy) fn sort(&mut self) {
        let BootSection {
            event_log: _,
            secure_boot: _,
            banks,
            kernel_command_lines,
            kernel_command_line_patterns,
            applications,
            kernels,
            signers,
            firmware_statements,
            grub_commands,
            kernel_version_min: _,
            files,
            sequence,
            firmware_versions,
            dbx_contains,
            dbx_also_contains,
            dbx_entries_min: _,
            events: _,
        } = self;
        banks.iter_mut().for_each(sorted);
        kernel_command_lines.iter_mut().for_each(sorted);
        sorted_as_text(kernel_command_line_patterns);
        [applications, kernels, signers].into_iter().flatten().for_each(sorted);
        firmware_versions.iter_mut().for_each(sorted);
        sorted(firmware_statements);
        sorted_as_text(grub_commands);
        sorted(files);
        sequence.values_mut().for_each(sorted);
        sorted(dbx_contains);
        sorted(dbx_also_contains);
    }
}

/// Takes over descriptions of events that are not known yet.
pub(crate) fn join_events(
    mine: &mut BTreeMap<Pcr, BTreeMap<Digest, String>>,
    other: &BTreeMap<Pcr, BTreeMap<Digest, String>>,
) {
    for (pcr, events) in other {
        let known = mine.entry(*pcr).or_default();
        for (digest, remark) in events {
            // Of two descriptions one is as good as the other, but it has to be the same one in any order.
            let description = known.entry(*digest).or_insert_with(|| remark.clone());
            if remark < description {
                description.clone_from(remark);
            }
        }
    }
}
