//! Verified evidence, read aloud: what started what, what each PCR holds, what ran, and how far a policy says anything of it.
//!
//! It decides nothing. PCR values, digests and what a digest covers are what they are; names of images and files, and in which
//! order events of different PCRs came, are the log's word, as everywhere ([`BootFacts`](assay_evidence::boot_log::BootFacts)).

mod boot;
mod files;
mod pcr;

use assay_evidence::text::escaped;
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};

pub use crate::appraisal::files::Standing;
use crate::policy::{Covered, Row};
use crate::reference::CompiledPolicy;
use crate::words;

/// What one piece of evidence says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The TPM itself: a title and a value, each.
    pub tpm: Vec<(&'static str, String)>,
    /// What came up, in the order in which a machine does; without a boot log, files alone.
    pub stages: Vec<Stage>,
    /// Every quoted PCR of the best bank, ascending.
    pub pcrs: Vec<QuotedPcr>,
    /// What was measured of files; `None`: there is no list.
    pub files: Option<Files>,
}

/// What can come up and be measured, in the order in which a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Firmware and its settings.
    Firmware,
    /// Option ROMs and drivers that it loads.
    OptionRoms,
    /// What it trusts, and what not.
    SecureBoot,
    /// An image that was started before the last.
    BootLoader,
    /// Keys of the machine's owner, in shim.
    MachineOwnerKeys,
    /// The image that was started last.
    Kernel,
    /// The sections of a unified kernel.
    UnifiedKernel,
    /// What the kernel was told.
    CommandLine,
    /// What the boot loader read.
    LoadedFiles,
    /// What ran, by the kernel's list.
    Files,
}

/// Something that came up and was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it is.
    pub what: What,
    /// What the evidence calls it.
    pub name: String,
    /// What is to be said of it.
    pub details: Vec<String>,
    /// Its own digest, where it is one thing.
    pub digest: Option<Digest>,
    /// Where it was measured.
    pub pcrs: Vec<PcrIndex>,
    /// What the policy covers of it; nothing without a policy.
    pub covered: Vec<Covered>,
}

/// A PCR as it was quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedPcr {
    /// Which.
    pub index: PcrIndex,
    /// What it stands for.
    pub about: &'static str,
    /// The bank it is shown of.
    pub bank: HashAlgorithm,
    /// Its value.
    pub value: Digest,
    /// What tells how it came to be.
    pub told_by: ToldBy,
    /// Events of the boot log that extended it.
    pub events: usize,
    /// The lines of the policy that are about it; none: it may hold anything.
    pub lines: Vec<PolicyLine>,
}

/// What explains a PCR's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// Nothing was ever measured into it.
    Nothing,
    /// The boot log replays to it.
    BootLog,
    /// The IMA list replays to it.
    ImaList,
    /// It holds what no log tells, so that nothing of it counts but the value as a whole.
    NoLog,
}

/// What a policy says of a PCR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLine {
    /// Where in the policy: `pcr.sha256.7`, `boot.signers`; of a further boot that it accepts `alternative 1: boot.signers`.
    pub line: String,
    /// Whether the value is one of those listed; `None`: the line is about what the log tells of it.
    pub holds: Option<bool>,
}

/// What was measured of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Entries since boot that the quote attests.
    pub attested: u64,
    /// Entries that came too late for the quote.
    pub undecided: usize,
    /// How many of them may stay for which reason, or may not; nothing where the policy judges no files.
    pub by_standing: Vec<(Standing, u64)>,
    /// The last that were measured, the newest first.
    pub latest: Vec<File>,
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path, printable.
    pub path: String,
    /// What was measured.
    pub digest: String,
    /// What the policy says; `None`: it judges no files.
    pub standing: Option<Standing>,
}

/// Reads evidence aloud, against the policy that judges it.
pub fn read_aloud(claims: &Claims, policy: Option<&CompiledPolicy>) -> Reading {
    let files = files::read(claims, policy);
    let stages = claims.boot().map(|boot| boot::stages(boot)).unwrap_or_default();
    let stages = stages.into_iter().chain(files.as_ref().map(files::stage));
    Reading {
        tpm: tpm(claims),
        stages: stages.map(|stage| stage.covered_by(policy)).collect(),
        pcrs: pcr::table(claims, policy),
        files,
    }
}

fn tpm(claims: &Claims) -> Vec<(&'static str, String)> {
    let clock = claims.clock();
    let banks = claims.banks().map(|banks| words::joined(banks.known()));
    let quoted: Vec<HashAlgorithm> = claims.pcrs().banks().collect();
    [
        ("signed by", Some(format!("AK {}, {}", claims.ak_name(), claims.signature_algorithm()))),
        ("quoted banks", Some(words::joined(&quoted))),
        ("active banks", banks),
        ("firmware", Some(words::tpm_firmware(claims.firmware_version()))),
        ("resets", Some(format!("{}, and {} restarts since", clock.reset_count, clock.restart_count))),
        (
            "clock",
            (!clock.safe).then(|| "may have been set back: the TPM lost power without notice".to_owned()),
        ),
    ]
    .into_iter()
    .filter_map(|(title, value)| Some((title, value?)))
    .collect()
}

impl What {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            What::Firmware => "firmware",
            What::OptionRoms => "option ROMs",
            What::SecureBoot => "Secure Boot",
            What::BootLoader => "boot loader",
            What::MachineOwnerKeys => "machine-owner keys",
            What::Kernel => "kernel",
            What::UnifiedKernel => "unified kernel",
            What::CommandLine => "command line",
            What::LoadedFiles => "loaded files",
            What::Files => "files",
        }
    }

    /// What a policy can cover of it.
    fn rows(self) -> &'static [Row] {
        match self {
            What::Firmware => &[Row::FirmwareCode, Row::FirmwareSettings],
            What::OptionRoms => &[Row::FirmwareCode],
            What::SecureBoot => &[Row::Keys, Row::Revocations, Row::SignerChain],
            What::BootLoader => &[Row::BootLoader],
            What::MachineOwnerKeys => &[Row::MachineOwnerKeys],
            What::Kernel => &[Row::Kernel],
            What::UnifiedKernel => &[Row::Kernel, Row::RuntimePcrs],
            What::CommandLine => &[Row::CommandLine],
            What::LoadedFiles => &[Row::Initrd],
            What::Files => &[Row::Files],
        }
    }
}

impl Stage {
    fn new(what: What, name: &str, pcrs: &[u8]) -> Stage {
        Stage {
            what,
            name: shown(name),
            details: Vec::new(),
            digest: None,
            pcrs: pcrs.iter().filter_map(|index| PcrIndex::new(u32::from(*index))).collect(),
            covered: Vec::new(),
        }
    }

    fn saying(self, details: impl IntoIterator<Item = String>) -> Stage {
        Stage { details: details.into_iter().map(|detail| shown(&detail)).collect(), ..self }
    }

    fn covered_by(self, policy: Option<&CompiledPolicy>) -> Stage {
        let rows = policy.into_iter().flat_map(|policy| policy.coverage().rows());
        let covered = rows.filter(|covered| self.what.rows().contains(&covered.row)).copied().collect();
        Stage { covered, ..self }
    }
}

/// Printable, and no longer than a reader has patience for: names and texts are an attacker's words.
fn shown(text: &str) -> String {
    let text = escaped(text);
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}

/// As long as most command lines.
const TEXT_CHARACTERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_evidence_calls_things_prints_and_ends() {
        assert_eq!(shown("a\u{202e}b\n"), "a\\u{202e}b\\n");
        assert_eq!(shown(&"ä".repeat(TEXT_CHARACTERS_MAX)), "ä".repeat(TEXT_CHARACTERS_MAX));
        assert_eq!(shown(&"ä".repeat(1 << 20)).chars().count(), TEXT_CHARACTERS_MAX + 1);
    }
}
