//! What the boot log must show. The log is judged only after it replayed to the quoted PCRs.

mod order;
mod review;

use std::collections::{BTreeMap, BTreeSet};

use assay_evidence::Digest;
use serde::{Deserialize, Serialize};

pub(crate) use self::order::join_events;
use super::Section;
use super::pcr::IMA_PCR;
use crate::pattern::LinePattern;
use crate::policy::choice::Demanded;
use crate::policy::list::{Lists, texts};
use crate::policy::remark::Notes;
use crate::policy::revocation::Revocation;
use crate::policy::sequence::{SEQUENCES_MAX, Sequence};
use crate::policy::{Bank, Demand, Field, Pcr, PcrSection, PolicyError, unique};

/// What the boot log must show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSection {
    /// Whether there must be a boot log.
    #[serde(default)]
    pub event_log: Demand,
    /// Whether Secure Boot must be on.
    #[serde(default)]
    pub secure_boot: Demand,
    /// The PCR banks that the TPM has active, all of them, by its own word; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banks: Option<Vec<Bank>>,
    /// The kernel command lines that may be booted; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_command_lines: Option<Vec<String>>,
    /// Patterns of further command lines, for what differs from device to device: see [`LinePattern`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_command_line_patterns: Vec<LinePattern>,
    /// Authenticode digests of the images that may be started (shim, boot loader, kernel); absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applications: Option<Vec<Digest>>,
    /// Authenticode digests of the kernels that may be started beside `applications`, and of which one has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Vec<Digest>>,
    /// What Secure Boot may have trusted images by: SHA-256 of certificates, or digests of images; absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers: Option<Vec<Digest>>,
    /// What firmware may say of its protections in PCR 7, such as `DMA Protection Disabled`; anything else it says there
    /// is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware_statements: Vec<String>,
    /// Commands of a boot loader that are accepted beside those that only load a kernel: whole texts as PCR 8 has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grub_commands: Vec<LinePattern>,
    /// The oldest kernel, by the version in its file's name; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_version_min: Option<String>,
    /// Files that a boot loader may have read, kernels and initial ramdisks, where a sequence says `file`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Digest>,
    /// Per PCR, the sequences of events that may have been measured into it, from the first to the last; absent: any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique::map")]
    pub sequence: BTreeMap<Pcr, Vec<Sequence>>,
    /// The versions of the firmware, as it measures them; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_versions: Option<Vec<String>>,
    /// Image digests that the firmware's revocation list dbx must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dbx_contains: Vec<Digest>,
    /// What else dbx must hold: see [`Revocation`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dbx_also_contains: Vec<Revocation>,
    /// The least number of entries in dbx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dbx_entries_min: Option<u32>,
    /// Events known of good boots, per PCR, with their description. They accept and refuse nothing: they let a
    /// finding about a PCR say which event changed it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique::map_of_maps")]
    pub events: BTreeMap<Pcr, BTreeMap<Digest, String>>,
}

impl BootSection {
    /// Whether anything is asked of what starts the kernel, so that a boot loader's commands matter.
    pub(crate) fn rules_kernel(&self) -> bool {
        self.rules_command_line()
            || self.kernel_version_min.is_some()
            || self.applications.is_some()
            || self.kernels.is_some()
            || self.signers.is_some()
            || !self.sequence.is_empty()
    }

    /// Whether command lines are listed.
    pub(crate) fn rules_command_line(&self) -> bool {
        self.kernel_command_lines.is_some() || !self.kernel_command_line_patterns.is_empty()
    }
}

impl Section for BootSection {
    fn key(&self) -> &'static str {
        "boot"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let BootSection {
            event_log: _,
            secure_boot: _,
            banks,
            kernel_command_lines,
            kernel_command_line_patterns,
            applications,
            kernels,
            signers,
            firmware_statements: _,
            grub_commands,
            kernel_version_min,
            files: _,
            sequence,
            firmware_versions,
            dbx_contains: _,
            dbx_also_contains: _,
            dbx_entries_min: _,
            events: _,
        } = self;
        let is_empty = |digests: &Option<Vec<Digest>>| digests.as_ref().is_some_and(Vec::is_empty);
        let is_blank = |texts: &Option<Vec<String>>| texts.as_ref().is_some_and(Vec::is_empty);
        for (field, is_empty) in [
            ("banks", banks.as_ref().is_some_and(Vec::is_empty)),
            ("kernel_command_lines", is_blank(kernel_command_lines)),
            ("applications", is_empty(applications)),
            ("kernels", is_empty(kernels)),
            ("signers", is_empty(signers)),
            ("firmware_versions", is_blank(firmware_versions)),
        ] {
            if is_empty {
                errors.push(PolicyError::EmptyList { field: format!("boot.{field}") });
            }
        }
        let has_number = |version: &&String| version.contains(|c: char| c.is_ascii_digit());
        if let Some(version) = kernel_version_min.as_ref().filter(|version| !has_number(version)) {
            errors.push(PolicyError::NoVersion { version: version.clone() });
        }
        if kernels.is_some() && applications.is_none() {
            errors.push(PolicyError::KernelsAlone);
        }
        for (field, count) in [
            ("boot.kernel_command_line_patterns", kernel_command_line_patterns.len()),
            ("boot.grub_commands", grub_commands.len()),
        ] {
            if count > LINE_PATTERNS_MAX {
                errors.push(PolicyError::TooMany { field, count, max: LINE_PATTERNS_MAX });
            }
        }
        lint_sequences(sequence, errors);
    }

    fn review(&self, pcrs: &PcrSection, notes: &mut Notes<'_>) {
        review::review(self, pcrs, notes);
    }

    fn measures(&self) -> bool {
        let BootSection {
            event_log: _,
            secure_boot: _,
            banks: _,
            kernel_command_lines,
            kernel_command_line_patterns,
            applications,
            kernels: _,
            signers,
            firmware_statements: _,
            grub_commands: _,
            kernel_version_min: _,
            files: _,
            sequence,
            firmware_versions: _,
            dbx_contains: _,
            dbx_also_contains: _,
            dbx_entries_min: _,
            events: _,
        } = self;
        let lines = kernel_command_lines.is_some() || !kernel_command_line_patterns.is_empty();
        lines || applications.is_some() || signers.is_some() || !sequence.is_empty()
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        let BootSection {
            event_log,
            secure_boot,
            banks: _,
            kernel_command_lines: _,
            kernel_command_line_patterns: _,
            applications: _,
            kernels: _,
            signers: _,
            firmware_statements: _,
            grub_commands: _,
            kernel_version_min: _,
            files: _,
            sequence: _,
            firmware_versions: _,
            dbx_contains: _,
            dbx_also_contains: _,
            dbx_entries_min,
            events: _,
        } = self;
        let dbx = dbx_entries_min.unwrap_or(0);
        vec![
            Demanded::ranked(["boot", "event_log"], *event_log),
            Demanded::ranked(["boot", "secure_boot"], *secure_boot),
            Demanded::least(Field::of(["boot", "dbx_entries_min"]), dbx, dbx.into()),
        ]
    }

    fn lists(&self) -> Lists {
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
            kernel_version_min,
            files,
            sequence,
            firmware_versions,
            dbx_contains,
            dbx_also_contains,
            dbx_entries_min: _,
            events: _,
        } = self;
        let mut lists = Lists::default();
        // Lines and patterns of lines are one list: the one that a line has to be in. A star in a line is a star.
        let texts_of_lines = kernel_command_lines.as_ref().map(texts);
        let patterns = kernel_command_line_patterns.iter().map(|pattern| format!("pattern {pattern}"));
        let patterns = Some(patterns.collect()).filter(|patterns: &BTreeSet<String>| !patterns.is_empty());
        let lines = match (texts_of_lines, patterns) {
            (Some(lines), Some(patterns)) => Some(&lines | &patterns),
            (lines, patterns) => lines.or(patterns),
        };
        // One set, of which nothing may be missing and to which nothing may be added.
        let set =
            banks.as_ref().map(|banks| banks.iter().map(|bank| bank.0.name()).collect::<Vec<_>>().join("+"));
        lists.restricts(Field::of(["boot", "banks"]), set.map(|set| [set].into()));
        lists.restricts(Field::of(["boot", "kernel_command_lines"]), lines);
        // A kernel that is listed may be started as well as the applications, and one of them has to be.
        let images = applications.as_ref().map(|images| texts(images.iter().chain(kernels.iter().flatten())));
        lists.restricts(Field::of(["boot", "applications"]), images);
        for (name, digests) in [("kernels", kernels), ("signers", signers)] {
            lists.restricts(Field::of(["boot", name]), digests.as_ref().map(texts));
        }
        lists.accepts(Field::of(["boot", "firmware_statements"]), firmware_statements);
        lists.accepts(Field::of(["boot", "grub_commands"]), grub_commands);
        lists.accepts(Field::of(["boot", "files"]), files);
        lists.restricts(
            Field::of(["boot", "kernel_version_min"]),
            kernel_version_min.as_ref().map(|least| texts([least])),
        );
        for (index, sequences) in sequence {
            let field = Field::of(["boot", "sequence", &index.0.to_string()]);
            lists.restricts(field, Some(texts(sequences)));
        }
        lists.restricts(Field::of(["boot", "firmware_versions"]), firmware_versions.as_ref().map(texts));
        lists.demands(Field::of(["boot", "dbx_contains"]), dbx_contains);
        lists.demands(Field::of(["boot", "dbx_also_contains"]), dbx_also_contains);
        lists
    }
}

fn lint_sequences(sequence: &BTreeMap<Pcr, Vec<Sequence>>, errors: &mut Vec<PolicyError>) {
    for (Pcr(index), sequences) in sequence {
        // A list of no sequence accepts nothing; the empty sequence accepts that nothing was measured.
        if sequences.is_empty() {
            errors.push(PolicyError::EmptyList { field: format!("boot.sequence.{index}") });
        }
        if !SEQUENCED_PCRS.contains(&index.get()) || index.get() == IMA_PCR {
            errors.push(PolicyError::SequencePcr { index: *index });
        }
        if sequences.len() > SEQUENCES_MAX {
            let (field, count, max) = ("boot.sequence", sequences.len(), SEQUENCES_MAX);
            errors.push(PolicyError::TooMany { field, count, max });
        }
    }
}

/// PCRs that the boot log tells of.
const SEQUENCED_PCRS: std::ops::RangeInclusive<u8> = 0..=15;
/// Each costs time for each command line.
const LINE_PATTERNS_MAX: usize = 1000;
