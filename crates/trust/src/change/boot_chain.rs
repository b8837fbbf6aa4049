//! Boot loader, kernel, command line, initial ramdisk: PCR 4, 8, 9 and 11 to 13.
//!
//! A kernel update changes a dozen events, most of them texts with the version in them. So texts are compared with
//! version and arguments taken out: where they are the same then, these alone changed. [`sort`] finds out which event
//! changed for which cause, and each cause has its sentence.

use std::collections::{BTreeMap, BTreeSet};

use assay_evidence::boot_log::{BootFacts, EventSummary, KernelLine};
use assay_evidence::{Digest, PcrIndex};

use super::boot::{Comparison, Differences};
use super::{Cause, Change};
use crate::words;

pub(super) fn compare(comparison: &mut Comparison<'_>) {
    let kernels = [comparison.before, comparison.after].map(|boot| Kernel::of(boot.facts()));
    let sorted = sort(comparison, &kernels);
    for (cause, events) in &sorted {
        let subject = words::pcrs(&events.pcrs());
        let change = match cause {
            Cause::Kernel => kernel(&subject, events, &kernels),
            Cause::KernelCommandLine => command_line(&subject, events, &kernels),
            Cause::UnifiedKernel => unified_kernel(&subject, comparison),
            _ => others(*cause, &subject, comparison, events),
        };
        let items = events.new.iter().chain(&events.gone).map(|event| comparison.name(event).to_owned());
        let change = Change { cause: *cause, pcrs: events.pcrs(), ..change };
        comparison.explain(if change.items.is_empty() { change.about(items) } else { change });
    }
    phase(comparison);
}

/// The kernel that was started, where the log names exactly one.
#[derive(Default)]
struct Kernel<'a> {
    line: Option<KernelLine<'a>>,
}

impl<'a> Kernel<'a> {
    fn of(facts: &'a BootFacts) -> Self {
        match facts.kernel_lines().as_deref() {
            Some([line]) => Kernel { line: Some(KernelLine::parse(line)) },
            _ => Kernel::default(),
        }
    }

    /// What people call it: its version, or else its file.
    fn name(&self) -> Option<&'a str> {
        self.line.and_then(|line| line.version().or(line.image))
    }

    fn arguments(&self) -> Option<&'a str> {
        self.line.map(|line| line.arguments)
    }

    /// A text with this kernel's arguments and name taken out. Event data has no NUL inside a text.
    fn neutral(&self, text: &str) -> String {
        let without = |text: String, part: Option<&str>, mark: &str| match part {
            Some(part) if !part.is_empty() => text.replace(part, mark),
            _ => text,
        };
        without(without(text.to_owned(), self.arguments(), ARGUMENTS), self.name(), NAME)
    }
}

/// Which events changed for which cause. An event can have changed for two.
fn sort<'a>(comparison: &mut Comparison<'a>, kernels: &[Kernel<'a>; 2]) -> BTreeMap<Cause, Differences<'a>> {
    let facts = [comparison.before, comparison.after].map(|boot| boot.facts());
    let images: BTreeSet<Digest> =
        facts.iter().flat_map(|facts| &facts.boot_applications).map(|image| image.digest).collect();
    // A text in PCR 4 says what the firmware did; what that means no cause here knows.
    let taken = comparison.take(|event| match event.pcr.get() {
        IMAGES_PCR => images.contains(&event.digest),
        pcr => PARAMETER_PCRS.contains(&pcr),
    });
    let [old, new] = kernels;
    let gone: Vec<(&EventSummary, String)> = neutral(comparison, old, &taken.gone);
    let new: Vec<(&EventSummary, String)> = neutral(comparison, new, &taken.new);
    let of = |events: &[(_, String)]| events.iter().map(|(_, text)| text.clone()).collect::<BTreeSet<_>>();
    let sorter = Sorter {
        is_renamed: kernels[0].name() != kernels[1].name(),
        is_told_otherwise: kernels[0].arguments() != kernels[1].arguments(),
        in_both: &of(&gone) & &of(&new),
        credentials: facts.iter().flat_map(|facts| facts.credentials()).map(|item| item.digest).collect(),
    };
    let mut sorted: BTreeMap<Cause, Differences<'a>> = BTreeMap::new();
    for (event, text) in gone {
        sorter.causes(event, &text).for_each(|cause| sorted.entry(cause).or_default().gone.push(event));
    }
    for (event, text) in new {
        sorter.causes(event, &text).for_each(|cause| sorted.entry(cause).or_default().new.push(event));
    }
    sorted
}

fn neutral<'a>(
    comparison: &Comparison<'a>,
    kernel: &Kernel<'a>,
    events: &[&'a EventSummary],
) -> Vec<(&'a EventSummary, String)> {
    events.iter().map(|event| (*event, kernel.neutral(comparison.name(event)))).collect()
}

/// What is known before any event is looked at.
struct Sorter {
    is_renamed: bool,
    is_told_otherwise: bool,
    /// What both boots have but for the kernel's name and arguments.
    in_both: BTreeSet<String>,
    /// What is measured beside command lines in their PCR.
    credentials: BTreeSet<Digest>,
}

impl Sorter {
    fn causes(&self, event: &EventSummary, text: &str) -> impl Iterator<Item = Cause> + use<> {
        let (first, second) = match event.pcr.get() {
            IMAGES_PCR => (image(&event.remark), None),
            COMMANDS_PCR => self.command(text),
            FILES_PCR => (self.file(&event.remark, text), None),
            SECTIONS_PCR => (Cause::UnifiedKernel, None),
            COMMAND_LINE_PCR if !self.credentials.contains(&event.digest) => (Cause::KernelCommandLine, None),
            _ => (Cause::Extensions, None),
        };
        std::iter::once(first).chain(second)
    }

    fn command(&self, text: &str) -> (Cause, Option<Cause>) {
        let renamed = self.is_renamed && text.contains(NAME);
        let told = self.is_told_otherwise && text.contains(ARGUMENTS);
        match (renamed, told) {
            _ if !self.in_both.contains(text) => (Cause::BootConfiguration, None),
            (true, true) => (Cause::Kernel, Some(Cause::KernelCommandLine)),
            (true, false) => (Cause::Kernel, None),
            (false, true) => (Cause::KernelCommandLine, None),
            (false, false) => (Cause::BootConfiguration, None),
        }
    }

    /// A file is known by its digest; what it is called is the log's word.
    fn file(&self, name: &str, neutral: &str) -> Cause {
        let lower = name.to_ascii_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
        let is_of_kernel = self.is_renamed && neutral.contains(NAME) && self.in_both.contains(neutral);
        if has(&["loadoptions", "cmdline"]) {
            Cause::KernelCommandLine
        } else if has(&["vmlinu", "bzimage"]) || is_of_kernel {
            Cause::Kernel
        } else if has(&["initrd", "initramfs"]) {
            Cause::InitialRamdisk
        } else if !is_configuration(&lower) {
            Cause::BootConfiguration
        } else if self.is_told_otherwise {
            Cause::KernelCommandLine
        } else if self.is_renamed {
            Cause::Kernel
        } else {
            Cause::BootConfiguration
        }
    }
}

/// A boot loader hands the kernel over in memory, without a path; unified kernel images lie where the UAPI group's Boot
/// Loader Specification wants them.
fn image(path: &str) -> Cause {
    let path = path.to_ascii_lowercase();
    if path.contains("\\efi\\linux\\") {
        Cause::UnifiedKernel
    } else if path.ends_with(".efi") {
        Cause::BootLoader
    } else {
        Cause::Kernel
    }
}

fn is_configuration(name: &str) -> bool {
    [".cfg", ".conf", "grubenv"].iter().any(|end| name.ends_with(end))
}

fn kernel(subject: &str, events: &Differences<'_>, kernels: &[Kernel<'_>; 2]) -> Change {
    let [old, new] = kernels.each_ref().map(Kernel::name);
    let change = |message: String| Change::new(Cause::Kernel, Vec::new(), message + &files_changed(events));
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            change(format!("{subject} changed because the kernel went from {old} to {new}."))
                .between(old, new)
        }
        _ if events.new.is_empty() => {
            change(format!("{subject} changed because no kernel image is measured any more."))
        }
        (Some(name), Some(_)) => change(format!(
            "{subject} changed because another kernel image was started, though it is still called {name}. If no package \
             update brought it, look at the device."
        )),
        _ => change(format!(
            "{subject} changed because another kernel was started; the boot log does not name exactly one in each boot."
        )),
    }
}

fn command_line(subject: &str, events: &Differences<'_>, kernels: &[Kernel<'_>; 2]) -> Change {
    let change =
        |message: String| Change::new(Cause::KernelCommandLine, Vec::new(), message + &files_changed(events));
    let arguments = kernels[0].arguments().zip(kernels[1].arguments());
    let Some((old, new)) = arguments.filter(|(old, new)| old != new) else {
        return change(format!(
            "{subject} changed because the kernel measured its command line otherwise, of which only the digest is known."
        ));
    };
    let (added, lacking) = words::apart(old, new);
    let what = match (added.is_empty(), lacking.is_empty()) {
        (true, true) => "has its words in another order".to_owned(),
        (false, true) => format!("has the new words {}", words::quoted(&added)),
        (true, false) => format!("lacks {}", words::quoted(&lacking)),
        (false, false) => format!("has {} instead of {}", words::quoted(&added), words::quoted(&lacking)),
    };
    let escaped = |line: &str| line.escape_debug().to_string();
    change(format!("{subject} changed because the kernel command line {what}."))
        .between(escaped(old), escaped(new))
}

/// Configuration files that changed with what they configure: that nothing else changed in them, nobody can say.
fn files_changed(events: &Differences<'_>) -> String {
    let is_file = |event: &&&EventSummary| {
        event.pcr.get() == FILES_PCR && is_configuration(&event.remark.to_ascii_lowercase())
    };
    let names: Vec<&str> = events.new.iter().filter(is_file).map(|event| event.remark.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" {} changed with it, of which only the digest is known.", words::names(&names))
}

/// The names of sections are measured, so they are known; their contents by digest.
fn unified_kernel(subject: &str, comparison: &Comparison<'_>) -> Change {
    let [old, new] = [comparison.before, comparison.after].map(|boot| {
        boot.facts()
            .unified_kernel
            .iter()
            .map(|section| (section.name, section.digest))
            .collect::<BTreeSet<_>>()
    });
    let sections: BTreeSet<&str> = old.symmetric_difference(&new).map(|(name, _)| *name).collect();
    let sections: Vec<&str> = sections.into_iter().collect();
    let what = if sections.is_empty() { String::new() } else { format!(", in {}", words::names(&sections)) };
    let message = format!("{subject} changed because the unified kernel image did{what}.");
    Change::new(Cause::UnifiedKernel, Vec::new(), message).about(sections.into_iter().map(str::to_owned))
}

fn others(cause: Cause, subject: &str, comparison: &Comparison<'_>, events: &Differences<'_>) -> Change {
    let what = match cause {
        Cause::BootLoader => "shim or the boot loader did",
        Cause::InitialRamdisk => "the initial ramdisk did",
        Cause::Extensions => "credentials or extensions that systemd-stub gave the kernel did",
        _ => "the boot loader ran other commands or read other files",
    };
    let message = format!("{subject} changed because {what}: {}.", comparison.new_and_gone(events));
    Change::new(cause, Vec::new(), message)
}

/// Once the log has ended, systemd extends PCR 11 with each phase of the boot. Verification has seen that the quoted
/// value is one of these.
fn phase(comparison: &mut Comparison<'_>) {
    let Some(sections) = PcrIndex::new(SECTIONS_PCR.into()) else { return };
    let is_unexplained = [comparison.before, comparison.after]
        .iter()
        .any(|boot| boot.facts().unexplained_pcrs.contains(&sections));
    if comparison.is_open(sections) && !is_unexplained && has_sections(comparison) {
        let message = "PCR 11 changed because the boot had come to another phase when it was quoted, by systemd's account.";
        comparison.explain(Change::new(Cause::BootPhase, vec![sections], message.to_owned()));
    }
}

fn has_sections(comparison: &Comparison<'_>) -> bool {
    [comparison.before, comparison.after].iter().all(|boot| !boot.facts().unified_kernel.is_empty())
}

/// What stands for a kernel's arguments and name in a text that has them taken out.
const ARGUMENTS: &str = "\u{0}arguments";
const NAME: &str = "\u{0}name";
const IMAGES_PCR: u8 = 4;
const COMMANDS_PCR: u8 = 8;
const FILES_PCR: u8 = 9;
const SECTIONS_PCR: u8 = 11;
const COMMAND_LINE_PCR: u8 = 12;
/// GRUB's commands and files, systemd-stub's sections, parameters and extensions.
const PARAMETER_PCRS: [u8; 5] = [COMMANDS_PCR, FILES_PCR, SECTIONS_PCR, COMMAND_LINE_PCR, 13];
