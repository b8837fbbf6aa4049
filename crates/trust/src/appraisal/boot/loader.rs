//! What the kernel was told, and by its name how old it is.

use assay_evidence::Digest;
use assay_evidence::boot_log::{BootFacts, KernelLine, LOAD_OPTIONS_REMARK, MeasuredItem, load_options};

use super::version::is_older;
use super::{Report, refusal};
use crate::appraisal::demand::{KernelLines, witness, witness_if};
use crate::policy::{BootRule, BootSection};

impl Report<'_> {
    /// The kernel was told what is listed.
    pub(super) fn judge_command_lines(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        if !boot.rules_command_line() {
            return;
        }
        let allowed = Allowed::new(boot);
        let citation = self.policy.citation();
        let claim = "kernel command line";
        let readable = facts.and_then(BootFacts::kernel_lines);
        let told = facts.and_then(|facts| {
            load_options_of(facts, readable.as_deref().unwrap_or_default(), &allowed.lines)
        });
        let is_told = readable.is_some() && told == Some(LoadOptions::Known);
        // Where PCR 9 is not explained, what the kernel said of its line is among what is not known.
        let is_hidden = !self.closes(FILES_PCR)
            && facts.is_some_and(|facts| facts.unexplained_pcrs.iter().any(|pcr| pcr.get() == FILES_PCR));
        // What PCR 12 alone says can be said after the boot, by whoever started the kernel in another way: that all images are
        // listed does not say that each of them was started. Where none is, no boot loader is known anyway.
        let is_known_loader = boot.applications.is_none() || self.closes(IMAGES_PCR);
        let is_said_late = !is_known_loader && !facts.is_some_and(BootFacts::has_loader_texts);
        let missing = || {
            let message = format!(
                "The boot log does not show the kernel command line in a way that can be believed, and policy {citation} \
                 lists allowed ones."
            );
            refusal(claim, allowed.words(), "unknown", message)
        };
        // A line that the kernel's stub measured, and that is a listed one, is as good as one that a boot loader told.
        let believed = facts.filter(|_| !is_hidden && (is_told || !is_said_late || told.is_some()));
        let lines = witness_if(!is_told, believed, self.findings, missing);
        if lines.is_none() && !is_told {
            return;
        }
        let lines = lines.map(|KernelLines(lines)| lines.to_vec()).unwrap_or_default();
        for line in lines.iter().filter(|line| !allowed.covers(line)) {
            let message = format!(
                "The kernel was started with `{}`, which policy {citation} does not list: {}. If this is meant, add the line \
                 to boot.kernel_command_lines",
                line.escape_debug(),
                words_apart(line, &allowed.texts)
            );
            let rule = BootRule::CommandLine((*line).to_owned());
            self.refuse_unlisted(rule, claim, allowed.words(), line.escape_debug().to_string(), &message);
        }
        if let Some(LoadOptions::Unknown(event, digest)) = told.filter(|_| !self.closes(FILES_PCR)) {
            let message = format!(
                "The kernel measured another command line than policy {citation} lists (PCR 9, event {event}): whatever else \
                 the boot log says, it was started with something whose digest is {digest}."
            );
            self.refuse(claim, allowed.words(), digest.to_string(), message);
        }
    }

    /// The kernel is none that a known one has replaced. Its version is what its file is called: see the coverage table.
    pub(super) fn judge_kernel_version(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let Some(least) = &boot.kernel_version_min else { return };
        let citation = self.policy.citation();
        let expected = format!("{least} or newer");
        let missing = || {
            let message = format!(
                "The boot log names no kernel in a way that can be believed, and policy {citation} accepts none older than \
                 {least}: lower boot.kernel_version_min, or leave it out."
            );
            refusal("kernel", expected.as_str(), "unknown", message)
        };
        let Some(KernelLines(lines)) = witness(facts, self.findings, missing) else { return };
        for line in lines.iter() {
            let found = KernelLine::parse(line).version();
            if found.is_some_and(|found| !is_older(found, least)) {
                continue;
            }
            let found = found.unwrap_or("a kernel whose name has no version");
            let message = format!(
                "The kernel is `{}`, and policy {citation} accepts none older than {least}: update it, or lower \
                 boot.kernel_version_min.",
                found.escape_debug()
            );
            self.refuse("kernel", expected.as_str(), found.escape_debug().to_string(), message);
        }
    }
}

/// The lines that a policy allows.
struct Allowed<'a> {
    lines: Vec<&'a str>,
    /// Lines and patterns as written.
    texts: Vec<String>,
    boot: &'a BootSection,
}

impl<'a> Allowed<'a> {
    fn new(boot: &'a BootSection) -> Self {
        let lines: Vec<&str> = boot.kernel_command_lines.iter().flatten().map(String::as_str).collect();
        let patterns = boot.kernel_command_line_patterns.iter().map(ToString::to_string);
        let texts = lines.iter().map(|line| (*line).to_owned()).chain(patterns).collect();
        Allowed { lines, texts, boot }
    }

    fn covers(&self, line: &str) -> bool {
        self.lines.contains(&line)
            || self.boot.kernel_command_line_patterns.iter().any(|pattern| pattern.matches(line))
    }

    fn words(&self) -> String {
        self.texts.join(" or ")
    }
}

/// What the kernel's own stub says of its command line.
#[derive(Debug, PartialEq, Eq)]
enum LoadOptions {
    /// It was one of the lines.
    Known,
    /// It was something else, or something that is no command line stands in its place.
    Unknown(usize, Digest),
}

/// What PCR 9 says of the line, where it says something.
///
/// Where GRUB did not run, nothing is measured into PCR 9 before the kernel's stub measures what it was given, so the
/// first event is that, under whatever label. GRUB measures the files that it reads there first; then only a label
/// tells which event is the stub's, which is enough to refuse by and never to believe.
fn load_options_of(facts: &BootFacts, told: &[&str], allowed: &[&str]) -> Option<LoadOptions> {
    let mut events = facts.loaded.iter().filter(|item| item.pcr.get() == FILES_PCR);
    let lines = if told.is_empty() { allowed } else { told };
    let is_line =
        |item: &MeasuredItem| lines.iter().any(|line| load_options(facts.bank, line).contains(&item.digest));
    let unknown = |item: &MeasuredItem| LoadOptions::Unknown(item.event, item.digest);
    if facts.has_loader_texts() {
        return events.find(|item| item.remark == LOAD_OPTIONS_REMARK && !is_line(item)).map(unknown);
    }
    let first = events.next()?;
    Some(if is_line(first) { LoadOptions::Known } else { unknown(first) })
}

/// The words by which a line differs from the allowed one that it shares most with.
fn words_apart(line: &str, allowed: &[String]) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let lacking = |other: &str| {
        let of_other: Vec<&str> = other.split_whitespace().collect();
        let added: Vec<&str> = words.iter().filter(|word| !of_other.contains(word)).copied().collect();
        let missing: Vec<&str> = of_other.iter().filter(|word| !words.contains(word)).copied().collect();
        (added.join(" "), missing.join(" "), added.len() + missing.len())
    };
    let nearest = allowed.iter().map(|other| lacking(other)).min_by_key(|(_, _, distance)| *distance);
    match nearest {
        Some((added, missing, _)) if added.is_empty() && missing.is_empty() => {
            "its words are in another order".to_owned()
        }
        Some((added, missing, _)) if missing.is_empty() => format!("it adds `{}`", added.escape_debug()),
        Some((added, missing, _)) if added.is_empty() => format!("it lacks `{}`", missing.escape_debug()),
        Some((added, missing, _)) => {
            format!("it has `{}` instead of `{}`", added.escape_debug(), missing.escape_debug())
        }
        None => "none is allowed".to_owned(),
    }
}

/// Where the firmware measures what it starts.
const IMAGES_PCR: u8 = 4;
/// Where GRUB measures what it reads, and the kernel what it was given.
const FILES_PCR: u8 = 9;
#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, allowed: &[&str], expected: &str) {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(words_apart(line, &allowed), expected);
    }

    #[test]
    fn the_difference_is_told_in_words() {
        check("/k ro quiet audit=1", &["/other", "/k ro quiet"], "it adds `audit=1`");
        check("/k ro", &["/k ro quiet"], "it lacks `quiet`");
        check("/k2 ro", &["/k1 ro"], "it has `/k2` instead of `/k1`");
        check("/k quiet ro", &["/k ro quiet"], "its words are in another order");
    }
}
