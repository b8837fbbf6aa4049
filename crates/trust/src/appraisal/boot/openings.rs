//! What may stand where a sequence leaves an event open: what another rule judges, and nothing else.
//!
//! An event that may be any is a hole of the size of a kernel. So of PCR 4 it is an image, whose signer PCR 7 tells; of
//! PCR 7 dbx, which has a rule of its own; of PCR 9 a menu, of which PCR 8 has each command; of PCR 11 what every other
//! kernel changes of its image.

use assay_evidence::boot_log::{BootFacts, EventSummary, LoaderText, is_load_command};

use crate::policy::{Sequence, Slot};

/// Whether an event may stand in an open place of a sequence.
pub(super) fn admits(facts: &BootFacts, sequence: &Sequence, place: usize, event: &EventSummary) -> bool {
    match event.pcr.get() {
        IMAGES_PCR => facts.boot_applications.iter().any(|image| image.event == event.number),
        SECURE_BOOT_PCR => {
            facts.secure_boot.as_ref().is_some_and(|variables| variables.dbx_event == event.number)
        }
        FILES_PCR => is_read_before_kernel(facts, sequence, place),
        SECTIONS_PCR => {
            let changes = |name: &str| CHANGED_SECTIONS.contains(&name);
            facts.unified_kernel.iter().any(|part| part.event == event.number && changes(part.name))
        }
        _ => true,
    }
}

/// What stands in an open place, in words.
pub(super) fn words(index: u8) -> &'static str {
    match index {
        IMAGES_PCR => "an image",
        SECURE_BOOT_PCR => "dbx",
        FILES_PCR => {
            "a file that GRUB reads before one `linux` and one `initrd`, behind which it runs nothing that reads"
        }
        SECTIONS_PCR => "a section that every kernel changes",
        _ => "anything",
    }
}

/// GRUB reads in the order of its commands, and both PCRs keep theirs. So the files that it loaded are the last that it
/// read: the kernel, and then what `initrd` names. Whoever reads another kernel in a menu's place reads it before that, and
/// whoever reads the listed files afterwards, with `search` or as a menu, has a command in between.
fn is_read_before_kernel(facts: &BootFacts, sequence: &Sequence, place: usize) -> bool {
    let Some(loaded) = files_loaded(facts) else { return false };
    // What the kernel's own stub measures comes after all that GRUB reads.
    let end = sequence.0.iter().position(|slot| *slot == Slot::KernelLine).unwrap_or(sequence.0.len());
    end.checked_sub(loaded).is_some_and(|first| place < first)
}

/// How many files GRUB read for the kernel that it started, which is the last that it read; `None` where its commands do not
/// tell.
fn files_loaded(facts: &BootFacts) -> Option<usize> {
    let mut texts = facts
        .loader_texts
        .iter()
        .filter(|text| text.pcr.get() == COMMANDS_PCR)
        .skip_while(|text| !loads(text));
    texts.next()?;
    let (mut files, mut ramdisks) = (1, 0);
    for text in texts {
        let mut words = text.text.split(' ');
        match words.next().unwrap_or_default() {
            _ if loads(text) => return None,
            command if RAMDISK_COMMANDS.contains(&command) => {
                // A path with a space is counted as two, which closes more.
                files += words.count();
                ramdisks += 1;
            }
            command if SILENT_COMMANDS.contains(&command) || command.contains('=') => {}
            // The line, as GRUB gave it to the kernel.
            path if path.starts_with(['/', '(']) => {}
            _ => return None,
        }
    }
    (ramdisks <= 1).then_some(files)
}

fn loads(text: &LoaderText) -> bool {
    is_load_command(&text.text)
}

/// The sections of a unified kernel image that every other kernel changes. The command line and the initial ramdisk are
/// not among them.
pub(crate) const CHANGED_SECTIONS: [&str; 4] = [".linux", ".osrel", ".sbat", ".uname"];
const IMAGES_PCR: u8 = 4;
const SECURE_BOOT_PCR: u8 = 7;
/// Where GRUB measures what it runs.
const COMMANDS_PCR: u8 = 8;
/// Where GRUB measures what it reads.
const FILES_PCR: u8 = 9;
const SECTIONS_PCR: u8 = 11;
const RAMDISK_COMMANDS: [&str; 3] = ["initrd", "initrd16", "initrdefi"];
/// GRUB's commands that read no file, and functions, of which GRUB measures each command inside.
const SILENT_COMMANDS: [&str; 17] = [
    "[",
    "echo",
    "export",
    "false",
    "if",
    "increment",
    "initrdfail",
    "load_video",
    "recordfail",
    "savedefault",
    "set",
    "setparams",
    "sleep",
    "terminal_output",
    "test",
    "true",
    "unset",
];
