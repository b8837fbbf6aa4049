//! What the kernel was told.

use assay_evidence::PcrIndex;
use assay_evidence::boot_log::BootFacts;

use super::Report;
use crate::policy::BootSection;

impl Report<'_> {
    pub(super) fn judge_command_lines(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let patterns = boot.kernel_command_line_patterns.as_slice();
        if boot.kernel_command_lines.is_none() && patterns.is_empty() {
            return;
        }
        let texts = boot.kernel_command_lines.iter().flatten().cloned();
        let allowed: Vec<String> = texts.chain(patterns.iter().map(ToString::to_string)).collect();
        let is_allowed = |line: &str| {
            allowed.iter().any(|allowed| allowed == line)
                || patterns.iter().any(|pattern| pattern.matches(line))
        };
        let citation = self.policy.citation();
        let claim = "kernel command line";
        let Some(lines) = facts.and_then(kernel_lines).filter(|lines| !lines.is_empty()) else {
            let message = format!(
                "The boot log does not show the kernel command line in a way that can be believed, and policy {citation} \
                 lists allowed ones."
            );
            return self.refuse(claim, allowed.join(" or "), "unknown", message);
        };
        for line in lines.into_iter().filter(|line| !is_allowed(line)) {
            let message = format!(
                "The kernel was started with `{}`, which policy {citation} does not list: {}. If this is meant, add the line \
                 to boot.kernel_command_lines.",
                line.escape_debug(),
                words_apart(line, &allowed)
            );
            self.refuse(claim, allowed.join(" or "), line.escape_debug().to_string(), message);
        }
    }
}

/// Every text in PCRs 8 and 12 that may have started a kernel, or `None` where something in them hides from reading.
///
/// The digest covers the text, but not the label that says whether it was a command or a command line. So a text
/// counts whatever its label: a kernel's command line starts with the kernel's path, and the command that loads one
/// is `linux` with the same line.
pub(crate) fn kernel_lines(facts: &BootFacts) -> Option<Vec<&str>> {
    let holds_lines = |pcr: &PcrIndex| matches!(pcr.get(), 8 | 12);
    let is_unread = facts.loaded.iter().any(|item| holds_lines(&item.pcr));
    if is_unread || facts.unexplained_pcrs.iter().any(holds_lines) {
        return None;
    }
    let labelled = facts.kernel_command_lines.iter().map(String::as_str);
    let commands = facts.grub_commands.iter().filter_map(|command| {
        let load = ["linux ", "linuxefi ", "linux16 "].iter().find_map(|name| command.strip_prefix(name));
        load.or_else(|| command.starts_with(['/', '(']).then_some(command.as_str()))
    });
    let mut lines: Vec<&str> = labelled.chain(commands).collect();
    lines.sort_unstable();
    lines.dedup();
    Some(lines)
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
